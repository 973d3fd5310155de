"""What has gone wrong with a transfer, in words that say what to do on this command line.

Invariant: one line, without a token or a password of a URL.
"""

from __future__ import annotations

from typing import Final

from resumable import client
from resumable.masking import masked

#: What the library calls its options, and what this command line does.
_HERE: Final = {
    "the same call": "the same command",
    "its certificate (ca_file)": "its certificate with --ca-file",
    "fresh=True": "--restart",
    "overwrite=True": "--overwrite",
}


def words(error: Exception) -> str:
    """The error's text, and the option that helps, where there is one."""
    text = masked(str(error)).rstrip(".")
    for of_a_program, here in _HERE.items():
        text = text.replace(of_a_program, here)
    return f"{text}; {more}" if (more := _advice(error)) else text


def _advice(error: Exception) -> str | None:
    match error:
        case client.NotAuthorised(status=401):
            return "give a token with --token-file or in RESUMABLE_TOKEN, or a user in the URL: https://name@host/"
        case client.NotAuthorised():
            return "these credentials don't have the right: ask the server's operator"
        case client.SourceChanged() if "fresh=True" not in str(error):
            return "--restart sends it anew"
        case client.TargetExists():
            return "--overwrite replaces it"
    return None


def words_of_put(error: Exception) -> str:
    """As `words`, of sending."""
    if isinstance(error, client.NothingThere):
        return f"{words(error)}; give the URL where uploads are created, like https://up.example/files/"
    if isinstance(error, client.SizeRefused):
        return f"{words(error)}; a file of this size can't be sent there: ask the server's operator"
    return words(error)


def ends_all(error: Exception) -> bool:
    """Whether all other files would fail in the same way, whatever their URL is."""
    return isinstance(error, client.StateUnusable | client.BadOption)


def ends_put(error: Exception) -> bool:
    """As `ends_all`, of sending to one URL. A 403 may be about one file: a hook's answer, a quota."""
    unknown = isinstance(error, client.NotAuthorised) and error.status == 401
    return (
        unknown or ends_all(error) or isinstance(error, client.NotResumable | client.NothingThere | client.NotTrusted)
    )

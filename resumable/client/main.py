"""The command ``resumable``.

Invariants: status 0 means done, and all is well; 1 that something is wrong or not there; 2 that the command line makes
no sense. Whatever goes wrong is one line, never a traceback.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path

from resumable.client.admin_client import AdminClient, AdminLine, BadUrl, DaemonRefused, NoDaemon, NotAllowed, where
from resumable.client.grammar import parsed, parser
from resumable.client.show import plain
from resumable.config import variables


class BadToken(Exception):
    """The file with the token can't be used."""


class Misspelt(Exception):
    """An environment variable is set that looks like one of ours and is none."""


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command that ``arguments`` name. The exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not _streams():
        sys.stderr.write("resumable: there is no standard output to write to\n")
        return 1
    try:
        try:
            return _status(given, environ)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has enough
        _forget_output()
        return 0
    except OSError as error:
        _forget_output()
        sys.stderr.write(f"resumable: {error.filename or 'standard output'}: {error.strerror or error}\n")
        return 1


def _streams() -> bool:
    """Make characters that the terminal's encoding lacks no error; clients choose names. Whether there is an output.

    Python has no streams where the shell has closed them (``>&-``).
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout is not None


def _forget_output() -> None:
    """Python would complain when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status(given: list[str], environ: Mapping[str, str]) -> int:
    try:
        return _run(given, environ)
    except KeyboardInterrupt:
        return 130
    except FileNotFoundError as error:  # no path means anything in a directory that is gone
        sys.stderr.write(f"resumable: {error.filename or 'the working directory'}: {error.strerror}\n")
    except BadUrl as error:
        sys.stderr.write(f"resumable: --url: {error}\n")
        return 2
    except NoDaemon as error:
        sys.stderr.write(f"resumable: {error}: does it run? Give --upload-dir or --url\n")
    except DaemonRefused as error:
        hint = "; give --token-file" if isinstance(error, NotAllowed) else ""
        sys.stderr.write(f"resumable: {plain(error).rstrip('.')}{hint}\n")
    except (BadToken, Misspelt) as error:
        sys.stderr.write(f"resumable: {error}\n")
        return 2
    return 1


def _run(given: list[str], environ: Mapping[str, str]) -> int:
    if given[:1] == ["doctor"]:
        from resumable.client import checkup  # all of the daemon, which the other commands can do without

        return checkup.main(given[1:], environ)
    found = parsed(parser(), given)
    _check_environment(environ)
    status: int = found.run(AdminClient(AdminLine(_where(found, environ), _token(found))), found)
    return status


def _check_environment(environ: Mapping[str, str]) -> None:
    """Warn of variables that the daemon would ignore. Raises Misspelt."""
    if not any(name.startswith(variables.PREFIX) for name in environ):
        return
    from resumable.config import BY_FLAG, OPTIONS

    mentioned = variables.mentioned([environ.get(BY_FLAG["remote"].variable, "")])
    for each in variables.unknown(environ, {option.variable for option in OPTIONS} | mentioned):
        if each.misspelt:
            raise Misspelt(str(each))
        sys.stderr.write(f"resumable: {each}\n")


def _where(found: Namespace, environ: Mapping[str, str]) -> str:
    """Flags win over the environment, which is the daemon's."""
    if found.url is not None:
        return str(found.url)
    listened = environ.get("RESUMABLE_ADMIN_LISTEN", "").split()
    if found.upload_dir is None and listened and "socket" not in listened:
        for endpoint in listened:
            if (place := where(endpoint)) is not None:
                return place
    directory = found.upload_dir or environ.get("RESUMABLE_UPLOAD_DIR", "").strip() or "uploads"
    return f"unix:{Path(directory).absolute() / '.resumable' / 'admin.sock'}"


def _token(found: Namespace) -> str | None:
    if found.token_file is None:
        return None
    try:
        token = Path(found.token_file).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise BadToken(f"--token-file {found.token_file}: {getattr(error, 'strerror', None) or error}") from error
    if not token or any(not char.isprintable() for char in token):
        raise BadToken(f"--token-file {found.token_file}: expected one line with a token")
    return token

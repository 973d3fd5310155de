"""Where the server is, for commands that talk to it: what its configuration file says counts, too.

Invariant: without RESUMABLE_CONFIG nothing of the server is imported: these commands start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "RESUMABLE_CONFIG"
_NEEDED: Final = ("upload-dir", "run-dir", "catalog", "admin-listen")


class UnusableConfig(Exception):
    """The file can't be used; the text is one line."""


def configured(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with what the file that it names says of the server's place; variables win.

    Raises UnusableConfig.
    """
    name = environ.get(VARIABLE, "").strip()
    if not name:
        return environ
    from resumable.config import OPTIONS
    from resumable.config.file import read_config

    try:
        found = read_config(name, OPTIONS, environ, only=_NEEDED)
    except OSError as error:
        raise UnusableConfig(f"{VARIABLE} {name}: {error.strerror or error}") from error
    except ValueError as problem:
        raise UnusableConfig(str(problem)) from problem
    told = {key: value for key, value in environ.items() if value and key not in found.variables}
    return {**found.as_environment(_NEEDED), **told}

"""Where the command ``resumable`` begins: ``put`` and ``get`` need little of the package, and start at once.

Invariants: whatever goes wrong is one line, never a traceback; a reader that has enough is no error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Final

#: Those that don't wait for the others' grammar. Each is a module here with its ``main(arguments, environ)``.
AT_ONCE: Final = ("put", "get")


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command that ``arguments`` name. The exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in AT_ONCE:
        return guarded(lambda: _own(given, environ))
    status: int = import_module("resumable.cli.main").main(given, environ)  # which runs these two as well
    return status


def _own(given: list[str], environ: Mapping[str, str]) -> int:
    try:
        status: int = import_module(f"resumable.cli.{given[0]}").main(given[1:], environ)
    except KeyboardInterrupt:
        return 130
    return status


def guarded(run: Callable[[], int]) -> int:
    """The status of ``run``; 1 where the output can't be written."""
    if not _streams():
        sys.stderr.write("resumable: there is no standard output to write to\n")
        return 1
    try:
        try:
            return run()
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
    if isinstance(sys.stderr, TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    return sys.stdout is not None


def _forget_output() -> None:
    """Python would complain when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

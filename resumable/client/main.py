"""The command line of ``resumable``.

Changes when a subcommand comes or goes. Invariant: status 0: done, and all is well; 1: something is wrong or not there;
2: the command line makes no sense. Whatever goes wrong is one line, never a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from resumable import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(given)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read it has enough; Python would complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(given: list[str]) -> int:
    if given[:1] == ["doctor"]:
        from resumable.client import checkup  # all of the daemon, which the other commands can do without

        return checkup.main(given[1:])
    parser().parse_args(given)
    return 2


def parser() -> argparse.ArgumentParser:
    """The grammar of all commands; it ends the process with status 2 for what isn't in it."""
    root = argparse.ArgumentParser("resumable", description="For operators of an upload server.", allow_abbrev=False)
    root.add_argument("--version", action="version", version=f"resumable {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser(
        "doctor", add_help=False, help="look at everything that the daemon depends on, say what to change"
    )
    return root

"""``resumable catalog move``: its command line, and what it says.

Invariants: what was done goes to standard output; what went wrong is one line on standard error, and status 1. No
password is printed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from zope.interface import provider

from resumable.cli.configured import configured
from resumable.cli.line_parser import CommandParser, LineParser
from resumable.daemon.move import RecordMove, takeover
from resumable.masking import masked
from resumable.model import values
from resumable.model.errors import CatalogUnavailable, StartupError

_DESCRIPTION = (
    "Moves the records of an upload directory from SQLite to PostgreSQL, so that several servers can share it, or back."
    " All servers must be stopped. After an interruption the same command goes on."
)


def parser() -> argparse.ArgumentParser:
    """The parser of what follows ``resumable catalog``."""
    root = LineParser("resumable catalog", description="For the records of uploads.", allow_abbrev=False)
    add = root.add_subparsers(parser_class=CommandParser, metavar="COMMAND", required=True).add_parser
    move = add(
        "move", help="move the records between SQLite and PostgreSQL", description=_DESCRIPTION, allow_abbrev=False
    )
    move.add_argument("--to", required=True, type=_catalog, metavar="postgresql://...|sqlite", help="where they go")
    move.add_argument("--upload-dir", metavar="PATH", help="of this upload directory [uploads]")
    move.add_argument("--catalog", type=_catalog, metavar="postgresql://...", help="where they are, with --to sqlite")
    return root


def _catalog(text: str) -> str:
    try:
        return values.catalog_url(text) or "sqlite"
    except ValueError as problem:  # the text isn't repeated: it may hold a password
        raise argparse.ArgumentTypeError(f"expected {problem}") from problem


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command. The exit status."""
    line = parser()
    given = line.parse_args(arguments)
    environ = configured(environ)
    directory = given.upload_dir or environ.get("RESUMABLE_UPLOAD_DIR", "").strip() or "uploads"
    url = given.to
    if given.to == "sqlite":
        url = given.catalog or environ.get("RESUMABLE_CATALOG", "").strip()
        if not url or url.lower() == "sqlite":
            line.error("move --to sqlite needs --catalog postgresql://..., where the records are")
    elif given.catalog not in (None, "sqlite"):
        line.error("move --to postgresql://... takes no other --catalog")
    globalLogBeginner.beginLoggingTo([_unheard], redirectStandardIO=False, discardBuffer=True)
    try:
        move = RecordMove(directory, takeover(url), tell=_tell)
        if given.to == "sqlite":
            move.to_sqlite()
            _tell(f"start the server with: {_command(directory, None)}")
        else:
            move.to_postgres()
            _tell(f"start each server with: {_command(directory, url)}")
    except KeyboardInterrupt:
        sys.stderr.write("resumable: interrupted; the same command again goes on\n")
        return 130
    except (StartupError, CatalogUnavailable) as error:
        return _wrong(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return _wrong(f"{error.filename or directory}: {error.strerror or error}")
    return 0


def _command(directory: str, url: str | None) -> str:
    catalog = "" if url is None else f"--catalog {shlex.quote(masked(url))} "
    return f"twistd -n --pidfile= resumable {catalog}--upload-dir {shlex.quote(directory)}"


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _wrong(reason: str) -> int:
    sys.stderr.write(f"resumable: {' '.join(masked(reason).split())}\n")
    return 1


@provider(ILogObserver)
def _unheard(event: LogEvent) -> None:
    """Drop the log of the parts of the server that are used: errors have what there is to say."""

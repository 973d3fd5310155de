"""``resumable get``: fetches files from their URLs; goes on where it was cut.

Invariants: a name that a server gives is never a path; what is there is overwritten only when that is asked for.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from attrs import evolve

from resumable import client
from resumable.cli.boards import Ended, complain
from resumable.cli.figures import percent
from resumable.cli.line_parser import LineParser, value
from resumable.cli.receipts import FEW, Result, of_download
from resumable.cli.runs import OnEvent, Runs
from resumable.cli.texts import plain
from resumable.cli.transfer_options import add_common, board, client_options, web_address
from resumable.cli.trips import Trip
from resumable.model import values

_DESCRIPTION: Final = (
    "Fetches files. After Ctrl-C, a lost network or a reboot, the same command goes on where it was cut. The digest is"
    " checked if the server tells it."
)
STANDARD_OUTPUT: Final = "-"


def parser() -> LineParser:
    """The parser of what follows ``resumable get``."""
    line = LineParser("resumable get", description=_DESCRIPTION, allow_abbrev=False)
    line.add_argument("urls", metavar="URL", nargs="+", type=value(web_address), help="of a file")
    add = line.add_argument_group("what becomes of it").add_argument
    add("-o", "--output", metavar="PATH", help="a file, a directory, or - for standard output [the server's name]")
    add("--overwrite", action="store_true", help="replace a file that is there")
    several = value(values.integer(1, 64, "a number"))
    add("-j", "--jobs", metavar="N", type=several, default=4, help="so many files at a time [4]")
    add_common(line)
    return line


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command. The exit status."""
    line = parser()
    given = line.parse_intermixed_args(arguments)
    if len(given.urls) > 1 and given.output is not None and not os.path.isdir(given.output):
        line.error("--output is a directory, if there are several URLs")
    if given.output == STANDARD_OUTPUT and given.json:
        line.error("--json takes another --output than standard output")
    try:
        with client.Client(client_options(line, given, environ)) as it:
            return _get(it, given, environ)
    except client.BadOption as error:
        line.error(str(error))


def _get(it: client.Client, given: Namespace, environ: Mapping[str, str]) -> int:
    trips = [Trip(_name(url), None, index) for index, url in enumerate(given.urls)]

    def fetch(trip: Trip, heard: OnEvent) -> Result:
        url = given.urls[trip.index]
        if given.output == STANDARD_OUTPUT:
            done = it.get(url, sys.stdout.buffer, on_event=heard)
            sys.stdout.buffer.flush()
            return evolve(of_download(done), where=STANDARD_OUTPUT)
        target = Path(given.output or ".")
        return of_download(it.get(url, target, on_event=heard, overwrite=given.overwrite))

    runs = Runs(trips, fetch, given.jobs, it.cancel)
    runs.start()
    aside = given.output == STANDARD_OUTPUT
    ended = runs.show(board(given, environ, len(trips) <= FEW, aside), _named)
    if ended.interrupted:
        complain(_interrupted(ended, trips, given))
        return 130
    return 1 if ended.together.failed or runs.untried else 0


def _named(trip: Trip, result: Result) -> None:
    """It has the name now that the server, or its user, has chosen."""
    if result.where != STANDARD_OUTPUT:
        trip.name = os.path.basename(result.where)


def _name(url: str) -> str:
    """What to call it until the server tells its name."""
    return plain(unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])) or url


def _interrupted(ended: Ended, trips: Sequence[Trip], given: Namespace) -> str:
    if given.output == STANDARD_OUTPUT:
        return "interrupted: what went to standard output can't be continued; a new run starts over"
    if len(trips) > 1:
        return f"interrupted: {ended.together.done} of {len(trips)} files are there; the same command goes on"
    return f"interrupted at {percent(trips[0].position, trips[0].size)} %: the same command goes on"

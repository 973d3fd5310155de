"""``resumable put``: sends files, directories and streams; goes on where it was cut.

Invariants: status 0 means that all that was asked for is at the server. What is left out is told, a line each.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import evolve

from resumable import client
from resumable.cli.advice import ends_put, words_of_put
from resumable.cli.boards import Ended, complain
from resumable.cli.figures import percent
from resumable.cli.files_to_send import STANDARD_INPUT, FileToSend, LeftOut, found
from resumable.cli.line_parser import LineParser, value
from resumable.cli.receipts import FEW, Result, of_upload
from resumable.cli.runs import OnEvent, Runs
from resumable.cli.sent_before import SentBefore
from resumable.cli.transfer_options import (
    add_common,
    bars_fit,
    board,
    client_options,
    web_address,
)
from resumable.cli.trips import Trip
from resumable.doctor.findings import size_text
from resumable.model import values

_DESCRIPTION: Final = (
    "Sends files to a server that speaks tus or the IETF draft of resumable uploads. After Ctrl-C, a lost network or a"
    " reboot, the same command goes on where it was cut."
)
_MISSING: Final = "the URL is missing: the last argument is where uploads are created, like https://up.example/files/"
#: Seconds between two looks at how far the server's remotes are.
_LOOK: Final = 1.0


def parser() -> LineParser:
    """The parser of what follows ``resumable put``."""
    line = LineParser(
        "resumable put",
        usage="%(prog)s [options] FILE|DIRECTORY|-... URL\n       %(prog)s --list | --forget ID... | --remove ID...",
        description=_DESCRIPTION,
        allow_abbrev=False,
    )
    help_line = "what is sent (- is standard input), and at last the URL where uploads are created"
    line.add_argument("what", metavar="FILE|DIRECTORY|-... URL", nargs="*", help=help_line)
    add = line.add_argument_group("what is sent").add_argument
    add("--name", help="the file's name for the server; standard input has none of its own")
    add("--meta", metavar="KEY=VALUE", type=value(_pair), action="append", default=[], help="metadata")
    add("--follow", action="store_true", help="in directories, send what symbolic links point to")
    add("--restart", action="store_true", help="start over, also where an earlier run has sent a part")
    add = line.add_argument_group("how").add_argument
    several = value(values.integer(1, 64, "a number"))
    add("-j", "--jobs", metavar="N", type=several, default=4, help="so many files at a time [4]")
    add("--parallel", metavar="N", type=several, default=1, help="each file in so many parts at a time, with tus [1]")
    size = value(values.size_between("1K", "1P"))
    add("--chunk-size", metavar="SIZE", type=size, help="at most so many bytes in a request [all]")
    add("--checksum", choices=("auto", "sha256", "sha1", "crc32c"), help="the server checks each request's bytes")
    add("--announce", action="store_true", help="tell the digest first: the server refuses other bytes")
    add("--protocol", choices=("auto", "tus", "draft"), default="auto", help="[auto]")
    add("--wait", choices=("stored",), help="until the server's remotes have it, too")
    add_common(line)
    add = line.add_argument_group("what earlier runs have left").add_argument
    add("--list", action="store_true", help="the uploads that aren't finished")
    add("--forget", metavar="ID", nargs="+", help="don't go on with these; the server keeps them until they expire")
    add("--remove", metavar="ID", nargs="+", help="remove these from the server, and don't go on with them")
    return line


def _pair(text: str) -> tuple[str, str]:
    key, sign, content = text.partition("=")
    if not sign or not key.isascii() or not key.isprintable() or any(char in key for char in " ,") or not key:
        raise ValueError("metadata like project=7; the name has no blank and no comma")
    return key, content


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command. The exit status."""
    line = parser()
    given = line.parse_intermixed_args(_with_plain_names(arguments))
    if given.list or given.forget or given.remove:
        from resumable.cli.leftovers import leftovers

        return leftovers(line, given, environ)
    _check(line, given)
    try:
        options = _options(line, given, environ)
        with client.Client(options) as it:
            return _put(it, given, environ)
    except client.BadOption as error:
        line.error(str(error))
    except client.StateUnusable as error:
        complain(str(error))
        return 1


def _with_plain_names(arguments: Sequence[str]) -> list[str]:
    """Names after ``--`` that begin with a dash as paths that don't: argparse forgets ``--`` in its second pass."""
    ends = arguments.index("--") if "--" in arguments else len(arguments)
    names = (f"./{each}" if each.startswith("-") and each != STANDARD_INPUT else each for each in arguments[ends:][1:])
    return [*arguments[: ends + 1], *names]


def _check(line: LineParser, given: Namespace) -> None:
    """What argparse can't: the URL is the last of the words."""
    *what, url = given.what or [""]
    if not url:
        line.error("give a file and a URL")
    try:
        given.url = web_address(url)
    except ValueError as problem:
        line.error(f"{url}: expected {problem}" if what and "://" in url else _MISSING)
    if not what:
        line.error("the file is missing: give it before the URL")
    for each in what:
        if each.startswith(("http://", "https://")):
            line.error(f"{each}: there is one URL, the last argument")
    if what.count(STANDARD_INPUT) > 1:
        line.error("- is given twice: standard input can be read once")
    if given.name is not None and (len(what) > 1 or os.path.isdir(what[0])):
        line.error("--name is for a single file, or for -")
    given.what = what


def _options(line: LineParser, given: Namespace, environ: Mapping[str, str]) -> client.ClientOptions:
    shown = given.json or given.wait or bars_fit(given, environ)
    return client_options(
        line,
        given,
        environ,
        protocol=given.protocol,
        chunk_size=given.chunk_size,
        checksum=given.checksum,
        announce=given.announce,
        parts=given.parallel,
        poll_status=_LOOK if shown else None,
        wait_stored=given.wait == "stored",
    )


def _put(it: client.Client, given: Namespace, environ: Mapping[str, str]) -> int:
    everything = list(found(given.what, given.follow, given.name))
    files = [each for each in everything if isinstance(each, FileToSend)]
    out = [each for each in everything if isinstance(each, LeftOut)]
    before = SentBefore.of(client.StateFile().path.parent, given, len(files))
    fresh = [each for each in files if not before.has(each)]
    if not files and not out:
        complain("there is no file to send")
    carrying = {index: _with_metadata(each, given.meta) for index, each in enumerate(fresh)}
    trips = [Trip(each.name, each.size, index) for index, each in carrying.items()]

    def carry(trip: Trip, heard: OnEvent) -> Result:
        return _sent(it, carrying[trip.index], given, heard)

    def finished(trip: Trip, result: Result) -> None:
        before.add(carrying[trip.index], result.where)

    runs = Runs(trips, carry, given.jobs, it.cancel, words_of_put, ends_put)
    runs.start()
    showing = board(given, environ, len(trips) <= FEW)
    for each in [*out, *([] if len(fresh) == len(files) else [_told_before(len(files) - len(fresh))])]:
        showing.left_out(each)
    ended = runs.show(showing, finished)
    wrong = sum(each.wrong for each in out)
    if not ended.interrupted and not wrong and ended.together.done == len(trips):
        before.drop()
    return status(ended, trips, wrong, runs.untried, given)


def _told_before(count: int) -> LeftOut:
    return LeftOut(f"{count} {'file' if count == 1 else 'files'}", "sent before this command was cut", False)


def _with_metadata(each: FileToSend, meta: Sequence[tuple[str, str]]) -> FileToSend:
    return evolve(each, metadata={**each.metadata, **dict(meta)})


def _sent(it: client.Client, each: FileToSend, given: Namespace, heard: OnEvent) -> Result:
    """Send one file. Raises ClientError."""
    if not each.stream:
        where = os.path.abspath(each.path)  # which is what the list of leftovers shows
        fresh, meta = given.restart, each.metadata
        done = it.put(each.path, given.url, metadata=meta, name=where, on_event=heard, fresh=fresh)
    else:
        with each.opened() as stream:
            done = it.put(stream, given.url, metadata=each.metadata, name=each.name, on_event=heard)
    if given.wait is not None and done.stored is False:
        raise client.ClientError(f"{done.url} is whole, but a remote of the server has failed: ask its operator")
    return of_upload(done)


def status(ended: Ended, trips: Sequence[Trip], wrong: int, untried: int, given: Namespace) -> int:
    """The exit status, told in words. ``wrong``: files that were left out though they should have been sent."""
    together = ended.together
    if ended.interrupted:
        complain(_interrupted(ended, trips))
        return 130
    failed = together.failed + wrong + untried
    if failed and together.count + wrong > 1 and not given.json:
        tried = f" ({untried} {_were(untried)}n't tried)" if untried else ""
        sent = f"{together.done} of {together.count + wrong} files {_were(together.done)} sent"
        complain(f"{sent}, {failed} {_were(failed)} not{tried}")
    return 1 if failed or (not together.count and wrong) else 0


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _interrupted(ended: Ended, trips: Sequence[Trip]) -> str:
    together = ended.together
    if together.count > 1:
        sent = f"{together.done} of {together.count} files {_were(together.done)} sent"
        return f"interrupted: {sent}; the same command goes on"
    (trip,) = trips
    if trip.size is None:
        return f"interrupted at {size_text(trip.position)}: a stream can't be read again, so a new run starts over"
    return f"interrupted at {percent(trip.position, trip.size)} %: the same command goes on from what the server has"

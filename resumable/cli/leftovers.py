"""``resumable put --list``, ``--forget`` and ``--remove``: uploads that earlier runs have begun and not finished.

Invariant: nothing is forgotten or removed that its id doesn't name for sure.
"""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import evolve

from resumable import client
from resumable.cli.boards import complain, say
from resumable.cli.figures import percent
from resumable.cli.line_parser import LineParser
from resumable.cli.texts import plain
from resumable.cli.transfer_options import client_options
from resumable.client import Client, Leftover
from resumable.doctor.findings import age_text, size_text

_SHORT: Final = 8
#: Seconds for which ``--list`` waits for a server.
_PATIENCE: Final = 10.0
_HEADINGS: Final = ("ID", "DONE", "SIZE", "AGE", "FILE", "URL")


def leftovers(parser: LineParser, given: Namespace, environ: Mapping[str, str]) -> int:
    """Run one of these. The exit status."""
    if given.what or sum(map(bool, (given.list, given.forget, given.remove))) > 1:
        parser.error("--list, --forget and --remove stand alone")
    try:
        options = client_options(parser, given, environ, protocol=given.protocol)
        if given.list:
            options = evolve(options, retry_for=0, timeout=_PATIENCE)
        with Client(options) as it:
            known = it.leftovers()
            if given.list:
                return _list([(each, _there(it, each)) for each in known], given.json, time.time())
            return _each(it, known, given)
    except KeyboardInterrupt:
        return 130
    except client.ClientError as error:
        complain(str(error))
        return 1


def _there(it: Client, each: Leftover) -> int | None:
    """The bytes that the server has of it; None where it doesn't tell."""
    try:
        return it.offset(each)
    except client.ClientError:
        return None


def _list(known: Sequence[tuple[Leftover, int | None]], as_json: bool, now: float) -> int:
    if as_json:
        for each, there in known:
            say(json.dumps({**_fields(each), "offset": there}))
    elif not known:
        complain("nothing is left over")
    else:
        for line in table(known, now, os.curdir):
            say(line)
    return 0


def _fields(each: Leftover) -> dict[str, object]:
    told = {"id": each.key, "file": each.source, "url": each.url, "size": each.size}
    return {**told, "created": each.created, "updated": each.updated, "resumable": each.resumable}


def table(known: Sequence[tuple[Leftover, int | None]], now: float, here: str) -> list[str]:
    """The lines of the list, each with what the server has: columns under their headings; the last one is the URL.
    ``here``: the directory that paths may be relative to."""
    rows = [_HEADINGS, *(_row(each, there, now, here) for each, there in known)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(each: Leftover, there: int | None, now: float, here: str) -> tuple[str, ...]:
    done = "?" if there is None or each.size is None else f"{percent(there, each.size)}%"
    size = "?" if each.size is None else size_text(each.size)
    return (
        plain(each.key)[:_SHORT],
        done,
        size,
        age_text(max(0.0, now - each.created)),
        plain(_nearer(each.source, here)) + ("" if each.resumable else " (a stream: it starts over)"),
        plain(each.url or "-"),
    )


def _nearer(path: str, here: str) -> str:
    """Relative to the directory ``here``, where that is shorter."""
    try:
        relative = os.path.relpath(path, here) if os.path.isabs(path) else path
    except OSError:
        return path
    return min(path, relative, key=len)


def _each(it: Client, known: Sequence[Leftover], given: Namespace) -> int:
    status = 0
    for wanted in given.forget or given.remove:
        found = [each for each in known if each.key.startswith(wanted)]
        if len(found) != 1:
            complain(f"{wanted}: {'several begin so' if found else 'there is no such one'}; see resumable put --list")
            status = 1
            continue
        (each,) = found
        try:
            if given.remove:
                it.remove(each)
            else:
                it.forget(each)
            _tell(each, "removed" if given.remove else "forgotten", given.json)
        except client.ClientError as error:
            complain(f"{each.source}: {error}")
            status = 1
    return status


def _tell(each: Leftover, done: str, as_json: bool) -> None:
    say(json.dumps({"event": done, **_fields(each)}) if as_json else plain(f"{each.source}: {done}"))

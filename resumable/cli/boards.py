"""What a transfer shows where there is no terminal: a line for each file, or JSON for programs.

Invariants: standard output has results alone, one line each, in the order in which files end; everything else goes to
standard error. A line is never broken by a name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen

from resumable import client
from resumable.cli.figures import clock_text, percent
from resumable.cli.files_to_send import LeftOut
from resumable.cli.receipts import Result, one_line
from resumable.cli.texts import plain
from resumable.cli.trips import AllTrips, Trip
from resumable.doctor.findings import size_text
from resumable.model.values import json_time


@frozen
class Ended:
    """How a command has gone. ``together``: its files."""

    together: AllTrips
    interrupted: bool


class Board(Protocol):
    """Shows transfers. All is called in one thread."""

    def told(self, trip: Trip, event: client.TransferEvent) -> None:
        """The library tells this of it; `Trip.heed` has taken it already."""

    def done(self, trip: Trip, result: Result) -> None:
        """It has ended well."""

    def failed(self, trip: Trip, error: Exception) -> None:
        """It has ended otherwise; `Trip.why` says in words why."""

    def left_out(self, what: LeftOut) -> None:
        """This won't be sent."""

    def refresh(self, together: AllTrips, now: float) -> None:
        """Some time has passed."""

    def close(self) -> None:
        """There is no more."""


def complain(line: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"resumable: {plain(line)}\n")
    sys.stderr.flush()


def say(line: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class LineBoard:
    """A line for each file when it has ended, given to ``say``. ``verbose``: lines on its way too, one for each tenth
    of it."""

    def __init__(self, verbose: bool, say: Callable[[str], None] = say) -> None:
        self._verbose = verbose
        self._say = say
        self._tenths: dict[int, int] = {}

    def told(self, trip: Trip, event: client.TransferEvent) -> None:
        match event:
            case client.StartedOver():
                complain(f"{trip.name}: it starts over: {event.reason}")
            case _ if self._verbose:
                if words := in_words(event):
                    complain(f"{trip.name}: {words}")

    def done(self, trip: Trip, result: Result) -> None:
        self._say(plain(one_line(trip.name, result)))

    def failed(self, trip: Trip, error: Exception) -> None:
        complain(f"{trip.name}: {trip.why}")

    def left_out(self, what: LeftOut) -> None:
        complain(f"{what.name}: left out: {what.why}")

    def refresh(self, together: AllTrips, now: float) -> None:
        if not self._verbose:
            return
        for trip in together.active:
            tenth = percent(trip.position, trip.size) // 10
            if trip.state == "sending" and tenth > self._tenths.get(
                trip.index, trip.resumed_from * 10 // (trip.size or 1)
            ):
                self._tenths[trip.index] = tenth
                complain(f"{trip.name}: {tenth * 10} %")

    def close(self) -> None:
        pass


def in_words(event: client.TransferEvent) -> str | None:
    """What has happened, where people want to know it."""
    match event:
        case client.Begun() if event.resumed:
            return f"goes on at byte {event.offset} ({percent(event.offset, event.total)} %)"
        case client.Retried():
            return f"{event.reason}; the next try is in {clock_text(event.wait)}"
        case client.Waiting():
            return f"waits {clock_text(event.wait)}: {event.reason}"
        case client.Recovered():
            return f"the server answers again: goes on at byte {event.offset}"
        case client.PiecesShrunk():
            return f"something on the way takes no larger requests: pieces of {size_text(event.size)} from now on"
        case client.Noted():
            return str(event.message)
    return None


class JsonBoard:
    """An object a line. ``now``: seconds since the epoch. Progress comes at most once a second for each file."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last: dict[int, float] = {}

    def _say(self, event: str, trip: Trip | None, **fields: Any) -> None:
        named = {} if trip is None else {"file": trip.name, "url": trip.url}
        say(json.dumps({"event": event, "time": json_time(self._now()), **named, **fields}))

    def told(self, trip: Trip, event: client.TransferEvent) -> None:
        match event:
            case client.Begun():
                fields = {"size": event.total, "offset": event.offset, "resumed": event.resumed}
                self._say("started", trip, **fields, protocol=event.protocol)
            case client.Retried():
                self._say("retrying", trip, reason=event.reason, attempt=event.attempt, wait=round(event.wait, 3))
            case client.Waiting():
                self._say("waiting", trip, reason=event.reason, wait=round(event.wait, 3))
            case client.Recovered():
                self._say("continued", trip, offset=event.offset)
            case client.StartedOver():
                self._say("started over", trip, reason=event.reason)
            case client.PiecesShrunk() | client.Noted():
                self._say("noted", trip, message=in_words(event))

    def done(self, trip: Trip, result: Result) -> None:
        self._say("finished", trip, **result.fields())

    def failed(self, trip: Trip, error: Exception) -> None:
        status = getattr(error, "status", None)
        self._say("failed", trip, error=trip.why, kind=type(error).__name__, status=status, offset=trip.safe)

    def left_out(self, what: LeftOut) -> None:
        if what.wrong:
            self._say("failed", None, file=what.name, url=None, error=what.why, kind="LeftOut", status=None, offset=0)
        else:
            self._say("left out", None, file=what.name, reason=what.why)

    def refresh(self, together: AllTrips, now: float) -> None:
        for trip in together.active:
            if trip.state in ("sending", "storing") and now - self._last.get(trip.index, together.pace.began) >= 1:
                self._last[trip.index] = now
                self._progress(trip, now)

    def _progress(self, trip: Trip, now: float) -> None:
        speed, left = trip.speed(now), trip.left(now)
        self._say(
            "progress",
            trip,
            offset=trip.position,
            acknowledged=trip.safe,
            size=trip.size,
            speed=None if speed is None else round(speed),
            left=None if left is None else round(left, 1),
            remotes=[{"name": each.name, "confirmed": each.confirmed} for each in trip.replicas()],
        )

    def close(self) -> None:
        pass

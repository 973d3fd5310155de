"""What is told of a file when it is there: where, how fast, and whether its digest was checked.

Invariant: "checked" is said only of a digest that was compared. Spec: RFC 9530 (digests).
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Any, Final

from attrs import frozen

from resumable import client
from resumable.cli.figures import percent, speed_text, took_text
from resumable.cli.trips import Trip
from resumable.doctor.findings import size_text

#: Files of a command, up to which each gets a receipt of several lines in a terminal.
FEW: Final = 5


@frozen
class Result:
    """A transfer that has ended well. ``moved``: bytes of this run; ``where``: the URL that it has now, or the
    file that it was written to; ``sent``: whether it is an upload."""

    size: int
    moved: int
    seconds: float
    where: str
    digest: str | None
    checked: bool
    resumed_from: int
    stored: bool | None = None
    sent: bool = True

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        told = {"size": self.size, "resumed_from": self.resumed_from, "seconds": round(self.seconds, 3)}
        place = {} if self.sent else {"path": self.where}
        more = {"stored": self.stored} if self.sent else {}
        return {**told, **place, "digest": self.digest, "checked": self.checked, **more}


def of_upload(done: client.Uploaded) -> Result:
    """The result of sending."""
    return Result(
        done.size, done.sent, done.seconds, done.url, done.digest, done.checked, done.resumed_from, done.stored
    )


def of_download(done: client.Downloaded) -> Result:
    """The result of fetching."""
    where = "-" if done.path is None else str(done.path)
    return Result(
        done.size, done.received, done.seconds, where, done.digest, done.checked, done.resumed_from, sent=False
    )


NOT_CHECKED: Final = "not checked: the server tells no digest"


def checked_words(result: Result) -> str:
    """Who has compared the digest; empty where nobody has."""
    return (", checked by the server" if result.sent else ", checked") if result.checked else ""


def digest_line(result: Result) -> str:
    """The digest, or that there is none."""
    told = hex_digest(result.digest)
    if told is None:
        return NOT_CHECKED
    return told if result.checked else f"{told}, not compared"


def digest_words(result: Result) -> str:
    """Both: ``sha-256 3b1f... checked by the server``, or why not."""
    return f"{digest_line(result)}{checked_words(result).removeprefix(',')}"


def hex_digest(digest: str | None) -> str | None:
    """``sha-256=:...:`` in the form in which people compare it, in hex."""
    match = re.match(r"([a-z0-9-]+)=:([A-Za-z0-9+/=]*):", digest or "")
    if match is None:
        return None
    try:
        return f"{match[1]} {b64decode(match[2], validate=True).hex()}"
    except ValueError:
        return None


def amount(result: Result) -> str:
    """``10 GiB in 52 s (196 MiB/s)``; of a file that went on, what of it is of this run."""
    speed = f" ({speed_text(result.moved / result.seconds)})" if result.moved and result.seconds > 0 else ""
    rest = f", the last {size_text(result.moved)}" if result.resumed_from else ""
    stored = ", stored in all remotes" if result.stored else ""
    return f"{size_text(result.size)}{rest} in {took_text(result.seconds)}{speed}{stored}"


def underway(trip: Trip) -> Iterator[str]:
    """A line about remotes that don't have it yet, if the server told of any."""
    if trip.tiers is not None and trip.tiers.state != "stored" and trip.size:
        there = [percent(each.confirmed, trip.size) for each in trip.replicas()]
        if there and min(there) < 100:
            yield f"on its way to the server's {'remote' if len(there) == 1 else 'remotes'}: {min(there)} % there"


def one_line(name: str, result: Result) -> str:
    """The whole receipt in a line."""
    return f"{name}: {'sent' if result.sent else 'received'}, {amount(result)}, {digest_words(result)}, {result.where}"

"""Checksums of single requests, and which of them a server offers."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from attrs import frozen

from resumable.client.client_transfer import ClientTransfer
from resumable.client.effects import BodyStretch, Exchange, Steps
from resumable.client.events import Noted
from resumable.client.patience import is_of_the_way, judged

BEST: Final = ("crc32c", "sha256", "sha1")
"""What "auto" takes, the cheapest first."""
READ: Final = 1 << 20


@frozen
class Offered:
    """What a server can do: ``extensions`` of tus, ``checksums`` by their algorithms, both empty if it speaks no tus;
    ``digests``: it compares a whole upload with the digest that is announced."""

    extensions: frozenset[str]
    checksums: frozenset[str]
    digests: bool


def offered(transfer: ClientTransfer) -> Steps[Offered]:
    """What the server offers."""
    exchange = Exchange(method="OPTIONS", url=transfer.address, fields=[("Tus-Resumable", "1.0.0")])
    reply, url = yield from transfer.ask(exchange)
    if is_of_the_way(reply):
        judged(reply, url)
    return Offered(
        _listed(reply.get("tus-extension")),
        _listed(reply.get("tus-checksum-algorithm")),
        "sha-256" in (reply.get("want-repr-digest") or ""),
    )


def chosen_checksum(transfer: ClientTransfer, algorithms: frozenset[str]) -> str | None:
    """The algorithm for the requests; None, with a note: the server offers none that was asked for."""
    asked = transfer.options.checksum
    if asked is None:
        return None
    wanted = BEST if asked == "auto" else (asked,)
    found = next((each for each in wanted if each in algorithms), None)
    if found is None:
        transfer.tell(Noted(source=transfer.name, message=f"the server offers no checksum of {' or '.join(wanted)}"))
    return found


def checksum_of(algorithm: str, body: BodyStretch) -> bytes:
    """Of these bytes. Blocks."""
    running: Any
    if algorithm == "crc32c":
        from google_crc32c import Checksum

        running = Checksum()  # type: ignore[no-untyped-call]
    else:
        running = hashlib.new(algorithm)
    offset, end = body.offset, body.offset + body.size
    while offset < end and (block := body.source.read(offset, min(READ, end - offset))):
        running.update(block)
        offset += len(block)
    result: bytes = running.digest()
    return result


def _listed(value: str | None) -> frozenset[str]:
    return frozenset(part.strip().lower() for part in (value or "").split(",") if part.strip())

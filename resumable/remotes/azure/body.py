"""A region of the spool as a file that a thread reads.

One reason to change: how bytes get from the reactor into a thread.

Invariant: at most one piece of 256 KiB is in memory; it is read in the reactor, where regions live. A body has
exactly as many bytes as it says, or reading it fails: the SDK would wait for the rest for ever. Whoever gave it up
is not read from again.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from resumable.remotes.interfaces import IRegion, RegionLost
from resumable.remotes.regions import STEP

SCANNED = 1 << 20
"""Bytes that are reckoned in one go."""


class GivenUp(Exception):
    """Nobody waits for this request any more."""


class Body:
    """What `requests` takes for a file. ``failure``: what reading the region failed with."""

    def __init__(self, reactor: Any, region: IRegion) -> None:
        self.failure: BaseException | None = None
        self._reactor = reactor
        self._region = region
        self._piece = b""
        self._read = 0
        self._reading: Deferred[bytes] | None = None
        self._given_up = False

    # in the thread

    def __len__(self) -> int:
        return int(self._region.size)

    def tell(self) -> int:
        """How much was handed out."""
        return self._read - len(self._piece)

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes at most, at least one but at the end. Raises what the region fails with."""
        if not self._piece and self._read < len(self):
            self._piece = self._next()
        taken = self._piece if size < 0 else self._piece[:size]  # no copy where that is all of it
        self._piece = self._piece[len(taken) :]
        return taken

    def _next(self) -> bytes:
        size = min(STEP, len(self) - self._read)
        answer: SimpleQueue[bytes | Failure] = SimpleQueue()
        self._reactor.callFromThread(self._ask, self._read, size, answer.put)
        piece = answer.get()
        if isinstance(piece, bytes) and len(piece) != size:
            piece = Failure(RegionLost(f"{size} bytes were committed, {len(piece)} are there"))
        if isinstance(piece, Failure):
            self.failure = piece.value
            piece.raiseException()
        self._read += size
        return piece

    # in the reactor

    def _ask(self, offset: int, size: int, tell: Callable[[bytes | Failure], None]) -> None:
        self._reading = fail(GivenUp()) if self._given_up else self._region.read(offset, size)
        self._reading.addBoth(tell)

    def give_up(self) -> None:
        """Let the thread go, wherever it is."""
        self._given_up = True
        if self._reading is not None:
            self._reading.cancel()


async def digest(data: IRegion) -> str:
    """The MD5 in Base64, for Content-MD5, which the store checks before it takes the bytes."""
    md5, offset = hashlib.md5(usedforsecurity=False), 0
    while offset < data.size:
        size = min(SCANNED, data.size - offset)
        await data.scan(offset, size, md5.update)
        offset += size
    return b64encode(md5.digest()).decode()

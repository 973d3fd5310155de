"""A region of the spool as a file that a thread reads.

One reason to change: how the thread that speaks to the store comes by the bytes.

Invariant: at most one piece of 256 KiB is in memory, read by that thread itself. A body has exactly as many bytes as
it says, or reading it fails: the SDK would wait for the rest for ever. Whoever gave it up is not read from again, and
the region is given back as soon as no thread is in the middle of a read.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from threading import Lock
from typing import Any

from resumable.remotes.interfaces import IRegion, RegionLost
from resumable.remotes.regions import STEP


class GivenUp(Exception):
    """Nobody waits for this request any more."""


class Body:
    """What `requests` takes for a file. ``failure``: what reading the region failed with.

    Raises ValueError when the region can't be read any more.
    """

    def __init__(self, reactor: Any, region: IRegion) -> None:
        self.failure: BaseException | None = None
        self._reactor = reactor
        self._size = int(region.size)
        self._loan = region.lend()
        self._piece = b""
        self._read = 0
        self._guard = Lock()  # of the two below; held for no read
        self._reading = False
        self._given_up = False

    # in the thread

    def __len__(self) -> int:
        return self._size

    def tell(self) -> int:
        """How much was handed out."""
        return self._read - len(self._piece)

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes at most, at least one but at the end. Raises what the region fails with."""
        if not self._piece and self._read < self._size:
            self._piece = self._at(self._read)
            self._read += len(self._piece)
        taken = self._piece if size < 0 else self._piece[:size]  # no copy where that is all of it
        self._piece = self._piece[len(taken) :]
        return taken

    def md5(self) -> str:
        """Of the whole, in Base64, for Content-MD5: the store checks it before it takes the bytes. Raises as `read`."""
        md5 = hashlib.md5(usedforsecurity=False)
        for offset in range(0, self._size, STEP):
            md5.update(self._at(offset))
        return b64encode(md5.digest()).decode()

    def _at(self, offset: int) -> bytes:
        size = min(STEP, self._size - offset)
        try:
            self._begin()
            try:
                piece = self._loan.read(offset, size)
            finally:
                self._end()
            if len(piece) != size:
                raise RegionLost(f"{size} bytes were committed, {len(piece)} are there")
        except Exception as failure:
            self.failure = failure
            raise
        return piece

    def _begin(self) -> None:
        with self._guard:
            if self._given_up:
                raise GivenUp
            self._reading = True

    def _end(self) -> None:
        with self._guard:
            self._reading = False
            given_up = self._given_up
        if given_up:
            self._reactor.callFromThread(self._loan.give_back)

    # in the reactor

    def give_up(self) -> None:
        """Read no more, wherever the thread is. May be repeated."""
        with self._guard:
            self._given_up = True
            reading = self._reading
        if not reading:
            self._loan.give_back()

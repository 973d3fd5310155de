"""Contents that requests are made of.

One reason to change: what is sent around and instead of a chunk. Invariant: nothing is held; each read is one read of
the chunk. `Stretch` knows the checksum of what was read in order from its beginning on.
"""

from __future__ import annotations

import google_crc32c
from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.remotes.interfaces import IContent, IRegion

SCANNED = 1 << 20
"""Bytes that are read and reckoned in one go."""


@implementer(IContent)
class Stretch:
    """``size`` bytes of ``data`` from ``start`` on. ``crc``: of all before them, and of what was read of them."""

    def __init__(self, data: IContent, start: int, size: int, crc: int = 0) -> None:
        self.size = size
        self.crc = crc
        self._data = data
        self._start = start
        self._before = crc

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See IContent."""
        return self._data.read(self._start + offset, size).addCallback(self._took, offset)

    def _took(self, piece: bytes, offset: int) -> bytes:
        self.crc = google_crc32c.extend(self.crc if offset else self._before, piece)
        return piece


@implementer(IContent)
class Framed:
    """``data`` between ``head`` and ``foot``."""

    def __init__(self, head: bytes, data: IContent, foot: bytes) -> None:
        self.size = len(head) + data.size + len(foot)
        self._head = head
        self._data = data
        self._foot = foot

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See IContent."""
        return Deferred.fromCoroutine(self._read(offset, offset + size))

    async def _read(self, start: int, end: int) -> bytes:
        head, middle = len(self._head), len(self._head) + self._data.size
        before = self._head[start:end]
        first, last = max(start, head), min(end, middle)
        inside = await self._data.read(first - head, last - first) if first < last else b""
        return before + inside + self._foot[max(start - middle, 0) : max(end - middle, 0)]


async def crc_of(data: IRegion, size: int, crc: int = 0) -> int:
    """The CRC32C of the first ``size`` bytes behind others whose CRC32C is ``crc``; read by the threads that read."""
    values = [crc]

    def feed(piece: bytes) -> None:
        values[0] = google_crc32c.extend(values[0], piece)

    offset = 0
    while offset < size:
        step = min(SCANNED, size - offset)
        await data.scan(offset, step, feed)
        offset += step
    return values[0]

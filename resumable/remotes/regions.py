"""Stretches of bytes that remotes read from, and the memory that their bodies share.

Invariant: see `resumable.remotes.interfaces.IRegion`: a read answers all the bytes that it was asked for, or fails. No
more memory than the limit is granted at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resumable.remotes.interfaces import ILoan, IRegion, RegionLost

STEP = 256 * 1024
"""Bytes that are read at once."""


class Lent(Protocol):
    """Something like the spool's Loan."""

    descriptor: int | None

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; blocks."""

    def give_back(self) -> None:
        """Nothing is read any more."""


class Readable(Protocol):
    """Something like the spool's Reader."""

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Up to ``size`` bytes, fewer only at the end."""

    def scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> Deferred[int]:
        """Give ``feed`` up to ``size`` bytes in a thread, fewer only at the end; answers how many."""

    def lend(self) -> Lent:
        """For a thread that reads itself; ValueError once it is closed."""


@implementer(IRegion)
class RegionWindow:
    """``size`` bytes of ``source`` from ``start`` on. The source stays its owner's to close."""

    def __init__(self, source: Readable, start: int, size: int) -> None:
        self.size = size
        self._source = source
        self._start = start

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See IRegion."""
        if not 0 <= offset <= offset + size <= self.size:
            return fail(ValueError(f"{size} bytes at {offset} are not in a region of {self.size}"))
        return self._source.read(self._start + offset, size).addCallback(_whole, size)

    def scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> Deferred[None]:
        """See IRegion."""
        if not 0 <= offset <= offset + size <= self.size:
            return fail(ValueError(f"{size} bytes at {offset} are not in a region of {self.size}"))
        return self._source.scan(self._start + offset, size, feed).addCallback(_check_count, size)

    def lend(self) -> ILoan:
        """See IRegion."""
        return _LentWindow(self._source.lend(), self._start, self.size)

    def lend_file(self) -> FileLoan | None:
        """The same for the kernel, which sends it by itself; None: there is no file. ValueError once it is closed."""
        loan = self._source.lend()
        if loan.descriptor is None:
            loan.give_back()
            return None
        return FileLoan((loan.descriptor, self._start), loan.give_back)


@frozen
class FileLoan:
    """``file``: a descriptor, open until it is given back, and the offset at which the region begins."""

    file: tuple[int, int]
    give_back: Callable[[], None]


@implementer(ILoan)
class _LentWindow:
    def __init__(self, source: Lent, start: int, size: int) -> None:
        self._source = source
        self._start = start
        self._size = size

    def read(self, offset: int, size: int) -> bytes:
        if not 0 <= offset <= offset + size <= self._size:
            raise ValueError(f"{size} bytes at {offset} are not in a region of {self._size}")
        return _whole(self._source.read(self._start + offset, size), size)

    def give_back(self) -> None:
        self._source.give_back()


@implementer(IRegion)
class BytesRegion:
    """Bytes in memory, for tests and for small bodies."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See IRegion."""
        if not 0 <= offset <= offset + size <= self.size:
            return fail(ValueError(f"{size} bytes at {offset} are not in a region of {self.size}"))
        return succeed(self._data[offset : offset + size])

    def scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> Deferred[None]:
        """See IRegion."""
        return Deferred.fromCoroutine(self._scan(offset, size, feed))

    async def _scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> None:
        for start in range(offset, offset + size, STEP) or (offset,):
            feed(await self.read(start, min(STEP, offset + size - start)))

    def lend(self) -> ILoan:
        """See IRegion."""
        return _LentWindow(_LentBytes(self._data), 0, self.size)


class _LentBytes:
    descriptor: int | None = None

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def give_back(self) -> None:
        """There is nothing to close."""


async def copy(data: IRegion, write: Callable[[int, bytes], Awaitable[None]], start: int = 0) -> None:
    """Give ``write`` each piece of the region from ``start`` on, with its offset in it, one after the other."""
    while start < data.size:
        piece = await data.read(start, min(STEP, data.size - start))
        await write(start, piece)
        start += len(piece)


def _whole(data: bytes, size: int) -> bytes:
    _check_count(len(data), size)
    return data


def _check_count(count: int, size: int) -> None:
    if count != size:
        raise RegionLost(f"{size} bytes were committed, {count} are there")


def check_chunk(offset: int, data: IRegion, size: int, declared: int | None) -> None:
    """Raise ValueError for arguments that `IRemoteStorage.write_chunk` excludes."""
    if offset < 0 or size != data.size:
        raise ValueError(f"a chunk of {data.size} bytes was called one of {size} at {offset}")
    if declared is not None and offset + size > declared:
        raise ValueError(f"{size} bytes at {offset} go past the declared {declared}")


class BodyMemory:
    """``limit`` bytes shared by all bodies, first come first served. More lets more requests run at once."""

    def __init__(self, limit: int = 16 << 20) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()

    def acquire(self, size: int) -> Deferred[None]:
        """Fires when these bytes may be held; ``size`` is at most the limit."""
        if not self._waiting and self.used + size <= self.limit:
            self.used += size
            return succeed(None)
        granted: Deferred[None] = Deferred(self._give_up)
        self._waiting.append((size, granted))
        return granted

    def release(self, size: int) -> None:
        """They are no longer held."""
        self.used -= size
        self._grant()

    def _give_up(self, granted: Deferred[None]) -> None:
        self._waiting = deque(each for each in self._waiting if each[1] is not granted)
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self.used + self._waiting[0][0] <= self.limit:
            size, granted = self._waiting.popleft()
            self.used += size
            granted.callback(None)

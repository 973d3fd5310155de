"""A region that tells what was read of it, for the fault tests of all remotes."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from zope.interface import implementer

from resumable.remotes.interfaces import ILoan, IRegion, RegionLost
from resumable.remotes.regions import STEP


@implementer(IRegion)
class CountingRegion:
    """Zeros. ``passes``: bytes that were read; ``largest``: at once; ``lent``: loans that were not given back.

    Fails once ``fails_after`` bytes were read, digests included.
    """

    def __init__(self, size: int, fails_after: int | None = None) -> None:
        self.size, self.fails_after = size, fails_after
        self.passes = self.largest = self.lent = 0

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        return deferLater(reactor, 0, self.take, size)

    def scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> Deferred[None]:
        return Deferred.fromCoroutine(self._scan(offset, size, feed))

    async def _scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> None:
        for start in range(offset, offset + size, STEP):
            feed(await self.read(start, min(STEP, offset + size - start)))

    def lend(self) -> ILoan:
        self.lent += 1
        return _Loan(self)

    def take(self, size: int) -> bytes:
        """Zeros, counted."""
        if self.fails_after is not None and self.passes >= self.fails_after:
            raise RegionLost("the file is shorter than it was")
        self.passes += size
        self.largest = max(self.largest, size)
        return bytes(size)


@implementer(ILoan)
class _Loan:
    def __init__(self, region: CountingRegion) -> None:
        self.read = lambda offset, size: region.take(size)
        self._region = region
        self._lent = True

    def give_back(self) -> None:
        self._region.lent -= self._lent
        self._lent = False

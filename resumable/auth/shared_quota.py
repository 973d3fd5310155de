"""Quotas where several workers share the catalog, which has the sums and refuses what passes a bound.

Invariants: nothing is counted here. A length that is known counts by the creation or the commit that records it. While
it isn't known, bytes beyond what counts already are taken only once the catalog has reserved room for them, ahead and
in portions; a few more than that count by their commit alone. What was reserved and not used is given back at the end
of the append, by its last commit; what a worker that died had reserved, by that of the upload's next append, however
small, or at its end. Nobody reserves for an append that another has taken over. Sizes are bytes.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import deferred
from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable
from resumable.model.usage import IUsage, Quota, never_fits
from resumable.protocol.errors import Gone, NoSpace, TooLarge

UNASKED: Final = 64 * 1024
"""So many bytes of an append count by their commit alone: more are written before they are committed."""

log = Logger()


class SharedLedger:
    """``each``, ``overall``: the bounds that the catalog has. ``max_size``: of any upload. ``usage``: the catalog's; it
    is asked only where some bytes are bounded.

    See `resumable.uploads.limits.IQuota`.
    """

    counts = False

    def __init__(self, usage: IUsage, each: Quota, overall: Quota, max_size: int | None = None) -> None:
        self.usage = usage
        sizes = (each.size, each.unfinished_size, overall.size, overall.unfinished_size)
        self.most = min((size for size in sizes if size is not None), default=None)
        self.max_size = max_size

    def open(self, name: str, length: int | None, upload_id: str = "") -> SharedAccount:
        """A new upload. Raises TooLarge for one that can never fit; the catalog may refuse it, when it is made."""
        SharedAccount(self, upload_id, 0).reach(length or 0)
        return SharedAccount(self, upload_id, length or 0)

    def counted(self, name: str, charged: int, *, finished: bool, upload_id: str = "") -> SharedAccount:
        """The account of an upload that counts already."""
        return SharedAccount(self, upload_id, charged)


class SharedAccount:
    """One upload's. See `resumable.uploads.limits.IAccount`."""

    __slots__ = ("_counted", "_id", "_ledger", "_reserved", "_room")

    def __init__(self, ledger: SharedLedger, upload_id: str, counted: int) -> None:
        self._ledger = ledger
        self._id = upload_id
        self._counted = counted
        self._room = counted + UNASKED
        self._reserved = False

    def reach(self, total: int) -> None:
        """See IAccount. Raises TooLarge for what can never fit."""
        most = self._ledger.max_size
        if most is not None and total > most:
            raise TooLarge(f"The upload is larger than {most} bytes.")
        if self._ledger.most is not None and total - self._counted > self._ledger.most:
            raise never_fits()

    def asks(self, total: int) -> bool:
        """See IAccount."""
        return total > self._room and self._ledger.most is not None

    @deferred
    async def reserve(self, total: int, epoch: int, ahead: int = 0) -> None:
        """See IAccount."""
        self.reach(total)
        if ahead:
            try:
                return await self._reserve(total + ahead, epoch)
            except (NoSpace, TooLarge):
                pass  # what is there may fit, though not more
        await self._reserve(total, epoch)

    async def _reserve(self, total: int, epoch: int) -> None:
        if not await self._ledger.usage.reserve(self._id, total, epoch):
            raise Gone("The upload was removed.")
        self._room = max(self._room, total)
        self._reserved = True

    def settle(self, total: int, epoch: int = 0) -> None:
        """See IAccount."""
        if self._reserved:
            self._reserved = False
            released: Deferred[None] = self._ledger.usage.release(self._id, epoch)
            released.addErrback(_not_released, self._id)

    def finish(self) -> None: ...

    def remove(self) -> None: ...


def _not_released(failure: Failure, upload_id: str) -> None:
    """It counts for too much until its next append, or its end."""
    if not failure.check(CatalogUnavailable, Stopped):
        log.failure("what was reserved could not be given back", failure, upload=upload_id)

"""What bounds uploads: the operator's limits, room on the disk, a drain of the server, and quotas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from resumable.aio.deferreds import deferred
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Upload
from resumable.model.workers import IDrainRecord
from resumable.protocol.errors import NoSpace, Unavailable
from resumable.spool.interfaces import ISpool


@frozen
class UploadLimits:
    """The operator's bounds. None means unlimited (``max_size``) or never (``expire_after``).

    ``ack_timeout``: seconds that a request waits until its upload is stored. ``max_pause``: seconds that a client is
    paused for the lag of the remotes before it is sent away. ``retry_after``: seconds that such clients are to wait.
    ``final_timeout``: seconds that a request waits until the final upload that it has asked for is finished and stored.
    ``keep_partials``: seconds that partials are kept after the last final that has used them was finished.
    """

    max_size: int | None = None
    expire_after: float | None = None
    remember: float = 7 * 86400.0
    ack_timeout: float = 30.0
    max_pause: float = 30.0
    retry_after: int = 5
    final_timeout: float = 30.0
    keep_partials: float = 3600.0


class Space:
    """Free bytes above the operator's reserve, known without asking the disk for every byte.

    A reserve of 0 leaves the judgement of appends to the disk itself. Invariant: between two looks at the disk,
    admitted bytes are subtracted from the room that the last look found, so the reserve is kept at any speed; and room
    that was claimed for a copy is kept for it until it is written or given up.
    """

    def __init__(self, reserve: int) -> None:
        self.reserve = reserve
        #: Bytes that may still come in before the reserve is touched, as far as known.
        self.room: float = float("inf")
        self._claimed = 0

    async def look(self, spool: ISpool) -> None:
        """Ask the disk. Raises OSError when it won't tell."""
        if self.reserve:
            self.room = await spool.free() - self.reserve - self._claimed

    def admit(self) -> None:
        """Raises NoSpace when the reserve is reached."""
        if self.room <= 0:
            raise NoSpace()

    @property
    def lacking(self) -> float:
        """Bytes that lack to another reserve beside the reserve: local copies of stored uploads may go for them."""
        return max(0.0, self.reserve - self.room)

    def spend(self, size: int) -> bool:
        """Note that ``size`` bytes came in; False when that reaches into the reserve."""
        self.room -= size
        return self.room > 0

    async def claim(self, spool: ISpool, size: int) -> Claim:
        """Room for a copy, as the disk says at this moment. Raises NoSpace unless all of it fits; OSError."""
        if not size:
            return Claim(self, 0)
        room = await spool.free() - self.reserve - self._claimed
        if self.reserve:
            self.room = room
        if size > room:
            raise NoSpace()
        return Claim(self, size)


class Claim:
    """Room that is kept for one copy. ``left``: bytes that it has not written yet."""

    def __init__(self, space: Space, size: int) -> None:
        self._space = space
        self.left = size
        space._claimed += size
        space.room -= size

    def check(self, size: int) -> None:
        """Raises NoSpace when others than us have taken so much that the next ``size`` bytes don't fit."""
        if self._space.room + self.left < min(size, self.left):
            raise NoSpace()

    def spend(self, size: int) -> None:
        """So many bytes of it are written: the next look at the disk sees them."""
        self._space._claimed -= size
        self.left -= size

    def release(self) -> None:
        """Nothing more will be written. May be repeated."""
        self._space._claimed -= self.left
        self._space.room += self.left
        self.left = 0


RETRY_AFTER = 5
"""Seconds that clients are to wait: by then a balancer has noticed, and sends them elsewhere."""


class Drain:
    """While the server drains, no upload begins, and those that have begun go on: their appends, and the final uploads
    of partial ones. A daemon that starts drains nothing, unless others share its catalog and drain.

    ``since``: when it began (seconds since the epoch); None: uploads may begin.
    """

    def __init__(self) -> None:
        self.since: float | None = None

    def begin(self, wall: Callable[[], float]) -> Deferred[None]:
        """Again changes nothing. Fires when it is so for good."""
        if self.since is None:
            self.since = wall()
        return succeed(None)

    def end(self) -> Deferred[None]:
        """Uploads may begin. Fires when it is so for good."""
        self.since = None
        return succeed(None)

    def check(self) -> None:
        """Raises Unavailable while no upload may begin."""
        if self.since is not None:
            raise Unavailable("No uploads begin here at the moment; try again, perhaps elsewhere.", RETRY_AFTER)


class SharedDrain(Drain):
    """The drain of all processes that share a catalog: in the catalog, seen by each within a second.

    `look` once a second, and when a message says that it has changed. ``tell`` tells the others. `begin` and `end` fail
    with CatalogUnavailable: then the drain is as it was, or is seen to have changed with the next look.
    """

    def __init__(self, record: IDrainRecord, tell: Callable[[], None]) -> None:
        super().__init__()
        self._record = record
        self._tell = tell
        self._changes = 0

    def begin(self, wall: Callable[[], float]) -> Deferred[None]:
        return self._change(self._record.drain(wall()))

    def end(self) -> Deferred[None]:
        return self._change(self._record.fill())

    @deferred
    async def look(self) -> None:
        """See what the catalog says. One that fails leaves it as it was known."""
        before = self._changes
        try:
            since = await self._record.draining_since()
        except CatalogUnavailable:
            return
        if before == self._changes:  # else what was read is older than what was written here
            self.since = since

    @deferred
    async def _change(self, recorded: Deferred[None]) -> None:
        self._changes += 1
        await recorded
        self._changes += 1
        await self.look()
        self._tell()


class IAccount(Protocol):
    """What one upload counts for, in bytes. Sums are kept elsewhere, so two of these for one upload do no harm."""

    def asks(self, total: int) -> bool:
        """Whether room for ``total`` bytes has to be reserved before they are taken."""

    def reserve(self, total: int, epoch: int, ahead: int = 0) -> Deferred[None]:
        """Reserve it, with room for ``ahead`` bytes more if that is there. The upload has a record, with this
        ``epoch``. Fails with TooLarge or NoSpace as `reach`, with Gone or Held, and with CatalogUnavailable."""

    def reach(self, total: int) -> None:
        """Room for ``total`` bytes of it altogether. Raises TooLarge (never) or NoSpace (not now)."""

    def settle(self, total: int, epoch: int = 0) -> None:
        """It counts for so many bytes after all. ``epoch``: of its record, by which a newer append is known."""

    def finish(self) -> None:
        """It isn't unfinished any more. May be repeated."""

    def remove(self) -> None:
        """It counts for nothing any more. May be repeated."""


class IQuota(Protocol):
    """The sums of all identities. It is asked before bytes are taken, and may refuse them.

    Invariant: an upload counts with its length if that is known, else with its committed offset; in between, with what
    its append may still bring.
    """

    @property
    def counts(self) -> bool:
        """Whether anything is limited; if not, nothing needs to be counted."""

    def open(self, name: str, length: int | None, upload_id: str = "") -> IAccount:
        """A new upload of that name's. Raises TooLarge, NoSpace or TooManyRequests, and then counts nothing."""

    def counted(self, name: str, charged: int, *, finished: bool, upload_id: str = "") -> IAccount:
        """The account of an upload that counts already."""


class _Free:
    """Counts nothing."""

    def asks(self, total: int) -> bool:
        return False

    def reserve(self, total: int, epoch: int, ahead: int = 0) -> Deferred[None]:
        return succeed(None)

    def reach(self, total: int) -> None: ...

    def settle(self, total: int, epoch: int = 0) -> None: ...

    def finish(self) -> None: ...

    def remove(self) -> None: ...


FREE = _Free()


class NoQuota:
    """Everything fits."""

    counts = False

    def open(self, name: str, length: int | None, upload_id: str = "") -> IAccount:
        return FREE

    def counted(self, name: str, charged: int, *, finished: bool, upload_id: str = "") -> IAccount:
        return FREE


def charge(upload: Upload) -> int:
    """The bytes that it counts for by its record."""
    return upload.offset if upload.length is None else upload.length


def account_of(quota: IQuota, upload: Upload) -> IAccount:
    """The account of an upload that is recorded."""
    return quota.counted(upload.owner or "", charge(upload), finished=upload.finished, upload_id=upload.id)


def settle(account: IAccount, upload: Upload) -> None:
    """From now on it counts as its record says."""
    account.settle(charge(upload), upload.epoch)
    if upload.finished:
        account.finish()

"""What bounds uploads: the operator's limits, room on the disk, a drain of the server, and quotas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from resumable.model.upload import Upload
from resumable.protocol.errors import NoSpace, Unavailable
from resumable.spool.files import Spool


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

    async def look(self, spool: Spool) -> None:
        """Ask the disk. Raises OSError when it won't tell."""
        if self.reserve:
            self.room = await spool.free() - self.reserve - self._claimed

    def admit(self) -> None:
        """Raises NoSpace when the reserve is reached."""
        if self.room <= 0:
            raise NoSpace()

    @property
    def scarce(self) -> bool:
        """Whether less than another reserve is left: local copies of stored uploads may go."""
        return self.room < self.reserve

    def spend(self, size: int) -> bool:
        """Note that ``size`` bytes came in; False when that reaches into the reserve."""
        self.room -= size
        return self.room > 0

    async def claim(self, spool: Spool, size: int) -> Claim:
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
    of partial ones. A daemon that starts drains nothing.

    ``since``: when it began (seconds since the epoch); None: uploads may begin.
    """

    def __init__(self) -> None:
        self.since: float | None = None

    def begin(self, wall: Callable[[], float]) -> None:
        """Again changes nothing."""
        if self.since is None:
            self.since = wall()

    def end(self) -> None:
        """Uploads may begin."""
        self.since = None

    def check(self) -> None:
        """Raises Unavailable while no upload may begin."""
        if self.since is not None:
            raise Unavailable("No uploads begin here at the moment; try again, perhaps elsewhere.", RETRY_AFTER)


class IAccount(Protocol):
    """What one upload counts for, in bytes. Sums are kept elsewhere, so two of these for one upload do no harm."""

    def reach(self, total: int) -> None:
        """Room for ``total`` bytes of it altogether. Raises TooLarge (never) or NoSpace (not now)."""

    def settle(self, total: int) -> None:
        """It counts for so many bytes after all."""

    def finish(self) -> None:
        """It isn't unfinished any more. May be repeated."""

    def remove(self) -> None:
        """It counts for nothing any more. May be repeated."""


class IQuota(Protocol):
    """The sums of all identities. It is asked before bytes are taken, and may refuse them. Nothing waits here.

    Invariant: an upload counts with its length if that is known, else with its committed offset; in between, with what
    its append may still bring.
    """

    @property
    def counts(self) -> bool:
        """Whether anything is limited; if not, nothing needs to be counted."""

    def open(self, name: str, length: int | None) -> IAccount:
        """A new upload of that name's. Raises TooLarge, NoSpace or TooManyRequests, and then counts nothing."""

    def counted(self, name: str, charged: int, *, finished: bool) -> IAccount:
        """The account of an upload that counts already."""


class _Free:
    """Counts nothing."""

    def reach(self, total: int) -> None: ...

    def settle(self, total: int) -> None: ...

    def finish(self) -> None: ...

    def remove(self) -> None: ...


FREE = _Free()


class NoQuota:
    """Everything fits."""

    counts = False

    def open(self, name: str, length: int | None) -> IAccount:
        return FREE

    def counted(self, name: str, charged: int, *, finished: bool) -> IAccount:
        return FREE


def charge(upload: Upload) -> int:
    """The bytes that it counts for by its record."""
    return upload.offset if upload.length is None else upload.length


def account_of(quota: IQuota, upload: Upload) -> IAccount:
    """The account of an upload that is recorded."""
    return quota.counted(upload.owner or "", charge(upload), finished=upload.finished)


def settle(account: IAccount, upload: Upload) -> None:
    """From now on it counts as its record says."""
    account.settle(charge(upload))
    if upload.finished:
        account.finish()

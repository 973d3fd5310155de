"""The queue between one request's body and the object store, by way of a scratch file.

Invariants: those of `Sink`, where "durable" means that the store has confirmed the bytes, or that they go with the
commit; the scratch file is closed only when nothing reads it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Final, ParamSpec

from twisted.internet.defer import Deferred, DeferredLock
from twisted.python.failure import Failure

from resumable.aio.deferreds import TaskGroup, Waiters, deferred
from resumable.aio.threads import IPool
from resumable.protocol.errors import TooLarge
from resumable.remotes.interfaces import IRegion
from resumable.remotes.regions import RegionWindow
from resumable.spool.budget import Budget
from resumable.spool.datafile import DataFile, RunningDigest
from resumable.spool.objects.append_parts import AppendParts, StoreContext
from resumable.spool.objects.scratch import Scratch, punch
from resumable.spool.reader import Reader
from resumable.spool.sink import Sink

P = ParamSpec("P")
FROM: Final = 5 / 8
TO: Final = 7 / 8
"""Of the bytes by which a client may be ahead of the store: it waits from the second on, until there are fewer than the
first. What is between that and all of it lets a direct transfer end with much to take, not with ever less."""


class ScratchFile(DataFile):
    """A `DataFile` without a name, that begins at the offset ``begins`` of the upload."""

    __slots__ = ("_scratch",)

    def __init__(self, scratch: Scratch, upload_id: str, offset: int, digest: RunningDigest | None) -> None:
        super().__init__(scratch.disk, "", "", upload_id, offset, digest)
        self._scratch = scratch

    @property
    def begins(self) -> int:
        """The upload's offset at which the file begins."""
        return self._begins

    def begin_at(self, offset: int) -> None:
        """Before the first byte: the file begins there."""
        self._begins = offset

    def open(self) -> None:
        """Make it. Raises OSError."""
        self._fd = self._scratch.open()

    def sync(self) -> None:
        """Nothing: what is in scratch isn't durable."""

    def duplicate(self) -> int:
        """A descriptor of the same file. Raises OSError."""
        return os.dup(self._fd)

    def place(self, start: int, data: bytes) -> None:
        """Write these bytes at the upload's offset ``start``. Raises OSError."""
        self._disk.writev(self._fd, [data], start - self._begins)

    def drop(self, start: int, end: int) -> None:
        """Give the blocks of these bytes back. Raises OSError."""
        if self.is_open:
            punch(self._fd, start - self._begins, end - start)

    def close(self, truncate_to: int | None) -> None:
        """Close it, and so remove it."""
        fd, self._fd = self._fd, -1
        self._disk.close(fd)


class ObjectSink(Sink):
    """See `Sink`. Its `AppendParts` is its ``segments``."""

    __slots__ = (
        "_counted",
        "_counted_to",
        "_held_by_gate",
        "_in_turn",
        "_is_far",
        "_parts",
        "_progress",
        "_reader",
        "_scratch",
        "_scratch_file",
        "_scratch_is_full",
        "_threads",
    )

    worthwhile = 1
    #: A part is confirmed more often than that. What a node that dies has sent since its last commit is sent again.
    pause = 0.1

    def __init__(
        self,
        context: StoreContext,
        upload_id: str,
        offset: int,
        *,
        ceiling: int | None,
        digest: RunningDigest | None,
        pool: IPool,
        budget: Budget,
    ) -> None:
        file = ScratchFile(context.scratch, upload_id, offset, digest)
        super().__init__(upload_id, offset, file, ceiling=ceiling, pool=pool, budget=budget)
        self._scratch_file = file
        self._scratch = context.scratch
        self._parts = self.segments = AppendParts(context, upload_id, offset, self)
        self._reader: Reader | None = None
        self._held_by_gate = self._scratch_is_full = self._is_far = False
        #: Bytes that count in scratch; the offset up to which written ones do.
        self._counted, self._counted_to = 0, offset
        self._progress = Waiters()
        self._threads = TaskGroup(self._close_failed)
        # A hole that is punched late would take along what was fetched again meanwhile.
        self._in_turn = DeferredLock()

    # -- of Sink

    @property
    def ready(self) -> int:
        """See `Sink.ready`: what the store has confirmed."""
        return self._parts.ready

    @property
    def over(self) -> bool:
        """See `Sink.over`."""
        return super().over and not self._parts.busy and self._reader is None

    @deferred
    async def began(self, epoch: int) -> None:
        """See `Sink.began`."""
        await self._parts.began(epoch)
        self._scratch_file.begin_at(self._parts.begins)

    @deferred
    async def sync(self, upto: int | None = None, finishes: bool = False) -> int:
        """See `Sink.sync`."""
        offset = self.received if upto is None else upto
        self.start()
        while self.written < offset and self.failure is None:
            await self._progress.wait()
        if self.failure is not None:
            self.failure.raiseException()
        if offset <= self.durable and not finishes:
            return self.durable
        self.durable = await self._parts.store(offset, finishes)
        return self.durable

    @deferred
    async def close(self, truncate_to: int | None = None) -> None:
        """See `Sink.close`."""
        self._parts.detach()
        await self._parts.stop()
        await self._threads.ended()
        if self._reader is not None:
            await self._reader.close()
            self._reader = None
        await super().close(None)
        self._weigh(-self._counted)

    def hold(self, held: bool) -> None:
        """See `Sink.hold`."""
        self._held_by_gate = held
        self._hold()

    def _hold(self) -> None:
        super().hold(self._held_by_gate or self._scratch_is_full or self._is_far)

    def _go_on(self) -> None:
        super()._go_on()
        self._written_on()

    def _reached(self) -> None:
        super()._reached()
        self._written_on()

    def _written_on(self) -> None:
        """More may be in scratch, or it has failed."""
        size, self._counted_to = self.written - self._counted_to, self.written
        self._weigh(size)
        self.sent()
        self._progress.fire()

    def _ahead(self) -> int:
        return max(0, min(super()._ahead(), self._scratch.room, self._parts.far - self._ahead_of_store))

    @property
    def _ahead_of_store(self) -> int:
        """Bytes that were received and that the store hasn't confirmed. Those of a body with a checksum stay here until
        its end."""
        return 0 if self._parts.stays else self.received - self._parts.ready

    # -- of scratch

    def scratch_full(self, full: bool) -> None:
        """See `IScratchUser`. A body whose bytes may not leave before its end has no room to wait for."""
        if full and self._parts.stays:
            if self._counted > self._scratch.size // 2:
                self._fail(Failure(TooLarge("A body with a checksum must be smaller than this; send several.")))
            else:
                self._fail(Failure(OSError(errno.ENOSPC, "there is no scratch left for a body with a checksum")))
        self._scratch_is_full = full
        self._hold()

    def relieve(self) -> None:
        """See `IScratchUser`."""
        self._parts.relieve()

    def _weigh(self, size: int) -> None:
        self._counted += size
        if size > 0:
            self._scratch.take(self, size)
        elif size < 0:
            self._scratch.give_back(self, -size)

    # -- of `AppendParts`

    def region(self, start: int, size: int) -> IRegion:
        """See `IScratchBytes`."""
        if self._reader is None:
            self._reader = Reader(self._scratch.disk, self._pool, self._scratch_file.duplicate(), 0)
        return RegionWindow(self._reader, start - self._scratch_file.begins, size)

    def place(self, start: int, data: bytes) -> Deferred[None]:
        """See `IScratchBytes`."""
        self._weigh(len(data))
        return self._in_thread(self._scratch_file.place, start, data)

    def drop(self, start: int, end: int) -> None:
        """See `IScratchBytes`."""
        if end > start:
            self._in_thread(self._scratch_file.drop, start, end).addCallbacks(
                lambda _: self._weigh(start - end), self._close_failed
            )

    def _in_thread(self, f: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Deferred[None]:
        """One after the other; done before the file is closed, also if nobody waits for it any more."""
        done: Deferred[None] = Deferred()

        def over(result: Any) -> None:
            if not done.called:
                done.callback(result)

        self._threads.start(self._in_turn.run(lambda: self._pool.run(f, *args, **kwargs)).addBoth(over))
        return done

    def sent(self) -> None:
        """See `IScratchBytes`."""
        if self._parts.failure is None:
            self._parts.fill(self.written)
            ahead, far = self._ahead_of_store, self._parts.far
        if self._parts.failure is None:
            if self._is_far != (ahead >= (far * FROM if self._is_far else far * TO)):
                self._is_far = not self._is_far
                self._hold()
        elif self.failure is None:
            self._fail(self._parts.failure)

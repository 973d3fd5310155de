"""The queue between one request's body and the object store, by way of a scratch file.

Invariants: those of `Sink`, where "durable" means that the store has confirmed the bytes, or that they go with the
commit; the scratch file is closed only when nothing reads it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final, ParamSpec, cast

from twisted.internet.defer import Deferred, DeferredLock
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.aio.deferreds import TaskGroup, Waiters, deferred
from resumable.aio.threads import IPool
from resumable.protocol.errors import TooLarge
from resumable.remotes.interfaces import ILoan, IRegion
from resumable.remotes.regions import FileLoan, RegionWindow
from resumable.spool.budget import Budget
from resumable.spool.datafile import DataFile, RunningDigest
from resumable.spool.disk import IDisk
from resumable.spool.objects.append_parts import AppendParts, StoreContext
from resumable.spool.objects.scratch import Scratch, punch
from resumable.spool.objects.slots import Holes, MovingDisk, SlotDisk, Slots
from resumable.spool.reader import Reader
from resumable.spool.sink import Sink

P = ParamSpec("P")
FROM: Final = 5 / 8
TO: Final = 7 / 8
"""Of the bytes by which a client may be ahead of the store: it waits from the second on, until there are fewer than the
first. What is between that and all of it lets a direct transfer end with much to take, not with ever less."""


class ScratchFile(DataFile):
    """A `DataFile` without a name, that begins at an offset of the upload. Its bytes are in `Slots`."""

    __slots__ = ("_scratch", "_slots")

    def __init__(self, scratch: Scratch, upload_id: str, offset: int, digest: RunningDigest | None) -> None:
        super().__init__(scratch.disk, "", "", upload_id, offset, digest)
        self._scratch = scratch
        self.begin_at(offset, scratch.size)

    @property
    def begins(self) -> int:
        """The upload's offset at which the file begins."""
        return self._begins

    @property
    def cost(self) -> int:
        """Bytes that it takes of scratch."""
        return self._slots.cost

    def begin_at(self, offset: int, slot: int) -> None:
        """Before the first byte: the file begins there, and has slots of that size."""
        self._begins, self._slots = offset, Slots(slot)
        self._disk = cast(IDisk, SlotDisk(self._scratch.disk, self._slots))

    def open(self) -> None:
        """Make it. Raises OSError."""
        self._fd = self._scratch.open()

    def _moving(self) -> IDisk:
        return cast(IDisk, MovingDisk(self._scratch.disk, self._slots, self._position - self._begins))

    def sync(self) -> None:
        """Nothing: what is in scratch isn't durable."""

    def reader(self, pool: IPool) -> Reader:
        """A reader, whose offsets are the upload's less ``begins``. Raises OSError."""
        return Reader(self._disk, pool, os.dup(self._fd), 0)

    def position(self, start: int, size: int) -> int | None:
        """Where these bytes follow each other in the file; None: they don't. Raises OSError for dropped ones."""
        stretches = self._slots.find(start - self._begins, size)
        return stretches[0][0] if len(stretches) == 1 else None

    def place(self, start: int, data: bytes) -> None:
        """Write these bytes at the upload's offset ``start``. Raises OSError."""
        self._disk.writev(self._fd, [data], start - self._begins)

    def drop(self, start: int, end: int) -> Holes:
        """Nobody reads these bytes any more: what there is to `punch`."""
        keep = self._scratch.used <= self._scratch.size // 2
        return self._slots.drop(start - self._begins, end - start, keep)

    def trim(self) -> Holes:
        """Keep no room for what follows: what there is to `punch`."""
        return self._slots.trim()

    def punch(self, holes: Holes) -> None:
        """Give their pages back. Raises OSError."""
        if self.is_open:
            for position, size in holes.stretches:
                punch(self._fd, position, size)
        self._slots.punched(holes)

    def close(self, truncate_to: int | None) -> None:
        """Close it, and so remove it."""
        fd, self._fd = self._fd, -1
        self._disk.close(fd)


@implementer(ILoan)
class _ScratchLoan:
    def __init__(self, loan: ILoan, give_back: Callable[[], None]) -> None:
        self.read = loan.read
        self.give_back = give_back


class ScratchRegion(RegionWindow):
    """Bytes in scratch, from the upload's offset ``start`` on; they stay there as long as a thread has them."""

    def __init__(self, sink: ObjectSink, file: ScratchFile, source: Reader, start: int, size: int) -> None:
        super().__init__(source, start - file.begins, size)
        self._position = partial(file.position, start, size)
        self._lent = partial(sink.lent, start, start + size)

    def lend(self) -> ILoan:
        """See IRegion."""
        loan = super().lend()
        return _ScratchLoan(loan, self._lent(loan.give_back))

    def lend_file(self) -> FileLoan | None:
        """See `RegionWindow`. None also where they don't follow each other in the file."""
        if (position := self._position()) is None or (loan := super().lend_file()) is None:
            return None
        return FileLoan((loan.file[0], position), self._lent(loan.give_back))


class ObjectSink(Sink):
    """See `Sink`. Its `AppendParts` is its ``segments``."""

    __slots__ = (
        "_counted",
        "_held_by_gate",
        "_in_turn",
        "_is_far",
        "_late",
        "_lent",
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
        #: Bytes that count in scratch.
        self._counted = 0
        #: What threads have, from offset to offset; what is to be dropped once they haven't.
        self._lent: dict[object, tuple[int, int]] = {}
        self._late: list[tuple[int, int]] = []
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

    def take(self) -> list[bytes]:
        """See `Sink.take`. In one, so that nothing keeps a second copy while the catalog has them to commit."""
        gathered = super().take()
        return [b"".join(gathered)] if gathered else gathered

    @deferred
    async def began(self, epoch: int) -> None:
        """See `Sink.began`."""
        await self._parts.began(epoch)
        self._scratch_file.begin_at(self._parts.begins, self._parts.part_size)

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
        if self._reader is not None:
            await self._reader.close()
            self._reader = None
        await self._threads.ended()
        await super().close(None)
        self._count_scratch(0)

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
        self._weigh()
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

    def trim(self) -> None:
        """See `IScratchUser`."""
        self._punch(self._scratch_file.trim())

    def relieve(self) -> None:
        """See `IScratchUser`."""
        self._parts.relieve()

    def _weigh(self) -> None:
        self._count_scratch(self._scratch_file.cost)

    def _count_scratch(self, size: int) -> None:
        more, self._counted = size - self._counted, size
        if more > 0:
            self._scratch.take(self, more)
        elif more < 0:
            self._scratch.give_back(self, -more)

    # -- of `AppendParts`

    def region(self, start: int, size: int) -> IRegion:
        """See `IScratchBytes`."""
        if self._reader is None:
            self._reader = self._scratch_file.reader(self._pool)
        return ScratchRegion(self, self._scratch_file, self._reader, start, size)

    def lent(self, start: int, end: int, give_back: Callable[[], None] = lambda: None) -> Callable[[], None]:
        """See `IScratchBytes`; ``give_back`` is called then, too."""
        key = object()
        self._lent[key] = start, end

        def returned() -> None:
            give_back()
            if self._lent.pop(key, None) is not None:
                late, self._late = self._late, []
                for each in late:
                    self.drop(*each)
                if self._scratch.full:
                    self._parts.relieve()

        return returned

    def is_lent(self, start: int, end: int) -> bool:
        """See `IScratchBytes`."""
        return any(start < to and begin < end for begin, to in self._lent.values())

    def place(self, start: int, data: bytes) -> Deferred[None]:
        """See `IScratchBytes`."""
        return self._in_thread(self._scratch_file.place, start, data).addCallback(lambda _: self._weigh())

    def drop(self, start: int, end: int) -> None:
        """See `IScratchBytes`."""
        if self.is_lent(start, end):
            self._late.append((start, end))  # a request that was given up may still send from there
        else:
            self._punch(self._scratch_file.drop(start, end))

    def _punch(self, holes: Holes) -> None:
        if holes.stretches and self._closing is None:  # else the file goes, and no thread may come upon its descriptor
            self._in_thread(self._scratch_file.punch, holes).addCallbacks(lambda _: self._weigh(), self._close_failed)

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

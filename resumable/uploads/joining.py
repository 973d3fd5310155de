"""Finished uploads become one file each, and unfinished ones get fewer segments, where several processes share them.

Invariants: the segments stay until the catalog says that the file under the id is whole; a copy is begun only with room
on the disk for all of it, and its steps take turns with others'. Whoever joins an upload a second time puts the same
bytes there. No long copy keeps others waiting, nor the next round: there are only so many at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger

from resumable.aio.deferreds import TaskGroup
from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable, level_of
from resumable.model.segments import ISegments, Layout
from resumable.model.upload import Segment
from resumable.protocol.errors import NoSpace
from resumable.spool.segments import SegmentCopy, SegmentSpool
from resumable.uploads.building import AT_ONCE, CopyTurns
from resumable.uploads.context import UploadContext
from resumable.uploads.other_workers import join_claim

log = Logger()

AHEAD: Final = 16
"""Uploads that are joined at once: all but `AT_ONCE` of them wait for the catalog, or for their turn at copying."""
LONG: Final = 256 << 20
"""Bytes; a copy of more is long."""
LONG_AT_ONCE: Final = AHEAD // 4
"""Long copies at once. Others are left to a later round."""
QUEUE: Final = 4096
"""Ids that are remembered. What doesn't fit is left to a sweep."""
PAGE: Final = 64


class Joiner:
    """`wake` is called by whoever has finished an upload; `sweep` by the worker that has the claim, now and then."""

    def __init__(
        self, context: UploadContext, spool: SegmentSpool, segments: ISegments, whole: Callable[[], None] = lambda: None
    ) -> None:
        """``whole`` is called when an upload has become one file."""
        self._context = context
        self._spool = spool
        self._segments = segments
        self._whole = whole
        self._turns = CopyTurns(AT_ONCE)
        self._copying = self._long = 0
        self._ahead = DeferredSemaphore(AHEAD)
        self._queue: deque[str] = deque()
        self._jobs: set[str] = set()
        self._tasks = TaskGroup(lambda failure: log.failure("joining failed", failure))
        self._stopping = False
        #: Uploads that became one file here since the start, and how many of them without a copy.
        self.joined = self.linked = 0
        context.listeners.joinable.append(self.wake)

    def wake(self, upload_id: str) -> None:
        """This upload is finished, and nothing of this process writes to it any more."""
        if not self._stopping and len(self._queue) < QUEUE:
            self._queue.append(upload_id)
            self._go_on()

    async def sweep(self) -> None:
        """Join finished uploads that others left, and what was in the way of an earlier attempt: all of them are begun,
        and the last ones go on. Fails with CatalogUnavailable."""
        after = ""
        while not self._stopping and (found := await self._segments.joinable(after, PAGE)):
            after = found[-1].upload_id
            for layout in found:
                await self._ahead.acquire()
                self._tasks.start(self._released(layout.upload_id))

    async def gather(self) -> None:
        """The same for segments of unfinished uploads that have many. It looks at all segments, so call it rarely."""
        after = ""
        while not self._stopping and (found := await self._segments.crowded(after, PAGE)):
            after = found[-1].upload_id
            for layout in found:
                await self._ahead.acquire()
                self._tasks.start(self._released(layout.upload_id, layout))

    async def stop(self) -> None:
        """No step is under way any more. A copy that was begins anew at the next start."""
        self._stopping = True
        self._queue.clear()
        while self._tasks:
            await self._tasks.ended()

    def _go_on(self) -> None:
        while self._queue and len(self._jobs) < AHEAD:
            self._tasks.start(self._one(self._queue.popleft()))

    async def _released(self, upload_id: str, crowded: Layout | None = None) -> None:
        try:
            await self._one(upload_id, crowded)
        finally:
            self._ahead.release()

    async def _one(self, upload_id: str, crowded: Layout | None = None) -> None:
        if upload_id in self._jobs or self._stopping:
            return
        self._jobs.add(upload_id)
        try:
            await (self._join(upload_id) if crowded is None else self._gather(crowded))
        except (CatalogUnavailable, NoSpace, OSError, Stopped) as error:
            log.emit(level_of(error), "segments are joined later: {reason}", upload=upload_id, reason=str(error))
        except Exception:
            log.failure("segments were not joined", upload=upload_id)
        finally:
            self._jobs.discard(upload_id)
            if not self._stopping:
                self._go_on()

    # -- one upload

    async def _join(self, upload_id: str) -> None:
        layout = await self._segments.of(upload_id)
        if layout is None or layout.whole:
            return
        linked = await self._link(layout)
        if not linked and not await self._copied(layout):
            return
        if await self._segments.made_whole(upload_id):
            self.joined += 1
            self.linked += linked
            self._whole()
            await self._place(upload_id)
        elif await self._segments.of(upload_id) is None:  # its data was removed meanwhile, and won't be again
            await self._spool.unlink(upload_id)

    async def _copied(self, layout: Layout) -> bool:
        """Copy it, unless another worker does."""
        claim = join_claim(layout.upload_id)
        if not await self._context.others.claim(claim):
            return False
        try:
            return await self._copy(self._spool.joining(layout), lambda: self._is_wanted(layout.upload_id))
        finally:
            await self._context.others.drop(claim)

    async def _is_wanted(self, upload_id: str) -> bool:
        """Whether no other worker has joined it meanwhile: that one's file may be on its way to a place."""
        layout = await self._segments.of(upload_id)
        return layout is not None and not layout.whole

    async def _link(self, layout: Layout) -> bool:
        try:
            return await self._spool.link(layout)
        except OSError as error:  # this file system may have no links
            log.info("a segment is copied, not linked: {reason}", upload=layout.upload_id, reason=error.strerror)
            return False

    async def _place(self, upload_id: str) -> None:
        if self._context.places.wanted:
            row = await self._context.catalog.get(upload_id)
            if row is not None and row.place is not None and not row.placed:
                self._context.place_planned(upload_id)

    async def _gather(self, layout: Layout) -> None:
        replaced = _worthwhile(layout.segments)
        if len(replaced) < 2:
            return
        copy = self._spool.gathering(layout.upload_id, replaced)
        if not await self._copy(copy):
            return
        assert copy.segment is not None
        if not await self._segments.joined(layout.upload_id, replaced, copy.segment):
            await copy.discard()

    async def _copy(self, copy: SegmentCopy, is_wanted: Callable[[], Awaitable[bool]] | None = None) -> bool:
        """False: a later round does it, as there are so many long copies."""
        is_long = copy.length > LONG
        if is_long and self._long == LONG_AT_ONCE:
            return False
        self._long += is_long
        try:
            await self._copy_all(copy, is_wanted)
        finally:
            self._long -= is_long
        return True

    async def _copy_all(self, copy: SegmentCopy, is_wanted: Callable[[], Awaitable[bool]] | None) -> None:
        """Step by step, each in its turn. What a failure has left is removed, and what ``is_wanted`` no more."""
        space = self._context.space
        await copy.look()
        claim = await space.claim(self._spool, copy.length)
        self._copying += 1
        try:
            while not copy.complete:
                await self._turns.take(copy.steps_left)
                try:
                    if self._stopping:
                        raise Stopped("the next sweep joins it")
                    size = copy.next_size(shared=self._copying > 1)
                    claim.check(size)
                    await copy.copy(size)
                    claim.spend(size)
                finally:
                    self._turns.give_back()
            if is_wanted is None or await is_wanted():
                await copy.name()
            else:
                await copy.discard()
        except Exception as error:
            if not isinstance(error, Stopped):
                await copy.discard()
            raise
        finally:
            self._copying -= 1
            claim.release()


def _worthwhile(segments: Sequence[Segment]) -> Sequence[Segment]:
    """Those of an upload's segments that are to become one: never the last, which may be written to. A big one at the
    begin stays, so that each byte is copied a few times at most."""
    first, end = 0, len(segments) - 1
    rest = sum(segment.size for segment in segments[:end])
    while first < end:
        rest -= segments[first].size
        if segments[first].size <= rest:
            break
        first += 1
    return segments[first:end]

"""Finished uploads become one object each, where acknowledged bytes are in an object store.

Invariants: an upload's parts and tail stay until the catalog says that it is whole; what can't be completed now is
tried again with a later sweep, each time later, and nothing of it is lost by that. Events that wait for the object,
replication, and whoever waits here, go on once that is recorded, whichever worker has done it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger

from resumable.aio.deferreds import TaskGroup, deferred
from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable, level_of
from resumable.model.stored import IStored, StoredLayout
from resumable.model.upload import Upload
from resumable.protocol import digests
from resumable.spool.objects.completion import Completion, PartsLost, Stuck
from resumable.spool.objects.errors import StoreFailed
from resumable.uploads.background import Retries
from resumable.uploads.context import UploadContext
from resumable.uploads.other_workers import NEWS, join_claim

log = Logger()

AHEAD: Final = 16
"""Uploads that are completed at once: more keep more connections to the store busy, fewer take longer after an
outage."""
QUEUE: Final = 4096
"""Ids that are remembered. What doesn't fit is left to a sweep."""
PAGE: Final = 64
SOONEST: Final = 10.0
LATEST: Final = 1800.0
"""Seconds after a failure, and after many, until an upload is tried again."""


class Completer:
    """`wake` is called by whoever has finished an upload; `sweep` by the worker that has the claim, now and then."""

    def __init__(
        self,
        context: UploadContext,
        stored: IStored,
        completion: Completion,
        late: Callable[[], None] = lambda: None,
    ) -> None:
        """``late`` is called when an upload has become one object: events wait for that."""
        self._context = context
        self._stored = stored
        self._completion = completion
        self._late = late
        self._ahead = DeferredSemaphore(AHEAD)
        self._queue: deque[str] = deque()
        self._jobs: set[str] = set()
        self._retries = Retries(context.clock, SOONEST, LATEST, QUEUE)
        self._tasks = TaskGroup(lambda failure: log.failure("completing failed", failure))
        self._stopping = False
        self._failures = 0
        #: Uploads that became one object here since the start; attempts that somebody has to do something about, and
        #: those of them for which the store has lost acknowledged bytes.
        self.completed = self.stuck = self.lost = 0
        context.listeners.joinable.append(self.wake)

    def wake(self, upload_id: str) -> None:
        """This upload is finished, and nothing of this process writes to it any more."""
        if not self._stopping and len(self._queue) < QUEUE and self._retries.is_due(upload_id):
            self._queue.append(upload_id)
            self._go_on()

    async def sweep(self) -> None:
        """Complete finished uploads that others left, and what has failed and is due: all of them are begun, unless the
        store is down, and the last ones go on. Fails with CatalogUnavailable."""
        after, failures = "", self._failures
        while not self._stopping and (found := await self._stored.completable(after, PAGE)):
            after = found[-1]
            if self._failures - failures > AHEAD:
                return  # the store is down
            for upload_id in found:
                if self._retries.is_due(upload_id):
                    await self._ahead.acquire()
                    self._tasks.start(self._released(upload_id))

    @deferred
    async def when_whole(self, upload_id: str, seconds: float) -> bool:
        """Whether the upload's object is there, as soon as it is, and after so many seconds at the latest; False at
        once for one that is gone. Fails with CatalogUnavailable."""
        until = self._context.clock.seconds() + seconds
        woken = False
        while (row := await self._stored.tail_of(upload_id)) is not None and (row.is_partial or not row.gone):
            if row.whole:
                return True
            left = until - self._context.clock.seconds()
            if left <= 0 or self._stopping:
                return False
            news = self._context.others.news(upload_id, left)
            if row.finished and not woken:  # whoever finished it may have died
                woken = True
                self.wake(upload_id)
            await news
        return False

    async def stop(self) -> None:
        """No step is under way any more. The next start goes on with what is left."""
        self._stopping = True
        self._completion.stop()
        self._queue.clear()
        while self._tasks:
            await self._tasks.ended()

    def _go_on(self) -> None:
        while self._queue and len(self._jobs) < AHEAD:
            self._tasks.start(self._one(self._queue.popleft()))

    async def _released(self, upload_id: str) -> None:
        try:
            await self._one(upload_id)
        finally:
            self._ahead.release()

    async def _one(self, upload_id: str) -> None:
        if upload_id in self._jobs or self._stopping:
            return
        self._jobs.add(upload_id)
        try:
            await self._claimed(upload_id)
            self._retries.worked(upload_id)
        except Stuck as error:
            self._retries.failed(upload_id)
            self.stuck += 1
            self.lost += isinstance(error, PartsLost)
            log.error("a finished upload can't become an object: {reason}", upload=upload_id, reason=str(error))
        except (CatalogUnavailable, OSError, Stopped) as error:
            self._retries.failed(upload_id)
            self._failures += isinstance(error, StoreFailed)
            log.emit(level_of(error), "an upload is completed later: {reason}", upload=upload_id, reason=str(error))
        except Exception:
            self._retries.failed(upload_id)
            log.failure("an upload was not completed", upload=upload_id)
        finally:
            self._jobs.discard(upload_id)
            if not self._stopping:
                self._go_on()

    async def _claimed(self, upload_id: str) -> None:
        """Complete it, unless another worker does."""
        context, claim = self._context, join_claim(upload_id)
        if not await context.others.claim(claim):
            return
        try:
            layout = await self._stored.of(upload_id)
            upload = None if layout is None or layout.whole else await context.catalog.get(upload_id)
            if layout is None or upload is None:
                return
            pairs = digests.object_metadata(upload.metadata, upload.digest)
            if not await self._completion.complete(layout, pairs, context.wall(), context.stored_facts(upload)):
                return
        finally:
            await context.others.drop(claim)
        self.completed += 1
        self._told(upload, layout)

    def _told(self, upload: Upload, layout: StoredLayout) -> None:
        """Wake all that waited for the object."""
        self._late()
        if layout.is_partial:
            self._context.partial_finished(upload.id)
        else:
            self._context.replication.committed(upload)
        self._context.others.tell(NEWS, upload.id)

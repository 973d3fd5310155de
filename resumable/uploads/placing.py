"""Finished uploads get their places, in the background.

Invariants: nothing is placed before its upload's finish is recorded, and that with the place it is to get; the data
file under the id stays until the catalog says that the file is in its place; what can't be placed stays as it is, and
is tried again with each round of the janitor. Of several processes only the one that is the janitor places files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import FactKind, Upload
from resumable.uploads.context import UploadContext
from resumable.uploads.holds import JANITOR
from resumable.uploads.janitor import Reclaimer
from resumable.uploads.other_workers import PLACE

log = Logger()

BATCH = 32
"""Files that are placed together: they share the syncs of their directories, and hold a thread that long."""
QUEUE = 4096
"""Ids that are remembered; beyond, all that wait are looked for in the catalog."""


class Placer:
    """`start` when the catalog runs; `stop` while it still does."""

    def __init__(self, context: UploadContext, reclaimer: Reclaimer) -> None:
        self._context = context
        self._reclaimer = reclaimer
        self._queue: deque[str] = deque()
        self._all = self._stopping = False
        self._working: Deferred[None] | None = None
        self._complained = False
        context.listeners.place_planned.append(self._planned)
        context.others.listen(PLACE, self._told)

    def start(self) -> None:
        """Take up what an earlier run left."""
        self.sweep()

    def sweep(self) -> None:
        """Place all files that wait for it, including those that have failed before."""
        self._all = True
        self._go_on()

    async def stop(self) -> None:
        """Nothing is being placed any more; the next start goes on with it."""
        self._stopping = True
        if self._working is not None:
            await self._working

    def _planned(self, upload_id: str) -> None:
        """This upload is finished, and has a place to go to."""
        if len(self._queue) < QUEUE:
            self._queue.append(upload_id)
        else:
            self._all = True
        self._go_on()

    def _told(self, upload_id: str) -> None:
        """Another process has finished this upload; it is placed by the one that is the janitor."""
        self._context.others.granted(JANITOR).addCallback(lambda ours: self._planned(upload_id) if ours else None)

    def _pass_on(self) -> None:
        """Another process is the janitor, and finds what it doesn't hear of in its next round."""
        self._all = False
        while self._queue:
            self._context.others.tell(PLACE, self._queue.popleft())

    def _go_on(self) -> None:
        if self._working is None and not self._stopping and self._context.places.wanted:
            self._working = Deferred()
            Deferred.fromCoroutine(self._work())

    async def _work(self) -> None:
        try:
            if self._context.others.several and not await self._context.others.granted(JANITOR):
                self._pass_on()
            while (self._queue or self._all) and not self._stopping:
                if await self._place_some() and not self._queue:
                    await self._reclaimer.reclaim()  # others may come meanwhile
        except (CatalogUnavailable, Stopped) as error:
            log.debug("placing files goes on with the next round: {reason}", reason=str(error))
        except Exception:
            log.failure("placing files failed; the next round tries again")
        finally:
            working, self._working = self._working, None
            assert working is not None, "it says that this runs"
            working.callback(None)

    async def _place_some(self) -> int:
        if not self._queue:
            self._all = False
            return await self._place_all()
        return await self._locked([self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))])

    async def _place_all(self) -> int:
        """Whatever waits, once."""
        after, placed, found = "", 0, 0
        while not self._stopping:
            waiting = await self._context.catalog.unplaced(after, BATCH)
            if not waiting:
                break
            after, found = waiting[-1].id, found + len(waiting)
            placed += await self._locked([each.id for each in waiting])
        if placed == found:
            self._complained = False
        return placed

    def _locked(self, upload_ids: Sequence[str]) -> Deferred[int]:
        return self._context.places.alone(lambda: self._place(upload_ids))

    async def _place(self, upload_ids: Sequence[str]) -> int:
        """Place those of the uploads that wait for it; how many were."""
        rows = await self._context.catalog.get_many(upload_ids)
        waiting = [each for each in rows.values() if each.finished and not each.gone and each.place and not each.placed]
        waiting = [
            each for each in waiting if self._context.places.ready(each)
        ]  # the others once they have their digest
        whole = await self._context.spool.whole([each.id for each in waiting])
        waiting = [each for each in waiting if each.id in whole]  # the others are joined first
        results = await self._context.places.place(waiting)
        placed = 0
        for upload, result in zip(waiting, results, strict=True):
            if isinstance(result, OSError):
                await self._failed(upload, result)
            else:
                placed += await self._record(evolve(upload, place=result))
        return placed

    async def _record(self, upload: Upload) -> bool:
        context = self._context
        assert upload.place is not None
        facts = [
            evolve(fact, data={**fact.data, "path": upload.place.path})
            for fact in context.facts(upload, None, FactKind.PLACED)
        ]
        if await context.catalog.placed(upload.id, upload.place, context.wall(), facts):
            context.counts.placed += 1
            return True
        await context.places.take_away([upload])  # it has gone meanwhile
        return False

    async def _failed(self, upload: Upload, error: OSError) -> None:
        row = await self._context.catalog.get(upload.id)
        if row is None or row.gone:
            return
        self._context.counts.not_placed += 1
        if not self._complained:
            self._complained = True
            log.error(
                "finished files can't be placed, and wait in the upload directory: {reason}",
                reason=error.strerror,
                upload=upload.id,
                path=upload.place and upload.place.path,
            )

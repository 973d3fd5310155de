"""Finished uploads get their places, in the background.

Invariants: nothing is placed before its upload's finish is recorded, and that with the place it is to get; the data
file under the id stays until the catalog says that the file is in its place; what can't be placed stays as it is, and
is tried again with each round of the janitor. Of several processes only the one that is the janitor places files.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from resumable.model.upload import FactKind, Upload
from resumable.uploads.background import BackgroundWork
from resumable.uploads.context import UploadContext
from resumable.uploads.holds import JANITOR
from resumable.uploads.janitor import Reclaimer
from resumable.uploads.other_workers import PLACE

log = Logger()

BATCH = 32
"""Files that are placed together: they share the syncs of their directories, and hold a thread that long."""


class Placer:
    """`start` when the catalog runs; `stop` while it still does."""

    def __init__(self, context: UploadContext, reclaimer: Reclaimer) -> None:
        self._context = context
        self._reclaimer = reclaimer
        self._background = BackgroundWork("placing files", self._work)
        self._complained = False
        context.listeners.place_planned.append(self._planned)
        context.others.listen(PLACE, self._told)

    def start(self) -> None:
        """Take up what an earlier run left."""
        self.sweep()

    def sweep(self) -> None:
        """Place all files that wait for it, including those that have failed before."""
        if self._context.places.wanted:
            self._background.add_all()

    async def stop(self) -> None:
        """Nothing is being placed any more; the next start goes on with it."""
        await self._background.stop()

    def _planned(self, upload_id: str) -> None:
        """This upload is finished, and has a place to go to."""
        if self._context.places.wanted:
            self._background.add(upload_id)

    def _told(self, upload_id: str) -> None:
        """Another process has finished this upload; it is placed by the one that is the janitor."""
        self._context.others.granted(JANITOR).addCallback(lambda ours: self._planned(upload_id) if ours else None)

    def _pass_on(self) -> None:
        """Another process is the janitor, and finds what it doesn't hear of in its next round."""
        while ids := self._background.take(BATCH):
            for upload_id in ids:
                self._context.others.tell(PLACE, upload_id)

    async def _work(self) -> None:
        if self._context.others.several and not await self._context.others.granted(JANITOR):
            self._pass_on()
        while self._background.waits:
            if await self._place_some() and not self._background.knows_ids:
                await self._reclaimer.reclaim()  # others may come meanwhile

    async def _place_some(self) -> int:
        ids = self._background.take(BATCH)
        return await (self._locked(ids) if ids else self._place_all())

    async def _place_all(self) -> int:
        """Whatever waits, once."""
        after, placed, found = "", 0, 0
        while not self._background.stopping:
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
        # the others once they have their digest
        waiting = [each for each in waiting if self._context.places.ready(each)]
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

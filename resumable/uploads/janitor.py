"""Ends uploads, frees the disk that they held, and forgets them after a while.

Invariant: nothing is removed from the disk before the catalog says that its upload is gone or dropped, and never
while an unassembled final needs it. A finished upload never expires, save a partial that no final needs (any more).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, FirstError, gatherResults
from twisted.logger import Logger

from resumable.model.errors import CatalogUnavailable
from resumable.model.hooks import RequestView
from resumable.model.upload import FactKind, GoneReason, ICatalog, Upload
from resumable.spool.disk import raise_first
from resumable.spool.interfaces import ISpool
from resumable.spool.placed_files import PlacedFiles
from resumable.uploads.context import Counts, UploadContext
from resumable.uploads.limits import account_of
from resumable.uploads.other_workers import final_claim

log = Logger()

BATCH = 256
#: Uploads whose data can't be removed, after which nothing more is tried in a round.
MOST_STUCK = 4096
#: Uploads that end at once.
TOGETHER = 64
#: Seconds after its end for which a final is the answer to the request that has made it.
ANSWERED = 600.0
#: A wall clock that moves this much more than the steady one was set.
JUMP = 60.0

_FACTS = {GoneReason.TERMINATED: FactKind.TERMINATED, GoneReason.EXPIRED: FactKind.EXPIRED}


class Reclaimer:
    """Removes the data of uploads that are gone or dropped. What can't be removed is left to the janitor's rounds."""

    def __init__(self, catalog: ICatalog, spool: ISpool, places: PlacedFiles, counts: Counts | None = None) -> None:
        self._catalog = catalog
        self._spool = spool
        self._places = places
        self._counts = counts or Counts()
        self._lock = DeferredLock()
        self._stuck: dict[str, OSError] = {}

    async def reclaim(self, again: bool = False) -> Mapping[str, OSError]:
        """Remove the data of all uploads that are gone or dropped by now: it is off the disk when this returns, but for
        those that it answers, with what keeps them. ``again``: also try what could not be removed before."""
        await self._lock.run(lambda: Deferred.fromCoroutine(self._remove_all(again)))
        return self._stuck

    async def make_room(self) -> None:
        """As `reclaim`; raises OSError for data that can't be removed: however much is given up, that makes no room."""
        before = self._counts.not_removed
        stuck = await self.reclaim()
        if self._counts.not_removed > before:
            raise_first(stuck)

    async def _remove_all(self, again: bool) -> None:
        if again:
            self._stuck = {}
        while len(self._stuck) < MOST_STUCK:
            found = await self._catalog.removable(BATCH + len(self._stuck))
            ids = [each for each in found if each not in self._stuck]
            if not ids:
                return
            await self._remove(ids)

    async def _remove(self, ids: Sequence[str]) -> None:
        rows = (await self._catalog.get_many(ids)).values()
        unplaced = [each for each in rows if each.gone and each.place]
        placed = await self._places.remove(unplaced)  # before the data file, by which an unrecorded place is known
        stuck = {**placed, **await self._spool.remove([each for each in ids if each not in placed])}
        away = [each.id for each in unplaced if each.id not in placed]
        await self._catalog.removed([each for each in ids if each not in stuck], away)
        self._stuck.update(stuck)
        self._counts.not_removed += len(stuck)
        for upload_id, error in islice(stuck.items(), 1):
            log.error(
                "files of {count} uploads, as {path}, can't be removed; the next round tries again: {reason}",
                count=len(stuck),
                reason=error.strerror,
                upload=upload_id,
                path=error.filename or upload_id,
            )


class Endings:
    """Ends uploads. Their data goes with the next `Reclaimer.reclaim`."""

    def __init__(self, context: UploadContext) -> None:
        self._context = context

    async def end(
        self,
        upload: Upload,
        gone: GoneReason,
        request: RequestView | None = None,
        refusal: Mapping[str, Any] | None = None,
        idle_since: float | None = None,
    ) -> bool:
        """Mark an upload gone; finals that waited for its bytes go with it. False if it was gone already.

        ``request``: the request for it, for events. ``refusal``: of a final, the answer to the same request again.
        ``idle_since``: only if it wasn't touched since.
        """
        context = self._context
        facts = context.facts(upload, request, _FACTS[gone]) if gone in _FACTS else ()
        delete = gone is GoneReason.TERMINATED and context.delete_objects
        ended = await context.catalog.end(upload.id, gone, context.wall(), facts, delete, refusal, idle_since)
        if ended:
            context.counts.gone[gone] += 1
            context.ended(upload.id)
            await self._uncount(upload)
        if ended and upload.is_partial and not await self._finished(upload):
            await self._end_finals(upload.id, gone)
        return ended

    async def lose(self, upload_id: str) -> bool:
        """Its committed bytes are missing. False: it is gone, or doesn't need its data. Raises CatalogUnavailable."""
        upload = await self._context.catalog.get(upload_id)
        if upload is None or upload.dropped_at is not None or not await self.end(upload, GoneReason.LOST):
            return False
        if upload.is_partial:
            self._context.partial_finished(upload_id)  # the finals that wait for it can't be put together
        return True

    async def drop_spent(self) -> None:
        """End partials that finals have used, and that were kept long enough after it."""
        catalog, until = self._context.catalog, self._context.wall() - self._context.limits.keep_partials
        while spent := await catalog.spent(until, TOGETHER):
            await self._end_all(spent, GoneReason.EXPIRED)

    async def _end_finals(self, partial_id: str, gone: GoneReason) -> None:
        """End the finals that waited for it, a few at a time: the reactor has others to serve."""
        context, after = self._context, ""
        try:
            while finals := await context.catalog.finals_of(partial_id, after, TOGETHER):
                await self._end_all(finals, gone)
                after = finals[-1].id
        except CatalogUnavailable:
            context.partial_finished(partial_id)  # the assembler ends finals that can't be put together
            raise

    async def _end_all(self, uploads: Sequence[Upload], gone: GoneReason) -> None:
        """At once: the catalog does them together."""
        ends = [Deferred.fromCoroutine(self.end(each, gone)) for each in uploads]
        try:
            await gatherResults(ends, consumeErrors=True)
        except FirstError as first:
            first.subFailure.raiseException()

    async def _finished(self, upload: Upload) -> bool:
        """Whether it has all its bytes, be it by an eviction since ``upload`` was read."""
        row = upload if upload.finished else await self._context.catalog.get(upload.id)
        return row is not None and row.finished

    async def _uncount(self, upload: Upload) -> None:
        """A gone upload counts for nothing. Its record is read again: it may have changed, and won't any more."""
        context = self._context
        if context.quota.counts:
            try:
                upload = await context.catalog.get(upload.id) or upload
            except CatalogUnavailable:
                log.warn("what an upload counted for is not certain until the next start", upload=upload.id)
            account_of(context.quota, upload).remove()


class Janitor:
    """Call `sweep` now and then."""

    def __init__(
        self,
        context: UploadContext,
        endings: Endings,
        reclaimer: Reclaimer,
        assembles: Callable[[str], bool],
        place_all: Callable[[], None],
    ) -> None:
        """``assembles``: whether something is done, or about to be, for the final of that id: it isn't idle.
        ``place_all``: gives all finished files their places that wait for one."""
        self._context = context
        self._endings = endings
        self._reclaimer = reclaimer
        self._assembles = assembles
        self._place_all = place_all
        self._looked = (context.wall(), context.clock.seconds())

    async def sweep(self) -> None:
        """Expire, remove, forget. Skipped when the wall clock has jumped since the last time."""
        context = self._context
        jumped = self._clock_jumped()
        if context.limits.expire_after is not None and not jumped:
            idle_since = context.wall() - context.limits.expire_after
            for upload in await context.catalog.expired(idle_since, BATCH):
                if not (context.holds.held(upload.id) or (upload.is_final and self._assembles(upload.id))):
                    await self._expire(upload, idle_since)
        if not jumped:
            await self._endings.drop_spent()
        await self._reclaimer.reclaim(again=True)
        self._place_all()
        while await context.catalog.forget(context.wall() - context.limits.remember, BATCH) == BATCH:
            pass
        while await context.catalog.forget_asked(context.wall() - ANSWERED, BATCH) == BATCH:
            pass

    async def _expire(self, upload: Upload, idle_since: float) -> None:
        """End it, unless it was touched meanwhile, or is a final that another process puts together."""
        others = self._context.others
        if not (upload.is_final and others.several):
            await self._endings.end(upload, GoneReason.EXPIRED, idle_since=idle_since)
        elif await others.claim(final_claim(upload.id)):
            try:
                await self._endings.end(upload, GoneReason.EXPIRED, idle_since=idle_since)
            finally:
                await others.drop(final_claim(upload.id))

    def _clock_jumped(self) -> bool:
        wall, steady = self._context.wall(), self._context.clock.seconds()
        was_wall, was_steady = self._looked
        self._looked = (wall, steady)
        jumped = abs((wall - was_wall) - (steady - was_steady)) > JUMP
        if jumped:
            log.warn("the clock was set; nothing expires in this round", wall=wall)
        return jumped

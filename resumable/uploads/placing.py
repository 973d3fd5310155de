"""Finished uploads get their places, in the background.

One reason to change: when a file is placed, and what is told of that.

Invariants: nothing is placed before its upload's finish is recorded, and that with the place it is to get; the data
file under the id stays until the catalog says that the file is in its place; what can't be placed stays as it is, and
is tried again with each round of the janitor. Placing and removing never meet: one waits for the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.aio.threads import IPool, Stopped
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import FactKind, Place, Upload
from resumable.spool import Reader
from resumable.spool.place_rules import PlaceSettings, sidecar
from resumable.spool.placing import Order, PlaceDirectory
from resumable.uploads.context import UploadContext
from resumable.uploads.janitor import Janitor
from resumable.uploads.places import IPlaces

log = Logger()

BATCH = 32
"""Files that are placed together: they share the syncs of their directories, and hold a thread that long."""
QUEUE = 4096
"""Ids that are remembered; beyond, all that wait are looked for in the catalog."""


@implementer(IPlaces)
class Placing:
    """See `IPlaces`. `start` when the catalog runs; `stop` while it still does."""

    def __init__(self, context: UploadContext, janitor: Janitor, pool: IPool, settings: PlaceSettings) -> None:
        self._context = context
        self._janitor = janitor
        self._pool = pool
        self._settings = settings
        self._directory: PlaceDirectory = context.spool.places(str(settings.directory), settings.rules)
        self._lock = DeferredLock()
        self._queue: deque[str] = deque()
        self._all = self._stopping = False
        self._working: Deferred[None] | None = None
        self._complained = False

    def start(self) -> None:
        """Take up what an earlier run left."""
        self.sweep()

    async def stop(self) -> None:
        """Nothing is being placed any more; the next start goes on with it."""
        self._stopping = True
        if self._working is not None:
            await self._working

    # IPlaces

    def planned(self, upload: Upload) -> Place | None:
        return self._settings.planned(upload)

    def chosen(self, upload: Upload, key: str) -> Place | None:
        return self._settings.chosen(upload, key)

    def wake(self, upload_id: str) -> None:
        if len(self._queue) < QUEUE:
            self._queue.append(upload_id)
        else:
            self._all = True
        self._go_on()

    def sweep(self) -> None:
        self._all = True
        self._go_on()

    def reader(self, upload: Upload) -> Deferred[Reader | None]:
        return Deferred.fromCoroutine(self._reader(upload))

    def remove(self, uploads: Sequence[Upload]) -> Deferred[None]:
        return self._lock.run(lambda: Deferred.fromCoroutine(self._remove(uploads)))

    # placing

    def _go_on(self) -> None:
        if self._working is None and not self._stopping and self._settings.template is not None:
            self._working = Deferred()
            Deferred.fromCoroutine(self._work())

    async def _work(self) -> None:
        try:
            while (self._queue or self._all) and not self._stopping:
                if await self._place_some() and not self._queue:
                    await self._janitor.reclaim()  # others may come meanwhile
        except (CatalogUnavailable, Stopped) as error:
            log.warn("placing files goes on with the next round: {reason}", reason=str(error))
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
        return self._lock.run(lambda: Deferred.fromCoroutine(self._place(upload_ids)))

    async def _place(self, upload_ids: Sequence[str]) -> int:
        """Place those of the uploads that wait for it; how many were."""
        rows = await self._context.catalog.get_many(upload_ids)
        waiting = [each for each in rows.values() if each.finished and not each.gone and each.place and not each.placed]
        results = await self._pool.run(self._directory.place, [self._order(each) for each in waiting])
        placed = 0
        for upload, result in zip(waiting, results, strict=True):
            if isinstance(result, OSError):
                await self._failed(upload, result)
            else:
                placed += await self._record(evolve(upload, place=result))
        return placed

    def _order(self, upload: Upload) -> Order:
        assert upload.place is not None
        said = (lambda path: sidecar(upload, path)) if self._settings.sidecar else None
        return Order(upload.id, upload.place.path, said)

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
        await self._remove([upload])  # it has gone meanwhile
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

    # afterwards

    async def _reader(self, upload: Upload) -> Reader | None:
        if upload.place is None or upload.place.stamp is None:
            return None
        fd = await self._pool.run(self._directory.open, upload.place, upload.offset)
        return None if fd is None else self._context.spool.opened(fd, upload.offset)

    async def _remove(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            if upload.place is None:
                continue
            try:
                await self._pool.run(self._directory.remove, upload.id, upload.place, upload.offset)
            except OSError as error:
                log.failure(
                    "a placed file was not removed: {reason}",
                    Failure(error),
                    reason=error.strerror,
                    upload=upload.id,
                    path=upload.place.path,
                )

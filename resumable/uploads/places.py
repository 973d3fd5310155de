"""The files that have got names of their own, in the place directory.

Invariant: placing and removing never meet: one waits for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.threads import IPool
from resumable.model.upload import Place, Upload
from resumable.spool import Reader, Spool
from resumable.spool.place_rules import PlaceSettings, sidecar
from resumable.spool.placing import Order, PlaceDirectory

log = Logger()

T = TypeVar("T")


class PlacedFiles:
    """``pool``: its threads touch the directory."""

    def __init__(self, spool: Spool, pool: IPool, settings: PlaceSettings) -> None:
        self._spool = spool
        self._pool = pool
        self._settings = settings
        self._directory: PlaceDirectory = spool.places(str(settings.directory), settings.rules)
        self._lock = DeferredLock()

    @property
    def wanted(self) -> bool:
        """Whether finished files get places at all."""
        return self._settings.template is not None

    def planned(self, upload: Upload) -> Place | None:
        """Where an upload is to go whose finish is about to be recorded; None: it stays under its id."""
        return self._settings.planned(upload)

    def chosen(self, upload: Upload, key: str) -> Place | None:
        """Where a new upload is to go for which a hook has chosen that key; None: as any other."""
        return self._settings.chosen(upload, key)

    async def reader(self, upload: Upload) -> Reader | None:
        """The placed file, open; None when it was moved, changed or removed. Raises OSError."""
        if upload.place is None or upload.place.stamp is None:
            return None
        fd = await self._pool.run(self._directory.open, upload.place, upload.offset)
        return None if fd is None else self._spool.opened(fd, upload.offset)

    def remove(self, uploads: Sequence[Upload]) -> Deferred[None]:
        """Remove the placed files of these, as far as they are still there and unchanged. Never fails for one file."""
        return self.alone(lambda: self.take_away(uploads))

    def alone(self, work: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        """Do this while nothing else is placed or removed."""
        return self._lock.run(lambda: Deferred.fromCoroutine(work()))

    async def place(self, uploads: Sequence[Upload]) -> Sequence[Place | OSError]:
        """Give each file its name: where each is now, or why it isn't there. Within `alone`."""
        return await self._pool.run(self._directory.place, [self._order(each) for each in uploads])

    async def take_away(self, uploads: Sequence[Upload]) -> None:
        """As `remove`, within `alone`."""
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

    def _order(self, upload: Upload) -> Order:
        assert upload.place is not None
        said = (lambda path: sidecar(upload, path)) if self._settings.sidecar else None
        return Order(upload.id, upload.place.path, said)

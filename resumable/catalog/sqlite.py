"""The catalog on SQLite: its tables, and how it is opened, started and stopped.

Invariant: the reactor never waits for the disk; the change behind an answer is durable (see batches.py). See
https://www.sqlite.org/wal.html for the mode it runs in.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from resumable.aio.threads import IBatcher
from resumable.catalog.batches import Batches, CatalogJob, connect, unavailable
from resumable.catalog.catalog_files import (
    NO_SPACE,
    OpenedCatalog,
    SpaceReserve,
    beside,
    fresh_catalog,
    note_of,
    put_in_place,
)
from resumable.catalog.damage import damage
from resumable.catalog.jobs import AnyJob, Jobs, Work, reads, writes
from resumable.catalog.outbox_table import OutboxTable
from resumable.catalog.replica_table import ReplicaTable
from resumable.catalog.schema import migrate
from resumable.catalog.upload_listing import Listing
from resumable.catalog.upload_table import UploadTable
from resumable.model.errors import CatalogUnavailable

_log = Logger()


class SqliteCatalog(UploadTable):
    """The catalog in the file at ``path``; its log, the space reserve and a damaged catalog are files beside it.

    ``batcher`` is called with the function that does a batch and returns the IBatcher that will call it.
    ``deliverers`` names those that facts are kept for; without any, none is kept. ``now`` dates a damaged catalog.

    `open` first, then `adoptable`, `adopted`, `ids`, `owners` and `record_lost` as the start-up needs them: these
    block. Then `start`, ICatalog's methods and those of ``replicas``, ``outbox`` and ``listing``, then `stop`.
    """

    def __init__(
        self,
        path: str,
        *,
        batcher: Callable[[Work], IBatcher[AnyJob, Any]],
        deliverers: Sequence[str] = (),
        now: Callable[[], float] = time.time,
        connector: Callable[[str], sqlite3.Connection] = connect,
    ) -> None:
        self._path = path
        self._now = now
        self._reserve = SpaceReserve(beside(path, "ballast"))
        self._batches = Batches(path, self._reserve, connector)
        self.timing = self._batches.timing
        #: Called when a change with facts for a deliverer has reached the disk.
        self.on_facts: Callable[[], None] = lambda: None
        jobs = Jobs(self._batches, batcher, (lambda: self.on_facts()) if deliverers else None)
        super().__init__(jobs, OutboxTable(jobs, deliverers))
        self.replicas = ReplicaTable(jobs, self.outbox)
        self.listing = Listing(jobs)

    def open(self) -> OpenedCatalog:
        """Make or check, repair, migrate and open the catalog. Blocks; before `start` only.

        A full disk costs the space reserve. Raises CatalogUnavailable when there is no way to go on: another process
        has the catalog, a newer release made it, the directory can't be written, the disk is full.
        """
        try:
            opened = self._open()
        except CatalogUnavailable as error:
            if not (error.no_space and self._reserve.release()):
                raise
            opened = self._open()
        self._reserve.restore()
        return opened

    def _open(self) -> OpenedCatalog:
        opened = ready(self._path, self._now())
        migrate(self._batches.open())
        self.jobs.now(CatalogJob(self.outbox.purge, writes=True))
        return opened

    def start(self) -> None:
        """See `Jobs.start`."""
        self.jobs.start()

    def stop(self) -> Deferred[None]:
        """See `Jobs.stop`."""
        self._fresh.clear()
        return self.jobs.stop()

    @writes
    def check(self, connection: sqlite3.Connection) -> None:
        """Change nothing, durably: fires when a change reaches the disk, fails as ICatalog's methods."""
        connection.execute("UPDATE batches SET number = number")

    @reads
    def release_reserve(self, connection: sqlite3.Connection) -> bool:
        """Give back the space held for a full disk; False when it was given already. Changes that lead to free space do
        so by themselves."""
        return self._reserve.release()

    @reads
    def restore_reserve(self, connection: sqlite3.Connection) -> bool:
        """Hold space back again if there is twice as much; True when it is held."""
        return self._reserve.restore()


def ready(path: str, at: float) -> OpenedCatalog:
    """See that a sound catalog is at ``path``; ``at`` is the time. Blocks for as long as it takes to read it.

    Raises CatalogUnavailable when it is in use, of a newer release, or there is no right or space to go on.
    """
    try:
        return _ready(path, at)
    except sqlite3.Error as error:
        raise unavailable(error, path) from error
    except OSError as error:
        raise CatalogUnavailable(str(error.strerror), no_space=error.errno in NO_SPACE) from error


def _ready(path: str, at: float) -> OpenedCatalog:
    if not os.path.exists(note_of(path)):
        if not os.path.exists(path):
            put_in_place(fresh_catalog(path), path, at)
            return OpenedCatalog(created=True)
        reason = damage(path)
        if reason is None:
            return OpenedCatalog(created=False)
        _log.critical("the catalog is damaged: {reason}", reason=reason)
    from resumable.catalog.recovery.recover import recover  # code that only damage loads

    return recover(path, at)

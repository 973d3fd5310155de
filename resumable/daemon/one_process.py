"""The local tier of one process: the catalog in SQLite, a data file for each upload, and the lock of the directory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger

from resumable.aio.threads import Batcher, Pool
from resumable.auth.quota import Ledger
from resumable.catalog.sqlite import SqliteCatalog
from resumable.config.options import Settings
from resumable.daemon import startup
from resumable.model.hooks import QuestionKind
from resumable.model.telemetry import SpoolState
from resumable.spool import Budget, Disk, Spool
from resumable.spool.files import OWN
from resumable.spool.interfaces import IStoredFiles
from resumable.uploads.context import UploadContext
from resumable.uploads.holds import LocalHolds, LocalRoles
from resumable.uploads.limits import Drain, IQuota
from resumable.uploads.other_workers import NoOtherWorkers
from resumable.uploads.recovery import recover

log = Logger()


class OneProcess:
    """`open` locks the directory and recovers it; the ``pool``, which others use too, is started and stopped here."""

    #: The sums are this process's own.
    quota: IQuota | None = None
    #: See `UploadContext`.
    worthwhile: int | None = None
    files: IStoredFiles | None = None
    spool_state: Callable[[], SpoolState] | None = None

    def __init__(self, settings: Settings, reactor: Any, pool: Pool, budget: Budget) -> None:
        self._directory = directory = str(settings.upload_dir)
        self._lock = startup.lock_of(directory)
        self._pool = pool
        self.catalog = SqliteCatalog(
            os.path.join(directory, OWN, "catalog.sqlite3"),
            batcher=lambda work: Batcher(reactor, work, name="catalog"),
            deliverers=settings.hooks.deliverers,
        )
        self.spool = Spool(
            directory,
            disk=Disk(settings.modes),
            batcher=lambda work: Batcher(reactor, work, name="puts"),
            pool=pool,
            budget=budget,
            record=self.catalog.jobs.do,
        )
        self.reads: Batcher[tuple[str, int], bytes] = Batcher(reactor, self.spool.read_all, name="reads")
        self.holds = LocalHolds(reactor)
        self.roles = LocalRoles()
        self.others = NoOtherWorkers()
        self.drain = Drain()
        self.hooks = self.tier = self.workers = None
        self.wall = time.time

    def open(self, context: UploadContext, ledger: Ledger, late: Callable[[], None]) -> None:
        """Lock the directory and recover it. Blocks. Raises StartupError, CatalogUnavailable, OSError."""
        startup.take_lock(self._lock, self._directory)
        self.spool.start()
        opened = self.catalog.open()
        if opened.set_aside is not None:
            log.error("the catalog was damaged; what could be read was recovered", **_fields(opened))
        found = recover(
            *(self.catalog, opened, self.spool, context.boot_id, context.wall()),
            asks=context.questions.asks(QuestionKind.FINISH),
            planned=context.places.planned,
        )
        log.info(
            "upload directory ready: {adopted} uploads moved on, {orphans} orphans, {lost} lost",
            adopted=found.adopted,
            orphans=found.orphans,
            lost=found.lost,
        )
        if ledger.counts:
            for each in self.catalog.owners():
                ledger.add(each.owner, each.size, each.unfinished_size, each.unfinished)
        self._pool.start()
        self.catalog.start()

    def ending(self) -> None:
        """The stop begins: nothing to do."""

    def closing(self) -> Sequence[Callable[[], object]]:
        """The steps of closing, in order."""
        return [self.spool.stop, self.catalog.stop, self._pool.stop, self._lock.release]

    def stop_threads(self) -> None:
        """After a start that failed."""
        self._pool.stop()
        self.spool.stop()
        self.catalog.stop()

    async def tidy(self) -> None:
        """After a round of the janitor."""
        await self.catalog.restore_reserve()

    async def lost(self) -> str | None:
        """None: the lock is held in the directory."""
        return None


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__ if not name.startswith("__")}

"""Replication with real threads and real files, over any remote: one run of it, which a test may end at any step."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from attrs import define
from twisted.internet import reactor
from twisted.internet.task import deferLater

from resumable.aio.threads import Batcher, Pool
from resumable.catalog.sqlite import SqliteCatalog
from resumable.model.upload import Commit, GoneReason, Replica, Upload
from resumable.replication.context import Remote, ReplicationLimits
from resumable.replication.journal import CatalogJournal
from resumable.replication.service import Replication
from resumable.spool import Budget, Spool
from resumable.spool.disk import Disk

MIB = 1 << 20
NAME = "far"


@define
class Daemon:
    """One run."""

    spool: Spool
    catalog: SqliteCatalog
    replication: Replication

    async def create(self, number: int, length: int | None) -> Upload:
        upload = Upload(f"{number:032x}", time.time(), time.time(), length)
        assert await self.catalog.create(upload, (), self.replication.chosen(upload, drawn=True))
        await self.spool.put(upload.id, 0, [])
        return upload

    async def append(self, upload_id: str, data: bytes, length: int | None = None) -> None:
        """``length``: where it is told only now."""
        row = await self.catalog.get(upload_id)
        await self.spool.put(upload_id, row.offset, [data])
        end = row.offset + len(data)
        total = row.length if length is None else length
        change = Commit(upload_id, row.epoch, row.offset, end, time.time(), length=length, finished=end == total)
        assert await self.catalog.commit(change)
        self.replication.committed(await self.catalog.get(upload_id))

    async def terminate(self, upload_id: str) -> None:
        await self.catalog.end(upload_id, GoneReason.TERMINATED, time.time(), (), True)
        self.replication.ended(upload_id)

    async def replica(self, upload_id: str) -> Replica | None:
        found = await self.catalog.replicas.of(upload_id)
        return found[0] if found else None

    async def until(self, done: Callable[[], Awaitable[bool]]) -> None:
        """For events that come by themselves; the test's own time-out bounds it."""
        while not await done():
            await deferLater(reactor, 0.01)

    async def until_removed(self, upload_id: str) -> None:
        async def removed() -> bool:
            return await self.replica(upload_id) is None

        await self.until(removed)


def as_it_is(replicas: Any) -> Any:
    return replicas


@asynccontextmanager
async def running(
    directory: Path,
    remote: Callable[[CatalogJournal, Pool], Any],
    run: str = "1",
    *,
    limits: ReplicationLimits | None = None,
    replicas: Callable[[Any], Any] = as_it_is,
) -> AsyncIterator[Daemon]:
    """``remote`` makes the backend; ``replicas`` may put something before the catalog's."""
    pool = Pool(reactor, 4, "test")
    (directory / "up").mkdir(exist_ok=True)
    spool = Spool(
        str(directory / "up"),
        disk=Disk(),
        batcher=lambda work: Batcher(reactor, work, name="puts"),
        pool=pool,
        budget=Budget(32 * MIB),
    )
    reads: Batcher[tuple[str, int], bytes] = Batcher(reactor, spool.read_all, name="reads")
    reads.start()
    spool.start()
    catalog = SqliteCatalog(
        str(directory / "catalog.sqlite3"), batcher=lambda work: Batcher(reactor, work, name="catalog")
    )
    catalog.open()
    pool.start()
    catalog.start()
    shown = replicas(catalog.replicas)
    journal = CatalogJournal(shown, NAME)
    replication = Replication(
        [Remote(NAME, remote(journal, pool), journal=journal)],
        shown,
        spool.reader,
        reads.submit,
        clock=reactor,
        wall=time.time,
        rng=Random(1),
        run=run,
        limits=limits,
    )
    replication.start()
    try:
        yield Daemon(spool, catalog, replication)
    finally:
        for room in (replication, reads, spool, catalog, pool):
            await room.stop()

"""The engine with real threads, real files and an S3 server behind a proxy that counts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from resumable.catalog.sqlite import SqliteCatalog
from resumable.interfaces import Commit, Gone, Upload
from resumable.replication.engine import Replication
from resumable.replication.journal import CatalogJournal
from resumable.replication.settings import Remote
from resumable.spool import Budget, Spool
from resumable.spool.disk import Disk
from resumable.threads import Batcher, Pool
from tests.remotes.s3_rig import MIB, rig
from tests.remotes.s3_servers import started


@pytest.fixture(scope="module", params=["moto", "versitygw"])
def server(request, tmp_path_factory):
    with started(request.param, tmp_path_factory.mktemp("buckets") / "root") as running:
        yield running


@define
class Daemon:
    """One run."""

    s3: Any
    spool: Spool
    catalog: SqliteCatalog
    engine: Replication

    async def create(self, number: int, length: int) -> Upload:
        upload = Upload(f"{number:032x}", time.time(), time.time(), length)
        assert await self.catalog.create(upload, (), self.engine.chosen(upload))
        await self.spool.put(upload.id, 0, [])
        return upload

    async def append(self, upload_id: str, data: bytes) -> None:
        row = await self.catalog.get(upload_id)
        await self.spool.put(upload_id, row.offset, [data])
        end = row.offset + len(data)
        await self.catalog.commit(
            Commit(upload_id, row.epoch, row.offset, end, time.time(), finished=end == row.length)
        )
        self.engine.committed(await self.catalog.get(upload_id))

    async def until(self, done: Callable[[], Awaitable[bool]]) -> None:
        """For events that come by themselves; the test's own time-out bounds it."""
        while not await done():
            await deferLater(reactor, 0.01)


@asynccontextmanager
async def daemon(server, directory, run: str = "1") -> AsyncIterator[Daemon]:
    async with rig(server) as s3:
        pool = Pool(reactor, 4, "test")
        spool = Spool(
            str(directory / "up"),
            disk=Disk(),
            batcher=lambda work: Batcher(reactor, work, name="puts"),
            pool=pool,
            budget=Budget(32 * MIB),
        )
        (directory / "up").mkdir(exist_ok=True)
        spool.start()
        catalog = SqliteCatalog(
            str(directory / "catalog.sqlite3"), batcher=lambda work: Batcher(reactor, work, name="catalog")
        )
        catalog.open()
        pool.start()
        catalog.start()
        s3.journal = CatalogJournal(catalog.replicas, "s3")
        engine = Replication(
            [Remote("s3", s3.remote())],
            catalog.replicas,
            spool.reader,
            clock=reactor,
            wall=time.time,
            rng=Random(1),
            run=run,
        )
        engine.start()
        try:
            yield Daemon(s3, spool, catalog, engine)
        finally:
            for room in (engine, spool, catalog, pool):
                await room.stop()


@pytest_twisted.ensureDeferred
async def test_fifty_mebibytes_in_two_hundred_pieces_cost_nine_requests(server, tmp_path):
    data = Random(1).randbytes(50 * MIB)
    async with daemon(server, tmp_path) as it:
        upload = await it.create(1, len(data))
        stored = it.engine.when_stored(upload.id)
        for start in range(0, len(data), MIB // 4):
            await it.append(upload.id, data[start : start + MIB // 4])
        await stored
        assert it.s3.proxy.requests == {"CreateMultipartUpload": 1, "UploadPart": 7, "CompleteMultipartUpload": 1}
        assert await it.s3.content(upload.id) == data


@pytest_twisted.ensureDeferred
async def test_small_uploads_cost_one_request_each(server, tmp_path):
    async with daemon(server, tmp_path) as it:
        uploads = [await it.create(100 + number, 4096) for number in range(40)]
        stored = [it.engine.when_stored(each.id) for each in uploads]
        for number, each in enumerate(uploads):
            await it.append(each.id, Random(number).randbytes(4096))
        await gatherResults(stored)
        assert it.s3.proxy.requests == {"PutObject": 40}
        assert await it.s3.content(uploads[7].id) == Random(7).randbytes(4096)


@pytest_twisted.ensureDeferred
async def test_the_store_has_the_first_half_while_the_client_pauses_and_a_next_run_goes_on(server, tmp_path):
    data = Random(2).randbytes(32 * MIB)
    async with daemon(server, tmp_path) as it:
        upload = await it.create(2, len(data))
        await it.append(upload.id, data[: 16 * MIB])

        async def has_half() -> bool:
            (replica,) = await it.catalog.replicas.of(upload.id)
            return replica.confirmed == 16 * MIB

        await it.until(has_half)
        assert it.s3.proxy.requests["UploadPart"] == 2
    async with daemon(server, tmp_path, "2") as it:
        stored = it.engine.when_stored(upload.id)
        await it.append(upload.id, data[16 * MIB :])
        await stored
        assert it.s3.proxy.requests["UploadPart"] == 2
        assert it.s3.proxy.requests["ListParts"] == 1
        assert await it.s3.content(upload.id) == data


@pytest_twisted.ensureDeferred
async def test_the_multipart_of_a_terminated_upload_is_aborted(server, tmp_path):
    async with daemon(server, tmp_path) as it:
        upload = await it.create(3, 64 * MIB)
        await it.append(upload.id, Random(3).randbytes(20 * MIB))
        await it.until(lambda: begun(it))
        await it.catalog.end(upload.id, Gone.TERMINATED, time.time(), (), True)
        it.engine.ended(upload.id)

        async def removed() -> bool:
            return not await it.catalog.replicas.of(upload.id)

        await it.until(removed)
        assert await it.s3.unfinished() == []


async def begun(it: Daemon) -> bool:
    return it.s3.proxy.requests.get("UploadPart", 0) > 0

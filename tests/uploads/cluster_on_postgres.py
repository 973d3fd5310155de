"""The engines of cluster_rig.py over a real PostgreSQL; messages between them are still simulated."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psycopg
from twisted.internet.task import Clock

from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.claims import PostgresClaims
from resumable.catalog.postgres.postgres_connection import connector
from resumable.catalog.postgres.worker_table import DrainRecord, PostgresWorkers
from resumable.model.upload import Segment, Upload
from resumable.model.workers import Worker
from resumable.testing import SteppedBatcher
from resumable.testing.fake_cluster import FakeCluster
from tests.postgres import database, emptied
from tests.uploads.cluster_rig import Cluster, Engine, SegmentStore, Shared


@functools.cache
def shared_database() -> str:
    """The database of the tests of this process."""
    url = database()
    catalog = PostgresCatalog(connector(url), None, batcher=lambda name, work: SteppedBatcher(Clock(), work))
    catalog.open()
    catalog.stop()
    return url


class PostgresCluster(Cluster):
    """Each engine has a catalog, a row and claims of its own in the database. It sends no heartbeats: the tests are
    quicker than a worker is taken for dead."""

    def __init__(self, directory: Path, deliverers: Sequence[str] = ()) -> None:
        self.began = time.time()
        self.clock = Clock()
        self.store = SegmentStore()
        self.fake = FakeCluster()
        self.engines: list[Engine] = []
        self.url = shared_database()
        emptied(self.url, ("installation",))
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.do("UPDATE installation SET draining_since = NULL")
        self.deliverers = deliverers
        self.catalogs: list[PostgresCatalog] = []
        self.all_workers: list[PostgresWorkers] = []
        self.catalog = PostgresCatalog(  # type: ignore[assignment]
            connector(self.url),
            None,
            batcher=lambda name, work: SteppedBatcher(self.clock, work),
            deliverers=deliverers,
        )
        self.catalog.start()

    def do(self, statement: str, *values: object) -> list[tuple]:
        done = self.connection.execute(statement, values or None)
        return done.fetchall() if done.description else []

    def shared_by(self, engine: Engine) -> Shared:
        def batcher(name, work):
            return SteppedBatcher(engine.clock, work)

        connect, me = connector(self.url), Worker(engine.worker.id, "here", 7, 0.0)
        catalog = PostgresCatalog(connect, me.id, batcher=batcher, deliverers=self.deliverers)
        workers = PostgresWorkers(connect, me, engine.clock, batcher=batcher, questions=catalog.jobs)
        workers.register()
        workers.jobs.start()
        catalog.start()
        self.catalogs.append(catalog)
        self.all_workers.append(workers)
        drain = DrainRecord(catalog.jobs)
        claims = PostgresClaims(workers)
        return Shared(catalog, catalog.replicas, catalog.segments, catalog.jobs.do, workers, claims, drain)

    def store_everywhere(self, upload_id: str) -> None:
        self.do("UPDATE uploads SET stored_at = 1 WHERE id = %s", upload_id)

    def claims(self) -> dict[str, str]:
        return dict(self.do("SELECT name, holder FROM claims WHERE holder IS NOT NULL"))

    def bury_worker(self, engine: Engine) -> None:
        super().bury_worker(engine)
        self.do("DELETE FROM workers WHERE id = %s", engine.worker.id)

    def row(self, upload_id: str) -> Upload:
        found: list[Upload] = []
        self.catalog.get(upload_id).addBoth(found.append)
        while not found:
            self.turn(self.clock)
        assert isinstance(found[0], Upload), found
        return found[0]

    def content(self, upload_id: str) -> bytes:
        self.store.wholes = {each for (each,) in self.do("SELECT id FROM uploads WHERE whole")}
        rows = self.do("SELECT start, size, name FROM segments WHERE upload_id = %s ORDER BY start", upload_id)
        self.store.layout = {upload_id: [Segment(*each) for each in rows]}
        return self.store.content(upload_id)

    def close(self) -> None:
        for part in (*self.catalogs, *self.all_workers):
            with suppress(Exception):
                part.jobs.stop()
        self.pump()
        self.connection.close()

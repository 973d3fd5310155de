"""Catalogs and workers of one PostgreSQL database whose batches are done when the test says so."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.catalog.batches import CatalogJob
from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.claims import PostgresClaims
from resumable.catalog.postgres.postgres_batches import SetJob, set_job
from resumable.catalog.postgres.postgres_connection import connector
from resumable.catalog.postgres.worker_table import PostgresWorkers
from resumable.model.workers import Worker
from tests.catalog.doubles import HandBatcher
from tests.catalog.on_postgres import with_tables
from tests.postgres import emptied

ADD = """INSERT INTO finals (key, id) SELECT key, id FROM json_to_recordset(?1) AS job(key text, id text)
    ON CONFLICT DO NOTHING RETURNING key"""


def add(key: str, value: str = "x") -> SetJob[Any]:
    """A change that is done with others in one statement: whether it has landed."""
    return set_job(ADD, key, [{"key": key, "id": value}], locks=False)


def classic(key: str) -> CatalogJob[Any]:
    """The same as a job by itself: 1."""

    def run(connection: Any) -> int:
        count: int = connection.execute("INSERT INTO finals (key, id) VALUES (?, 'x')", (key,)).rowcount
        return count

    return CatalogJob(run, writes=True)


def question() -> CatalogJob[Any]:
    """How many there are."""
    return CatalogJob(lambda connection: connection.execute("SELECT count(*) FROM finals").fetchone()[0])


class Process:
    """What one worker has of the catalog."""

    def __init__(self, database: Database, worker_id: str, deliverers: Sequence[str] = ()) -> None:
        self.id = worker_id
        self.batchers: dict[str, HandBatcher] = {}
        self.disowned: list[str] = []
        self.catalog = PostgresCatalog(
            database.connect,
            worker_id,
            batcher=self._make,
            deliverers=deliverers,
            on_disowned=lambda: self.disowned.append("changes"),
        )
        self.workers = PostgresWorkers(
            database.connect,
            Worker(worker_id, f"node-{worker_id}", 7, 0.0, {"--base-path": "/files"}),
            database.clock,
            batcher=self._make,
            questions=self.catalog.jobs,
            on_disowned=lambda: self.disowned.append("heartbeat"),
        )
        self.claims = PostgresClaims(self.workers)

    def _make(self, name: str, work: Callable[[list[Any]], Sequence[Any]]) -> HandBatcher:
        self.batchers[name] = HandBatcher(work)
        return self.batchers[name]

    def start(self) -> None:
        self.workers.register()
        self.catalog.start()
        self.workers.start()

    def ask(self, answer: Deferred[Any]) -> Any:
        """The result; raises its failure."""
        while any(batcher.jobs for batcher in self.batchers.values()):
            for batcher in self.batchers.values():
                batcher.flush()
        results: list[Any] = []
        answer.addBoth(results.append)
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def stop(self) -> None:
        self.claims.stop()
        self.catalog.stop()
        self.workers.stop()


@functools.cache
def _shared() -> str:
    return with_tables()


class Database:
    """An empty database, and the processes that use it. ``new``: nothing was ever done in it."""

    def __init__(self, new: bool = False) -> None:
        self.url = with_tables() if new else _shared()
        self._connect = connector(self.url)
        self._away = False
        self.clock = Clock()
        self.processes: list[Process] = []
        emptied(self.url, keep=["installation"])

    def connect(self) -> psycopg.Connection[Any]:
        if self._away:
            raise psycopg.OperationalError("the database is away")
        return self._connect()

    def leave(self) -> None:
        """No connection is left, and none can be made."""
        self._away = True
        self.do(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def come_back(self) -> None:
        self._away = False

    def process(self, worker_id: str, deliverers: Sequence[str] = (), start: bool = True) -> Process:
        made = Process(self, worker_id, deliverers)
        self.processes.append(made)
        if start:
            made.start()
        return made

    def do(self, statement: str, *values: object) -> list[Any]:
        """The rows of a statement of the test's own."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            done = connection.execute(statement, values or None)
            return done.fetchall() if done.description else []

    def seconds(self, seconds: float, *alive: Process) -> None:
        """So much later, during which only those processes gave signs."""
        self.do("UPDATE workers SET seen_at = seen_at - %s", seconds)
        for _ in range(int(seconds)):
            self.clock.advance(1)
            for process in alive:
                process.batchers["workers"].flush()

    def stop(self) -> None:
        for process in self.processes:
            process.stop()

"""A catalog in a directory of its own whose batches are done when the test says so."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from resumable.catalog.schema import (
    APPLICATION_ID,
    ARRANGE,
    FIELDS,
    MIGRATIONS,
    PAGE_SIZE,
    PIN,
    REPLICA_FIELDS,
    from_replica,
    to_json,
    to_row,
)
from resumable.catalog.sqlite import SqliteCatalog
from resumable.model.upload import Fact, Replica, Upload


class HandBatcher:
    """An IBatcher that gathers jobs until `flush`, and does them in one batch."""

    def __init__(self, work: Callable[[list[Any]], Sequence[Any]]) -> None:
        self.work = work
        self.jobs: list[tuple[Any, Deferred[Any]]] = []

    def start(self) -> None:
        pass

    def submit(self, job: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.jobs.append((job, answer))
        return answer

    def stop(self) -> Deferred[None]:
        self.flush()
        return succeed(None)

    def flush(self) -> None:
        while self.jobs:
            jobs, self.jobs = self.jobs, []
            results = self.work([job for job, _ in jobs])
            for (_, answer), result in zip(jobs, results, strict=True):
                answer.errback(result) if isinstance(result, Failure) else answer.callback(result)


class Shelf:
    """The catalogs of one directory, opened one after the other."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.path = str(self.directory / "catalog.sqlite3")
        self.batchers: list[HandBatcher] = []

    def catalog(self, **options: Any) -> SqliteCatalog:
        def make(work: Callable[[list[Any]], Sequence[Any]]) -> HandBatcher:
            self.batchers.append(HandBatcher(work))
            return self.batchers[-1]

        return SqliteCatalog(self.path, batcher=make, now=lambda: 1_700_000_000.0, **options)

    def running(self, **options: Any) -> SqliteCatalog:
        catalog = self.catalog(**options)
        catalog.open()
        catalog.start()
        return catalog

    def flush(self) -> None:
        for batcher in self.batchers:
            batcher.flush()


def first_version(shelf: Shelf, records: Sequence[Upload]) -> None:
    """Make the catalog that the first release would have made of these records."""
    older_version(shelf, 1, records)


def older_version(
    shelf: Shelf, version: int, records: Sequence[Upload], facts: Sequence[Fact] = (), replicas: Sequence[Replica] = ()
) -> None:
    """Make the catalog that a release of that version would have made; ``facts`` are kept for "hook"."""
    fields = ", ".join(FIELDS.split(", ")[:14])
    with closing(sqlite3.connect(shelf.path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        for number, statements in enumerate(MIGRATIONS[:version], 1):
            connection.execute("BEGIN")
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        for record in records:
            values = to_row(record)[:14]
            connection.execute(f"INSERT INTO uploads ({fields}) VALUES ({', '.join('?' * 14)})", values)
            connection.executemany(PIN, [(partial, record.id) for partial in record.partials])
        for fact in facts:
            values = ("hook", fact.upload_id, fact.kind.value, fact.at, to_json(fact.data))
            connection.execute(
                "INSERT INTO outbox (deliverer, upload_id, kind, at, data) VALUES (?, ?, ?, ?, ?)", values
            )
        if version > 2:
            connection.execute(ARRANGE)
        for replica in replicas:
            values = from_replica(replica.upload_id, replica)
            connection.execute(f"INSERT INTO replicas ({REPLICA_FIELDS}) VALUES ({', '.join('?' * 16)})", values)
        connection.execute("COMMIT")

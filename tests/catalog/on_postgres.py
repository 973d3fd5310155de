"""A catalog in a real PostgreSQL whose jobs are done when the test says so: that of one worker, and those of two."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.postgres_connection import connector
from tests.catalog.contract import CatalogSuite
from tests.catalog.doubles import HandBatcher
from tests.catalog.faults import outcome
from tests.postgres import database, emptied

WORKER = "0123456789abcdef"
WORKERS = ("1111111111111111", "2222222222222222")


def with_tables() -> str:
    """The URL of a new database that has the catalog's tables, all empty."""
    url = database()
    catalog = PostgresCatalog(connector(url), None, batcher=lambda name, work: HandBatcher(work))
    catalog.open()
    catalog.stop()
    return url


@functools.cache
def shared() -> str:
    """The database of the tests of this process."""
    return with_tables()


class OnPostgres(CatalogSuite, SynchronousTestCase):
    """The catalog of several processes, in a database that is emptied before each test."""

    stored = False

    def make_catalog(self, deliverers: Sequence[str] = ()) -> PostgresCatalog:
        url = shared()
        emptied(url, keep=("installation",))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO workers (id, node, pid) VALUES (%s, 'here', 1)", (WORKER,))
        self.batchers: list[HandBatcher] = []

        def make(name: str, work: Callable[[list[Any]], Sequence[Any]]) -> HandBatcher:
            self.batchers.append(HandBatcher(work))
            return self.batchers[-1]

        catalog = PostgresCatalog(connector(url), WORKER, batcher=make, deliverers=deliverers, stored=self.stored)
        catalog.start()
        self.addCleanup(catalog.stop)
        return catalog

    def settle(self) -> None:
        while any(batcher.jobs for batcher in self.batchers):
            for batcher in self.batchers:
                batcher.flush()


class CatalogOfWorker:
    """One worker's catalog, whose jobs are done when the test says so."""

    def __init__(self, url: str, worker_id: str, deliverers: Sequence[str] = ()) -> None:
        self.batchers: dict[str, HandBatcher] = {}
        self.disowned: list[str] = []

        def make(called: str, work: Callable[[list[Any]], Sequence[Any]]) -> HandBatcher:
            self.batchers[called] = HandBatcher(work)
            return self.batchers[called]

        self.catalog = PostgresCatalog(
            connector(url),
            worker_id,
            batcher=make,
            deliverers=deliverers,
            on_disowned=lambda: self.disowned.append(worker_id),
        )
        self.catalog.start()

    def flush(self) -> None:
        for batcher in self.batchers.values():
            batcher.flush()

    def ask(self, answer: Deferred[Any]) -> Any:
        self.flush()
        return outcome(answer)

    def ask_all(self, *answers: Deferred[Any]) -> list[Any]:
        """What is asked for in one batch."""
        self.flush()
        return [outcome(answer) for answer in answers]


def looked_at(plan: dict[str, Any]) -> int:
    """Rows of tables and indexes that were read."""
    found = sum(looked_at(each) for each in plan.get("Plans", ()))
    if "Relation Name" in plan or "Index Name" in plan:
        rows = (
            plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        )
        found += round(rows * plan["Actual Loops"])
    return found

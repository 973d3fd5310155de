"""Catalogs of bytes in an object store keep what IStored promises: the one in memory, and PostgreSQL's."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Fact, FactKind, StoreChange
from resumable.testing.memory_catalog import Fate
from resumable.testing.memory_stored import MemoryStored
from tests.catalog.contract import done, name, upload
from tests.catalog.on_postgres import OnPostgres, shared
from tests.catalog.stored_contract import MADE, StoredContract, in_row


class MemoryStoredTests(StoredContract, SynchronousTestCase):
    """The contract, by the catalog of the spools' tests."""

    def make_catalog(self, deliverers: Sequence[str] = ()) -> MemoryStored:
        self.clock = Clock()
        return MemoryStored(self.clock.seconds)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def remove(self, number: int) -> None:
        self.catalog.data_removed([name(number)])


@pytest.mark.process
class PostgresStoredTests(StoredContract, OnPostgres):
    """The contract, by PostgreSQL."""

    stored = True

    def wait(self, seconds: float) -> None:
        with psycopg.connect(shared(), autocommit=True) as connection:
            connection.execute("UPDATE discarded SET at = at - %s", (seconds,))

    def remove(self, number: int) -> None:
        self.ask(self.catalog.removed([name(number)]))

    def test_facts_go_with_the_object_after_those_of_the_upload(self) -> None:
        self.catalog = self.make_catalog(["hook"])
        finished, stored = (Fact(kind, name(1), 150.0) for kind in (FactKind.FINISHED, FactKind.STORED))
        self.start(upload(1))
        self.append(StoreChange(piece=in_row(0, 1000)), 1000, finished=True, facts=[finished])
        assert self.told("hook") == []
        before = self.catalog.jobs.facts
        assert self.ask(self.catalog.stored.completed(name(1), MADE, 200.0, [stored])) is True
        assert self.ask(self.catalog.stored.completed(name(1), MADE, 200.0, [stored])) is False
        assert self.catalog.jobs.facts == before + 1
        assert self.told("hook") == [finished, stored]


def test_fates_are_those_of_the_changes_of_istored_too() -> None:
    catalog = MemoryStored()
    catalog.create(done(upload(1)), segment=StoreChange(piece=in_row(0, 1000)))
    catalog.fates.extend([Fate.UNHEARD, Fate.FAILS, Fate.LATE])
    answers = [catalog.reserve(name(1), 0, 5), catalog.reserve(name(1), 0, 7), catalog.completed(name(1), MADE, 1.0)]
    heard: list[object] = []
    for answer in answers:
        answer.addCallbacks(heard.append, lambda failure: failure.trap(CatalogUnavailable))
    assert heard == []
    assert (catalog.rows[name(1)].reserved, catalog.rows[name(1)].whole, catalog.late) == (5, False, 1)
    assert catalog.land() == 1
    assert catalog.rows[name(1)].whole

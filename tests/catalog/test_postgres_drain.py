"""The drain of all workers is a column of the catalog."""

from __future__ import annotations

import pytest
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from resumable.catalog.postgres.worker_table import DrainRecord
from resumable.model.workers import IDrainRecord
from tests.catalog.on_postgres import OnPostgres

pytestmark = pytest.mark.process


class DrainTests(OnPostgres, SynchronousTestCase):
    """IDrainRecord, by a real database."""

    def setUp(self) -> None:
        super().setUp()
        self.drain = DrainRecord(self.catalog.jobs)
        self.ask(self.drain.fill())

    def test_it_provides_the_interface(self) -> None:
        assert verifyObject(IDrainRecord, self.drain)

    def test_a_drain_begins_once_and_ends(self) -> None:
        assert self.ask(self.drain.draining_since()) is None
        self.ask(self.drain.drain(100.5))
        self.ask(self.drain.drain(200.0))
        assert self.ask(self.drain.draining_since()) == 100.5
        self.ask(self.drain.fill())
        assert self.ask(self.drain.draining_since()) is None

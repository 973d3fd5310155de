"""SqliteCatalog keeps what ICatalog promises, its replicas what IReplicas does, its outbox what IOutbox does, and
its listing what IListing does."""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from resumable.catalog.sqlite import SqliteCatalog
from tests.catalog.contract import CatalogContract, CatalogSuite
from tests.catalog.digests_contract import DigestsContract
from tests.catalog.doubles import Shelf
from tests.catalog.listing_contract import ListingContract
from tests.catalog.outbox_contract import DurableOutboxContract
from tests.catalog.owners_contract import OwnersContract
from tests.catalog.replica_contract import ReplicaContract


class OnSqlite(CatalogSuite, SynchronousTestCase):
    """The default catalog, in a directory that goes with the test."""

    def make_catalog(self, deliverers: Sequence[str] = ()) -> SqliteCatalog:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.shelf = Shelf(directory.name)
        catalog = self.shelf.running(deliverers=deliverers)
        self.addCleanup(catalog.stop)
        return catalog

    def settle(self) -> None:
        self.shelf.flush()


class SqliteContractTests(CatalogContract, DigestsContract, OwnersContract, OnSqlite):
    """The contract, by the default catalog."""


class SqliteReplicaTests(ReplicaContract, OnSqlite):
    """The contract of its replicas."""


class SqliteOutboxTests(DurableOutboxContract, OnSqlite):
    """The contract of its outbox."""


class SqliteListingTests(ListingContract, OnSqlite):
    """The contract of its listing."""

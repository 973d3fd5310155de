"""SqliteCatalog keeps what ICatalog promises."""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from resumable.catalog.sqlite import SqliteCatalog
from tests.catalog.contract import CatalogContract
from tests.catalog.doubles import Shelf


class SqliteContractTests(CatalogContract, SynchronousTestCase):
    """The contract, by the default catalog."""

    def make_catalog(self, deliverers: Sequence[str] = ()) -> SqliteCatalog:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.shelf = Shelf(directory.name)
        catalog = self.shelf.running(deliverers=deliverers)
        self.addCleanup(catalog.stop)
        return catalog

    def settle(self) -> None:
        self.shelf.flush()

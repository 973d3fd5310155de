"""SqliteCatalog keeps what ICatalog promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from resumable.catalog.sqlite import SqliteCatalog
from tests.catalog.contract import CatalogContract
from tests.catalog.doubles import Shelf


class SqliteContractTests(CatalogContract, SynchronousTestCase):
    """The contract, by the default catalog."""

    def make_catalog(self, deliverers: Sequence[str] = ()) -> SqliteCatalog:
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        self.shelf = Shelf(directory)
        catalog = self.shelf.running(deliverers=deliverers)
        self.addCleanup(catalog.stop)
        return catalog

    def settle(self) -> None:
        self.shelf.flush()

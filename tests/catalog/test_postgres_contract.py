"""PostgresCatalog keeps what ICatalog promises, its replicas what IReplicas does, its outbox what IOutbox does, and its
listing what IListing does: the suites of the default catalog, unchanged; and its segments what ISegments does."""

from __future__ import annotations

import psycopg
import pytest

from tests.catalog.contract import CatalogContract
from tests.catalog.digests_contract import DigestsContract
from tests.catalog.listing_contract import ListingContract
from tests.catalog.on_postgres import OnPostgres, shared
from tests.catalog.outbox_contract import DurableOutboxContract
from tests.catalog.owners_contract import OwnersContract
from tests.catalog.replica_contract import ReplicaContract
from tests.catalog.segment_contract import SegmentContract

pytestmark = pytest.mark.process


class PostgresSegmentTests(SegmentContract, OnPostgres):
    """The contract of its segments."""

    def wait(self, seconds: float) -> None:
        with psycopg.connect(shared(), autocommit=True) as connection:
            connection.execute("UPDATE discarded SET at = at - %s", (seconds,))
            connection.execute("UPDATE uploads SET gone_at = gone_at - %s", (seconds,))

    def now(self) -> float:
        with psycopg.connect(shared()) as connection:
            row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        assert row is not None
        return float(row[0])


class PostgresContractTests(CatalogContract, DigestsContract, OwnersContract, OnPostgres):
    """The contract, by the catalog of several processes."""


class PostgresReplicaTests(ReplicaContract, OnPostgres):
    """The contract of its replicas."""


class PostgresOutboxTests(DurableOutboxContract, OnPostgres):
    """The contract of its outbox."""


class PostgresListingTests(ListingContract, OnPostgres):
    """The contract of its listing."""

"""The catalog on PostgreSQL: its tables, and how it is opened, started and stopped.

Invariant: the reactor never waits for the database; the change behind an answer is durable (see postgres_batches.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from attrs import frozen
from twisted.internet.defer import Deferred

from resumable.aio.threads import IBatcher
from resumable.catalog.jobs import AnyJob, Work, reads, writes
from resumable.catalog.postgres.outage import CatalogOutage
from resumable.catalog.postgres.postgres_batches import PostgresBatches
from resumable.catalog.postgres.postgres_connection import Connect, Connection, unavailable
from resumable.catalog.postgres.postgres_jobs import PostgresJobs
from resumable.catalog.postgres.postgres_outbox import PostgresOutboxTable
from resumable.catalog.postgres.postgres_replicas import PostgresReplicaTable
from resumable.catalog.postgres.postgres_schema import STORED, check_pooling, migrate
from resumable.catalog.postgres.postgres_uploads import PostgresUploadTable
from resumable.catalog.postgres.segment_table import SegmentTable
from resumable.catalog.postgres.stored_table import StoredTable
from resumable.catalog.postgres.usage_table import UsageTable, enforce
from resumable.catalog.postgres.worker_table import signed
from resumable.catalog.upload_listing import Listing
from resumable.model.usage import Quota

_NO_UPLOADS: Final = "NOT EXISTS (SELECT 1 FROM uploads)"
_FREE: Final = f"{_NO_UPLOADS} AND NOT EXISTS (SELECT 1 FROM workers)"


@frozen
class Opened:
    """``installation``: its id, which the marker in the upload directory has, too. ``directory``: the id of the upload
    directory, or the URL of the store that is the spool; None if none was ever used with this catalog. ``is_new``: nor
    is there an upload. ``is_free``: there is none, and no worker, so that it may be used with another store."""

    installation: str
    directory: str | None
    is_new: bool
    is_free: bool

    @property
    def store(self) -> str | None:
        """The URL of the store that has the uploads; None: an upload directory has them, or nothing does yet."""
        return self.directory if self.directory is not None and "://" in self.directory else None


class PostgresCatalog(PostgresUploadTable):
    """The catalog in one database, for the worker ``worker_id``.

    ``connect`` makes connections. ``batcher`` is called with a name and the function that does a batch, and returns the
    IBatcher that will call it. ``deliverers``: see SqliteCatalog. ``on_disowned`` is called, in whatever thread, when
    this worker was taken for dead; None for ``worker_id``: a tool, which has the catalog to itself.
    ``stored``: acknowledged bytes are in an object store.

    `open` first, which blocks. Then `start`, ICatalog's methods and those of ``replicas``, ``outbox``, ``listing``,
    ``segments`` or ``stored``, and ``usage``, then `stop`.
    """

    def __init__(
        self,
        connect: Connect,
        worker_id: str | None,
        *,
        batcher: Callable[[str, Work], IBatcher[AnyJob, Any]],
        deliverers: Sequence[str] = (),
        on_disowned: Callable[[], None] = lambda: None,
        stored: bool = False,
    ) -> None:
        self._connect = connect
        #: For all connections of this process.
        self.outage = outage = CatalogOutage()
        self._batches = PostgresBatches(connect, worker_id, on_disowned, outage=outage)
        self.timing = self._batches.timing
        #: Called when a change with facts for a deliverer has reached the disk.
        self.on_facts: Callable[[], None] = lambda: None
        told = (lambda: self.on_facts()) if deliverers else None
        jobs = PostgresJobs(self._batches, PostgresBatches(connect, None, outage=outage), batcher, told)
        super().__init__(jobs, PostgresOutboxTable(jobs, deliverers), worker_id, deliverers, stored)
        self.replicas = PostgresReplicaTable(jobs, self.outbox, worker_id)
        self.listing = Listing(jobs)
        self.segments = SegmentTable(jobs)
        self.stored = StoredTable(jobs, deliverers)
        self.usage = UsageTable(jobs)

    def open(self) -> Opened:
        """Make or migrate the tables. Blocks; before `start` only. Raises CatalogUnavailable."""
        with self._raw() as raw, self._raw() as other:
            check_pooling(raw, other)
            migrate(raw, secrets.token_hex(16))
            row = raw.execute(
                f"SELECT id, directory, directory IS NULL AND {_NO_UPLOADS}, {_FREE} FROM installation"
            ).fetchone()
        assert row is not None
        return Opened(*row)

    def enforce(self, each: Quota, overall: Quota) -> None:
        """Bound what each identity, and all together, may store, for all workers. See `usage_table.enforce`. Blocks.

        Raises CatalogUnavailable."""
        with self._raw() as raw:
            enforce(raw, each, overall)

    def agree(self, directory: str) -> str:
        """The id of the upload directory, or the URL of the spool, that all processes share: this one, if none was
        known before. Blocks; raises CatalogUnavailable."""
        with self._raw() as raw:
            raw.execute("UPDATE installation SET directory = $1 WHERE directory IS NULL", (directory,))
            if self._stored:  # a name that was mistyped binds nobody
                raw.execute(
                    f"""UPDATE installation SET directory = $1, marked = false
                        WHERE directory LIKE '%://%' AND directory <> $1 AND {_FREE}""",
                    (directory,),
                )
            row = raw.execute("SELECT directory FROM installation").fetchone()
            assert row is not None
            if self._stored and row[0] == directory:
                raw.execute("UPDATE installation SET oldest = $1 WHERE oldest < $1", (STORED,))
        return str(row[0])

    @reads
    def is_marked(self, connection: Connection) -> bool:
        """Whether its marker was seen in the store that is the spool; it stays there then."""
        return connection.execute("SELECT marked FROM installation").fetchall() == [(True,)]

    @writes
    def marked(self, connection: Connection) -> None:
        """Its marker was seen in the store."""
        connection.execute("UPDATE installation SET marked = true WHERE NOT marked")

    def signed(self) -> Sequence[str]:
        """See `PostgresWorkers.signed`. Blocks; raises CatalogUnavailable."""
        with self._raw() as raw:
            return signed(raw)

    @contextmanager
    def _raw(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            with self._connect() as raw:
                yield raw
        except psycopg.Error as error:
            raise unavailable(error) from error

    def start(self) -> None:
        """See `Jobs.start`."""
        self.jobs.start()

    def stop(self) -> Deferred[None]:
        """See `Jobs.stop`."""
        return self.jobs.stop()

    @writes
    def check(self, connection: Connection) -> None:
        """Change nothing, durably: fires when a change reaches the disk, fails as ICatalog's methods."""

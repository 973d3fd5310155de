"""On PostgreSQL: the table of uploads.

Invariants: those of `resumable.catalog.upload_table`, whichever worker changes a row; and a question is answered as the
database has it, by whichever worker it was changed. There is nothing to recover at a start: no bytes are adopted, and
no file without a record makes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from resumable.catalog.jobs import Jobs, frees, reads, writes
from resumable.catalog.outbox_table import OutboxTable
from resumable.catalog.postgres import upload_statements as statements
from resumable.catalog.postgres.postgres_batches import KeyedJob, SetJob, encoded, set_job
from resumable.catalog.postgres.postgres_connection import Connection
from resumable.catalog.postgres.postgres_replicas import END_FAILED
from resumable.catalog.postgres.postgres_schema import NOW
from resumable.catalog.replica_table import end_replicas
from resumable.catalog.schema import (
    ASKED_UNTIL,
    AWAITS_DIGEST,
    AWAITS_PLACE,
    FIELDS,
    NEEDS_EXPIRY,
    to_upload,
    to_uploads,
)
from resumable.catalog.upload_work import UploadWork
from resumable.model.segments import REMOVED_AFTER
from resumable.model.upload import Commit, Fact, GoneReason, ICatalog, Replica, Segment, StoreChange, Through, Upload

Rows: TypeAlias = Sequence[Mapping[str, Any]]
_NOT_PINNED: Final = "NOT EXISTS (SELECT 1 FROM pins WHERE partial_id = uploads.id)"


@implementer(ICatalog)
class PostgresUploadTable(UploadWork):
    """ICatalog on PostgreSQL, for the worker ``worker_id``, the keeper of what it begins; None: nobody is.

    Facts go to ``outbox``, for ``deliverers``. ``stored``: acknowledged bytes are in an object store.
    """

    def __init__(
        self, jobs: Jobs, outbox: OutboxTable, worker_id: str | None, deliverers: Sequence[str], stored: bool = False
    ) -> None:
        super().__init__(jobs, outbox)
        self.worker_id = worker_id
        self._stored = stored
        self._deliverers = list(deliverers)

    # From the creation to the end

    def create(
        self,
        upload: Upload,
        facts: Sequence[Fact],
        replicas: Sequence[Replica] = (),
        request: Mapping[str, Any] | None = None,
        through: Through | None = None,
        segment: Segment | StoreChange | None = None,
    ) -> Deferred[bool]:
        """See ICatalog. The upload's ``required`` is counted from the replicas, whatever it says."""
        upload = self._counted(upload, replicas)
        try:
            row = statements.upload_row(upload, segment, self.worker_id)
            if upload.partials and upload.finished_at is None and upload.gone is None:
                job: KeyedJob[bool] = KeyedJob(
                    lambda connection: self._create_final(connection, upload, row, facts, replicas, request),
                    writes=True,
                    key=upload.id,
                )
            else:
                copies, told = (
                    statements.replica_rows(upload.id, replicas, self.worker_id),
                    self._told(upload.id, facts),
                )
                statement = statements.create(bool(copies), bool(told), isinstance(segment, StoreChange))
                job = self._change(statement, upload.id, [row], copies, told, locks=False)
        except (TypeError, ValueError) as error:
            return fail(error)
        return self.jobs.submit(job, through)

    def _told(self, upload_id: str, facts: Sequence[Fact]) -> Rows:
        """The facts, where somebody wants them."""
        return statements.fact_rows(upload_id, facts, self._deliverers) if self._deliverers else ()

    def _change(
        self, statement: str, upload_id: str, row: Rows, copies: Rows = (), told: Rows = (), locks: bool = True
    ) -> SetJob[bool]:
        """The job for one change of an upload by ``statement``; ``copies`` and ``told`` are left out where empty."""

        def answer(landed: Sequence[Any] | None) -> bool:
            if landed is None:
                return False
            self.jobs.facts += len(told)
            return True

        return set_job(statement, upload_id, row, *filter(None, (copies, told)), answer=answer, locks=locks)

    LOCK_PARTIALS = "SELECT gone FROM uploads WHERE id = ANY(?) ORDER BY id FOR SHARE"

    def _create_final(
        self,
        connection: Any,
        upload: Upload,
        row: Mapping[str, Any],
        facts: Sequence[Fact],
        replicas: Sequence[Replica],
        request: Mapping[str, Any] | None,
    ) -> bool:
        """Its partials can't end before it pins them."""
        partials = connection.execute(self.LOCK_PARTIALS, (list(upload.partials),)).fetchall()
        if any(gone is not None for (gone,) in partials):
            return False
        if connection.execute(statements.create(), (encoded([row]),)).fetchone() is None:
            return False
        if upload.asked is not None and not self._ask(connection, upload, request):
            connection.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
            return False
        if replicas:
            copies = statements.replica_rows(upload.id, replicas, self.worker_id)
            connection.execute(statements.ADD_REPLICAS, (encoded(copies),))
        self._pin(connection, upload)
        self.outbox.take(connection, facts)
        return True

    def get(self, upload_id: str) -> Deferred[Upload | None]:
        """See ICatalog."""
        return self.jobs.submit(set_job(statements.GET, upload_id, [{"id": upload_id}], answer=_found, writes=False))

    GET_MANY = f"SELECT {FIELDS} FROM uploads WHERE id = ANY(?)"

    @reads
    def get_many(self, connection: Connection, upload_ids: Sequence[str]) -> Mapping[str, Upload]:
        rows = connection.execute(self.GET_MANY, (list(upload_ids),)).fetchall()
        return {upload.id: upload for upload in to_uploads(rows)}

    def begin(self, upload_id: str, epoch: int, start: int, boot_id: str, adoptable: int, at: float) -> Deferred[bool]:
        """See ICatalog. This worker keeps it from then on, until the last commit of the append or another take."""
        row = {"id": upload_id, "epoch": epoch, "start": start, "boot_id": boot_id, "adoptable": adoptable, "at": at}
        if self.worker_id is not None:
            row["kept_by"] = self.worker_id
        return self.jobs.submit(self._change(statements.BEGIN, upload_id, [row]))

    def commit(self, change: Commit, through: Through | None = None) -> Deferred[bool]:
        """See ICatalog. ValueError for an offset that goes back, and for a segment that hasn't just these bytes."""
        try:
            row, told = statements.commit_row(change), self._told(change.upload_id, change.facts)
        except (TypeError, ValueError) as error:
            return fail(error)
        statement = statements.commit(change.finished, bool(told), isinstance(change.segment, StoreChange))
        return self.jobs.submit(self._change(statement, change.upload_id, [row], told=told), through)

    LOCK = "SELECT 1 FROM uploads WHERE id = ? FOR NO KEY UPDATE"
    # An upload may have been touched, finished or pinned since it was found idle. A file in its place is to be removed,
    # though the data file may be gone.
    END = f"""UPDATE uploads SET gone = ?1, gone_at = GREATEST(touched_at, ?2), settled_at = NULL,
        on_disk = CASE WHEN placed IS NOT NULL THEN 1 ELSE on_disk END WHERE id = ?3 AND gone IS NULL
        AND (?1 <> '{GoneReason.EXPIRED.value}' OR (({NEEDS_EXPIRY}) AND {_NOT_PINNED}))
        AND (?1 <> '{GoneReason.LOST.value}' OR dropped_at IS NULL)
        AND (?4::float8 IS NULL OR (touched_at <= ?4 AND NOT EXISTS (SELECT 1 FROM pins
            JOIN uploads AS part ON part.id = pins.partial_id WHERE pins.final_id = ?3 AND part.touched_at > ?4)))"""

    TOUCH = f"""UPDATE uploads SET touched_at = GREATEST(touched_at, ?1) WHERE id = ?2 AND epoch = ?3
        AND {statements.OPEN}"""

    @writes
    def touch(self, connection: Connection, upload_id: str, epoch: int, at: float) -> bool:
        return connection.execute(self.TOUCH, (at, upload_id, epoch)).rowcount == 1

    def end(
        self,
        upload_id: str,
        gone: GoneReason,
        at: float,
        facts: Sequence[Fact],
        delete: bool = False,
        refusal: Mapping[str, Any] | None = None,
        idle_since: float | None = None,
    ) -> Deferred[bool]:
        """See ICatalog. No partial expires that an unfinished final needs; no final while its partials are touched."""

        def run(connection: Any) -> bool:
            connection.execute(self.LOCK, (upload_id,))  # the next statement sees what was committed before
            if connection.execute(self.END, (gone.value, at, upload_id, idle_since)).rowcount != 1:
                return False
            end_replicas(connection, upload_id, delete, END_FAILED)
            self._unmade(connection, upload_id, at, refusal)
            self.outbox.take(connection, facts)
            return True

        return self.jobs.submit(KeyedJob(run, writes=True, frees=True, key=upload_id))

    # The work that waits for uploads

    # By the index, which is about the creation: see schema.py.
    EXPIRED = UploadWork.EXPIRED.replace(
        "touched_at < ?1 AND settled_at", "touched_at < ?1 AND created_at < ?1 AND settled_at"
    )
    REMOVABLE = f"""SELECT id FROM uploads WHERE on_disk = 1 AND {_NOT_PINNED} AND ((gone <> 'lost'
        AND gone_at <= {NOW} - {REMOVED_AFTER}) OR (gone IS NULL AND dropped_at <= {NOW} - {REMOVED_AFTER}))
        ORDER BY gone_at NULLS FIRST LIMIT ?"""
    # Only a whole upload has a file that can be put in its place.
    UNPLACED = f"""SELECT {FIELDS} FROM uploads WHERE {AWAITS_PLACE} AND id > ? AND finished_at IS NOT NULL
        AND gone IS NULL AND whole ORDER BY id LIMIT ?"""
    PLACED = f"{UploadWork.PLACED} AND whole"
    UNDIGESTED = f"""SELECT {FIELDS} FROM uploads WHERE {AWAITS_DIGEST} AND id > ? AND finished_at IS NOT NULL
        AND gone IS NULL ORDER BY id LIMIT ?"""
    DROP_SEGMENTS = """DELETE FROM segments USING uploads WHERE upload_id = uploads.id AND on_disk = 0
        AND upload_id = ANY(?)"""
    DROP_PARTS = DROP_SEGMENTS.replace("segments", "parts")
    DROP_PIECES = DROP_SEGMENTS.replace("segments", "pieces")

    @frees
    def removed(self, connection: Connection, upload_ids: Sequence[str], unplaced: Sequence[str] = ()) -> None:
        connection.executemany(self.NOT_PLACED, [(one,) for one in sorted(unplaced)])
        connection.executemany(self.REMOVED, [(one,) for one in sorted(upload_ids)])
        drops = (self.DROP_PARTS, self.DROP_PIECES) if self._stored else (self.DROP_SEGMENTS,)
        for drop in drops:
            connection.execute(drop, (list(upload_ids),))

    # An upload is stored no earlier than it was finished.
    FORGET_ASKED = f"""DELETE FROM finals WHERE key IN (SELECT key FROM finals
        LEFT JOIN uploads ON uploads.id = finals.id WHERE finals.at < ?1 AND {ASKED_UNTIL} < ?1 LIMIT ?2)"""
    UNASSEMBLED = UploadWork.UNASSEMBLED.replace(" INDEXED BY pins_by_final", "")
    # As floating point: a sum of what clients declare could overflow; it is exact below 8 PiB.
    OWNERS = """SELECT COALESCE(owner, ''), SUM(COALESCE(length, offset)::float8),
        SUM(CASE WHEN finished_at IS NULL THEN COALESCE(length, offset) ELSE 0 END::float8),
        COUNT(*) - COUNT(finished_at) FROM uploads WHERE gone IS NULL GROUP BY 1 ORDER BY 1"""


def _found(row: tuple[Any, ...] | None) -> Upload | None:
    return None if row is None else to_upload(row)

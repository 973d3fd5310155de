"""On PostgreSQL: the tables of parts and of pieces, where acknowledged bytes are in an object store.

Invariants: those of `resumable.model.stored`. A change of an upload's parts and pieces locks the upload's row first; a
layout is read in one statement, so no change is half seen in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from resumable.catalog.jobs import Jobs, reads, writes
from resumable.catalog.postgres import stored_statements as stores
from resumable.catalog.postgres.discarded_table import DiscardedTable, discarded_of, unknown_of
from resumable.catalog.postgres.postgres_batches import set_job
from resumable.catalog.postgres.postgres_connection import Connection
from resumable.catalog.postgres.upload_statements import ONLY_THESE, TAKE, fact_rows
from resumable.catalog.schema import to_json
from resumable.model.stored import IStored, StoredLayout
from resumable.model.upload import Fact, Piece, StoreChange, StoredPart

_HAS_DATA: Final = "uploads.on_disk = 1 AND uploads.dropped_at IS NULL"
# A partial that is gone becomes an object as long as a final needs it.
_IS_STORING: Final = f"""NOT uploads.whole AND {_HAS_DATA}
    AND (uploads.gone IS NULL OR EXISTS (SELECT 1 FROM pins WHERE partial_id = uploads.id))"""
_COLUMNS: Final = """uploads.id, uploads.offset, uploads.length, uploads.epoch, uploads.finished_at IS NOT NULL,
    uploads.concat IS NOT NULL AND uploads.partials IS NULL, uploads.gone IS NOT NULL, uploads.whole, uploads.multipart,
    uploads.reserved"""
_PIECES: Final = """(SELECT json_agg(json_build_array(start, size, name) ORDER BY start) FROM pieces
    WHERE pieces.upload_id = uploads.id), uploads.made"""
_LAYOUT: Final = f"""{_COLUMNS}, (SELECT json_agg(json_build_array(start, size, number, name, receipt) ORDER BY start)
    FROM parts WHERE parts.upload_id = uploads.id), {_PIECES}"""
_END: Final = "SELECT start, size, number, name, receipt FROM parts WHERE parts.upload_id = uploads.id ORDER BY start"
_TAIL: Final = f"""{_COLUMNS}, (SELECT json_agg(json_build_array(start, size, number, name, receipt) ORDER BY start)
    FROM (({_END} LIMIT 1) UNION ({_END} DESC LIMIT 1)) AS ends), {_PIECES}"""
_THESE: Final = "uploads.id = ANY(ARRAY(SELECT id FROM json_to_recordset(?1) AS job(id text)))"


@implementer(IStored)
class StoredTable(DiscardedTable):
    """IStored. Facts are for ``deliverers``."""

    def __init__(self, jobs: Jobs, deliverers: Sequence[str] = ()) -> None:
        super().__init__(jobs)
        self._deliverers = list(deliverers)

    # Questions

    OF = f"SELECT {_LAYOUT} FROM uploads WHERE {_THESE} AND {_HAS_DATA}"

    def of(self, upload_id: str) -> Deferred[StoredLayout | None]:
        """See IStored."""
        return self.jobs.submit(set_job(self.OF, upload_id, [{"id": upload_id}], answer=_found, writes=False))

    TAIL_OF = f"SELECT {_TAIL} FROM uploads WHERE {_THESE} AND {_HAS_DATA}"

    def tail_of(self, upload_id: str) -> Deferred[StoredLayout | None]:
        """See IStored."""
        return self.jobs.submit(set_job(self.TAIL_OF, upload_id, [{"id": upload_id}], answer=_found, writes=False))

    OF_MANY = f"SELECT {_LAYOUT} FROM uploads WHERE id = ANY(?) AND {_HAS_DATA}"

    @reads
    def of_many(self, connection: Connection, upload_ids: Sequence[str]) -> Mapping[str, StoredLayout]:
        rows = connection.execute(self.OF_MANY, (list(upload_ids),)).fetchall()
        return {row[0]: _layout(row) for row in rows}

    TAILS_OF = f"SELECT {_TAIL} FROM uploads WHERE id = ANY(?) AND {_HAS_DATA}"

    @reads
    def tails_of(self, connection: Connection, upload_ids: Sequence[str]) -> Mapping[str, StoredLayout]:
        rows = connection.execute(self.TAILS_OF, (list(upload_ids),)).fetchall()
        return {row[0]: _layout(row) for row in rows}

    DATA_OF = "SELECT name, data FROM pieces WHERE upload_id = ? AND name = ANY(?) AND data IS NOT NULL"

    @reads
    def data_of(self, connection: Connection, upload_id: str, names: Sequence[str]) -> Mapping[str, bytes]:
        rows = connection.execute(self.DATA_OF, (upload_id, list(names)), binary=True).fetchall()
        return {name: bytes(data) for name, data in rows}

    COMPLETABLE = """SELECT id FROM uploads WHERE NOT whole AND finished_at IS NOT NULL AND gone IS NULL
        AND on_disk = 1 AND dropped_at IS NULL AND id > ? ORDER BY id LIMIT ?"""

    @reads
    def completable(self, connection: Connection, after: str, limit: int) -> Sequence[str]:
        return [upload_id for (upload_id,) in connection.execute(self.COMPLETABLE, (after, limit)).fetchall()]

    # Changes

    KEEP_MULTIPART = f"""WITH job AS (SELECT * FROM json_to_recordset(?1) AS job(id text, epoch bigint, multipart text))
        UPDATE uploads SET multipart = job.multipart FROM job WHERE {ONLY_THESE} AND uploads.id = job.id
            AND uploads.epoch = job.epoch AND uploads.multipart IS NULL AND {_IS_STORING} RETURNING uploads.id"""

    def keep_multipart(self, upload_id: str, epoch: int, multipart: str) -> Deferred[bool]:
        """See IStored."""
        row = {"id": upload_id, "epoch": epoch, "multipart": multipart}
        return self.jobs.submit(set_job(self.KEEP_MULTIPART, upload_id, [row]))

    RESERVE = f"""WITH job AS (SELECT * FROM json_to_recordset(?1) AS job(id text, epoch bigint, reserved integer))
        UPDATE uploads SET reserved = job.reserved FROM job WHERE {ONLY_THESE} AND uploads.id = job.id
            AND uploads.epoch = job.epoch AND uploads.reserved < job.reserved AND {_IS_STORING} RETURNING uploads.id"""

    def reserve(self, upload_id: str, epoch: int, reserved: int) -> Deferred[bool]:
        """See IStored."""
        return self._reserve(self.RESERVE, upload_id, epoch, reserved)

    # Who completes a finished upload goes by the same epoch.
    UNRESERVE = RESERVE.replace("reserved < job.reserved", "reserved > job.reserved AND uploads.finished_at IS NULL")

    def unreserve(self, upload_id: str, epoch: int, reserved: int) -> Deferred[bool]:
        """See IStored."""
        return self._reserve(self.UNRESERVE, upload_id, epoch, reserved)

    def _reserve(self, statement: str, upload_id: str, epoch: int, reserved: int) -> Deferred[bool]:
        row = {"id": upload_id, "epoch": epoch, "reserved": reserved}
        return self.jobs.submit(set_job(statement, upload_id, [row]))

    COMPLETED = f"""WITH job AS (SELECT * FROM json_to_recordset(?1) AS job(id text, made text, at float8)),
        moved AS (UPDATE uploads SET whole = true, made = job.made, touched_at = GREATEST(uploads.touched_at, job.at)
            FROM job WHERE {ONLY_THESE} AND uploads.id = job.id AND {_IS_STORING} AND uploads.finished_at IS NOT NULL
            RETURNING uploads.id),
        dropped_parts AS (DELETE FROM parts WHERE upload_id = ANY(ARRAY(SELECT id FROM moved)) RETURNING name),
        dropped_pieces AS (DELETE FROM pieces WHERE upload_id = ANY(ARRAY(SELECT id FROM moved)) RETURNING name),
        dropped AS (SELECT name FROM dropped_parts UNION ALL SELECT name FROM dropped_pieces),
        discards AS ({stores.DISCARD})"""
    COMPLETED_SILENTLY = f"{COMPLETED} SELECT id FROM moved"
    COMPLETED_AND_TOLD = f"{COMPLETED}, told AS ({TAKE.format(number=2, of='moved')}) SELECT id FROM moved"

    def completed(
        self, upload_id: str, made: Mapping[str, Any], at: float, facts: Sequence[Fact] = ()
    ) -> Deferred[bool]:
        """See IStored. The upload is touched then."""
        try:
            row = {"id": upload_id, "made": to_json(made), "at": at}
            told = fact_rows(upload_id, facts, self._deliverers) if self._deliverers else []
        except TypeError as error:
            return fail(error)

        def answer(landed: Sequence[Any] | None) -> bool:
            if landed is not None:
                self.jobs.facts += len(told)
            return landed is not None

        if told:
            return self.jobs.submit(set_job(self.COMPLETED_AND_TOLD, upload_id, [row], told, answer=answer))
        return self.jobs.submit(set_job(self.COMPLETED_SILENTLY, upload_id, [row]))

    # What its claim's holders have reserved stays reserved.
    ADD_LAST = f"""WITH job AS (SELECT * FROM json_to_recordset(?1) AS job(id text, epoch bigint, {stores.COLUMNS})),
        moved AS (UPDATE uploads SET reserved = GREATEST(uploads.reserved, job.reserved),
            multipart = COALESCE(uploads.multipart, job.multipart)
            FROM job WHERE {ONLY_THESE} AND uploads.id = job.id AND uploads.epoch = job.epoch AND {_IS_STORING}
            AND uploads.finished_at IS NOT NULL RETURNING uploads.id, {stores.TOLD}),
        {", ".join(stores.CHANGED)} {stores.LANDED}"""

    def add_last(self, upload_id: str, epoch: int, change: StoreChange) -> Deferred[bool]:
        """See IStored. False also when it is unfinished, has another epoch, or has other parts or pieces than those
        that would follow each other then. ValueError for a change with a piece, or an object of all bytes."""
        if change.piece is not None or change.made is not None or not change.parts:
            return fail(ValueError("only parts are made of a tail"))
        end = change.parts[-1].start + change.parts[-1].size
        try:
            row = {"id": upload_id, "epoch": epoch, **stores.stored_row(change, end, end, True)}
        except ValueError as error:
            return fail(error)
        return self.jobs.submit(set_job(self.ADD_LAST, upload_id, [row]))

    # Objects that nobody needs

    DISCARDED, UNKNOWN = discarded_of("parts", "pieces"), unknown_of("parts", "pieces")
    DISCARD = """INSERT INTO discarded (name) SELECT DISTINCT name FROM unnest(?::text[]) AS given(name)
        WHERE name LIKE '.%' ORDER BY name ON CONFLICT DO NOTHING"""

    @writes
    def discard(self, connection: Connection, names: Sequence[str]) -> None:
        connection.execute(self.DISCARD, (list(names),))


def _layout(row: Sequence[Any]) -> StoredLayout:
    *about, parts, pieces, made = row
    values: list[Any] = [*about]
    values += tuple(StoredPart(*each) for each in parts or ()), tuple(Piece(*each) for each in pieces or ())
    values.append(None if made is None else json.loads(made))
    return StoredLayout(*values)


def _found(row: tuple[Any, ...] | None) -> StoredLayout | None:
    return None if row is None else _layout(row)

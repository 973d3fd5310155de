"""On PostgreSQL: the tables of segments and of discarded files.

Invariants: those of `resumable.model.segments`. A change of an upload's segments locks the upload's row first; a layout
is read in one statement, so no change is half seen in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resumable.catalog.jobs import CatalogTable, frees, reads
from resumable.catalog.postgres.postgres_batches import KeyedJob, set_job
from resumable.catalog.postgres.postgres_connection import Connection
from resumable.catalog.postgres.postgres_schema import NOW
from resumable.catalog.postgres.upload_statements import OPEN
from resumable.model.segments import MOST_SEGMENTS, REMOVED_AFTER, ISegments, Layout
from resumable.model.upload import WHOLE, Segment

_LAYOUT: Final = """uploads.id, uploads.offset, uploads.whole, (SELECT json_agg(json_build_array(start, size, name)
    ORDER BY start) FROM segments WHERE segments.upload_id = uploads.id AND NOT uploads.whole)"""
_HAS_DATA: Final = "uploads.on_disk = 1"


@implementer(ISegments)
class SegmentTable(CatalogTable):
    """ISegments."""

    # Questions

    OF = f"""SELECT {_LAYOUT} FROM json_to_recordset(?1) AS job(id text) JOIN uploads USING (id)
        WHERE {_HAS_DATA}"""

    def of(self, upload_id: str) -> Deferred[Layout | None]:
        """See ISegments."""
        return self.jobs.submit(set_job(self.OF, upload_id, [{"id": upload_id}], answer=_found, writes=False))

    OF_MANY = f"SELECT {_LAYOUT} FROM uploads WHERE id = ANY(?) AND {_HAS_DATA}"

    @reads
    def of_many(self, connection: Connection, upload_ids: Sequence[str]) -> Mapping[str, Layout]:
        rows = connection.execute(self.OF_MANY, (list(upload_ids),)).fetchall()
        return {row[0]: _layout(row) for row in rows}

    JOINABLE = f"""SELECT {_LAYOUT} FROM uploads WHERE NOT whole AND finished_at IS NOT NULL AND gone IS NULL
        AND on_disk = 1 AND dropped_at IS NULL AND id > ? ORDER BY id LIMIT ?"""

    @reads
    def joinable(self, connection: Connection, after: str, limit: int) -> Sequence[Layout]:
        return [_layout(row) for row in connection.execute(self.JOINABLE, (after, limit)).fetchall()]

    CROWDED = f"""SELECT {_LAYOUT} FROM uploads JOIN (SELECT upload_id FROM segments WHERE upload_id > ?1
            GROUP BY upload_id HAVING COUNT(*) > {MOST_SEGMENTS}) AS crowded ON crowded.upload_id = uploads.id
        WHERE {OPEN} ORDER BY uploads.id LIMIT ?2"""

    @reads
    def crowded(self, connection: Connection, after: str, limit: int) -> Sequence[Layout]:
        return [_layout(row) for row in connection.execute(self.CROWDED, (after, limit)).fetchall()]

    # Changes

    MADE_WHOLE = """WITH
        made AS (UPDATE uploads SET whole = true FROM json_to_recordset(?1) AS job(id text)
            WHERE uploads.id = job.id AND NOT whole AND finished_at IS NOT NULL AND gone IS NULL
            AND dropped_at IS NULL AND on_disk = 1 RETURNING uploads.id),
        dropped AS (DELETE FROM segments USING made WHERE segments.upload_id = made.id RETURNING name),
        kept AS (INSERT INTO discarded (name) SELECT name FROM dropped)
        SELECT id FROM made"""

    def made_whole(self, upload_id: str) -> Deferred[bool]:
        """See ISegments. False also when the upload is unfinished, or its data was dropped."""
        return self.jobs.submit(set_job(self.MADE_WHOLE, upload_id, [{"id": upload_id}]))

    LOCK = f"""SELECT 1 FROM uploads WHERE id = ? AND NOT whole AND gone IS NULL AND dropped_at IS NULL AND {_HAS_DATA}
        FOR NO KEY UPDATE"""
    SEGMENTS = "SELECT start, size, name FROM segments WHERE upload_id = ? ORDER BY start"
    DROP = """WITH dropped AS (DELETE FROM segments WHERE upload_id = ?1 AND start >= ?2 AND start < ?3 RETURNING name)
        INSERT INTO discarded (name) SELECT name FROM dropped"""
    ADD = "INSERT INTO segments (upload_id, start, size, name) VALUES (?, ?, ?, ?)"

    def joined(self, upload_id: str, replaced: Sequence[Segment], joined: Segment) -> Deferred[bool]:
        """See ISegments. False also when the upload is gone. ValueError for a segment of other bytes than theirs."""
        start, end = joined.start, _end(joined)
        if any(_end(one) != other.start for one, other in pairwise(replaced)):
            return succeed(False)
        if not replaced or joined.name == WHOLE or (start, end) != (replaced[0].start, _end(replaced[-1])):
            return fail(ValueError(f"{joined} is not what {list(replaced)} have"))
        wanted = [(segment.start, segment.size, segment.name) for segment in replaced]

        def run(connection: Any) -> bool:
            if connection.execute(self.LOCK, (upload_id,)).fetchone() is None:
                return False
            *others, _ = connection.execute(self.SEGMENTS, (upload_id,)).fetchall() or [None]
            if [row for row in others if start <= row[0] < end] != wanted:
                return False
            connection.execute(self.DROP, (upload_id, start, end))
            connection.execute(self.ADD, (upload_id, start, joined.size, joined.name))
            return True

        return self.jobs.submit(KeyedJob(run, writes=True, frees=True, key=upload_id))

    # Files that nobody needs

    DISCARDED = f"""SELECT name FROM discarded WHERE at <= {NOW} - {REMOVED_AFTER}
        AND NOT EXISTS (SELECT 1 FROM segments WHERE segments.name = discarded.name) ORDER BY at, name LIMIT ?"""

    @reads
    def discarded(self, connection: Connection, limit: int) -> Sequence[str]:
        return [name for (name,) in connection.execute(self.DISCARDED, (limit,)).fetchall()]

    @frees
    def removed(self, connection: Connection, names: Sequence[str]) -> None:
        connection.execute("DELETE FROM discarded WHERE name = ANY(?)", (list(names),))

    UNKNOWN = """SELECT name FROM unnest(?::text[]) WITH ORDINALITY AS given(name, number)
        WHERE NOT EXISTS (SELECT 1 FROM segments WHERE segments.name = given.name)
        AND NOT EXISTS (SELECT 1 FROM discarded WHERE discarded.name = given.name) ORDER BY number"""

    @reads
    def unknown(self, connection: Connection, names: Sequence[str]) -> Sequence[str]:
        return [name for (name,) in connection.execute(self.UNKNOWN, (list(names),)).fetchall()]

    UNKNOWN_UPLOADS = f"""SELECT id FROM unnest(?::text[]) WITH ORDINALITY AS given(id, number) WHERE NOT EXISTS
        (SELECT 1 FROM uploads WHERE uploads.id = given.id AND whole AND {_HAS_DATA}) ORDER BY number"""

    @reads
    def unknown_uploads(self, connection: Connection, upload_ids: Sequence[str]) -> Sequence[str]:
        return [one for (one,) in connection.execute(self.UNKNOWN_UPLOADS, (list(upload_ids),)).fetchall()]


def _end(segment: Segment) -> int:
    return segment.start + segment.size


def _layout(row: Sequence[Any]) -> Layout:
    upload_id, offset, whole, found = row
    segments = tuple(Segment(start, size, name, known=size) for start, size, name in found or ())
    return Layout(upload_id, offset, whole, segments)


def _found(row: tuple[Any, ...] | None) -> Layout | None:
    return None if row is None else _layout(row)

"""On PostgreSQL: the table of segments, and that of discarded files (see `discarded_table`).

Invariants: those of `resumable.model.segments`. A change of an upload's segments locks the upload's row first; a layout
is read in one statement, so no change is half seen in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.catalog.jobs import reads
from resumable.catalog.postgres.discarded_table import DiscardedTable, discarded_of, unknown_of
from resumable.catalog.postgres.postgres_batches import KeyedJob, set_job
from resumable.catalog.postgres.postgres_connection import Connection
from resumable.catalog.postgres.upload_statements import OPEN
from resumable.model.segments import MOST_SEGMENTS, ISegments, Layout
from resumable.model.upload import WHOLE, Segment

_LAYOUT: Final = """uploads.id, uploads.offset, uploads.whole, (SELECT json_agg(json_build_array(start, size, name)
    ORDER BY start) FROM segments WHERE segments.upload_id = uploads.id AND NOT uploads.whole)"""
ROWS: Final = 5000
"""Rows of segments that one question looks at, more than `MOST_SEGMENTS`: some milliseconds, which others wait."""
_HAS_DATA: Final = "uploads.on_disk = 1"


@implementer(ISegments)
class SegmentTable(DiscardedTable):
    """ISegments."""

    # Questions

    OF = f"""SELECT {_LAYOUT} FROM uploads
        WHERE id = ANY(ARRAY(SELECT id FROM json_to_recordset(?1) AS job(id text))) AND {_HAS_DATA}"""

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

    @deferred
    async def crowded(self, after: str, limit: int) -> Sequence[Layout]:
        """See ISegments. Goes through all segments, `ROWS` of them in each question."""
        found: list[Layout] = []
        place: str | None = after
        while place is not None and len(found) < limit:
            crowded, place = await self._crowded(place)
            found += crowded
        return found[:limit]

    # Of the next rows, the uploads with many, and the last two.
    COUNTED = f"""SELECT upload_id, count, rows FROM (
            SELECT upload_id, COUNT(*) AS count, SUM(COUNT(*)) OVER () AS rows,
                row_number() OVER (ORDER BY upload_id DESC) AS from_end FROM (SELECT upload_id FROM segments
                WHERE upload_id > ? ORDER BY upload_id LIMIT ?) AS page GROUP BY upload_id) AS counted
        WHERE count > {MOST_SEGMENTS} OR from_end <= 2 ORDER BY upload_id"""
    CROWDED = f"SELECT {_LAYOUT} FROM uploads WHERE id = ANY(?) AND {OPEN} ORDER BY id"

    @reads
    def _crowded(self, connection: Connection, after: str) -> tuple[Sequence[Layout], str | None]:
        """Those among the next rows, and the id behind which to go on; None: these were the last."""
        rows = connection.execute(self.COUNTED, (after, ROWS)).fetchall()
        ids = [upload_id for upload_id, count, _ in rows if count > MOST_SEGMENTS]
        place = None
        if rows and rows[-1][2] == ROWS:  # the last one may have more, and is counted anew
            place = rows[-1 if rows[-1][1] > MOST_SEGMENTS else -2][0]
        found = connection.execute(self.CROWDED, (ids,)).fetchall() if ids else []
        return [_layout(row) for row in found], place

    # Pages of rows, not of answers: a stretch of uploads without data costs no more than another.
    KEPT = f"""SELECT {_LAYOUT}, {_HAS_DATA} AND gone IS NULL AND dropped_at IS NULL AND uploads.offset > 0
        FROM (SELECT * FROM uploads WHERE id > ? ORDER BY id LIMIT ?) AS uploads ORDER BY uploads.id"""

    @reads
    def kept(self, connection: Connection, after: str, limit: int) -> tuple[Sequence[Layout], str | None]:
        rows = connection.execute(self.KEPT, (after, limit)).fetchall()
        last = rows[-1][0] if len(rows) == limit else None
        return [_layout(row) for *row, is_kept in rows if is_kept], last

    # Changes

    MADE_WHOLE = """WITH
        made AS (UPDATE uploads SET whole = true
            WHERE id = ANY(ARRAY(SELECT id FROM json_to_recordset(?1) AS job(id text)))
            AND NOT whole AND finished_at IS NOT NULL AND gone IS NULL AND dropped_at IS NULL AND on_disk = 1
            RETURNING uploads.id),
        dropped AS (DELETE FROM segments WHERE upload_id = ANY(ARRAY(SELECT id FROM made)) RETURNING name),
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

    DISCARDED, UNKNOWN = discarded_of("segments"), unknown_of("segments")

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

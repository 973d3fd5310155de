"""On PostgreSQL: what statements that create, commit and complete uploads do with bytes in an object store.

Invariant: all bytes up to the offset are in the rows of parts, and of pieces behind them, without a gap; or the upload
is whole, and there are none. A change that would leave a gap raises `resumable_conflict()`, and lands nowhere.

These are fragments of a statement over JSON, whose ``job`` has `COLUMNS`, and whose ``moved`` returns ``id`` and `TOLD`
of the rows of ``uploads`` that have changed.
"""

from __future__ import annotations

from typing import Any, Final

from resumable.catalog.postgres.postgres_connection import BYTES
from resumable.catalog.schema import to_json
from resumable.model.stored import check_change
from resumable.model.upload import StoreChange

COLUMNS: Final = """reserved integer, multipart text, made text, parts json, first_part bigint, cut bigint,
    piece_start bigint, piece_size bigint, piece_name text, piece_data integer"""
MOVED: Final = """reserved = COALESCE(job.reserved, uploads.reserved),
    multipart = COALESCE(uploads.multipart, job.multipart)"""
FINISHED: Final = "made = job.made, whole = job.made IS NOT NULL"
TOLD: Final = """uploads.offset AS reached, job.first_part, job.cut, job.piece_size, job.made IS NOT NULL AS is_made,
    COALESCE(job.multipart <> uploads.multipart, false) AS has_another"""

DISCARD: Final = """INSERT INTO discarded (name) SELECT name FROM dropped WHERE name LIKE '.%' ORDER BY name
    ON CONFLICT (name) DO UPDATE SET at = excluded.at"""
"""What rows have named just now goes later, also where it was discarded before."""

_DROPPED_PIECES: Final = """DELETE FROM pieces USING moved
    WHERE upload_id = ANY(ARRAY(SELECT id FROM moved WHERE cut IS NOT NULL)) AND upload_id = moved.id AND start < cut
    RETURNING name"""
_DROPPED_PARTS: Final = """DELETE FROM parts WHERE upload_id = ANY(ARRAY(SELECT id FROM moved WHERE is_made))
    RETURNING name"""


def _added(of: str) -> tuple[str, ...]:
    return (
        f"""added_parts AS (INSERT INTO parts (upload_id, start, size, number, name, receipt)
            SELECT id, part.start, part.size, part.number, part.name, part.receipt FROM job CROSS JOIN LATERAL
            json_to_recordset(parts) AS part(start bigint, size bigint, number integer, name text, receipt text)
            WHERE parts IS NOT NULL AND (id IN (SELECT id FROM {of})) IS TRUE)""",
        f"""added_pieces AS (INSERT INTO pieces (upload_id, start, size, name, data)
            SELECT id, piece_start, piece_size, piece_name, ({BYTES})[piece_data] FROM job
            WHERE piece_name IS NOT NULL AND (id IN (SELECT id FROM {of})) IS TRUE)""",
    )


NEW: Final = _added("made")
"""With the row of a new upload: there was nothing before."""
CHANGED: Final = (
    f"dropped_pieces AS ({_DROPPED_PIECES})",
    f"dropped AS (SELECT name FROM dropped_pieces), discards AS ({DISCARD})",
    *_added("moved"),
)
"""With a commit that doesn't finish the upload, and with the last parts."""
CHANGED_LAST: Final = (
    f"dropped_pieces AS ({_DROPPED_PIECES})",
    f"dropped_parts AS ({_DROPPED_PARTS})",
    "dropped AS (SELECT name FROM dropped_pieces UNION ALL SELECT name FROM dropped_parts)",
    f"discards AS ({DISCARD})",
    *_added("moved"),
)
"""With a commit that does."""

# As they were before this statement.
_PARTS_END: Final = """COALESCE((SELECT start + size FROM parts WHERE upload_id = moved.id
    ORDER BY start DESC LIMIT 1), 0)"""
_IS_OUT_OF_DATE: Final = f"""NOT is_made AND (has_another OR first_part <> {_PARTS_END} OR COALESCE(cut, {_PARTS_END})
    + COALESCE((SELECT SUM(size) FROM pieces WHERE upload_id = moved.id AND start >= COALESCE(cut, 0)), 0)
    + COALESCE(piece_size, 0) <> reached)"""
LANDED: Final = f"SELECT id, CASE WHEN {_IS_OUT_OF_DATE} THEN resumable_conflict() END FROM moved"


def stored_row(change: StoreChange, start: int, offset: int, finished: bool) -> dict[str, Any]:
    """What a change from ``start`` to ``offset`` has of its bytes. Raises ValueError as `check_change`."""
    check_change(change, start, offset, finished)
    row: dict[str, Any] = {"reserved": change.reserved}
    if change.multipart is not None:
        row["multipart"] = change.multipart
    if change.made is not None:
        return {**row, "made": to_json(change.made), "cut": offset}
    if change.parts:
        row["parts"] = [
            {"start": each.start, "size": each.size, "number": each.number, "name": each.name, "receipt": each.receipt}
            for each in change.parts
        ]
        row |= {"first_part": change.parts[0].start, "cut": change.parts[-1].start + change.parts[-1].size}
    if (piece := change.piece) is not None:
        row |= {"piece_start": piece.start, "piece_size": piece.size, "piece_name": piece.name}
        if piece.data is not None:
            row["piece_data"] = piece.data
    return row


def new_row(change: StoreChange, offset: int, finished: bool) -> dict[str, Any]:
    """The same of a new upload. Raises ValueError also for bytes that are in no part and no piece."""
    row = stored_row(change, 0, offset, finished)
    if change.made is None and (
        row.get("first_part", 0) != 0 or row.get("piece_start", offset) != row.get("cut", 0 if change.piece else offset)
    ):
        raise ValueError(f"parts and piece haven't all {offset} bytes")
    return row

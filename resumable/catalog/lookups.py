"""What can be asked of the catalog.

Changes when a question of ICatalog does. Invariant: none of these but `owners`, for the start, looks at rows that no
one waits for; each goes by an index of schema.py, so its cost does not grow with the uploads that are finished.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from attrs import frozen

from resumable.catalog.records import FIELDS, to_upload, to_uploads
from resumable.catalog.schema import AWAITS_PLACE, HAS_DATA, NEEDS_EXPIRY, WAITING_FINAL
from resumable.interfaces import Upload

GET = f"SELECT {FIELDS} FROM uploads WHERE id = ?"
REMOVABLE = f"""SELECT id FROM uploads WHERE {HAS_DATA}
    AND NOT EXISTS (SELECT 1 FROM pins WHERE partial_id = uploads.id) ORDER BY gone_at LIMIT ?"""
# An append to a partial touches the finals that wait for it. A final is left out once nothing but its assembly
# is missing, and kept in as long as a partial is unfinished or unknown.
EXPIRED = f"""SELECT {FIELDS} FROM uploads WHERE {NEEDS_EXPIRY} AND touched_at < ?1
    AND NOT EXISTS (SELECT 1 FROM pins WHERE partial_id = uploads.id)
    AND (partials IS NULL OR (
        EXISTS (SELECT 1 FROM pins LEFT JOIN uploads AS part ON part.id = pins.partial_id
                WHERE pins.final_id = uploads.id AND part.finished_at IS NULL)
        AND NOT EXISTS (SELECT 1 FROM pins JOIN uploads AS part ON part.id = pins.partial_id
                WHERE pins.final_id = uploads.id AND part.touched_at >= ?1)))
    ORDER BY touched_at LIMIT ?2"""
FINALS_OF = f"""SELECT {FIELDS} FROM uploads JOIN pins ON pins.final_id = uploads.id
    WHERE pins.partial_id = ? ORDER BY created_at, seq"""
UNASSEMBLED = f"SELECT {FIELDS} FROM uploads WHERE {WAITING_FINAL} ORDER BY created_at, seq"
ADOPTABLE = f"""SELECT {FIELDS} FROM uploads INDEXED BY uploads_to_expire WHERE finished_at IS NULL AND gone IS NULL
    AND adoptable > offset AND boot_id = ? ORDER BY seq"""
UNPLACED = f"""SELECT {FIELDS} FROM uploads INDEXED BY uploads_to_place WHERE {AWAITS_PLACE} AND id > ?
    AND finished_at IS NOT NULL AND gone IS NULL ORDER BY id LIMIT ?"""
IDS = "SELECT seq, id FROM uploads WHERE seq > ? ORDER BY seq LIMIT ?"
OWNER_OF = "SELECT IFNULL(owner, '') FROM uploads WHERE id = ?"
# TOTAL, as a SUM of what clients declare could overflow; it is exact below 8 PiB.
OWNERS = """SELECT IFNULL(owner, ''), TOTAL(IFNULL(length, offset)),
    TOTAL(CASE WHEN finished_at IS NULL THEN IFNULL(length, offset) END), COUNT(*) - COUNT(finished_at)
    FROM uploads WHERE gone IS NULL GROUP BY 1 ORDER BY 1"""


@frozen
class Owned:
    """What one identity ("": nobody) has here: bytes of uploads that are not gone, by their length if that is known,
    else by their offset; how many of these bytes, and how many uploads, are unfinished."""

    owner: str
    size: int
    unfinished_size: int
    unfinished: int


def get(connection: sqlite3.Connection, upload_id: str) -> Upload | None:
    row = connection.execute(GET, (upload_id,)).fetchone()
    return None if row is None else to_upload(row)


def get_many(connection: sqlite3.Connection, upload_ids: Sequence[str]) -> dict[str, Upload]:
    found = (get(connection, upload_id) for upload_id in upload_ids)
    return {upload.id: upload for upload in found if upload is not None}


def removable(connection: sqlite3.Connection, limit: int) -> list[str]:
    return [row[0] for row in connection.execute(REMOVABLE, (limit,)).fetchall()]


def expired(connection: sqlite3.Connection, idle_since: float, limit: int) -> list[Upload]:
    return to_uploads(connection.execute(EXPIRED, (idle_since, limit)).fetchall())


def finals_of(connection: sqlite3.Connection, partial_id: str) -> list[Upload]:
    return to_uploads(connection.execute(FINALS_OF, (partial_id,)).fetchall())


def unassembled(connection: sqlite3.Connection) -> list[Upload]:
    return to_uploads(connection.execute(UNASSEMBLED).fetchall())


def adoptable(connection: sqlite3.Connection, boot_id: str) -> list[Upload]:
    return to_uploads(connection.execute(ADOPTABLE, (boot_id,)).fetchall())


def unplaced(connection: sqlite3.Connection, after: str, limit: int) -> list[Upload]:
    return to_uploads(connection.execute(UNPLACED, (after, limit)).fetchall())


def ids(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, str]]:
    """(place, id) of the next ``limit`` records after that place, in order of creation."""
    return connection.execute(IDS, (after, limit)).fetchall()


def owner_of(connection: sqlite3.Connection, upload_id: str) -> str | None:
    row = connection.execute(OWNER_OF, (upload_id,)).fetchone()
    return None if row is None else str(row[0])


def owners(connection: sqlite3.Connection) -> list[Owned]:
    rows = connection.execute(OWNERS).fetchall()
    return [Owned(owner, int(size), int(unfinished_size), count) for owner, size, unfinished_size, count in rows]

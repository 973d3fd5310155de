"""What can be asked of the catalog.

Changes when a question of ICatalog does. Invariant: none of these but `owners`, for the start, looks at rows that no
one waits for; each goes by an index of schema.py, so its cost does not grow with the uploads that are finished.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from resumable.catalog.records import FIELDS, to_upload, to_uploads
from resumable.catalog.schema import ASKED_UNTIL, AWAITS_PLACE, HAS_DATA, IS_SETTLED, NEEDS_EXPIRY
from resumable.model.upload import Asked, Upload

GET = f"SELECT {FIELDS} FROM uploads WHERE id = ?"
REMOVABLE = f"""SELECT id FROM uploads WHERE {HAS_DATA}
    AND NOT EXISTS (SELECT 1 FROM pins WHERE partial_id = uploads.id) ORDER BY gone_at LIMIT ?"""
# An append to a partial touches the finals that wait for it.
EXPIRED = f"""SELECT {FIELDS} FROM uploads WHERE {NEEDS_EXPIRY} AND touched_at < ?1 AND settled_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM pins WHERE partial_id = uploads.id)
    AND (partials IS NULL OR NOT EXISTS (SELECT 1 FROM pins JOIN uploads AS part ON part.id = pins.partial_id
        WHERE pins.final_id = uploads.id AND part.touched_at >= ?1))
    ORDER BY touched_at LIMIT ?2"""
SPENT = f"""SELECT {FIELDS} FROM uploads WHERE {IS_SETTLED} AND settled_at <= ? AND required = 0
    AND NOT EXISTS (SELECT 1 FROM pins WHERE partial_id = uploads.id) ORDER BY settled_at LIMIT ?"""
FINALS_OF = f"""SELECT {FIELDS} FROM pins JOIN uploads ON uploads.id = pins.final_id
    WHERE pins.partial_id = ? AND pins.final_id > ? ORDER BY pins.final_id LIMIT ?"""
# A final waits for a partial that isn't finished, unless it can't be made any more.
_WAITS = """EXISTS (SELECT 1 FROM pins AS pin JOIN uploads AS part ON part.id = pin.partial_id
        WHERE pin.final_id = found.id AND part.finished_at IS NULL)
    AND NOT EXISTS (SELECT 1 FROM pins AS pin LEFT JOIN uploads AS part ON part.id = pin.partial_id
        WHERE pin.final_id = found.id AND (part.id IS NULL OR (part.gone IS NOT NULL AND part.finished_at IS NULL)))"""
PINNING = f"""SELECT id, {_WAITS} FROM (SELECT final_id AS id FROM pins WHERE partial_id = ?3 AND final_id > ?1
    ORDER BY final_id LIMIT ?2) AS found"""
UNASSEMBLED = f"""SELECT id, {_WAITS} FROM (SELECT DISTINCT final_id AS id FROM pins INDEXED BY pins_by_final
    WHERE final_id > ?1 ORDER BY final_id LIMIT ?2) AS found"""
ASKED = f"""SELECT {", ".join(f"uploads.{name}" for name in FIELDS.split(", "))}, IIF(finals.at IS NULL, NULL, said)
    FROM finals JOIN uploads ON uploads.id = finals.id WHERE key = ? AND IFNULL({ASKED_UNTIL} >= ?, 1)"""
REQUEST = """SELECT said FROM uploads JOIN finals ON finals.key = uploads.asked AND finals.id = uploads.id
    WHERE uploads.id = ? AND finals.at IS NULL"""
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


def spent(connection: sqlite3.Connection, used_until: float, limit: int) -> list[Upload]:
    return to_uploads(connection.execute(SPENT, (used_until, limit)).fetchall())


def finals_of(connection: sqlite3.Connection, partial_id: str, after: str, limit: int) -> list[Upload]:
    return to_uploads(connection.execute(FINALS_OF, (partial_id, after, limit)).fetchall())


def assemblable(
    connection: sqlite3.Connection, after: str, limit: int, partial_id: str | None
) -> tuple[list[str], str | None]:
    if partial_id is None:
        rows = connection.execute(UNASSEMBLED, (after, limit)).fetchall()
    else:
        rows = connection.execute(PINNING, (after, limit, partial_id)).fetchall()
    return [final_id for final_id, waits in rows if not waits], rows[-1][0] if len(rows) == limit else None


def asked(connection: sqlite3.Connection, digest: str, over_since: float) -> Asked | None:
    row = connection.execute(ASKED, (digest, over_since)).fetchone()
    return None if row is None else Asked(to_upload(row[:-1]), None if row[-1] is None else json.loads(row[-1]))


def request(connection: sqlite3.Connection, final_id: str) -> Mapping[str, Any] | None:
    row = connection.execute(REQUEST, (final_id,)).fetchone()
    found: Mapping[str, Any] | None = None if row is None or row[0] is None else json.loads(row[0])
    return found


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

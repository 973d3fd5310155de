"""What can be asked of the catalog's replicas.

Changes when a question of IReplicas does. Invariant: as in lookups.py, each goes by an index, and those that are
asked again and again look only at rows that somebody waits for: what is stored costs nothing.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from resumable.catalog.records import FIELDS, REPLICA_FIELDS, to_replica, to_upload, to_uploads
from resumable.catalog.schema import IN_WORK, IS_SETTLED, WAITS
from resumable.model.replica import Backlog, Page
from resumable.model.upload import Replica, Upload

_WIDTH = len(REPLICA_FIELDS.split(", "))
_BOTH = ", ".join(
    [f"replicas.{name}" for name in REPLICA_FIELDS.split(", ")] + [f"uploads.{name}" for name in FIELDS.split(", ")]
)
_PAIR = f"SELECT {_BOTH} FROM replicas LEFT JOIN uploads ON uploads.id = replicas.upload_id"

OF = f"SELECT {REPLICA_FIELDS} FROM replicas WHERE upload_id = ? ORDER BY seq"
GET = f"{_PAIR} WHERE replicas.upload_id = ? AND remote = ?"
AT = f"{_PAIR} WHERE replicas.seq = ?"
# The few columns that decide; the rest is only read of those that are due.
SCAN = f"""SELECT replicas.seq, IFNULL(retry_at <= ?2, 1) AND (state = 'ending' OR finished_at IS NOT NULL
        OR (offset >= needs AND offset > confirmed))
    FROM replicas INDEXED BY replicas_in_work LEFT JOIN uploads ON uploads.id = replicas.upload_id
    WHERE remote = ?1 AND replicas.seq > ?3 AND {IN_WORK} ORDER BY replicas.seq LIMIT ?4"""
NEXT_RETRY = f"SELECT retry_at FROM replicas WHERE remote = ? AND {WAITS} ORDER BY retry_at LIMIT 1"
BACKLOG = f"""SELECT IFNULL(SUM(MAX(offset - confirmed, 0)), 0), COUNT(finished_at), MIN(finished_at)
    FROM replicas INDEXED BY replicas_in_work JOIN uploads ON uploads.id = replicas.upload_id
    WHERE remote = ? AND {IN_WORK} AND state = 'open'"""
UNFINISHED = f"SELECT remote, COUNT(*) FROM replicas INDEXED BY replicas_in_work WHERE {IN_WORK} GROUP BY remote"
OWNERS = "SELECT upload_id FROM replicas WHERE remote = ? AND key = ? ORDER BY seq"
# Partials that finals have used are settled without replicas: see schema.py.
DROPPABLE = f"""SELECT {FIELDS} FROM uploads WHERE {IS_SETTLED} AND settled_at < ? AND required > 0
    ORDER BY settled_at LIMIT ?"""
JOURNAL = "SELECT journal FROM replicas WHERE upload_id = ? AND remote = ?"
PARTS = "SELECT number, value FROM replica_parts WHERE upload_id = ? AND remote = ?"


def of(connection: sqlite3.Connection, upload_id: str) -> list[Replica]:
    return [to_replica(row) for row in connection.execute(OF, (upload_id,)).fetchall()]


def get(connection: sqlite3.Connection, upload_id: str, remote: str) -> tuple[Replica, Upload | None] | None:
    row = connection.execute(GET, (upload_id, remote)).fetchone()
    return None if row is None else _pair(row)


def due(connection: sqlite3.Connection, remote: str, now: float, after: int, limit: int) -> Page:
    rows = connection.execute(SCAN, (remote, now, after, limit)).fetchall()
    found = [_pair(connection.execute(AT, (seq,)).fetchone()) for seq, is_due in rows if is_due]
    return Page(found, rows[-1][0] if rows and len(rows) == limit else None)


def next_retry(connection: sqlite3.Connection, remote: str) -> float | None:
    row = connection.execute(NEXT_RETRY, (remote,)).fetchone()
    return None if row is None else float(row[0])


def backlog(connection: sqlite3.Connection, remote: str) -> Backlog:
    return Backlog(*connection.execute(BACKLOG, (remote,)).fetchone())


def unfinished(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute(UNFINISHED).fetchall())


def owners(connection: sqlite3.Connection, remote: str, key: str) -> list[str]:
    return [row[0] for row in connection.execute(OWNERS, (remote, key)).fetchall()]


def droppable(connection: sqlite3.Connection, stored_before: float, limit: int) -> list[Upload]:
    return to_uploads(connection.execute(DROPPABLE, (stored_before, limit)).fetchall())


def journal(connection: sqlite3.Connection, upload_id: str, remote: str) -> dict[str, Any] | None:
    row = connection.execute(JOURNAL, (upload_id, remote)).fetchone()
    value: dict[str, Any] | None = None if row is None or row[0] is None else json.loads(row[0])
    return value


def parts(connection: sqlite3.Connection, upload_id: str, remote: str) -> dict[int, str]:
    return dict(connection.execute(PARTS, (upload_id, remote)).fetchall())


def _pair(row: tuple[Any, ...]) -> tuple[Replica, Upload | None]:
    upload = row[_WIDTH:]
    return to_replica(row[:_WIDTH]), None if upload[0] is None else to_upload(upload)

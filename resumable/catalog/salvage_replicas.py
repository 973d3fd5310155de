"""Copies out of a damaged catalog what can still be read of the replicas.

Changes when more of them can be saved. Invariants: what is saved of a replica is believed no further than its remote
confirms, so it names no run; one whose row can't be read, but which the index still names, is parked, so that nobody
takes its upload for stored, or drops it. Comes after the uploads are saved.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from twisted.logger import Logger

from resumable.catalog.ranges import by_id, by_number, last_number
from resumable.catalog.records import REPLICA_FIELDS
from resumable.catalog.replicas import drop_placed, settle
from resumable.catalog.uploads import add_lost
from resumable.model.upload import ReplicaState

REASON: Final = "what was known of it was lost with a damaged catalog"

_COLUMNS = f"{REPLICA_FIELDS.removesuffix(', seq')}, journal"
_ID_RANGE = "upload_id >= CAST(? AS TEXT) AND upload_id < CAST(? AS TEXT) ORDER BY upload_id"
_ROWS = f"SELECT seq, {_COLUMNS} FROM replicas NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq"
_INDEX = f"SELECT upload_id, remote, seq FROM replicas INDEXED BY replicas_by_upload WHERE {_ID_RANGE}"
_PARTS = f"SELECT upload_id, remote, number, value FROM replica_parts WHERE {_ID_RANGE}"
_SAVE = f"""INSERT INTO replicas ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (upload_id, remote) DO NOTHING"""
_SAVE_PART = """INSERT OR IGNORE INTO replica_parts SELECT upload_id, remote, ?3, ?4 FROM replicas
    WHERE upload_id = ?1 AND remote = ?2 AND state <> 'stored'"""
_PARK = """INSERT INTO replicas (upload_id, remote, required, state, confirmed, needs, run, attempts, error, deletes)
    SELECT id, ?2, 1, 'parked', 0, 0, '', 0, ?3, 0 FROM uploads WHERE id = ?1 AND gone IS NULL
    ON CONFLICT (upload_id, remote) DO NOTHING"""
_UNKNOWN = """SELECT upload_id FROM replicas WHERE state <> 'ending'
    AND NOT EXISTS (SELECT 1 FROM uploads WHERE id = upload_id)"""
_END = """UPDATE replicas SET state = 'ending', retry_at = NULL WHERE state IN ('open', 'parked')
    AND EXISTS (SELECT 1 FROM uploads WHERE id = upload_id AND gone IS NOT NULL)"""
_BEREFT = """SELECT COUNT(*) FROM uploads WHERE gone IS NULL AND required >
    (SELECT COUNT(*) FROM replicas WHERE upload_id = id AND replicas.required)"""
_NONE = type(None)
_TEXT, _INT, _REAL, _MAYBE = (str,), (int,), (float, _NONE), (str, _NONE)
_TYPES: Final[tuple[tuple[type, ...], ...]] = (
    *(_TEXT, _TEXT, _INT, _TEXT, _MAYBE, _INT, _INT, _TEXT),
    *(_INT, _MAYBE, _REAL, _REAL, _REAL, _MAYBE, _INT, _MAYBE),
)
_STATE, _RUN, _JSON = 3, 7, (13, 15)
_STATES = frozenset(state.value for state in ReplicaState)

_log = Logger()


def save_replicas(source: sqlite3.Connection, target: sqlite3.Connection, at: float) -> None:
    """Copy the readable replicas and parts; ``at``: the time that tombstones of unknown uploads get."""
    highest = max((seq + 1000 for _, _, seq in by_id(source, _INDEX)), default=last_number(source))
    for _, *row in by_number(source, _ROWS, highest):
        if _is_replica(row):
            row[_RUN] = ""
            target.execute(_SAVE, row)
    lost = [upload_id for (upload_id,) in target.execute(_UNKNOWN).fetchall()]
    add_lost(target, lost, at)
    target.execute(_END)
    for upload_id, remote, _ in by_id(source, _INDEX):
        if isinstance(remote, str):
            target.execute(_PARK, (upload_id, remote, REASON))
    for upload_id, remote, number, value in by_id(source, _PARTS):
        if isinstance(number, int) and isinstance(value, str):
            target.execute(_SAVE_PART, (upload_id, remote, number, value))
    for (upload_id,) in target.execute("SELECT DISTINCT upload_id FROM replicas").fetchall():
        settle(target, upload_id)
        drop_placed(target, upload_id, at)
    (bereft,) = target.execute(_BEREFT).fetchone()
    if bereft:
        _log.critical("{uploads} uploads have lost what was known of a remote that must have them", uploads=bereft)


def _is_replica(row: list[Any]) -> bool:
    if not all(isinstance(value, types) for value, types in zip(row, _TYPES, strict=True)):
        return False
    if not row[0] or row[_STATE] not in _STATES:
        return False
    try:
        return all(isinstance(json.loads(row[place] or "{}"), dict) for place in _JSON)
    except ValueError:
        return False

"""Copies out of a damaged catalog what can still be read of final uploads, and gives back what follows from their rows.

Changes when a final upload is recorded otherwise. Invariant: what unfinished finals need is pinned again, and a request
is remembered only together with the upload that it has made. Comes after the uploads are saved.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from resumable.catalog.ranges import by_id
from resumable.catalog.schema import PIN, WAITING_FINAL

_WAITING = f"SELECT id, partials FROM uploads WHERE {WAITING_FINAL}"
_FINISHED = "SELECT finished_at, partials FROM uploads WHERE partials IS NOT NULL AND finished_at IS NOT NULL"
_USED = """UPDATE uploads SET settled_at = MAX(IFNULL(settled_at, 0), ?) WHERE id = ? AND gone IS NULL
    AND concat IS NOT NULL AND partials IS NULL"""
_FINALS = """SELECT key, id, at, said FROM finals WHERE key >= CAST(? AS TEXT) AND key < CAST(? AS TEXT)
    ORDER BY key"""
_SAVE = """INSERT OR IGNORE INTO finals (key, id, at, said) SELECT ?1, id, ?3, ?4 FROM uploads
    WHERE id = ?2 AND asked = ?1"""


def save_finals(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Pins, what was used by whom, and the requests."""
    for final, partials in target.execute(_WAITING).fetchall():
        target.executemany(PIN, [(partial, final) for partial in partials.split(" ")])
    for at, partials in target.execute(_FINISHED).fetchall():
        target.executemany(_USED, [(at, partial) for partial in partials.split(" ")])
    for row in by_id(source, _FINALS):
        if _is_request(*row):
            target.execute(_SAVE, row)


def _is_request(key: Any, final_id: Any, at: Any, said: Any) -> bool:
    try:
        readable = said is None or (isinstance(said, str) and isinstance(json.loads(said), dict))
    except ValueError:
        return False
    return readable and isinstance(key, str) and isinstance(final_id, str) and isinstance(at, float | None)

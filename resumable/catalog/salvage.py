"""Copies out of a damaged catalog what SQLite can still read.

Changes when more can be saved. Invariants: the damaged files are only read (all is done on a copy of them); a
record is saved whole or becomes a tombstone, which answers 410: one that can't be read is never made up.

A bad page costs the records on it, as ranges.py reads round it. The index on ids names the records of a table that
can't be read. See https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, suppress
from itertools import chain
from typing import Final

from resumable.catalog.mending import copy_files, open_copy
from resumable.catalog.outbox import OUTBOX_FIELDS
from resumable.catalog.ranges import by_id, by_number, last_number
from resumable.catalog.records import FIELDS
from resumable.catalog.salvage_finals import save_finals
from resumable.catalog.salvage_replicas import save_replicas
from resumable.catalog.schema import ARRANGE
from resumable.catalog.uploads import add_lost
from resumable.model.upload import FactKind

SENSIBLE: Final = 1 << 53  # no count gets here
COLUMNS: Final = f"{FIELDS}, on_disk"

_ROWS = f"SELECT seq, {COLUMNS} FROM uploads NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq"
_INDEX = """SELECT id, seq FROM uploads INDEXED BY uploads_by_id
    WHERE id >= CAST(? AS TEXT) AND id < CAST(? AS TEXT) ORDER BY id"""
_OUTBOX = f"SELECT {OUTBOX_FIELDS} FROM outbox NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq"
_SAVE_EVENT = f"""INSERT OR IGNORE INTO outbox ({OUTBOX_FIELDS}, state)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?10, CASE WHEN ?10 IS NULL THEN 'behind' ELSE 'dead' END)"""
_SAVE = f"""INSERT INTO uploads ({COLUMNS}) VALUES ({", ".join("?" * 22)})
    ON CONFLICT (id) DO UPDATE SET ({COLUMNS}) = ({", ".join(f"excluded.{name}" for name in COLUMNS.split(", "))})
    WHERE (excluded.epoch, excluded.offset) > (uploads.epoch, uploads.offset)"""
_TEXT, _REAL, _INT = (str,), (float,), (int,)
_NONE = type(None)
_TYPES: Final[tuple[tuple[type, ...], ...]] = (
    *(_TEXT, _REAL, _REAL, (int, _NONE), _INT, (str, _NONE), (str, _NONE), (str, _NONE)),
    *(
        (float, _NONE),
        (str, _NONE),
        (float, _NONE),
        _INT,
        (str, _NONE),
        _INT,
        _INT,
        (float, _NONE),
        (float, _NONE),
        (str, _NONE),
        (int, _NONE),
        (str, _NONE),
        (str, _NONE),
        _INT,
    ),
)
_FRESH: Final = (0, None, None, None)  # what an undelivered event has of attempts


def salvage(damaged: str, fresh: str, at: float) -> int:
    """Copy the readable records of ``damaged`` into the empty catalog ``fresh``; answers how many.

    ``at``: the time that tombstones get. Raises sqlite3.Error or OSError when ``fresh`` can't be written.
    """
    copy = f"{fresh}.salvage"
    try:
        copy_files(damaged, copy)
        with closing(sqlite3.connect(fresh, isolation_level=None)) as target:
            target.execute("PRAGMA journal_mode = MEMORY").fetchall()
            target.execute("PRAGMA synchronous = OFF")
            target.execute("PRAGMA cache_size = -131072")  # 128 MiB: ids come in no order
            target.execute("BEGIN")
            saved = 0
            if (source := open_copy(copy, fresh, f"EXPLAIN {_ROWS}", (0, 0))) is not None:
                with closing(source):
                    saved = _save(source, target, at)
            target.execute("COMMIT")
            target.execute("PRAGMA journal_mode = WAL").fetchall()
    finally:
        for companion in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(copy + companion)
    return saved


def _save(source: sqlite3.Connection, target: sqlite3.Connection, at: float) -> int:
    # the index may lack some leaves, and so a few of the highest numbers
    highest = max((seq + 1000 for _, seq in by_id(source, _INDEX)), default=last_number(source))
    lost = []
    for row in by_number(source, _ROWS, highest):
        try:
            if not all(isinstance(value, types) for value, types in zip(row[1:], _TYPES, strict=True)):
                raise sqlite3.IntegrityError("a value of another type")
            target.execute(_SAVE, row[1:])
        except sqlite3.IntegrityError:
            lost.append(row[1])
    saved = int(target.execute("SELECT count(*) FROM uploads").fetchone()[0])
    for one in chain(lost, (row[0] for row in by_id(source, _INDEX))):
        if isinstance(one, str) and one:
            add_lost(target, [one], at)
    save_finals(source, target)
    for event in by_number(source, _OUTBOX, last_number(source)):
        fact, attempts = event[:6], event[6:]
        if _is_fact(*fact):
            target.execute(_SAVE_EVENT, (*fact, *(attempts if _are_attempts(*attempts) else _FRESH)))
    target.execute(ARRANGE)
    _keep_counting(source, target, at)
    save_replicas(source, target, at)
    return saved


def _is_fact(seq: object, deliverer: object, upload_id: object, kind: object, at: object, data: object) -> bool:
    try:
        json.loads(str(data))
        FactKind(kind)
    except ValueError:
        return False
    texts = isinstance(deliverer, str) and isinstance(upload_id, str) and isinstance(data, str)
    return texts and isinstance(at, float) and isinstance(seq, int) and 0 < seq < SENSIBLE


def _are_attempts(attempts: object, error: object, retry_at: object, dead_at: object) -> bool:
    """Else they are forgotten: it is better told twice than never."""
    times = isinstance(retry_at, float | None) and isinstance(dead_at, float | None)
    return times and isinstance(error, str | None) and isinstance(attempts, int) and 0 <= attempts < SENSIBLE


def _keep_counting(source: sqlite3.Connection, target: sqlite3.Connection, at: float) -> None:
    """Facts never share a number: go on from the last, or from far beyond it when that is unknown."""
    try:
        row = source.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        last = int(row[0]) if row else 0
    except (sqlite3.Error, TypeError, ValueError):
        last = SENSIBLE
    if not 0 <= last < SENSIBLE:
        last = int(at * 1000)
    target.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
    target.execute("INSERT INTO sqlite_sequence SELECT 'outbox', MAX(?, IFNULL(MAX(seq), 0)) FROM outbox", (last,))

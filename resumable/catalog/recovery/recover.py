"""A damaged catalog is set aside, and a new one is made of all records in it that SQLite can still read.

Invariants: a damaged catalog is never changed nor deleted, only renamed, and all is read from a copy of it; a crash at
any step leaves the next start able to go on. A record is saved whole or becomes a tombstone, which answers 410: one
that can't be read is never made up.
Partials that unfinished finals need are pinned again, and a request is remembered only together with the upload that it
has made. A saved replica is believed no further than its remote confirms, so it names no run; one whose row can't be
read, but which the index still names, is parked, so that its upload neither counts as stored nor is dropped.

A bad page costs the records on it. The index on ids names the records of a table that can't be read.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, suppress
from itertools import chain
from sqlite3 import Connection
from typing import Any, Final

from twisted.logger import Logger

from resumable.aio.system import sync_file
from resumable.catalog.batches import connect
from resumable.catalog.catalog_files import (
    COMPANIONS,
    OpenedCatalog,
    beside,
    free_name,
    fresh_catalog,
    note_of,
    put_in_place,
    sync_directory,
)
from resumable.catalog.outbox_table import OUTBOX_FIELDS
from resumable.catalog.recovery.damaged import by_id, by_number, copy_files, last_number, open_copy
from resumable.catalog.replica_table import drop_placed, settle
from resumable.catalog.schema import ARRANGE, FIELDS, PIN, REPLICA_FIELDS, WAITING_FINAL
from resumable.catalog.upload_table import add_lost
from resumable.model.upload import FactKind, ReplicaState

SENSIBLE: Final = 1 << 53  # no count gets here
REASON: Final = "what was known of it was lost with a damaged catalog"
_NONE = type(None)
_TEXT, _REAL, _INT = (str,), (float,), (int,)
_TEXT_OR_NONE, _REAL_OR_NONE, _INT_OR_NONE = (str, _NONE), (float, _NONE), (int, _NONE)

_log = Logger()


def recover(path: str, at: float) -> OpenedCatalog:
    """Recover the damaged catalog at ``path``, or go on with an interrupted recovery; ``at`` is the time. Blocks.

    Raises sqlite3.Error or OSError when the new catalog can't be made.
    """
    note = note_of(path)
    if not os.path.exists(note):
        _write_note(note, free_name(path, at))
    with open(note, encoding="utf-8") as file:
        aside = beside(path, os.path.basename(file.read().strip()))
    recovered = _replace(path, aside, at)
    os.unlink(note)
    sync_directory(path)
    _log.critical(
        "{recovered} records were recovered; the damaged catalog is {aside}", recovered=recovered, aside=aside
    )
    return OpenedCatalog(created=True, recovered=recovered, set_aside=aside)


def _replace(path: str, aside: str, at: float) -> int:
    """Set it aside and build the new one; every step may have been done before a crash. How many records it has."""
    if os.path.exists(aside) and os.path.exists(path):  # the new one was in place already
        with closing(connect(path)) as connection:
            return int(connection.execute("SELECT count(*) FROM uploads").fetchone()[0])
    for companion in COMPANIONS:
        if os.path.exists(path + companion) and not os.path.exists(aside + companion):
            os.rename(path + companion, aside + companion)
    sync_directory(path)
    fresh = fresh_catalog(path)
    saved = _save_all(aside, fresh, at)
    put_in_place(fresh, path, at)
    return saved


def _save_all(damaged: str, fresh: str, at: float) -> int:
    """Copy the readable records of ``damaged`` into the empty catalog ``fresh``; answers how many.

    ``at``: the time that tombstones get.
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
            if (source := open_copy(copy, fresh, TRIAL, (0, 0))) is not None:
                with closing(source):
                    saved = save(source, target, at)
            target.execute("COMMIT")
            target.execute("PRAGMA journal_mode = WAL").fetchall()
    finally:
        for companion in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(copy + companion)
    return saved


def _write_note(note: str, aside: str) -> None:
    with open(f"{note}.new", "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(os.path.basename(aside))
        file.flush()
        sync_file(file.fileno())
    os.rename(f"{note}.new", note)
    sync_directory(note)


def save(source: Connection, target: Connection, at: float) -> int:
    """Copy all that is readable into an empty catalog; how many uploads. ``at``: the time that tombstones get."""
    saved = _save_uploads(source, target, at)
    _save_finals(source, target)
    _save_outbox(source, target, at)
    _save_replicas(source, target, at)
    return saved


# Uploads

_COLUMNS: Final = f"{FIELDS}, on_disk"
_ROWS = f"SELECT seq, {_COLUMNS} FROM uploads NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq"
TRIAL: Final = f"EXPLAIN {_ROWS}"  # it works, with two values, on each copy that can be read at all
_INDEX = """SELECT id, seq FROM uploads INDEXED BY uploads_by_id
    WHERE id >= CAST(? AS TEXT) AND id < CAST(? AS TEXT) ORDER BY id"""
_SAVE = f"""INSERT INTO uploads ({_COLUMNS}) VALUES ({", ".join("?" * 25)})
    ON CONFLICT (id) DO UPDATE SET ({_COLUMNS}) = ({", ".join(f"excluded.{name}" for name in _COLUMNS.split(", "))})
    WHERE (excluded.epoch, excluded.offset) > (uploads.epoch, uploads.offset)"""
_TYPES: Final[tuple[tuple[type, ...], ...]] = (
    *(_TEXT, _REAL, _REAL, _INT_OR_NONE, _INT, _TEXT_OR_NONE, _TEXT_OR_NONE, _TEXT_OR_NONE),
    *(_REAL_OR_NONE, _TEXT_OR_NONE, _REAL_OR_NONE, _INT, _TEXT_OR_NONE, _INT, _INT),
    *(_REAL_OR_NONE, _REAL_OR_NONE, _TEXT_OR_NONE, _INT_OR_NONE, _TEXT_OR_NONE, _TEXT_OR_NONE),
    *(_INT, _TEXT_OR_NONE, _TEXT_OR_NONE, _INT),
)


def _save_uploads(source: Connection, target: Connection, at: float) -> int:
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
    return saved


# Pins of finals, which follow from their rows, and the requests that made them

_WAITING = f"SELECT id, partials FROM uploads WHERE {WAITING_FINAL}"
_FINISHED = "SELECT finished_at, partials FROM uploads WHERE partials IS NOT NULL AND finished_at IS NOT NULL"
_USED = """UPDATE uploads SET settled_at = MAX(IFNULL(settled_at, 0), ?) WHERE id = ? AND gone IS NULL
    AND concat IS NOT NULL AND partials IS NULL"""
_FINALS = """SELECT key, id, at, said FROM finals WHERE key >= CAST(? AS TEXT) AND key < CAST(? AS TEXT)
    ORDER BY key"""
_SAVE_REQUEST = """INSERT OR IGNORE INTO finals (key, id, at, said) SELECT ?1, id, ?3, ?4 FROM uploads
    WHERE id = ?2 AND asked = ?1"""


def _save_finals(source: Connection, target: Connection) -> None:
    for final, partials in target.execute(_WAITING).fetchall():
        target.executemany(PIN, [(partial, final) for partial in partials.split(" ")])
    for at, partials in target.execute(_FINISHED).fetchall():
        target.executemany(_USED, [(at, partial) for partial in partials.split(" ")])
    for row in by_id(source, _FINALS):
        if _is_request(*row):
            target.execute(_SAVE_REQUEST, row)


def _is_request(key: Any, final_id: Any, at: Any, said: Any) -> bool:
    try:
        readable = said is None or (isinstance(said, str) and isinstance(json.loads(said), dict))
    except ValueError:
        return False
    return readable and isinstance(key, str) and isinstance(final_id, str) and isinstance(at, float | None)


# Events of the outbox

_OUTBOX = f"SELECT {OUTBOX_FIELDS} FROM outbox NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq"
_SAVE_EVENT = f"""INSERT OR IGNORE INTO outbox ({OUTBOX_FIELDS}, state)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?10, CASE WHEN ?10 IS NULL THEN 'behind' ELSE 'dead' END)"""
_UNTRIED: Final = (0, None, None, None)  # an event's columns of attempts before the first


def _save_outbox(source: Connection, target: Connection, at: float) -> None:
    for event in by_number(source, _OUTBOX, last_number(source)):
        fact, attempts = event[:6], event[6:]
        if _is_fact(*fact):
            target.execute(_SAVE_EVENT, (*fact, *(attempts if _are_attempts(*attempts) else _UNTRIED)))
    target.execute(ARRANGE)
    _keep_counting(source, target, at)


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


def _keep_counting(source: Connection, target: Connection, at: float) -> None:
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


# Replicas and their parts

_REPLICA_COLUMNS = f"{REPLICA_FIELDS.removesuffix(', seq')}, journal"
_ID_RANGE = "upload_id >= CAST(? AS TEXT) AND upload_id < CAST(? AS TEXT) ORDER BY upload_id"
_REPLICA_ROWS = f"SELECT seq, {_REPLICA_COLUMNS} FROM replicas NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq"
_REPLICA_INDEX = f"SELECT upload_id, remote, seq FROM replicas INDEXED BY replicas_by_upload WHERE {_ID_RANGE}"
_PARTS = f"SELECT upload_id, remote, number, value FROM replica_parts WHERE {_ID_RANGE}"
_SAVE_REPLICA = f"""INSERT INTO replicas ({_REPLICA_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (upload_id, remote) DO NOTHING"""
_SAVE_PART = """INSERT OR IGNORE INTO replica_parts SELECT upload_id, remote, ?3, ?4 FROM replicas
    WHERE upload_id = ?1 AND remote = ?2 AND state <> 'stored'"""
_PARK = """INSERT INTO replicas (upload_id, remote, required, state, confirmed, needs, run, attempts, error, deletes)
    SELECT id, ?2, 1, 'parked', 0, 0, '', 0, ?3, 0 FROM uploads WHERE id = ?1 AND gone IS NULL
    ON CONFLICT (upload_id, remote) DO NOTHING"""
_UNKNOWN = """SELECT upload_id FROM replicas WHERE state <> 'ending'
    AND NOT EXISTS (SELECT 1 FROM uploads WHERE id = upload_id)"""
_END_REPLICAS = """UPDATE replicas SET state = 'ending', retry_at = NULL WHERE state IN ('open', 'parked')
    AND EXISTS (SELECT 1 FROM uploads WHERE id = upload_id AND gone IS NOT NULL)"""
_BEREFT = """SELECT COUNT(*) FROM uploads WHERE gone IS NULL AND required >
    (SELECT COUNT(*) FROM replicas WHERE upload_id = id AND replicas.required)"""
_REPLICA_TYPES: Final[tuple[tuple[type, ...], ...]] = (
    *(_TEXT, _TEXT, _INT, _TEXT, _TEXT_OR_NONE, _INT, _INT, _TEXT, _INT, _TEXT_OR_NONE),
    *(_REAL_OR_NONE, _REAL_OR_NONE, _REAL_OR_NONE, _TEXT_OR_NONE, _INT, _TEXT_OR_NONE),
)
_STATE, _RUN, _JSON = 3, 7, (13, 15)
_STATES = frozenset(state.value for state in ReplicaState)


def _save_replicas(source: Connection, target: Connection, at: float) -> None:
    highest = max((seq + 1000 for _, _, seq in by_id(source, _REPLICA_INDEX)), default=last_number(source))
    for _, *row in by_number(source, _REPLICA_ROWS, highest):
        if _is_replica(row):
            row[_RUN] = ""
            target.execute(_SAVE_REPLICA, row)
    lost = [upload_id for (upload_id,) in target.execute(_UNKNOWN).fetchall()]
    add_lost(target, lost, at)
    target.execute(_END_REPLICAS)
    for upload_id, remote, _ in by_id(source, _REPLICA_INDEX):
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
    if not all(isinstance(value, types) for value, types in zip(row, _REPLICA_TYPES, strict=True)):
        return False
    if not row[0] or row[_STATE] not in _STATES:
        return False
    try:
        return all(isinstance(json.loads(row[place] or "{}"), dict) for place in _JSON)
    except ValueError:
        return False

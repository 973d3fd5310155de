"""What may happen to a row, one statement or a few for each.

Changes when a promise of ICatalog does. Invariant: a change of an offset is one compare-and-set; facts are
written only when the change that they tell of has landed; no time of a row ever moves backwards.
Every function runs within the transaction of its batch and answers at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from resumable.catalog import replica_changes
from resumable.catalog.outbox import Outbox
from resumable.catalog.records import INSERT, to_json, to_placed, to_row
from resumable.catalog.schema import ASKED_UNTIL, AWAITS_PLACE, IS_CLEARED, LIMIT, NEEDS_EXPIRY, PIN
from resumable.model.upload import Commit, Fact, Gone, Place, Replica, Upload

_OPEN = "finished_at IS NULL AND gone IS NULL"
_CREATE = f"{INSERT} ON CONFLICT (id) DO NOTHING"
_BEGIN = f"""UPDATE uploads SET epoch = epoch + 1, boot_id = ?, adoptable = MAX(offset, ?),
    touched_at = MAX(touched_at, ?) WHERE id = ? AND offset = ? AND epoch = ? AND {_OPEN}"""
_COMMIT = f"""UPDATE uploads SET offset = ?1, adoptable = MAX(adoptable, ?1), touched_at = MAX(touched_at, ?2),
    length = IFNULL(?3, length) WHERE id = ?4 AND offset = ?5 AND epoch = ?6 AND {_OPEN}"""
_FINISH = f"""UPDATE uploads SET offset = ?1, adoptable = ?1, touched_at = MAX(touched_at, ?2),
    length = IFNULL(?3, length), finished_at = MAX(touched_at, ?2), placed = IFNULL(placed, ?7)
    WHERE id = ?4 AND offset = ?5 AND epoch = ?6 AND {_OPEN}"""
_ADOPT = f"""UPDATE uploads SET offset = ?1, adoptable = ?1, touched_at = MAX(touched_at, ?2),
    finished_at = CASE WHEN length = ?1 THEN MAX(touched_at, ?2) END,
    placed = IFNULL(placed, CASE WHEN length = ?1 THEN ?4 END)
    WHERE id = ?3 AND offset < ?1 AND adoptable >= ?1 AND IFNULL(length, {LIMIT}) >= ?1 AND {_OPEN}"""
# What was placed is to be removed, though the data file may be gone.
# It may have finished since it was found idle.
_END = f"""UPDATE uploads SET gone = ?1, gone_at = MAX(touched_at, ?2), settled_at = NULL,
    on_disk = MAX(on_disk, placed IS NOT NULL) WHERE id = ?3 AND gone IS NULL
    AND (?1 <> '{Gone.EXPIRED.value}' OR ({NEEDS_EXPIRY}))"""
_REMOVED = """UPDATE uploads SET on_disk = 0 WHERE id = ? AND IFNULL(gone, dropped_at) IS NOT NULL
    AND (gone IS NULL OR placed IS NULL)"""
_UNPLACED = "UPDATE uploads SET placed = NULL WHERE id = ? AND gone IS NOT NULL"
PLACED = f"""UPDATE uploads SET placed = ?2 WHERE id = ?1 AND {AWAITS_PLACE} AND finished_at IS NOT NULL
    AND gone IS NULL"""
_PINNED = "SELECT partial_id FROM pins WHERE final_id = ?"
_UNPIN = "DELETE FROM pins WHERE final_id = ?"
_USED = "UPDATE uploads SET settled_at = MAX(IFNULL(settled_at, 0), ?) WHERE id = ? AND gone IS NULL"
# The row of one that is over is no longer asked for.
_ASKED = """INSERT INTO finals (key, id, said) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET id = excluded.id, said = excluded.said, at = NULL WHERE at IS NOT NULL"""
_OF = "id = ?1 AND key = (SELECT asked FROM uploads WHERE id = ?1)"
_OVER = f"UPDATE finals SET at = ?2, said = ?3 WHERE {_OF}"
_NOT_ASKED = f"DELETE FROM finals WHERE {_OF}"
_HEARD = "DELETE FROM finals WHERE key = ? AND at IS NOT NULL AND said IS NOT NULL"
FORGET_ASKED = f"""DELETE FROM finals WHERE key IN (SELECT key FROM finals LEFT JOIN uploads ON uploads.id = finals.id
    WHERE {ASKED_UNTIL} < ? LIMIT ?)"""
FORGETTABLE = f"SELECT id FROM uploads WHERE {IS_CLEARED} AND gone_at < ? ORDER BY gone_at LIMIT ?"


def create(
    connection: sqlite3.Connection,
    outbox: Outbox,
    upload: Upload,
    facts: Sequence[Fact],
    replicas: Sequence[Replica],
    request: Mapping[str, Any] | None,
) -> bool:
    upload = evolve(upload, required=sum(replica.required for replica in replicas))
    waits = bool(upload.partials) and upload.finished_at is None and upload.gone is None
    if waits and _lacks_partials(connection, upload):
        return False
    if connection.execute(_CREATE, to_row(upload)).rowcount != 1:
        return False
    if waits and upload.asked is not None:
        said = None if request is None else to_json(request)
        if connection.execute(_ASKED, (upload.asked, upload.id, said)).rowcount != 1:
            connection.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
            return False
    replica_changes.create(connection, upload.id, replicas)
    if waits:
        connection.executemany(PIN, [(partial, upload.id) for partial in upload.partials])
    if facts:
        outbox.take(connection, facts)
    return True


def _lacks_partials(connection: sqlite3.Connection, final: Upload) -> bool:
    gone = "SELECT 1 FROM uploads WHERE id = ? AND gone IS NOT NULL"
    return any(connection.execute(gone, (partial,)).fetchone() for partial in set(final.partials))


def begin(
    connection: sqlite3.Connection, upload_id: str, epoch: int, start: int, boot_id: str, adoptable: int, at: float
) -> bool:
    return connection.execute(_BEGIN, (boot_id, adoptable, at, upload_id, start, epoch)).rowcount == 1


def commit(connection: sqlite3.Connection, outbox: Outbox, change: Commit) -> bool:
    values = (change.offset, change.at, change.length, change.upload_id, change.start, change.epoch)
    if change.finished:
        landed = connection.execute(_FINISH, (*values, to_placed(change.place)))
    else:
        landed = connection.execute(_COMMIT, values)
    if landed.rowcount != 1:
        return False
    if change.finished and (pinned := connection.execute(_PINNED, (change.upload_id,)).fetchall()):
        connection.executemany(_USED, [(change.at, partial) for (partial,) in pinned])
        connection.execute(_UNPIN, (change.upload_id,))
        connection.execute(_OVER, (change.upload_id, change.at, None))
    if change.facts:
        outbox.take(connection, change.facts)
    return True


def adopt(
    connection: sqlite3.Connection,
    outbox: Outbox,
    upload_id: str,
    offset: int,
    at: float,
    facts: Sequence[Fact],
    place: Place | None,
) -> bool:
    if connection.execute(_ADOPT, (offset, at, upload_id, to_placed(place))).rowcount != 1:
        return False
    outbox.take(connection, facts)
    return True


def end(
    connection: sqlite3.Connection,
    outbox: Outbox,
    upload_id: str,
    gone: Gone,
    at: float,
    facts: Sequence[Fact],
    delete: bool,
    refusal: Mapping[str, Any] | None,
) -> bool:
    if connection.execute(_END, (gone.value, at, upload_id)).rowcount != 1:
        return False
    replica_changes.end(connection, upload_id, delete)
    connection.execute(_UNPIN, (upload_id,))
    if refusal is None:
        connection.execute(_NOT_ASKED, (upload_id,))
    else:
        connection.execute(_OVER, (upload_id, at, to_json(refusal)))
    if facts:
        outbox.take(connection, facts)
    return True


def placed(
    connection: sqlite3.Connection, outbox: Outbox, upload_id: str, place: Place, at: float, facts: Sequence[Fact]
) -> bool:
    if connection.execute(PLACED, (upload_id, to_placed(place))).rowcount != 1:
        return False
    replica_changes.give_up(connection, upload_id, at)
    if facts:
        outbox.take(connection, facts)
    return True


def removed(connection: sqlite3.Connection, upload_ids: Sequence[str], unplaced: Sequence[str]) -> None:
    connection.executemany(_UNPLACED, [(one,) for one in unplaced])
    connection.executemany(_REMOVED, [(one,) for one in upload_ids])


def forget(connection: sqlite3.Connection, gone_before: float, limit: int) -> int:
    chosen = connection.execute(FORGETTABLE, (gone_before, limit)).fetchall()
    connection.executemany("DELETE FROM uploads WHERE id = ?", chosen)
    replica_changes.forget(connection, [upload_id for (upload_id,) in chosen])
    return len(chosen)


def heard(connection: sqlite3.Connection, digest: str) -> None:
    connection.execute(_HEARD, (digest,))


def forget_asked(connection: sqlite3.Connection, over_before: float, limit: int) -> int:
    return connection.execute(FORGET_ASKED, (over_before, limit)).rowcount


def record_lost(connection: sqlite3.Connection, upload_ids: Sequence[str], at: float) -> int:
    rows = [to_row(Upload(one, at, at, gone=Gone.LOST, gone_at=at)) for one in upload_ids]
    return connection.executemany(_CREATE, rows).rowcount

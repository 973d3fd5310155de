"""What may happen to a replica's row, one statement or a few for each.

Changes when a promise of IReplicas does. Invariant: a change of a replica is a compare-and-set on its state; an
upload's ``stored_at`` and ``settled_at`` are right after each of them; facts are written with what they tell of.
Every function runs within the transaction of its batch and answers at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from resumable.catalog import lookups
from resumable.catalog.outbox import Outbox
from resumable.catalog.records import REPLICA_FIELDS, from_replica, to_json
from resumable.catalog.schema import AWAITS_PLACE, IS_SETTLED, WAITS
from resumable.model.hooks import as_data, view
from resumable.model.upload import Fact, FactKind, Replica

_DETAILS = ("location", "etag", "version", "checksum")
_ONE = "upload_id = ? AND remote = ?"
_CREATE = f"INSERT INTO replicas ({REPLICA_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FRESH = "attempts = 0, error = NULL, retry_at = NULL, failing_since = NULL"
_END = f"""UPDATE replicas SET state = 'ending', deletes = ?2, {_FRESH}
    WHERE upload_id = ?1 AND (?2 OR state <> 'stored')"""
_ADVANCE = f"""UPDATE replicas SET key = ?, confirmed = ?, needs = ?, run = ?, attempts = ?, error = ?, retry_at = ?,
    failing_since = ? WHERE {_ONE} AND state = ?"""
_STORE = f"""UPDATE replicas SET state = 'stored', key = IFNULL(?, key), stored = ?, stored_at = ?, {_FRESH},
    confirmed = (SELECT offset FROM uploads WHERE id = upload_id) WHERE {_ONE} AND state = 'open'"""
_STORED = """UPDATE uploads SET stored_at = ?2 WHERE id = ?1 AND stored_at IS NULL AND required > 0
    AND NOT EXISTS (SELECT 1 FROM replicas WHERE upload_id = ?1 AND required AND state <> 'stored')"""
_NEEDS_DATA = "(state NOT IN ('stored', 'parked') OR (required AND state <> 'stored'))"
_SETTLED = f"""UPDATE uploads SET settled_at = (SELECT MAX(stored_at) FROM replicas WHERE upload_id = ?1
        AND NOT EXISTS (SELECT 1 FROM replicas WHERE upload_id = ?1 AND {_NEEDS_DATA}))
    WHERE id = ?1 AND required > 0 AND finished_at IS NOT NULL AND gone IS NULL AND dropped_at IS NULL
        AND placed IS NULL"""
_GIVE_UP = f"""UPDATE uploads SET dropped_at = MAX(?2, touched_at) WHERE id = ?1 AND finished_at IS NOT NULL
    AND gone IS NULL AND dropped_at IS NULL AND placed IS NOT NULL AND NOT ({AWAITS_PLACE})
    AND NOT EXISTS (SELECT 1 FROM replicas WHERE upload_id = ?1 AND {_NEEDS_DATA})"""
_PARK = f"UPDATE replicas SET state = 'parked', error = ?, retry_at = NULL WHERE {_ONE} AND state = 'open'"
_RESTART = f"""UPDATE replicas SET state = 'open', {_FRESH} WHERE upload_id = ?1 AND remote = IFNULL(?2, remote)
    AND state = 'parked' AND EXISTS (SELECT 1 FROM uploads WHERE id = ?1 AND gone IS NULL AND dropped_at IS NULL)"""
HASTEN = f"UPDATE replicas SET retry_at = NULL WHERE remote = ? AND {WAITS}"
_ENDED = f"DELETE FROM replicas WHERE {_ONE} AND state = 'ending'"
_DROP_PARTS = f"DELETE FROM replica_parts WHERE {_ONE}"
_FORGET_PARTS = """DELETE FROM replica_parts WHERE upload_id = ?1 AND remote NOT IN
    (SELECT remote FROM replicas WHERE upload_id = ?1 AND state = 'ending')"""
_FORGET = "DELETE FROM replicas WHERE upload_id = ? AND state <> 'ending'"
_SAVE_PART = """INSERT OR REPLACE INTO replica_parts (upload_id, remote, number, value)
    SELECT upload_id, remote, ?3, ?4 FROM replicas WHERE upload_id = ?1 AND remote = ?2"""
_DROP = f"UPDATE uploads SET dropped_at = ?, settled_at = NULL WHERE id = ? AND {IS_SETTLED} AND required > 0"


def create(connection: sqlite3.Connection, upload_id: str, replicas: Sequence[Replica]) -> None:
    connection.executemany(_CREATE, [from_replica(upload_id, replica) for replica in replicas])


def end(connection: sqlite3.Connection, upload_id: str, delete: bool) -> None:
    connection.execute(_END, (upload_id, delete))


def forget(connection: sqlite3.Connection, upload_ids: Sequence[str]) -> None:
    """What is left of these uploads, but for what the store still has to be rid of."""
    ids = [(upload_id,) for upload_id in upload_ids]
    connection.executemany(_FORGET_PARTS, ids)
    connection.executemany(_FORGET, ids)


def advance(connection: sqlite3.Connection, replica: Replica) -> bool:
    work = (replica.key, replica.confirmed, replica.needs, replica.run)
    failures = (replica.attempts, replica.error, replica.retry_at, replica.failing_since)
    found = (replica.upload_id, replica.remote, replica.state.value)
    return connection.execute(_ADVANCE, (*work, *failures, *found)).rowcount == 1


def store(
    connection: sqlite3.Connection, outbox: Outbox, replica: Replica, stored: Mapping[str, Any], at: float
) -> tuple[bool, bool]:
    one = (replica.upload_id, replica.remote)
    if connection.execute(_STORE, (replica.key, to_json(stored), at, *one)).rowcount != 1:
        return False, False
    connection.execute(_DROP_PARTS, one)
    key, size, required = connection.execute(
        f"SELECT key, confirmed, required FROM replicas WHERE {_ONE}", one
    ).fetchone()
    known = _as_data(connection, outbox, replica.upload_id)
    details = {name: stored[name] for name in _DETAILS if stored.get(name) is not None}
    told = {**known, **details, "remote": replica.remote, "key": key, "size": size, "required": bool(required)}
    facts = [Fact(FactKind.STORED, replica.upload_id, at, told)]
    if connection.execute(_STORED, (replica.upload_id, at)).rowcount == 1:
        facts.append(Fact(FactKind.STORED, replica.upload_id, at, {**known, "remote": None, "size": size}))
    settle(connection, replica.upload_id)
    give_up(connection, replica.upload_id, at)
    outbox.take(connection, facts)
    (all_at,) = connection.execute("SELECT stored_at FROM uploads WHERE id = ?", (replica.upload_id,)).fetchone()
    return True, all_at is not None


def park(connection: sqlite3.Connection, outbox: Outbox, replica: Replica, reason: str, at: float) -> bool:
    if connection.execute(_PARK, (reason, replica.upload_id, replica.remote)).rowcount != 1:
        return False
    settle(connection, replica.upload_id)
    give_up(connection, replica.upload_id, at)
    told = {**_as_data(connection, outbox, replica.upload_id), "remote": replica.remote, "reason": reason}
    outbox.take(connection, [Fact(FactKind.FAILED, replica.upload_id, at, told)])
    return True


def _as_data(connection: sqlite3.Connection, outbox: Outbox, upload_id: str) -> dict[str, object]:
    """The upload, for a fact."""
    upload = lookups.get(connection, upload_id) if outbox.wanted else None
    return {} if upload is None else as_data(view(upload))


def restart(connection: sqlite3.Connection, upload_id: str, remote: str | None) -> int:
    count = connection.execute(_RESTART, (upload_id, remote)).rowcount
    settle(connection, upload_id)
    return count


def settle(connection: sqlite3.Connection, upload_id: str) -> None:
    """See that the upload is droppable if, and only if, its replicas say so."""
    connection.execute(_SETTLED, (upload_id,))


def give_up(connection: sqlite3.Connection, upload_id: str, at: float) -> None:
    """See that the data file of an upload that has its place goes when no replica needs it any more."""
    connection.execute(_GIVE_UP, (upload_id, at))


def hasten(connection: sqlite3.Connection, remote: str) -> None:
    connection.execute(HASTEN, (remote,))


def ended(connection: sqlite3.Connection, replica: Replica) -> None:
    one = (replica.upload_id, replica.remote)
    if connection.execute(_ENDED, one).rowcount == 1:
        connection.execute(_DROP_PARTS, one)


def drop(connection: sqlite3.Connection, upload_ids: Sequence[str], at: float) -> list[str]:
    return [one for one in upload_ids if connection.execute(_DROP, (at, one)).rowcount == 1]


def save_journal(connection: sqlite3.Connection, upload_id: str, remote: str, value: Mapping[str, Any]) -> None:
    connection.execute(f"UPDATE replicas SET journal = ? WHERE {_ONE}", (to_json(value), upload_id, remote))


def save_part(connection: sqlite3.Connection, upload_id: str, remote: str, number: int, value: str) -> None:
    connection.execute(_SAVE_PART, (upload_id, remote, number, value))


def drop_parts(connection: sqlite3.Connection, upload_id: str, remote: str) -> None:
    connection.execute(_DROP_PARTS, (upload_id, remote))

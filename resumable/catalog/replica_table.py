"""The tables of replicas and their parts: each change of a row, and each question.

Invariants: a change of a replica is a compare-and-set on its state; an upload's ``stored_at`` and ``settled_at`` are
right after each of them; facts are written with the change that they report. Each question goes by an index, and those
that are asked again and again look only at rows that some work waits for: stored replicas cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.catalog.jobs import CatalogTable, Jobs, frees, reads, writes
from resumable.catalog.outbox_table import OutboxTable
from resumable.catalog.schema import (
    AWAITS_PLACE,
    FIELDS,
    IN_WORK,
    IS_SETTLED,
    REPLICA_FIELDS,
    WAITS,
    find_upload,
    from_replica,
    to_json,
    to_replica,
    to_upload,
    to_uploads,
)
from resumable.model.hooks import as_data, view
from resumable.model.replica import Backlog, IReplicas, Page
from resumable.model.upload import Fact, FactKind, Replica, Upload

_ONE: Final = "upload_id = ? AND remote = ?"
_UNTRIED: Final = "attempts = 0, error = NULL, retry_at = NULL, failing_since = NULL"
_NEEDS_DATA: Final = "(state NOT IN ('stored', 'parked') OR (required AND state <> 'stored'))"
_WIDTH: Final = len(REPLICA_FIELDS.split(", "))
_BOTH: Final = ", ".join(
    [f"replicas.{name}" for name in REPLICA_FIELDS.split(", ")] + [f"uploads.{name}" for name in FIELDS.split(", ")]
)
PAIR: Final = f"SELECT {_BOTH} FROM replicas LEFT JOIN uploads ON uploads.id = replicas.upload_id"
#: The columns of a store's answer about an object that facts repeat.
_DETAILS: Final = ("location", "etag", "version", "checksum")


# Steps of others' changes, within their transactions

ADD: Final = f"INSERT INTO replicas ({REPLICA_FIELDS}, journal) VALUES ({', '.join('?' * (_WIDTH + 1))})"


def add_replicas(connection: Connection, upload_id: str, replicas: Sequence[Replica]) -> None:
    """The replicas of a new upload, with their intents."""
    for replica in replicas:
        journal = None if replica.intent is None else to_json(replica.intent)
        connection.execute(ADD, (*from_replica(upload_id, replica), journal))


OF: Final = f"SELECT {REPLICA_FIELDS} FROM replicas WHERE upload_id = ? ORDER BY seq"


def replicas_of(connection: Connection, upload_id: str) -> list[Replica]:
    """All of one upload's, in the order of creation."""
    return [to_replica(row) for row in connection.execute(OF, (upload_id,)).fetchall()]


END: Final = f"""UPDATE replicas SET state = 'ending', deletes = ?2, {_UNTRIED}
    WHERE upload_id = ?1 AND (?2 OR state <> 'stored')"""


def end_replicas(connection: Connection, upload_id: str, delete: bool, statement: str = END) -> None:
    """The upload is gone: its replicas become ENDING, with ``delete`` the STORED ones too."""
    connection.execute(statement, (upload_id, delete))


FORGET_PARTS: Final = """DELETE FROM replica_parts WHERE upload_id = ?1 AND remote NOT IN
    (SELECT remote FROM replicas WHERE upload_id = ?1 AND state = 'ending')"""
FORGET: Final = "DELETE FROM replicas WHERE upload_id = ? AND state <> 'ending'"


def forget_replicas(connection: Connection, upload_ids: Sequence[str]) -> None:
    """Drop the rest of these uploads' rows, except those of objects that have still to be removed from a store."""
    ids = [(upload_id,) for upload_id in upload_ids]
    connection.executemany(FORGET_PARTS, ids)
    connection.executemany(FORGET, ids)


SETTLE: Final = f"""UPDATE uploads SET settled_at = (SELECT MAX(stored_at) FROM replicas WHERE upload_id = ?1
        AND NOT EXISTS (SELECT 1 FROM replicas WHERE upload_id = ?1 AND {_NEEDS_DATA}))
    WHERE id = ?1 AND required > 0 AND finished_at IS NOT NULL AND gone IS NULL AND dropped_at IS NULL
        AND placed IS NULL"""


def settle(connection: Connection, upload_id: str) -> None:
    """See that the upload is droppable if, and only if, its replicas say so."""
    connection.execute(SETTLE, (upload_id,))


DROP_PLACED: Final = f"""UPDATE uploads SET dropped_at = CASE WHEN touched_at > ?2 THEN touched_at ELSE ?2 END
    WHERE id = ?1 AND finished_at IS NOT NULL
    AND gone IS NULL AND dropped_at IS NULL AND placed IS NOT NULL AND NOT ({AWAITS_PLACE})
    AND NOT EXISTS (SELECT 1 FROM replicas WHERE upload_id = ?1 AND {_NEEDS_DATA})"""


def drop_placed(connection: Connection, upload_id: str, at: float) -> None:
    """See that the data file of an upload whose file is in its place goes when no replica needs it any more."""
    connection.execute(DROP_PLACED, (upload_id, at))


@implementer(IReplicas)
class ReplicaTable(CatalogTable):
    """IReplicas on SQLite; facts go to ``outbox``.

    Changes that lead to free space may use the space reserve, as storing does where data is dropped once it is stored.
    """

    def __init__(self, jobs: Jobs, outbox: OutboxTable) -> None:
        super().__init__(jobs)
        self._outbox = outbox

    def lock(self, connection: Connection, upload_id: str) -> None:
        """Before a change of the upload's replicas and events: where others change them too, these wait."""

    # Questions

    @reads
    def of(self, connection: Connection, upload_id: str) -> Sequence[Replica]:
        return replicas_of(connection, upload_id)

    @reads
    def of_many(self, connection: Connection, upload_ids: Sequence[str]) -> Mapping[str, Sequence[Replica]]:
        found = {upload_id: replicas_of(connection, upload_id) for upload_id in upload_ids}
        return {upload_id: replicas for upload_id, replicas in found.items() if replicas}

    GET = f"{PAIR} WHERE replicas.upload_id = ? AND remote = ?"

    @reads
    def get(self, connection: Connection, upload_id: str, remote: str) -> tuple[Replica, Upload | None] | None:
        row = connection.execute(self.GET, (upload_id, remote)).fetchone()
        return None if row is None else to_pair(row)

    def own(self, upload_id: str, remote: str) -> Deferred[tuple[Replica, Upload | None] | None]:
        """See IReplicas. One process has all."""
        return self.get(upload_id, remote)

    # The few columns that decide; the rest is only read of those that are due.
    SCAN = f"""SELECT replicas.seq, IFNULL(retry_at <= ?2, 1) AND (state = 'ending' OR finished_at IS NOT NULL
            OR (offset >= needs AND offset > confirmed))
        FROM replicas INDEXED BY replicas_in_work LEFT JOIN uploads ON uploads.id = replicas.upload_id
        WHERE remote = ?1 AND replicas.seq > ?3 AND {IN_WORK} ORDER BY replicas.seq LIMIT ?4"""
    AT = f"{PAIR} WHERE replicas.seq = ?"

    @reads
    def due(self, connection: Connection, remote: str, now: float, after: int, limit: int) -> Page:
        rows = connection.execute(self.SCAN, (remote, now, after, limit)).fetchall()
        found = [to_pair(connection.execute(self.AT, (seq,)).fetchone()) for seq, is_due in rows if is_due]
        return Page(found, rows[-1][0] if rows and len(rows) == limit else None)

    NEXT_RETRY = f"SELECT retry_at FROM replicas WHERE remote = ? AND {WAITS} ORDER BY retry_at LIMIT 1"

    @reads
    def next_retry(self, connection: Connection, remote: str) -> float | None:
        row = connection.execute(self.NEXT_RETRY, (remote,)).fetchone()
        return None if row is None else float(row[0])

    BACKLOG = f"""SELECT IFNULL(SUM(MAX(offset - confirmed, 0)), 0), COUNT(finished_at), MIN(finished_at)
        FROM replicas INDEXED BY replicas_in_work JOIN uploads ON uploads.id = replicas.upload_id
        WHERE remote = ? AND {IN_WORK} AND state = 'open'"""

    @reads
    def backlog(self, connection: Connection, remote: str) -> Backlog:
        return Backlog(*connection.execute(self.BACKLOG, (remote,)).fetchone())

    UNFINISHED = f"SELECT remote, COUNT(*) FROM replicas INDEXED BY replicas_in_work WHERE {IN_WORK} GROUP BY remote"

    @reads
    def unfinished(self, connection: Connection) -> Mapping[str, int]:
        return dict(connection.execute(self.UNFINISHED).fetchall())

    OWNERS = "SELECT upload_id FROM replicas WHERE remote = ? AND key = ? ORDER BY seq"

    @reads
    def owners(self, connection: Connection, remote: str, key: str) -> Sequence[str]:
        return [row[0] for row in connection.execute(self.OWNERS, (remote, key)).fetchall()]

    # The state of a replica

    ADVANCE = f"""UPDATE replicas SET key = ?, confirmed = ?, needs = ?, run = ?, attempts = ?, error = ?, retry_at = ?,
        failing_since = ? WHERE {_ONE} AND state = ?"""

    @writes
    def advance(self, connection: Connection, replica: Replica) -> bool:
        work = (replica.key, replica.confirmed, replica.needs, replica.run)
        failures = (replica.attempts, replica.error, replica.retry_at, replica.failing_since)
        found = (replica.upload_id, replica.remote, replica.state.value)
        return connection.execute(self.ADVANCE, (*work, *failures, *found)).rowcount == 1

    STORE = f"""UPDATE replicas SET state = 'stored', key = COALESCE(?, key), stored = ?, stored_at = ?,
        journal = COALESCE(?, journal), {_UNTRIED}, confirmed = (SELECT offset FROM uploads WHERE id = upload_id)
        WHERE {_ONE} AND state = 'open'"""
    STORED = """UPDATE uploads SET stored_at = ?2 WHERE id = ?1 AND stored_at IS NULL AND required > 0
        AND NOT EXISTS (SELECT 1 FROM replicas WHERE upload_id = ?1 AND required AND state <> 'stored')"""

    # What STORED and `settle` do where all replicas are stored, which leaves nothing to `drop_placed`.
    ALL_STORED = """UPDATE uploads SET stored_at = ?2,
            settled_at = (SELECT MAX(stored_at) FROM replicas WHERE upload_id = ?1)
        WHERE id = ?1 AND stored_at IS NULL AND required > 0 AND finished_at IS NOT NULL AND gone IS NULL
        AND dropped_at IS NULL AND placed IS NULL
        AND NOT EXISTS (SELECT 1 FROM replicas WHERE upload_id = ?1 AND state <> 'stored')"""

    @frees
    def store(
        self,
        connection: Connection,
        replica: Replica,
        stored: Mapping[str, Any],
        at: float,
        journal: Mapping[str, Any] | None = None,
    ) -> tuple[bool, bool]:
        """See IReplicas. Without any required replica the upload never counts as stored."""
        upload_id, one = replica.upload_id, (replica.upload_id, replica.remote)
        self.lock(connection, upload_id)
        text = None if journal is None else to_json(journal)
        if connection.execute(self.STORE, (replica.key, to_json(stored), at, text, *one)).rowcount != 1:
            return False, False
        if journal is None:
            connection.execute(self.DROP_PARTS, one)
        known = self._as_data(connection, upload_id)
        complete = connection.execute(self.ALL_STORED, (upload_id, at)).rowcount == 1
        if not complete:
            complete = connection.execute(self.STORED, (upload_id, at)).rowcount == 1
            settle(connection, upload_id)
            drop_placed(connection, upload_id, at)
        if self._outbox.wanted:
            self._outbox.take(connection, self._stored_facts(connection, replica, stored, at, known, complete))
        return True, complete or connection.execute(self.IS_STORED, (upload_id,)).fetchone() is not None

    IS_STORED = "SELECT 1 FROM uploads WHERE id = ? AND stored_at IS NOT NULL"
    TOLD = f"SELECT key, confirmed, required FROM replicas WHERE {_ONE}"

    def _stored_facts(
        self,
        connection: Connection,
        replica: Replica,
        stored: Mapping[str, Any],
        at: float,
        known: Mapping[str, object],
        complete: bool,
    ) -> Sequence[Fact]:
        """One about the replica; one about the upload, if this has made it ``complete``. ``known``: see `_as_data`."""
        upload_id = replica.upload_id
        key, size, required = connection.execute(self.TOLD, (upload_id, replica.remote)).fetchone()
        details = {name: stored[name] for name in _DETAILS if stored.get(name) is not None}
        told = {**known, **details, "remote": replica.remote, "key": key, "size": size, "required": bool(required)}
        facts = [Fact(FactKind.STORED, upload_id, at, told)]
        if complete:
            facts.append(Fact(FactKind.STORED, upload_id, at, {**known, "remote": None, "size": size}))
        return facts

    PARK = f"UPDATE replicas SET state = 'parked', error = ?, retry_at = NULL WHERE {_ONE} AND state = 'open'"

    @writes
    def park(self, connection: Connection, replica: Replica, reason: str, at: float) -> bool:
        self.lock(connection, replica.upload_id)
        if connection.execute(self.PARK, (reason, replica.upload_id, replica.remote)).rowcount != 1:
            return False
        settle(connection, replica.upload_id)
        drop_placed(connection, replica.upload_id, at)
        told = {**self._as_data(connection, replica.upload_id), "remote": replica.remote, "reason": reason}
        self._outbox.take(connection, [Fact(FactKind.FAILED, replica.upload_id, at, told)])
        return True

    def _as_data(self, connection: Connection, upload_id: str) -> dict[str, object]:
        """The upload, for a fact."""
        upload = find_upload(connection, upload_id) if self._outbox.wanted else None
        return {} if upload is None else as_data(view(upload))

    RESTART = f"""UPDATE replicas SET state = 'open', {_UNTRIED} WHERE upload_id = ?1 AND remote = COALESCE(?2, remote)
        AND state = 'parked' AND EXISTS (SELECT 1 FROM uploads WHERE id = ?1 AND gone IS NULL AND dropped_at IS NULL)"""

    @writes
    def restart(self, connection: Connection, upload_id: str, remote: str | None) -> int:
        """See IReplicas. Of an upload that is gone or dropped, none: there is nothing to send any more."""
        self.lock(connection, upload_id)
        count = connection.execute(self.RESTART, (upload_id, remote)).rowcount
        settle(connection, upload_id)
        return count

    HASTEN = f"UPDATE replicas SET retry_at = NULL WHERE remote = ? AND {WAITS}"

    @writes
    def hasten(self, connection: Connection, remote: str) -> None:
        connection.execute(self.HASTEN, (remote,))

    ENDED = f"DELETE FROM replicas WHERE {_ONE} AND state = 'ending'"

    @frees
    def ended(self, connection: Connection, replica: Replica) -> None:
        self.forget(connection, replica)

    def forget(self, connection: Any, replica: Replica) -> None:
        """A step of `ended`: the row goes, with its parts."""
        one = (replica.upload_id, replica.remote)
        if connection.execute(self.ENDED, one).rowcount == 1:
            connection.execute(self.DROP_PARTS, one)

    # Journals and parts

    JOURNAL = f"SELECT journal FROM replicas WHERE {_ONE}"

    @reads
    def load_journal(self, connection: Connection, upload_id: str, remote: str) -> dict[str, Any] | None:
        row = connection.execute(self.JOURNAL, (upload_id, remote)).fetchone()
        value: dict[str, Any] | None = None if row is None or row[0] is None else json.loads(row[0])
        return value

    SAVE_JOURNAL = f"UPDATE replicas SET journal = ? WHERE {_ONE}"

    @writes
    def save_journal(self, connection: Connection, upload_id: str, remote: str, value: Mapping[str, Any]) -> None:
        connection.execute(self.SAVE_JOURNAL, (to_json(value), upload_id, remote))

    PARTS = f"SELECT number, value FROM replica_parts WHERE {_ONE}"

    @reads
    def load_parts(self, connection: Connection, upload_id: str, remote: str) -> dict[int, str]:
        return dict(connection.execute(self.PARTS, (upload_id, remote)).fetchall())

    SAVE_PART = """INSERT INTO replica_parts (upload_id, remote, number, value)
        SELECT upload_id, remote, ?3, ?4 FROM replicas WHERE upload_id = ?1 AND remote = ?2
        ON CONFLICT (upload_id, remote, number) DO UPDATE SET value = excluded.value"""

    @writes
    def save_part(self, connection: Connection, upload_id: str, remote: str, number: int, value: str) -> None:
        """See IReplicas. Does nothing when there is no such replica."""
        connection.execute(self.SAVE_PART, (upload_id, remote, number, value))

    DROP_PARTS = f"DELETE FROM replica_parts WHERE {_ONE}"

    @frees
    def drop_parts(self, connection: Connection, upload_id: str, remote: str) -> None:
        connection.execute(self.DROP_PARTS, (upload_id, remote))

    # Uploads whose local data isn't needed any more

    # Partials that finals have used are settled without replicas: see schema.py.
    DROPPABLE = f"""SELECT {FIELDS} FROM uploads WHERE {IS_SETTLED} AND settled_at < ? AND required > 0
        ORDER BY settled_at LIMIT ?"""

    @reads
    def droppable(self, connection: Connection, stored_before: float, limit: int) -> Sequence[Upload]:
        return to_uploads(connection.execute(self.DROPPABLE, (stored_before, limit)).fetchall())

    DROP = f"UPDATE uploads SET dropped_at = ?, settled_at = NULL WHERE id = ? AND {IS_SETTLED} AND required > 0"

    @frees
    def drop(self, connection: Connection, upload_ids: Sequence[str], at: float) -> Sequence[str]:
        return [one for one in upload_ids if connection.execute(self.DROP, (at, one)).rowcount == 1]


def to_pair(row: tuple[Any, ...]) -> tuple[Replica, Upload | None]:
    """The records of a row of `PAIR`."""
    upload = row[_WIDTH:]
    return to_replica(row[:_WIDTH]), None if upload[0] is None else to_upload(upload)

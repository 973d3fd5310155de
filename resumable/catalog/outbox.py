"""The statements on events: facts, kept for each configured deliverer until it has delivered them.

Changes when a promise of IOutbox does. Invariants: a fact is written in the transaction of the change that it tells
of, once for each deliverer that was configured then, and for no other; a sequence number is never used twice. Of the
events of one upload for one deliverer that are not dead, the oldest is ``next`` and all others are ``behind``, after
each of these. What is asked again and again looks only at events that it answers with, or whose time has come, however
many wait. Every function runs within the transaction of its batch.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from resumable.catalog.records import to_json
from resumable.model.errors import CatalogUnavailable
from resumable.model.outbox import Depth, OutboxEvent
from resumable.model.upload import Fact, FactKind

FIELDS: Final = "seq, deliverer, upload_id, kind, at, data, attempts, error, retry_at, dead_at"
# Another event of the same upload for the same deliverer.
_KIN = "SELECT kin.seq FROM outbox AS it JOIN outbox AS kin USING (deliverer, upload_id) WHERE it.seq = ?1"

TAKE = """INSERT INTO outbox (deliverer, upload_id, kind, at, data, state) VALUES (?1, ?2, ?3, ?4, ?5, CASE WHEN
    EXISTS (SELECT 1 FROM outbox WHERE deliverer = ?1 AND upload_id = ?2 AND dead_at IS NULL) THEN 'behind'
    ELSE 'next' END)"""
FRESH = f"""SELECT {FIELDS} FROM outbox WHERE deliverer = ? AND state = 'next' AND retry_at IS NULL AND seq > ?
    ORDER BY seq LIMIT ?"""
# Who failed least often goes first; of very many only those are looked at whose time came first.
RIPE = f"""SELECT {FIELDS} FROM outbox WHERE seq IN (SELECT seq FROM (SELECT seq, attempts FROM outbox
    WHERE deliverer = ? AND state = 'next' AND retry_at <= ? ORDER BY retry_at LIMIT 4096)
    ORDER BY attempts, seq LIMIT ?) ORDER BY attempts, seq"""
NEXT_DUE = "SELECT MIN(retry_at) FROM outbox WHERE deliverer = ? AND state = 'next' AND retry_at > ?"
BEHIND = f"""SELECT {FIELDS} FROM outbox WHERE seq = ({_KIN} AND it.state = 'next'
    AND kin.dead_at IS NULL AND kin.seq > ?1 ORDER BY kin.seq LIMIT 1)"""
PASS_ON = "UPDATE outbox SET state = 'next' WHERE seq = ?"
DELIVERED = "DELETE FROM outbox WHERE seq = ?"
FAILED = "UPDATE outbox SET attempts = attempts + 1, error = ?2, retry_at = ?3 WHERE seq = ?1 AND dead_at IS NULL"
BURY = """UPDATE outbox SET attempts = attempts + 1, error = ?2, retry_at = NULL, dead_at = ?3, state = 'dead'
    WHERE seq = ?1 AND dead_at IS NULL"""
DEAD = f"""SELECT {FIELDS} FROM outbox WHERE deliverer = ? AND state = 'dead' AND retry_at IS NULL AND seq > ?
    ORDER BY seq LIMIT ?"""
REPLAY = f"""UPDATE outbox SET attempts = 0, error = NULL, dead_at = NULL, state = CASE WHEN
    EXISTS ({_KIN} AND kin.dead_at IS NULL AND kin.seq < ?1) THEN 'behind' ELSE 'next' END
    WHERE seq = ?1 AND deliverer = ?2 AND state = 'dead'"""
STEP_BACK = f"""UPDATE outbox SET state = 'behind' WHERE seq = ({_KIN} AND it.state = 'next'
    AND kin.dead_at IS NULL AND kin.state = 'next' AND kin.seq > ?1)"""
DEPTH = """SELECT COUNT(*), TOTAL(state = 'dead'),
    (SELECT at FROM outbox WHERE seq = (SELECT MIN(seq) FROM outbox WHERE deliverer = ?1 AND state = 'next'))
    FROM outbox WHERE deliverer = ?1"""


class Outbox:
    """Writes facts for those ``deliverers``; without any, none is kept."""

    def __init__(self, deliverers: Sequence[str]) -> None:
        self._deliverers = tuple(deliverers)
        #: How many facts were taken; those of a transaction that failed count too.
        self.taken = 0

    @property
    def wanted(self) -> bool:
        """Whether any fact is kept."""
        return bool(self._deliverers)

    def take(self, connection: sqlite3.Connection, facts: Sequence[Fact]) -> None:
        if not self._deliverers:
            return
        self.taken += len(facts)
        for fact in facts:
            data = to_json(fact.data)
            events = [(name, fact.upload_id, fact.kind.value, fact.at, data) for name in self._deliverers]
            connection.executemany(TAKE, events)

    def purge(self, connection: sqlite3.Connection) -> None:
        """Drop what is kept for deliverers that are no longer configured: one that returns starts from then."""
        known = connection.execute("SELECT DISTINCT deliverer FROM outbox").fetchall()
        stale = [name for name in known if name[0] not in self._deliverers]
        connection.executemany("DELETE FROM outbox WHERE deliverer = ?", stale)


def due(
    connection: sqlite3.Connection, deliverer: str, now: float, limit: int, again: int, after: int
) -> list[OutboxEvent]:
    fresh = connection.execute(FRESH, (deliverer, after, limit)).fetchall() if limit else []
    ripe = connection.execute(RIPE, (deliverer, now, again)).fetchall() if again else []
    return [_event(row) for row in fresh + ripe]


def next_due(connection: sqlite3.Connection, deliverer: str, now: float) -> float | None:
    at: float | None = connection.execute(NEXT_DUE, (deliverer, now)).fetchone()[0]
    return at


def delivered(connection: sqlite3.Connection, seqs: Sequence[int]) -> list[OutboxEvent]:
    gone = set(seqs)
    behind = [_pass_on(connection, seq) for seq in sorted(gone)]  # of two of one upload, the first to the second
    connection.executemany(DELIVERED, [(seq,) for seq in seqs])
    return [one for one in behind if one is not None and one.seq not in gone]


def _pass_on(connection: sqlite3.Connection, seq: int) -> OutboxEvent | None:
    """The event behind that one may go now; None, if there is none, or it waits for a time."""
    row = connection.execute(BEHIND, (seq,)).fetchone()
    if row is None:
        return None
    connection.execute(PASS_ON, row[:1])
    try:
        event = _event(row)
    except CatalogUnavailable:
        return None  # whoever asks for it is told
    return event if event.retry_at is None else None


def failed(connection: sqlite3.Connection, seq: int, error: str, retry_at: float) -> None:
    connection.execute(FAILED, (seq, error, retry_at))


def bury(connection: sqlite3.Connection, seq: int, error: str, at: float) -> list[OutboxEvent]:
    behind = _pass_on(connection, seq)
    connection.execute(BURY, (seq, error, at))
    return [] if behind is None else [behind]


def dead(connection: sqlite3.Connection, deliverer: str, after: int, limit: int) -> list[OutboxEvent]:
    return [_event(row) for row in connection.execute(DEAD, (deliverer, after, limit)).fetchall()]


def replay(connection: sqlite3.Connection, deliverer: str, seqs: Sequence[int]) -> int:
    replayed = [seq for seq in seqs if connection.execute(REPLAY, (seq, deliverer)).rowcount == 1]
    connection.executemany(STEP_BACK, [(seq,) for seq in replayed])
    return len(replayed)


def depth(connection: sqlite3.Connection, deliverer: str) -> Depth:
    count, dead, oldest = connection.execute(DEPTH, (deliverer,)).fetchone()
    return Depth(count - int(dead), int(dead), oldest)


def _event(row: tuple[Any, ...]) -> OutboxEvent:
    """The record of one row of FIELDS; raises CatalogUnavailable when it is damaged."""
    seq, deliverer, upload_id, kind, at, data, *delivery = row
    try:
        return OutboxEvent(seq, deliverer, Fact(FactKind(kind), upload_id, at, json.loads(data)), *delivery)
    except ValueError as error:
        raise CatalogUnavailable(f"outbox event {seq} can't be read") from error

"""The table of outbox events: facts, kept for each configured deliverer until it has delivered them.

Invariants: a fact is written in the transaction of the change that it reports, once for each deliverer that was
configured then, and for no other; a sequence number is never used twice. Of the events of one upload for one deliverer
that are not dead, the oldest is ``next`` and all others are ``behind``, after each of these. The
frequent questions look only at events that they answer with, or whose time has come, however many wait.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, Final

from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.catalog.jobs import CatalogTable, Jobs, frees, reads, writes
from resumable.catalog.schema import LIMIT, to_json
from resumable.model.errors import CatalogUnavailable
from resumable.model.outbox import Depth, IOutbox, OutboxEvent
from resumable.model.upload import Fact, FactKind

OUTBOX_FIELDS: Final = "seq, deliverer, upload_id, kind, at, data, attempts, error, retry_at, dead_at"
REPLAYED_AT_ONCE: Final = 500  # milliseconds of the catalog's thread, which all others wait for

# Another event of the same upload for the same deliverer.
_KIN: Final = "SELECT kin.seq FROM outbox AS it JOIN outbox AS kin USING (deliverer, upload_id) WHERE it.seq = ?1"


def _event(row: tuple[Any, ...]) -> OutboxEvent:
    """The record of one row of OUTBOX_FIELDS; raises CatalogUnavailable when it is damaged."""
    seq, deliverer, upload_id, kind, at, data, *delivery = row
    try:
        return OutboxEvent(seq, deliverer, Fact(FactKind(kind), upload_id, at, json.loads(data)), *delivery)
    except ValueError as error:
        raise CatalogUnavailable(f"outbox event {seq} can't be read") from error


@implementer(IOutbox)
class OutboxTable(CatalogTable):
    """IOutbox on SQLite. Facts are kept for those ``deliverers``; without any, none is kept."""

    def __init__(self, jobs: Jobs, deliverers: Sequence[str]) -> None:
        super().__init__(jobs)
        self._deliverers = tuple(deliverers)

    # Steps of changes to uploads and replicas, within their transactions

    @property
    def wanted(self) -> bool:
        """Whether any fact is kept."""
        return bool(self._deliverers)

    TAKE = """INSERT INTO outbox (deliverer, upload_id, kind, at, data, state) VALUES (?1, ?2, ?3, ?4, ?5, CASE WHEN
        EXISTS (SELECT 1 FROM outbox WHERE deliverer = ?1 AND upload_id = ?2 AND dead_at IS NULL) THEN 'behind'
        ELSE 'next' END)"""

    def take(self, connection: Connection, facts: Sequence[Fact]) -> None:
        """Keep each fact for each deliverer."""
        if not self._deliverers:
            return
        self.jobs.facts += len(facts)
        for fact in facts:
            data = to_json(fact.data)
            rows = [(name, fact.upload_id, fact.kind.value, fact.at, data) for name in self._deliverers]
            connection.executemany(self.TAKE, rows)

    WAITS = "SELECT 1 FROM outbox WHERE deliverer = ? AND upload_id = ? AND dead_at IS NULL LIMIT 1"

    def tells_of(self, connection: Connection, upload_id: str) -> bool:
        """Whether an event of that upload has yet to be delivered."""
        return any(connection.execute(self.WAITS, (name, upload_id)).fetchone() for name in self._deliverers)

    def purge(self, connection: Connection) -> None:
        """Drop the events of deliverers that are no longer configured: one that returns starts from then."""
        known = connection.execute("SELECT DISTINCT deliverer FROM outbox").fetchall()
        stale = [name for name in known if name[0] not in self._deliverers]
        connection.executemany("DELETE FROM outbox WHERE deliverer = ?", stale)

    def lock(self, connection: Connection, seqs: Sequence[int]) -> None:
        """Before a change of which events of an upload go: where others write new ones of it, these wait."""

    # IOutbox

    FRESH = f"""SELECT {OUTBOX_FIELDS} FROM outbox WHERE deliverer = ? AND state = 'next' AND retry_at IS NULL
        AND seq > ? ORDER BY seq LIMIT ?"""
    # The event that failed least often goes first; of very many only those are looked at whose time came first.
    RIPE = f"""SELECT {OUTBOX_FIELDS} FROM outbox WHERE seq IN (SELECT seq FROM (SELECT seq, attempts FROM outbox
        WHERE deliverer = ? AND state = 'next' AND retry_at <= ? ORDER BY retry_at LIMIT 4096) AS found
        ORDER BY attempts, seq LIMIT ?) ORDER BY attempts, seq"""

    @reads
    def due(
        self,
        connection: Connection,
        deliverer: str,
        now: float,
        limit: int,
        again: int | None = None,
        after: int = 0,
    ) -> Sequence[OutboxEvent]:
        again = limit if again is None else again
        fresh = connection.execute(self.FRESH, (deliverer, after, limit)).fetchall() if limit else []
        ripe = connection.execute(self.RIPE, (deliverer, now, again)).fetchall() if again else []
        return [_event(row) for row in fresh + ripe]

    NEXT_DUE = "SELECT MIN(retry_at) FROM outbox WHERE deliverer = ? AND state = 'next' AND retry_at > ?"

    @reads
    def next_due(self, connection: Connection, deliverer: str, now: float) -> float | None:
        at: float | None = connection.execute(self.NEXT_DUE, (deliverer, now)).fetchone()[0]
        return at

    DELIVERED = "DELETE FROM outbox WHERE seq = ?"

    @frees
    def delivered(self, connection: Connection, seqs: Sequence[int]) -> Sequence[OutboxEvent]:
        self.lock(connection, seqs)
        gone = set(seqs)
        behind = [
            self._pass_on(connection, seq) for seq in sorted(gone)
        ]  # of two of one upload, the first to the second
        connection.executemany(self.DELIVERED, [(seq,) for seq in seqs])
        return [one for one in behind if one is not None and one.seq not in gone]

    BEHIND = f"""SELECT {OUTBOX_FIELDS} FROM outbox WHERE seq = ({_KIN} AND it.state = 'next'
        AND kin.dead_at IS NULL AND kin.seq > ?1 ORDER BY kin.seq LIMIT 1)"""
    PASS_ON = "UPDATE outbox SET state = 'next' WHERE seq = ?"

    def _pass_on(self, connection: Connection, seq: int) -> OutboxEvent | None:
        """The event behind that one may go now; None if there is none, or it waits for a time."""
        row = connection.execute(self.BEHIND, (seq,)).fetchone()
        if row is None:
            return None
        connection.execute(self.PASS_ON, row[:1])
        try:
            event = _event(row)
        except CatalogUnavailable:
            return None  # the error reaches the caller that asks for this event
        return event if event.retry_at is None and self.may_go(connection, event.fact) else None

    def may_go(self, connection: Connection, fact: Fact) -> bool:
        """Whether nothing else has to be done before the fact is told."""
        return True

    FAILED = "UPDATE outbox SET attempts = attempts + 1, error = ?2, retry_at = ?3 WHERE seq = ?1 AND dead_at IS NULL"

    @writes
    def failed(self, connection: Connection, seq: int, error: str, retry_at: float) -> None:
        """See IOutbox. A dead one stays as it is."""
        connection.execute(self.FAILED, (seq, error, retry_at))

    BURY = """UPDATE outbox SET attempts = attempts + 1, error = ?2, retry_at = NULL, dead_at = ?3, state = 'dead'
        WHERE seq = ?1 AND dead_at IS NULL"""

    @writes
    def bury(self, connection: Connection, seq: int, error: str, at: float) -> Sequence[OutboxEvent]:
        """See IOutbox. A dead one stays as it is."""
        self.lock(connection, [seq])
        behind = self._pass_on(connection, seq)
        connection.execute(self.BURY, (seq, error, at))
        return [] if behind is None else [behind]

    DEAD = f"""SELECT {OUTBOX_FIELDS} FROM outbox WHERE deliverer = ? AND state = 'dead' AND retry_at IS NULL
        AND seq > ? ORDER BY seq LIMIT ?"""

    @reads
    def dead(self, connection: Connection, deliverer: str, after: int, limit: int) -> Sequence[OutboxEvent]:
        return [_event(row) for row in connection.execute(self.DEAD, (deliverer, after, limit)).fetchall()]

    @deferred
    async def replay(self, deliverer: str, seqs: Sequence[int] | None) -> int:
        """See IOutbox. Many go in several transactions: should one fail, those before it wait again already."""
        count = after = 0
        while chosen := await self._chosen(deliverer, seqs, after):
            count += await self._replay(deliverer, chosen)
            after = chosen[-1]
        return count

    async def _chosen(self, deliverer: str, seqs: Sequence[int] | None, after: int) -> Sequence[int]:
        if seqs is not None:
            return sorted(seq for seq in seqs if after < seq <= LIMIT)[:REPLAYED_AT_ONCE]
        return [event.seq for event in await self.dead(deliverer, after, REPLAYED_AT_ONCE)]

    REPLAY = f"""UPDATE outbox SET attempts = 0, error = NULL, dead_at = NULL, state = CASE WHEN
        EXISTS ({_KIN} AND kin.dead_at IS NULL AND kin.seq < ?1) THEN 'behind' ELSE 'next' END
        WHERE seq = ?1 AND deliverer = ?2 AND state = 'dead'"""
    STEP_BACK = f"""UPDATE outbox SET state = 'behind' WHERE seq = ({_KIN} AND it.state = 'next'
        AND kin.dead_at IS NULL AND kin.state = 'next' AND kin.seq > ?1)"""

    @writes
    def _replay(self, connection: Connection, deliverer: str, seqs: Sequence[int]) -> int:
        self.lock(connection, seqs)
        replayed = [seq for seq in seqs if connection.execute(self.REPLAY, (seq, deliverer)).rowcount == 1]
        connection.executemany(self.STEP_BACK, [(seq,) for seq in replayed])
        return len(replayed)

    DEPTH = """SELECT COUNT(*), COUNT(CASE WHEN state = 'dead' THEN 1 END),
        (SELECT at FROM outbox WHERE seq = (SELECT MIN(seq) FROM outbox WHERE deliverer = ?1 AND state = 'next'))
        FROM outbox WHERE deliverer = ?1"""

    @reads
    def depth(self, connection: Connection, deliverer: str) -> Depth:
        count, dead, oldest = connection.execute(self.DEPTH, (deliverer,)).fetchone()
        return Depth(count - dead, dead, oldest)

"""Facts, kept until each configured deliverer has delivered them.

Changes when facts are kept or purged otherwise. Invariant: a fact is written in the transaction of the change
that it tells of, once for each deliverer that was configured then, and for no other; a sequence number is
never used twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from attrs import frozen

from resumable.interfaces import Fact, FactKind


@frozen
class Pending:
    """A fact that one deliverer has not delivered yet; ``seq`` grows and is unique in this catalog."""

    seq: int
    fact: Fact


class Outbox:
    """The statements on ``outbox``; every method runs in the catalog's thread, within its transaction."""

    def __init__(self, deliverers: Sequence[str]) -> None:
        self._deliverers = tuple(deliverers)

    def take(self, connection: sqlite3.Connection, facts: Sequence[Fact]) -> None:
        if not self._deliverers:
            return
        for fact in facts:
            data = json.dumps(dict(fact.data), ensure_ascii=False, separators=(",", ":"))
            connection.executemany(
                "INSERT INTO outbox (deliverer, upload_id, kind, at, data) VALUES (?, ?, ?, ?, ?)",
                [(name, fact.upload_id, fact.kind.value, fact.at, data) for name in self._deliverers],
            )

    def purge(self, connection: sqlite3.Connection) -> None:
        """Drop what is kept for deliverers that are no longer configured: one that returns starts from then."""
        known = connection.execute("SELECT DISTINCT deliverer FROM outbox").fetchall()
        stale = [name for name in known if name[0] not in self._deliverers]
        connection.executemany("DELETE FROM outbox WHERE deliverer = ?", stale)

    @staticmethod
    def pending(connection: sqlite3.Connection, deliverer: str, limit: int) -> list[Pending]:
        rows = connection.execute(
            "SELECT seq, kind, upload_id, at, data FROM outbox WHERE deliverer = ? ORDER BY seq LIMIT ?",
            (deliverer, limit),
        ).fetchall()
        return [
            Pending(seq, Fact(FactKind(kind), upload, at, json.loads(data))) for seq, kind, upload, at, data in rows
        ]

    @staticmethod
    def delivered(connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
        connection.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in seqs])

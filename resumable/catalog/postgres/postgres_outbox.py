"""On PostgreSQL: the table of outbox events.

Invariants: those of `resumable.catalog.outbox_table`, whichever worker changes an upload: what decides which event is
next of an upload locks the upload's row first, in a statement of its own, so it sees all that was committed before.
That an upload has finished is told once its file is whole: hooks are given its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from resumable.catalog.outbox_table import OUTBOX_FIELDS, OutboxTable
from resumable.model.upload import Fact, FactKind

#: An upload whose file has yet to be made.
_NOT_WHOLE: Final = "NOT whole AND gone IS NULL AND dropped_at IS NULL"


class PostgresOutboxTable(OutboxTable):
    """`OutboxTable`, for several workers.

    When an upload becomes whole, its event may be older than all that its deliverer has read: the deliverer is to be
    woken as after a replay.
    """

    LOCK = """SELECT 1 FROM uploads WHERE id IN (SELECT upload_id FROM outbox WHERE seq = ANY(?)) ORDER BY id
        FOR NO KEY UPDATE"""

    def lock(self, connection: Any, seqs: Sequence[int]) -> None:
        """See `OutboxTable.lock`."""
        connection.execute(self.LOCK, (list(seqs),))

    # By the index of these, which no other must seem to equal: so it orders by both, and is planned by itself (OFFSET).
    FRESH = f"""SELECT * FROM (SELECT {OUTBOX_FIELDS} FROM outbox WHERE (deliverer, seq) > (?1, ?2) AND deliverer <= ?1
            AND state = 'next' AND retry_at IS NULL ORDER BY deliverer, seq OFFSET 0) AS fresh
        WHERE kind <> '{FactKind.FINISHED.value}' OR NOT EXISTS
            (SELECT 1 FROM uploads WHERE uploads.id = upload_id AND {_NOT_WHOLE}) LIMIT ?3"""
    # The oldest one is fresh, or one of the few that are tried again.
    DEPTH = """SELECT COUNT(*), COUNT(CASE WHEN state = 'dead' THEN 1 END), (SELECT at FROM outbox WHERE seq = LEAST(
            (SELECT MIN(seq) FROM outbox WHERE deliverer = ?1 AND state = 'next' AND retry_at IS NULL),
            (SELECT MIN(seq + 0) FROM outbox WHERE deliverer = ?1 AND state = 'next' AND retry_at IS NOT NULL)))
        FROM outbox WHERE deliverer = ?1"""
    IS_NOT_WHOLE = f"SELECT 1 FROM uploads WHERE id = ? AND {_NOT_WHOLE}"

    def may_go(self, connection: Any, fact: Fact) -> bool:
        """See `OutboxTable.may_go`. The hook is given the path of the file."""
        if fact.kind is not FactKind.FINISHED:
            return True
        return connection.execute(self.IS_NOT_WHOLE, (fact.upload_id,)).fetchone() is None

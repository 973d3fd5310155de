"""IOutbox on SQLite: each method becomes a job for the catalog's one thread.

Changes when IOutbox does. Invariant: as in sqlite.py, what a Deferred answers is durable. What is delivered may use the
space reserve, as forgetting leads to free space.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.catalog import outbox
from resumable.catalog.batches import Read, Write
from resumable.catalog.schema import LIMIT
from resumable.model.outbox import Depth, IOutbox, OutboxEvent

REPLAYED_AT_ONCE: Final = 500  # milliseconds of the catalog's thread, which all others wait for


@implementer(IOutbox)
class Letters:
    """The events in a catalog that runs what is given to ``read`` and ``write``."""

    def __init__(self, read: Read, write: Write) -> None:
        self._read = read
        self._write = write

    def due(
        self, deliverer: str, now: float, limit: int, again: int | None = None, after: int = 0
    ) -> Deferred[Sequence[OutboxEvent]]:
        most = limit if again is None else again
        return self._read(lambda connection: outbox.due(connection, deliverer, now, limit, most, after))

    def next_due(self, deliverer: str, now: float) -> Deferred[float | None]:
        return self._read(lambda connection: outbox.next_due(connection, deliverer, now))

    def delivered(self, seqs: Sequence[int]) -> Deferred[Sequence[OutboxEvent]]:
        return self._write(lambda connection: outbox.delivered(connection, seqs), True)

    def failed(self, seq: int, error: str, retry_at: float) -> Deferred[None]:
        """See IOutbox. A dead one stays as it is."""
        return self._write(lambda connection: outbox.failed(connection, seq, error, retry_at))

    def bury(self, seq: int, error: str, at: float) -> Deferred[Sequence[OutboxEvent]]:
        """See IOutbox. A dead one stays as it is."""
        return self._write(lambda connection: outbox.bury(connection, seq, error, at))

    def dead(self, deliverer: str, after: int, limit: int) -> Deferred[Sequence[OutboxEvent]]:
        return self._read(lambda connection: outbox.dead(connection, deliverer, after, limit))

    def replay(self, deliverer: str, seqs: Sequence[int] | None) -> Deferred[int]:
        """See IOutbox. Many go in several transactions: should one fail, those before it wait again already."""
        return Deferred.fromCoroutine(self._replay(deliverer, seqs))

    async def _replay(self, deliverer: str, seqs: Sequence[int] | None) -> int:
        count = after = 0
        while chosen := await self._chosen(deliverer, seqs, after):
            count += await self._write(partial(outbox.replay, deliverer=deliverer, seqs=chosen))
            after = chosen[-1]
        return count

    async def _chosen(self, deliverer: str, seqs: Sequence[int] | None, after: int) -> Sequence[int]:
        if seqs is not None:
            return sorted(seq for seq in seqs if after < seq <= LIMIT)[:REPLAYED_AT_ONCE]
        return [event.seq for event in await self.dead(deliverer, after, REPLAYED_AT_ONCE)]

    def depth(self, deliverer: str) -> Deferred[Depth]:
        return self._read(lambda connection: outbox.depth(connection, deliverer))

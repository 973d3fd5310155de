"""Outbox events: what the catalog keeps of facts that somebody has still to be told of.

One reason to change: what is known of a fact's delivery. Nothing here does any work.

Invariants: a fact becomes one event for each deliverer that was configured, in the transaction of the change that it
tells of; an event's ``seq`` is never used twice; it is forgotten only once it was delivered, or when its deliverer is
no longer configured. Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.model.upload import Fact


@frozen
class OutboxEvent:
    """One fact on its way to one deliverer.

    ``attempts`` have failed, the last with ``error`` (one line, without secrets); ``retry_at``: not before then (None:
    at once). Since ``dead_at`` it is dead: given up until somebody replays it.
    """

    seq: int
    deliverer: str
    fact: Fact
    attempts: int = 0
    error: str | None = None
    retry_at: float | None = None
    dead_at: float | None = None


@frozen
class Depth:
    """How many events of one deliverer wait and are dead; ``oldest``: when the fact of the oldest that waits was."""

    waiting: int = 0
    dead: int = 0
    oldest: float | None = None


class IOutbox(Interface):
    """The events of every deliverer. Every method answers with a Deferred; changes are durable when it fires.

    All fail with CatalogUnavailable as ICatalog does. Numbers that are unknown, or forgotten by now, are passed over.
    One courier at a time works on a deliverer's events.
    """

    def due(
        deliverer: str, now: float, limit: int, again: int | None = None, after: int = 0
    ) -> Deferred[Sequence[OutboxEvent]]:
        """Events that may go now: at most ``limit`` that wait for no time, by ``seq``, which is behind ``after``; then
        at most ``again`` (None: as many) of those that have failed, the ones that failed least often first.

        Of each upload only the oldest that is not dead, and only if its ``retry_at`` has come (it is None or not past
        ``now``): whatever is behind it waits with it, events of other uploads don't.
        """

    def next_due(deliverer: str, now: float) -> Deferred[float | None]:
        """The earliest ``retry_at`` past ``now`` among those that are the oldest of their upload and not dead; None:
        nobody waits for a time."""

    def delivered(seqs: Sequence[int]) -> Deferred[Sequence[OutboxEvent]]:
        """Forget these: they have arrived. The answer: those that were behind them, may go now and wait for no time, at
        most one of each upload."""

    def failed(seq: int, error: str, retry_at: float) -> Deferred[None]:
        """One more attempt has failed."""

    def bury(seq: int, error: str, at: float) -> Deferred[Sequence[OutboxEvent]]:
        """One more attempt has failed, and it was the last: the event is dead. The answer: as of `delivered`."""

    def dead(deliverer: str, after: int, limit: int) -> Deferred[Sequence[OutboxEvent]]:
        """The next ``limit`` dead ones with a ``seq`` behind ``after`` (0: from the first on), by ``seq``."""

    def replay(deliverer: str, seqs: Sequence[int] | None) -> Deferred[int]:
        """These dead ones (None: all) wait again, as if nothing had failed; how many. Each keeps its ``seq``, so it is
        in front of what is newer. Tell the courier."""

    def depth(deliverer: str) -> Deferred[Depth]:
        """Counts every row: for status pages and figures, not for each event."""

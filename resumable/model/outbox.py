"""Outbox events: facts that the catalog keeps until they are delivered.

Invariants: a fact becomes one event for each configured deliverer, in the transaction of the change that it reports; an
event's ``seq`` is never used twice; an event is forgotten only once it was delivered, or when its deliverer is no
longer configured. Times are seconds since the epoch.
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

    ``attempts`` have failed, the last with ``error`` (one line, without secrets). ``retry_at``: it does not go before
    then; None: it may go at once. ``dead_at``: since then it is dead, and goes only after a replay.
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
    """The numbers of one deliverer's events that wait, and that are dead; ``oldest``: the time of the oldest fact that
    waits."""

    waiting: int = 0
    dead: int = 0
    oldest: float | None = None


class IOutbox(Interface):
    """The events of every deliverer. Every method answers with a Deferred; changes are durable when it fires.

    All fail with CatalogUnavailable as ICatalog does. Numbers of unknown or forgotten events are ignored. At most one
    worker at a time delivers a deliverer's events.
    """

    def due(
        deliverer: str, now: float, limit: int, again: int | None = None, after: int = 0
    ) -> Deferred[Sequence[OutboxEvent]]:
        """Events that may go now: first at most ``limit`` without a ``retry_at`` and with a ``seq`` greater than
        ``after``, by ``seq``; then at most ``again`` (None: ``limit``) of those that have failed, the ones with the
        fewest attempts first.

        Of each upload only the oldest event that is not dead, and only if its ``retry_at`` is None or not past ``now``.
        Newer events of the same upload wait behind it; events of other uploads don't.
        """

    def next_due(deliverer: str, now: float) -> Deferred[float | None]:
        """The earliest ``retry_at`` past ``now`` among the events that are the oldest of their upload and not dead;
        None: there is none."""

    def delivered(seqs: Sequence[int]) -> Deferred[Sequence[OutboxEvent]]:
        """Forget these events: they have arrived. Answers the events behind them that may go now and have no
        ``retry_at``, at most one of each upload."""

    def failed(seq: int, error: str, retry_at: float) -> Deferred[None]:
        """One more attempt has failed."""

    def bury(seq: int, error: str, at: float) -> Deferred[Sequence[OutboxEvent]]:
        """One more attempt has failed, and it was the last: the event is dead. Answers as `delivered` does."""

    def dead(deliverer: str, after: int, limit: int) -> Deferred[Sequence[OutboxEvent]]:
        """The next ``limit`` dead events with a ``seq`` greater than ``after`` (0: from the first on), by ``seq``."""

    def replay(deliverer: str, seqs: Sequence[int] | None) -> Deferred[int]:
        """These dead events (None: all) wait again, as if nothing had failed. Answers how many. Each keeps its ``seq``,
        so it goes before newer events of its upload. Wake the deliverer afterwards."""

    def depth(deliverer: str) -> Deferred[Depth]:
        """Counts every row, so it is for status pages and metrics, not for the delivery of each event."""

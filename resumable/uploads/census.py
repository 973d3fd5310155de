"""How many uploads and replicas there are, by their state.

Changes when something else is counted. All rows are gone through for it, in pieces between which commits get their
turn. Invariant: that takes one part in `SHARE` of the time at most, however many rows there are and however often
somebody asks, so what is told may be as old as `FRESH` seconds, or with millions of rows some minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from resumable.model.listing import Counted, IListing, State
from resumable.model.upload import ReplicaState

FRESH: Final = 30.0
SHARE: Final = 100


@frozen
class Count:
    """What was counted, and when that ended (seconds since the epoch)."""

    uploads: Counter[State]
    replicas: Counter[tuple[str, ReplicaState]]
    at: float


class Census:
    """``clock`` measures spans, ``wall`` tells the time of day."""

    def __init__(self, listing: IListing, clock: IReactorTime, wall: Callable[[], float]) -> None:
        self._listing = listing
        self._clock = clock
        self._wall = wall
        self._known: Count | None = None
        self._due = 0.0
        self._waiting: list[Deferred[Count]] | None = None

    def known(self) -> Deferred[Count]:
        """The last count, while the next one is made if it is time for that; waits for the first one only.

        Fails with CatalogUnavailable.
        """
        if self._waiting is None and (self._known is None or self._clock.seconds() >= self._due):
            self._waiting = []
            counting = Deferred.fromCoroutine(self._count())
        else:
            counting = None
        answer: Deferred[Count] = Deferred(self._no_longer)
        if self._known is not None:
            answer.callback(self._known)
        elif self._waiting is not None:
            self._waiting.append(answer)
        if counting is not None:
            counting.addCallbacks(self._counted, self._failed)
        return answer

    async def _count(self) -> Count:
        began = self._clock.seconds()
        uploads: Counter[State] = Counter()
        replicas: Counter[tuple[str, ReplicaState]] = Counter()
        for ask in (self._listing.count_uploads, self._listing.count_replicas):
            found: Counted = await ask(None)
            while True:
                uploads.update(found.uploads)
                replicas.update(found.replicas)
                if found.place is None:
                    break
                found = await ask(found.place)
        now = self._clock.seconds()
        self._due = now + max(FRESH, SHARE * (now - began))
        return Count(uploads, replicas, self._wall())

    def _counted(self, count: Count) -> None:
        self._known = count
        for waiter in self._over():
            waiter.callback(count)

    def _failed(self, failure: Failure) -> None:
        for waiter in self._over():
            waiter.errback(failure)

    def _over(self) -> list[Deferred[Count]]:
        waiting, self._waiting = self._waiting or [], None
        return waiting

    def _no_longer(self, answer: Deferred[Count]) -> None:
        if self._waiting is not None and answer in self._waiting:
            self._waiting.remove(answer)

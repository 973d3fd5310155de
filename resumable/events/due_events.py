"""The letters that may go next, taken from the outbox.

One reason to change: the order in which letters go.

Invariants: a letter that fails makes its own upload wait, and no other: letters that have failed get at most half of
the places, and neither they nor new ones can take all the turns. Of one upload at most one letter is here or under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IReactorTime

from resumable.letters import IOutbox, Letter

FETCH = 64
"""Letters taken from the outbox at once: more is more memory, less is more questions to the catalog."""

OUTAGE_TURNS = 4
"""In an outage three new letters go before one that has failed, and so on."""


class DueEvents:
    """Two queues: ``new`` letters, and others that have ``failed``, of these the ones that failed least often first.

    ``places``: how many go at once. ``wall`` tells the time of day for the outbox, ``clock`` measures.
    """

    def __init__(
        self, deliverer: str, outbox: IOutbox, places: int, clock: IReactorTime, wall: Callable[[], float]
    ) -> None:
        self.new: deque[Letter] = deque()
        self.failed: deque[Letter] = deque()
        self.one_at_a_time = False
        self._deliverer = deliverer
        self._outbox = outbox
        self._most_failed = max(1, places // 2)
        self._clock = clock
        self._wall = wall
        self._passed = 0  # new ones that went since the last that had failed
        self._taken: set[str] = set()  # uploads with a letter here, under way, or not yet recorded
        self._stale_new = self._stale_failed = True  # there may be such letters that are due and not here
        self._looked = 0.0  # when the outbox was asked for those that have failed

    def __len__(self) -> int:
        return len(self.new) + len(self.failed)

    def next(self, repeating: int) -> deque[Letter] | None:
        """Whose first is to go next; None: none may. ``repeating``: how many are under way that had failed."""
        may_repeat = bool(self.failed) and repeating < self._most_failed
        share = OUTAGE_TURNS if self.one_at_a_time else 2
        if self.new and not (may_repeat and self._passed >= share - 1):
            return self.new
        return self.failed if may_repeat else None

    def take(self, queue: deque[Letter]) -> Letter:
        """The first of what `next` has answered; its upload stays taken until `release`."""
        self._passed = self._passed + 1 if queue is self.new else 0
        return queue.popleft()

    def look(self) -> None:
        """There may be more in the outbox."""
        self._stale_new = self._stale_failed = True

    def release(self, letters: Iterable[Letter]) -> None:
        """They are neither here nor under way any more."""
        self._taken.difference_update(letter.fact.upload_id for letter in letters)
        self.look()

    def drop(self) -> None:
        """Let everything here be chosen anew."""
        self.release([*self.new, *self.failed])
        self.new.clear()
        self.failed.clear()

    def wanted(self) -> tuple[int, int]:
        """How many to fetch: new ones, and others that have failed. One at a time is chosen each time."""
        most = 1 if self.one_at_a_time else FETCH
        # while there are new ones here, each that arrives is no reason to look
        soon = not self.new or self._clock.seconds() >= self._looked + 1
        wants_new, wants_failed = self._stale_new and not self.new, self._stale_failed and not self.failed and soon
        return most if wants_new else 0, most if wants_failed else 0

    async def fetch(self) -> list[Letter]:
        """What is due and was not taken; it is from now on, and still has to be `add`-ed."""
        # what is taken while we ask is taken; what is released meanwhile may still be in the answer
        taken, (new, failed) = frozenset(self._taken), self.wanted()
        new, failed = (each and each + len(taken) for each in (new, failed))
        self._stale_new &= not new
        if failed:
            self._stale_failed, self._looked = False, self._clock.seconds()
        found = await self._outbox.due(self._deliverer, self._wall(), new, failed)
        again = sum(letter.attempts > 0 for letter in found)
        self._stale_new |= len(found) - again >= new > 0
        self._stale_failed |= again >= failed > 0
        fresh = [letter for letter in found if letter.fact.upload_id not in taken]
        self._taken.update(letter.fact.upload_id for letter in fresh)
        return fresh

    def add(self, letter: Letter) -> None:
        """It comes last of its kind."""
        (self.failed if letter.attempts else self.new).append(letter)

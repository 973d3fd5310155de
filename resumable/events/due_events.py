"""The letters that may go next, taken from the outbox.

One reason to change: the order in which letters go.

Invariants: a letter that fails makes its own upload wait, and no other: letters that have failed get at most half of
the places, and neither they nor new ones can take all the turns. Nor does one that isn't answered make others' wait:
letters go by turns of their owners, nobody's take all places (`resumable.events.fair`), and however many of somebody's
wait in the outbox, new ones of others are found behind them. Of one upload at most one letter is here or under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from twisted.internet.interfaces import IReactorTime

from resumable.events.fair import Lines, Shares
from resumable.events.letterbox import owner_of
from resumable.letters import IOutbox, Letter

FETCH = 64
"""Letters taken from the outbox at once: more is more memory, less is more questions to the catalog. So many of
one owner are here, at most, and as many that have failed."""

SEEN = 2048
"""Of letters that have failed so many are looked at, once a second at most, where those here have to wait."""

OUTAGE_TURNS = 4
"""In an outage three new letters go before one that has failed, and so on."""

Turn = tuple[Lines[Letter], str]
"""What kind of letter is to go next, and whose."""


class DueEvents:
    """Letters that are ``new``, and others that have ``failed``, of these the ones that failed least often first.

    ``places``: how many go at once. ``wall`` tells the time of day for the outbox, ``clock`` measures.
    """

    def __init__(
        self, deliverer: str, outbox: IOutbox, places: int, clock: IReactorTime, wall: Callable[[], float]
    ) -> None:
        self.new: Lines[Letter] = Lines()
        self.failed: Lines[Letter] = Lines()
        self.one_at_a_time = False
        self._deliverer = deliverer
        self._outbox = outbox
        self._shares = Shares(places)
        self._most_failed = max(1, places // 2)
        self._clock = clock
        self._wall = wall
        self._repeating = 0  # letters under way that have failed before
        self._passed = 0  # new ones that went since the last that had failed
        self._taken: dict[str, str] = {}  # uploads with a letter here, under way, or not yet recorded; their owners
        self._stale_new = self._stale_failed = True  # there may be such letters that are due and not here
        self._looked = 0.0  # when the outbox was asked for those that have failed
        self._read = _Read()

    def __len__(self) -> int:
        return len(self.new) + len(self.failed)

    def next(self) -> Turn | None:
        """What may go next; None: nothing."""
        failed = self._next_failed()
        share = OUTAGE_TURNS if self.one_at_a_time else 2
        if failed is None or self._passed < share - 1:
            new = self._shares.next(self.new)
            if new is not None:
                return self.new, new
        return None if failed is None else (self.failed, failed)

    def _next_failed(self) -> str | None:
        return self._shares.next(self.failed) if self._repeating < self._most_failed else None

    def take(self, turn: Turn) -> Letter:
        """The letter of what `next` answered: under way until its turn `ended`, its upload taken until `release`."""
        queue, whose = turn
        self._passed = self._passed + 1 if queue is self.new else 0
        letter = queue.of(whose)[0]
        queue.remove(whose, letter)
        self._shares.take(whose)
        self._repeating += letter.attempts > 0
        return letter

    def ended(self, turn: Turn) -> None:
        """What was taken in this turn is not under way any more."""
        queue, whose = turn
        self._shares.give_back(whose)
        self._repeating -= queue is self.failed

    def look(self, *, anew: bool = False) -> None:
        """There may be more in the outbox, behind what was seen; ``anew``: anywhere."""
        self._stale_new = self._stale_failed = True
        self._read.anew |= anew

    def release(self, letters: Iterable[Letter]) -> None:
        """They are neither here nor under way any more: they, or others of their uploads, may be due."""
        for letter in letters:
            self._read.leave(self._taken.pop(letter.fact.upload_id), letter.seq)
        self._stale_failed = True

    def drop(self) -> None:
        """Let everything here be chosen anew."""
        for queue in (self.new, self.failed):
            self.release(queue.clear())

    def wanted(self) -> tuple[int, int]:
        """How many to fetch: new ones, and others that have failed. One at a time is chosen each time."""
        most = 1 if self.one_at_a_time else FETCH
        # while there are some here, each that arrives is no reason to look
        later = self._clock.seconds() >= self._looked + 1
        if self.failed:  # all of somebody's that hang, perhaps, before those of others
            failed = SEEN if self._stale_failed and later and self._next_failed() is None else 0
        else:
            failed = most if self._stale_failed and (later or not self.new) else 0
        first = self._shares.next(self.new)
        if first is not None and not self._shares.has(first):
            return 0, failed  # somebody who has none under way: nobody has waited longer
        return most if self._stale_new or self._read.lacks(self.new) else 0, failed

    async def fetch(self) -> list[Letter]:
        """What is due and was not taken; it is from now on, and still has to be `add`-ed."""
        # what is taken while we ask is taken; what is released meanwhile may still be in the answer
        taken, (new, failed) = frozenset(self._taken), self.wanted()
        new, failed = (each and each + len(taken) for each in (new, failed))
        self._stale_new &= not new
        if failed:
            self._stale_failed, self._looked = False, self._clock.seconds()
        read, after = self._read, 0
        if new:
            after, self._read = read.after(self.new), _Read()
        try:
            found = await self._outbox.due(self._deliverer, self._wall(), new, failed, after)
        except Exception:
            self._read.anew = True
            raise
        count = sum(not letter.attempts for letter in found)
        self._stale_new |= count >= new > 0
        self._stale_failed |= len(found) - count >= failed > 0
        if new:
            self._read.go_on(read, after, found[count - 1].seq if count else after, full=count >= new)
        return self._chosen([letter for letter in found if letter.fact.upload_id not in taken])

    def _chosen(self, found: Sequence[Letter]) -> list[Letter]:
        """Take these, but for those of owners that have enough here."""
        chosen, counts = [], Counter[tuple[bool, str]]()
        for letter in found:
            whose, again = owner_of(letter), letter.attempts > 0
            counts[again, whose] += 1
            if counts[again, whose] + (self.failed if again else self.new).count(whose) <= FETCH:
                self._taken[letter.fact.upload_id] = whose
                chosen.append(letter)
            elif not again:
                self._read.leave(whose, letter.seq)
        return chosen

    def add(self, letter: Letter) -> None:
        """It comes last of its kind and owner."""
        (self.failed if letter.attempts else self.new).add(self._taken[letter.fact.upload_id], letter)


class _Read:
    """How far the outbox was read for new letters: up to ``seen``, but for those of some owners.

    ``left``: from where on there may be such of theirs. ``anew``: it has to be read from the start."""

    def __init__(self) -> None:
        self.seen = 0
        self.left: dict[str, int] = {}
        self.anew = False

    def leave(self, whose: str, seq: int) -> None:
        """There may be some of theirs, from this number on."""
        self.left[whose] = min(seq, self.left.get(whose, seq))

    def lacks(self, here: Lines[Letter]) -> bool:
        """Whether there may be some of an owner that has none here."""
        return any(whose not in here for whose in self.left)

    def after(self, here: Lines[Letter]) -> int:
        """Behind which number to read on."""
        if self.anew or not here:
            return 0
        return min((seq - 1 for whose, seq in self.left.items() if whose not in here), default=self.seen)

    def go_on(self, before: _Read, after: int, last: int, *, full: bool) -> None:
        """What was known ``before`` all from ``after`` to ``last`` was read; if it wasn't ``full``, all behind it, too.

        What was left since then stays so: it may have come too late to be found."""
        seen = 0 if before.anew else before.seen
        for whose, seq in before.left.items():
            if seq <= after or (full and seq > last):
                self.leave(whose, seq)
            elif full and last < seen:
                self.leave(whose, last + 1)
        self.seen = max(seen, last)

"""The letters that may go next, taken from the outbox.

One reason to change: the order in which letters go.

Invariants: a letter that fails makes its own upload wait, and no other; one that isn't answered makes its owner's wait,
and no others'. Letters go by turns of their owners, nobody's take all places (`resumable.events.fair`). Those that have
failed, and all of owners that hang, get at most half of the places together, and neither they nor others can take all
the turns. However many of somebody's wait in the outbox, new ones of others are found behind them; however many owners,
a few thousand letters are here. Of one upload at most one letter is here or under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from twisted.internet.interfaces import IReactorTime

from resumable.events.fair import Lines, Shares
from resumable.events.letterbox import owner_of
from resumable.events.reading import Reading
from resumable.letters import IOutbox, Letter

FETCH = 64
"""Letters taken from the outbox at once: more is more memory, less is more questions to the catalog. So many of
one owner are here, at most, and as many that have failed."""

SLOW = 8
"""So many of an owner that hangs: they go slowly."""

SEEN = 2048
"""So many are looked at, once a second at most, where those here have to wait; with so many here, each owner has one
at most, and with twice as many no more are taken."""

HANGING = 4096
"""So many owners are known to hang."""

OUTAGE_TURNS = 4
"""In an outage three new letters go before one that has failed, and so on."""

Turn = tuple[Lines[Letter], str, bool]
"""What kind of letter is to go next, and whose; whether they are who came last."""


class DueEvents:
    """Letters that are ``new``, and others that have ``failed`` or whose owners hang.

    An owner hangs once no answer to one of its letters came in time, until there is an answer to one. Of those that
    have failed the ones that failed least often come first.
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
        self._hanging: dict[str, None] = {}
        self._under_way: dict[int, tuple[str, bool, bool]] = {}  # whose, has it failed before, did they come last
        self._passed = 0  # new ones that went since the last that had failed
        self._was_last = False  # whose new one went last had come last
        self._taken: dict[str, Letter] = {}  # by upload, what is here, under way, or not yet recorded
        self._stale_new = self._stale_failed = True  # there may be such letters that are due and not here
        self._looked = 0.0  # when the outbox was asked though there was something here
        self._read = Reading()

    def __len__(self) -> int:
        return len(self.new) + len(self.failed)

    def next(self) -> Turn | None:
        """What may go next; None: nothing."""
        failed = self._next_failed()
        share = OUTAGE_TURNS if self.one_at_a_time else 2
        if failed is None or self._passed < share - 1:
            last = self._is_turn_of_last()
            new = self._shares.next(reversed(self.new) if last else self.new)
            if new is not None:
                return self.new, new, last
        return None if failed is None else (self.failed, failed, False)

    def _is_turn_of_last(self) -> bool:
        """While some hang any others may, too: who came last has as many places as who has waited longest."""
        if not self._hanging:
            return False
        last = [last for whose, again, last in self._under_way.values() if not again and whose not in self._hanging]
        more = 2 * sum(last) - len(last)
        return more < 0 or (more == 0 and not self._was_last)

    def _next_failed(self) -> str | None:
        used = sum(again or whose in self._hanging for whose, again, _ in self._under_way.values())
        return self._shares.next(self.failed) if used < self._most_failed else None

    def take(self, turn: Turn) -> Letter:
        """The letter of what `next` answered: under way until it has `ended`, its upload taken until `release`."""
        queue, whose, last = turn
        if queue is self.new:
            self._passed, self._was_last = self._passed + 1, last
        else:
            self._passed = 0
        letter = queue.of(whose)[0]
        queue.remove(whose, letter)
        self._shares.take(whose)
        self._under_way[letter.seq] = whose, letter.attempts > 0, last
        return letter

    def ended(self, letter: Letter) -> None:
        """It is not under way any more."""
        self._shares.give_back(self._under_way.pop(letter.seq)[0])

    def hung(self, letter: Letter) -> None:
        """No answer to it came in time: its owner hangs."""
        whose = owner_of(letter)
        if whose not in self._hanging:
            if len(self._hanging) >= HANGING:
                self._answers(next(iter(self._hanging)))
            self._hanging[whose] = None
            self._line_up_again(whose)

    def answered(self, letter: Letter) -> None:
        """There was an answer to it, whatever it said: its owner hangs no longer."""
        if self._hanging:
            self._answers(owner_of(letter))

    def _answers(self, whose: str) -> None:
        if whose in self._hanging:
            del self._hanging[whose]
            self._line_up_again(whose)

    def _line_up_again(self, whose: str) -> None:
        """What is here of theirs waits where it has to now, but for what is too much there."""
        letters = [*self.new.pop(whose), *self.failed.pop(whose)]
        for letter in letters:
            if self._line(letter).count(whose) < self._most(whose):
                self.add(letter)
            else:
                self.release([letter])

    def _line(self, letter: Letter) -> Lines[Letter]:
        return self.failed if letter.attempts or owner_of(letter) in self._hanging else self.new

    def _most(self, whose: str) -> int:
        """How many of theirs may be here, of one kind."""
        return SLOW if whose in self._hanging else FETCH

    def look(self, *, anew: bool = False) -> None:
        """There may be more in the outbox, behind what was seen; ``anew``: anywhere."""
        self._stale_new = self._stale_failed = True
        self._read.anew |= anew

    def release(self, letters: Iterable[Letter]) -> None:
        """They are neither here nor under way any more: they, or others of their uploads, may be due."""
        for letter in letters:
            del self._taken[letter.fact.upload_id]
            self._read.leave(owner_of(letter), letter.seq)
        self._stale_failed = True

    def drop(self) -> None:
        """Let everything here be chosen anew, whoever hangs."""
        self._hanging.clear()
        for queue in (self.new, self.failed):
            self.release(queue.clear())

    @property
    def behind(self) -> bool:
        """Whether somebody who has none here may have new ones behind others'."""
        return any(map(self._has_none, self._read.left))

    def _has_none(self, whose: str) -> bool:
        return whose not in (self.failed if whose in self._hanging else self.new)

    def wanted(self) -> tuple[int, int]:
        """How many to fetch: new ones, and others that have failed. One at a time is chosen each time."""
        if len(self._taken) >= 2 * SEEN:
            return 0, 0
        most = 1 if self.one_at_a_time else FETCH
        if self.failed:  # all of somebody's that hang, perhaps, before those of others
            failed = SEEN if self._stale_failed and self._is_later() and self._next_failed() is None else 0
        else:  # while there are some here, each that arrives is no reason to look
            failed = most if self._stale_failed and (self._is_later() or not self.new) else 0
        if self._goes_back():
            return SEEN if self._somebody_waits() else most, failed
        new = self._stale_new and not (self.one_at_a_time and self._somebody_waits())
        return most if new else 0, failed

    def _is_later(self) -> bool:
        return self._clock.seconds() >= self._looked + 1

    def _somebody_waits(self) -> bool:
        """Somebody who has none under way: nobody has waited longer."""
        first = self._shares.next(self.new)
        return first is not None and not self._shares.has(first)

    def _goes_back(self) -> bool:
        """Whether to read again what was passed over; else, what is behind all that was read."""
        if self._read.anew:
            return self._stale_new
        return self.behind and ((self._is_later() and not self.one_at_a_time) or not self._somebody_waits())

    async def fetch(self) -> list[Letter]:
        """What is due and was not taken; it is from now on, and still has to be `add`-ed."""
        # what is taken while we ask is taken; what is released meanwhile may still be in the answer
        taken, (new, failed) = frozenset(self._taken), self.wanted()
        read, after = self._read, 0
        if new:
            if self._taken:  # else nothing is known to hide anything
                after = read.after(self._has_none) if self._goes_back() else read.seen
            new += sum(letter.seq > after for letter in self._taken.values())
            self._read = Reading()
        failed = failed and failed + len(taken)
        self._stale_new &= not new
        if failed or new >= SEEN:
            self._looked = self._clock.seconds()
        self._stale_failed &= not failed
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
            whose, line = owner_of(letter), self._line(letter)
            here = counts[line is self.failed, whose] + line.count(whose)
            if here < (self._most(whose) if len(self._taken) < SEEN else 1):
                counts[line is self.failed, whose] += 1
                self._taken[letter.fact.upload_id] = letter
                chosen.append(letter)
            elif not letter.attempts:
                self._read.leave(whose, letter.seq)
        return chosen

    def add(self, letter: Letter) -> None:
        """It comes last of its kind and owner."""
        self._line(letter).add(owner_of(letter), letter)

"""The letters that may go next, taken from the outbox.

One reason to change: the order in which letters go.

Invariants: a letter that fails makes its own upload wait, and no other; of those that aren't answered, however many,
neither another owner's wait nor the newest of the same owner's. Letters go by turns of their owners, nobody's take all
places (`resumable.events.fair`), and an owner's oldest and newest have as many places. Those that have failed, and all
of owners that hang, get at most half of the places together, and neither they nor others can take all the turns.
However many of somebody's wait in the outbox, new ones are found behind them; however many owners, a few thousand are
here. Of one upload at most one letter is here or under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from resumable.events.fair import Lines, Shares
from resumable.events.letterbox import owner_of
from resumable.events.reading import Reading
from resumable.letters import IOutbox, Letter

FETCH = 64
"""Letters taken from the outbox at once: more is more memory, less is more questions to the catalog. So many of
one owner are here, at most, half of them the oldest and half the newest, and as many that have failed."""

SLOW = 16
"""So many of an owner that hangs: they go slowly."""

SEEN = 2048
"""So many are looked at, once a second at most, where those here have to wait; with so many here, each owner has one
at most, and with twice as many no more are taken."""

HANGING = 4096
"""So many owners are known to hang."""

OUTAGE_TURNS = 4
"""In an outage three new letters go before one that has failed, and so on."""


def _order(letter: Letter) -> tuple[int, int]:
    """Who failed least often comes first, and of these the oldest."""
    return letter.attempts, letter.seq


@frozen
class Turn:
    """The letter that may go next: of that kind and owner, the oldest or the ``newest``.

    ``came_last``: it is their turn because they began to wait last."""

    kind: Lines[Letter]
    whose: str
    newest: bool
    came_last: bool


class DueEvents:
    """Letters that are ``new``, those of owners that hang, which go ``slow``-ly, and those that have ``failed``.

    An owner hangs once no answer to one of its letters came in time, until there is an answer to one.
    ``places``: how many go at once. ``wall`` tells the time of day for the outbox, ``clock`` measures.
    """

    def __init__(
        self, deliverer: str, outbox: IOutbox, places: int, clock: IReactorTime, wall: Callable[[], float]
    ) -> None:
        self.new, self.slow, self.failed = (Lines[Letter](_order) for _ in range(3))
        self.one_at_a_time = False
        self._deliverer = deliverer
        self._outbox = outbox
        self._shares = Shares(places)
        self._most_again = max(1, places // 2)
        self._clock = clock
        self._wall = wall
        self._hanging: dict[str, None] = {}
        self._under_way: dict[str, Turn] = {}  # by upload
        self._passed = 0  # new ones that went since the last slow or failed one
        self._was_last = self._was_newest = False  # were the last new one's owner, the last slow one
        self._was_slow = False  # and not failed
        self._taken: dict[str, Letter] = {}  # by upload, what is here, under way, or not yet recorded
        self._stale_new = self._stale_failed = True  # there may be such letters that are due and not here
        self._looked = 0.0  # when the outbox was asked though there was something here
        self._read = Reading()

    def __len__(self) -> int:
        return len(self.new) + len(self.slow) + len(self.failed)

    def next(self) -> Turn | None:
        """What may go next; None: nothing."""
        again = self._next_again()
        share = OUTAGE_TURNS if self.one_at_a_time else 2
        if again is None or self._passed < share - 1:
            last = self._is_turn_of_last()
            new = self._shares.next(reversed(self.new) if last else self.new)
            if new is not None:
                return Turn(self.new, new, self._is_turn_of_newest(new), last)
        return again

    def _is_turn_of_last(self) -> bool:
        """While some hang any others may, too: who came last has as many places as who has waited longest."""
        if not self._hanging:
            return False
        last = [each.came_last for each in self._under_way.values() if not self._is_again(each)]
        more = 2 * sum(last) - len(last)
        return more < 0 or (more == 0 and not self._was_last)

    def _is_turn_of_newest(self, whose: str) -> bool:
        """While one isn't answered others of theirs may be: the newest have as many places as the oldest."""
        newest = [
            each.newest for each in self._under_way.values() if each.whose == whose and each.kind is not self.failed
        ]
        more = 2 * sum(newest) - len(newest)
        return more < 0 or (more == 0 and whose in self._hanging and not self._was_newest)

    def _is_again(self, turn: Turn) -> bool:
        return turn.kind is self.failed or turn.whose in self._hanging

    def _next_again(self) -> Turn | None:
        """Whoever has the fewest places; else of that kind which has the fewest, or did not go last."""
        failed, slow = self._again()
        turns = []
        if failed + slow < self._most_again:
            if (whose := self._shares.next(self.slow)) is not None:
                turn = Turn(self.slow, whose, self._is_turn_of_newest(whose), came_last=False)
                turns.append((self._shares.of(whose), slow, self._was_slow, turn))
            if (whose := self._shares.next(self.failed)) is not None:
                turn = Turn(self.failed, whose, newest=False, came_last=False)
                turns.append((self._shares.of(whose), failed, not self._was_slow, turn))
        return min(turns, key=lambda each: each[:3])[-1] if turns else None

    def _again(self) -> tuple[int, int]:
        """How many are under way that have failed, and how many others of owners that hang."""
        again = [each.kind is self.failed for each in self._under_way.values() if self._is_again(each)]
        return sum(again), len(again) - sum(again)

    def take(self, turn: Turn) -> Letter:
        """The letter whose turn it is: under way until it `ended`, its upload taken until `release` or `replace`."""
        if turn.kind is self.new:
            self._passed, self._was_last = self._passed + 1, turn.came_last
        else:
            self._passed, self._was_slow = 0, turn.kind is self.slow
        if turn.kind is not self.failed:
            self._was_newest = turn.newest
        letter = turn.kind.of(turn.whose)[-1 if turn.newest else 0]
        turn.kind.remove(turn.whose, letter)
        self._shares.take(turn.whose)
        self._under_way[letter.fact.upload_id] = turn
        return letter

    def ended(self, letter: Letter) -> None:
        """None of its upload is under way any more."""
        self._shares.give_back(self._under_way.pop(letter.fact.upload_id).whose)

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
        """What is here of theirs waits where it has to now."""
        for letter in (*self.new.pop(whose), *self.slow.pop(whose)):
            self.add(letter)

    def _fresh(self, whose: str) -> Lines[Letter]:
        """Where their letters wait that have never failed."""
        return self.slow if whose in self._hanging else self.new

    def _most(self, whose: str) -> int:
        """How many of theirs may be here, of one kind."""
        if len(self._taken) > SEEN:
            return 1
        return SLOW if whose in self._hanging else FETCH

    def look(self, *, anew: bool = False) -> None:
        """There may be more in the outbox, behind what was seen; ``anew``: anywhere."""
        self._stale_new = self._stale_failed = True
        self._read.anew |= anew

    def release(self, letters: Iterable[Letter]) -> None:
        """They are neither here nor under way any more: they, or others of their uploads, may be due."""
        for letter in letters:
            self._pass_over(letter)
        self._stale_failed = True

    def _pass_over(self, letter: Letter) -> None:
        del self._taken[letter.fact.upload_id]
        self._read.leave(owner_of(letter), letter.seq)

    def replace(self, arrived: Iterable[Letter], behind: Mapping[str, Letter]) -> None:
        """They have arrived. What is ``behind`` them, by upload, is taken; it still has to be `add`-ed, or sent."""
        for letter in arrived:
            del self._taken[letter.fact.upload_id]
        self._taken.update(behind)
        self._stale_failed = True

    def drop(self) -> None:
        """Let everything here be chosen anew, whoever hangs."""
        self._hanging.clear()
        for kind in (self.new, self.slow, self.failed):
            self.release(kind.clear())

    @property
    def looks_again(self) -> bool:
        """Whether the outbox is to be asked in a second, for what wasn't looked for now."""
        return not self.one_at_a_time and (self._stale_failed or self._has_older())

    def _has_older(self) -> bool:
        """Whether somebody may have new ones in the outbox that are older than theirs here."""
        return any(map(self._is_first_there, self._read.left))

    def _is_first_there(self, whose: str) -> bool:
        fresh = self._fresh(whose)
        return whose not in fresh or fresh.of(whose)[0].seq > self._read.left[whose]

    def wanted(self) -> tuple[int, int]:
        """How many to fetch: new ones, and others that have failed. One at a time is chosen each time."""
        if len(self._taken) >= 2 * SEEN:
            return 0, 0
        most = 1 if self.one_at_a_time else FETCH
        if self.failed:  # all of somebody's that hang, perhaps, before those of others
            none_may_go = sum(self._again()) >= self._most_again or self._shares.next(self.failed) is None
            failed = SEEN if self._stale_failed and self._is_later() and none_may_go else 0
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
        return first is not None and not self._shares.of(first)

    def _goes_back(self) -> bool:
        """Whether to read again what was passed over; else, what is behind all that was read."""
        if self._read.anew:
            return self._stale_new
        return self._has_older() and ((self._is_later() and not self.one_at_a_time) or not self._somebody_waits())

    async def fetch(self) -> list[Letter]:
        """What is due and was not taken; it is from now on, and still has to be `add`-ed."""
        # what is taken while we ask is taken; what is released meanwhile may still be in the answer
        taken, (new, failed) = frozenset(self._taken), self.wanted()
        read, after = self._read, 0
        if new:
            if self._taken:  # else nothing is known to hide anything
                after = read.after(self._is_first_there) if self._goes_back() else read.seen
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
        return self._chosen(found, taken)

    def _chosen(self, found: Sequence[Letter], taken: frozenset[str]) -> list[Letter]:
        """Take these, but for what was taken, and those that have failed of owners that have enough of them here."""
        chosen, counts = [], Counter[str]()
        for letter in found:
            if letter.fact.upload_id in taken:
                if letter.fact.upload_id not in self._taken:  # it was passed over, but needn't have been
                    self._read.leave(owner_of(letter), letter.seq)
                continue
            if letter.attempts:
                whose = owner_of(letter)
                if counts[whose] + self.failed.count(whose) >= self._most(whose):
                    continue
                counts[whose] += 1
            self._taken[letter.fact.upload_id] = letter
            chosen.append(letter)
        return chosen

    def add(self, letter: Letter) -> None:
        """It waits for its turn. Where too many of theirs do, one between the oldest and the newest is passed over."""
        whose = owner_of(letter)
        if letter.attempts:
            self.failed.add(whose, letter)
            return
        kind = self._fresh(whose)
        kind.add(whose, letter)
        count = kind.count(whose)
        if count > self._most(whose):
            self._pass_over(kind.leave(whose, count // 2))

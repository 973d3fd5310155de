"""A bounded number of places, which no client can take for all others.

One reason to change: how places are shared. Invariants: no more are taken than there are; nobody has more than three
quarters of several; a place that gets free goes to who has the fewest, and among these to who has waited longest.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from resumable.model.outbox import Letter
from resumable.networks import counted

V = TypeVar("V")

_counted = lru_cache(4096)(counted)


def owner(identity: str | None, address: str) -> str:
    """Whose an event is: that identity's, else the client's at that address; all that nobody has caused are one's."""
    return _counted(address) if identity is None else identity


class Lines(Generic[V]):
    """What waits, by whose it is; in the order in which it is their turn.

    What is one owner's waits in the order of ``key``, and without one in that in which it came."""

    def __init__(self, key: Callable[[V], Any] | None = None) -> None:
        self._key = key
        self._lines: dict[str, deque[V]] = {}
        self._came: dict[str, None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, whose: str) -> bool:
        return whose in self._lines

    def __reversed__(self) -> Iterator[str]:
        """Whoever has begun to wait last comes first, however many turns the others had since they did."""
        return reversed(self._came)

    def of(self, whose: str) -> deque[V]:
        """All that waits of theirs, in order; never empty."""
        return self._lines[whose]

    def count(self, whose: str) -> int:
        """How much waits of theirs."""
        return len(self._lines.get(whose, ()))

    def add(self, whose: str, one: V) -> None:
        """It waits with what else is theirs."""
        line = self._lines.setdefault(whose, deque())
        if self._key is None:
            line.append(one)
        else:
            insort(line, one, key=self._key)
        self._came.setdefault(whose)

    def leave(self, whose: str, at: int) -> V:
        """The one there of theirs waits no longer; nobody's turn changes. Others of theirs wait on."""
        line = self._lines[whose]
        one = line[at]
        del line[at]
        return one

    def remove(self, whose: str, one: V) -> None:
        """It waits no longer; what else is theirs comes behind everybody else's."""
        line = self._lines.pop(whose)
        line.remove(one)
        if line:
            self._lines[whose] = line
        else:
            del self._came[whose]

    def pop(self, whose: str) -> Iterable[V]:
        """Nothing of theirs waits any longer; what did."""
        self._came.pop(whose, None)
        return self._lines.pop(whose, ())

    def clear(self) -> list[V]:
        """Nothing waits any longer; what did."""
        waited = [one for line in self._lines.values() for one in line]
        self._lines.clear()
        self._came.clear()
        return waited


class Shares:
    """Who has how many of ``count`` places."""

    def __init__(self, count: int) -> None:
        self._most = count - count // 4
        self._used: Counter[str] = Counter()

    def next(self, waiting: Iterable[str], counted: Counter[str] | None = None) -> str | None:
        """Who of these is to have a place that is free; None: nobody. ``counted``: so many of their places count."""
        first, fewest = None, self._most
        for whose in waiting:
            used = self._used.get(whose, 0)
            if used >= self._most:
                continue
            if counted is not None:
                used = counted[whose]
            if used < fewest:
                first, fewest = whose, used
            if not used:
                break
        return first

    def of(self, whose: str) -> int:
        """How many are theirs."""
        return self._used.get(whose, 0)

    def take(self, whose: str) -> None:
        """One more is theirs."""
        self._used[whose] += 1

    def give_back(self, whose: str) -> None:
        """One less is."""
        self._used[whose] -= 1
        if not self._used[whose]:
            del self._used[whose]


class Places:
    """``count`` places. Whoever takes one gives it back."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._shares = Shares(count)
        self._waiting: Lines[Deferred[None]] = Lines()

    def take(self, whose: str) -> Deferred[None]:
        """Fires when there is a place. Cancelled: none is wanted any more."""
        if self._free and self._shares.next([whose]) is not None:
            self._grant(whose)
            return succeed(None)
        waiter: Deferred[None] = Deferred(lambda waiter: self._waiting.remove(whose, waiter))
        self._waiting.add(whose, waiter)
        return waiter

    def give_back(self, whose: str) -> None:
        """It is free again."""
        self._free += 1
        self._shares.give_back(whose)
        first = self._shares.next(self._waiting)
        if first is not None:
            waiter = self._waiting.of(first)[0]
            self._waiting.remove(first, waiter)
            self._grant(first)
            waiter.callback(None)

    def _grant(self, whose: str) -> None:
        self._free -= 1
        self._shares.take(whose)


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
    newest: bool = False
    came_last: bool = False


class EventTurns:
    """Letters that are ``new``, those of owners that hang, which go ``slow``-ly, and those that have ``failed``.

    An owner is in ``hanging`` once no answer to one of its letters came in time, until there is an answer to one. The
    slow and the failed ones are held back: half of the places are not for them.
    ``places``: how many go at once, but in an outage, where they go ``one_at_a_time``.
    """

    def __init__(self, places: int) -> None:
        self.new, self.slow, self.failed = (Lines[Letter](_order) for _ in range(3))
        self.hanging: dict[str, bool] = {}  # did the newest of theirs go last
        self.one_at_a_time = False
        self._shares = Shares(places)
        self._most_held_back = max(1, places // 2)
        self._under_way: dict[str, Turn] = {}  # by upload
        self._passed = 0  # new ones that went since the last slow or failed one
        self._was_last = False
        self._was_slow = False  # and not failed

    def __len__(self) -> int:
        return len(self.new) + len(self.slow) + len(self.failed)

    def fresh(self, whose: str) -> Lines[Letter]:
        """Where their letters wait that have never failed."""
        return self.slow if whose in self.hanging else self.new

    def hangs(self, whose: str) -> list[Letter]:
        """They do from now on; what waits of theirs, and has to be lined up again."""
        self.hanging[whose] = False
        return list(self.new.pop(whose))

    def answers(self, whose: str) -> list[Letter]:
        """They hang no longer; what waits of theirs, and has to be lined up again."""
        del self.hanging[whose]
        return list(self.slow.pop(whose))

    def clear(self) -> list[Letter]:
        """Nothing waits any longer, and nobody hangs; what waited."""
        self.hanging.clear()
        return [letter for kind in (self.new, self.slow, self.failed) for letter in kind.clear()]

    def next(self) -> Turn | None:
        """What may go next; None: nothing."""
        held_back = self._next_held_back()
        share = OUTAGE_TURNS if self.one_at_a_time else 2
        if held_back is None or self._passed < share - 1:
            last = self._is_turn_of_last()
            new = self._shares.next(reversed(self.new) if last else self.new)
            if new is not None:
                return Turn(self.new, new, self._is_turn_of_newest(new), last)
        return held_back

    def _is_turn_of_last(self) -> bool:
        """While anybody hangs, who came last and who has waited longest get as many places."""
        if not self.hanging:
            return False
        last = [each.came_last for each in self._under_way.values() if not self._is_held_back(each)]
        return _fewer(last, as_many=not self._was_last)

    def _is_turn_of_newest(self, whose: str) -> bool:
        """If more of their oldest are under way than of their newest; if as many, owners that hang take turns."""
        theirs = [each for each in self._under_way.values() if each.whose == whose and each.kind is not self.failed]
        return _fewer([each.newest for each in theirs], as_many=not self.hanging.get(whose, True))

    def _is_held_back(self, turn: Turn) -> bool:
        return turn.kind is self.failed or turn.whose in self.hanging

    def _next_held_back(self) -> Turn | None:
        """One that is held back: of whom such have the fewest places, else of the kind that has, or did not go last."""
        failed, slow = self._held_back()
        turns = []
        if failed + slow < self._most_held_back:
            used = Counter(each.whose for each in self._under_way.values() if self._is_held_back(each))
            if (whose := self._shares.next(self.slow, used)) is not None:
                turn = Turn(self.slow, whose, self._is_turn_of_newest(whose))
                turns.append((used[whose], slow, self._was_slow, turn))
            if (whose := self._shares.next(self.failed, used)) is not None:
                turns.append((used[whose], failed, not self._was_slow, Turn(self.failed, whose)))
        return min(turns, key=lambda each: each[:3])[-1] if turns else None

    def _held_back(self) -> tuple[int, int]:
        """How many that are held back are under way: that have failed, and others."""
        again = [each.kind is self.failed for each in self._under_way.values() if self._is_held_back(each)]
        return sum(again), len(again) - sum(again)

    @property
    def no_failed_may_go(self) -> bool:
        """Whether none that has failed may go now, whatever comes."""
        return sum(self._held_back()) >= self._most_held_back or self._shares.next(self.failed) is None

    @property
    def somebody_waits(self) -> bool:
        """Whether somebody waits who has none under way: nobody has waited longer."""
        first = self._shares.next(self.new)
        return first is not None and not self._shares.of(first)

    def take(self, turn: Turn) -> Letter:
        """The letter whose turn it is; one of its upload is under way until it `ended`."""
        if turn.kind is self.new:
            self._passed, self._was_last = self._passed + 1, turn.came_last
        else:
            self._passed, self._was_slow = 0, turn.kind is self.slow
        if turn.kind is self.slow:
            self.hanging[turn.whose] = turn.newest
        letter = turn.kind.of(turn.whose)[-1 if turn.newest else 0]
        turn.kind.remove(turn.whose, letter)
        self._shares.take(turn.whose)
        self._under_way[letter.fact.upload_id] = turn
        return letter

    def ended(self, letter: Letter) -> None:
        """None of its upload is under way any more."""
        self._shares.give_back(self._under_way.pop(letter.fact.upload_id).whose)


def _fewer(flags: Sequence[bool], *, as_many: bool) -> bool:
    """Whether fewer of these are true than false; ``as_many``: what it is if neither are."""
    more = 2 * sum(flags) - len(flags)
    return more < 0 or (more == 0 and as_many)


def owner_of(letter: Letter) -> str:
    """Whose it is, as `owner` says."""
    data: Mapping[str, Any] = letter.fact.data  # not all of it is read: this is asked of each that only waits, too
    return owner(data.get("identity"), data.get("request", {}).get("address", ""))

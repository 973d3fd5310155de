"""A bounded number of places, which no client can take for all others.

One reason to change: how places are shared. Invariants: no more are taken than there are; nobody has more than three
quarters of several; a place that gets free goes to who has the fewest, and among these to who has waited longest.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, succeed

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

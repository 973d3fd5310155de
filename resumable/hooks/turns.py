"""Turns: the order in which events go to a hook, and questions to a guard, so that no client takes all places.

Invariants: no more places are taken than there are; nobody has more than three quarters of several; a place that gets
free goes to the owner with the fewest, and among these to the one that has waited longest. An event that fails makes
its own upload wait, and no other; however many get no answer in time, neither other owners' events wait for that nor
the newest of the same owner. An owner's oldest and newest events have as many places. Events that have failed, and all
of owners that hang, get at most half of the places together, and neither they nor others can take all the turns.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from resumable.model.outbox import OutboxEvent
from resumable.networks import counted

V = TypeVar("V")

_counted = lru_cache(4096)(counted)


def event_owner(identity: str | None, address: str) -> str:
    """The name under which an event has its turns: the identity, else the client's network; empty without either.

    ``address``: the client's, as a request shows it; empty where no request caused the event."""
    return _counted(address) if identity is None else identity


class Lines(Generic[V]):
    """A line of waiting things for each owner; iterating gives the owners in the order of their turns.

    A line is in the order of ``key``, and without one in the order in which the things came."""

    def __init__(self, key: Callable[[V], Any] | None = None) -> None:
        self._key = key
        self._lines: dict[str, deque[V]] = {}
        self._came: dict[str, None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, owner: str) -> bool:
        return owner in self._lines

    def __reversed__(self) -> Iterator[str]:
        """The owners, the one first that began to wait last, however many turns the others had since then."""
        return reversed(self._came)

    def of(self, owner: str) -> deque[V]:
        """The owner's line; never empty. Raises KeyError for an owner that doesn't wait."""
        return self._lines[owner]

    def count(self, owner: str) -> int:
        """The length of the owner's line."""
        return len(self._lines.get(owner, ()))

    def add(self, owner: str, one: V) -> None:
        """Put one more into the owner's line."""
        line = self._lines.setdefault(owner, deque())
        if self._key is None:
            line.append(one)
        else:
            insort(line, one, key=self._key)
        self._came.setdefault(owner)

    def leave(self, owner: str, at: int) -> V:
        """Take the one at that index out of the owner's line, in which others stay; nobody's turn changes."""
        line = self._lines[owner]
        one = line[at]
        del line[at]
        return one

    def remove(self, owner: str, one: V) -> None:
        """Take that one out of the owner's line; the owner comes behind all others."""
        line = self._lines.pop(owner)
        line.remove(one)
        if line:
            self._lines[owner] = line
        else:
            del self._came[owner]

    def pop(self, owner: str) -> Iterable[V]:
        """Take the owner's whole line."""
        self._came.pop(owner, None)
        return self._lines.pop(owner, ())

    def clear(self) -> list[V]:
        """Take all lines."""
        waited = [one for line in self._lines.values() for one in line]
        self._lines.clear()
        self._came.clear()
        return waited


class Shares:
    """How many of ``count`` places each owner has."""

    def __init__(self, count: int) -> None:
        self._most = count - count // 4
        self._used: Counter[str] = Counter()

    def next(self, waiting: Iterable[str], counted: Counter[str] | None = None) -> str | None:
        """The owner, of these, that gets a free place; None: no one may have one.

        ``counted``: how many places of each owner are compared, instead of all."""
        first, fewest = None, self._most
        for owner in waiting:
            used = self._used.get(owner, 0)
            if used >= self._most:
                continue
            if counted is not None:
                used = counted[owner]
            if used < fewest:
                first, fewest = owner, used
            if not used:
                break
        return first

    def of(self, owner: str) -> int:
        """How many places the owner has."""
        return self._used.get(owner, 0)

    def take(self, owner: str) -> None:
        """The owner has one more."""
        self._used[owner] += 1

    def give_back(self, owner: str) -> None:
        """The owner has one less."""
        self._used[owner] -= 1
        if not self._used[owner]:
            del self._used[owner]


class Places:
    """``count`` places, of which each that is taken has to be given back."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._shares = Shares(count)
        self._waiting: Lines[Deferred[None]] = Lines()

    def take(self, owner: str) -> Deferred[None]:
        """Fires when the owner has a place; may be cancelled."""
        if self._free and self._shares.next([owner]) is not None:
            self._grant(owner)
            return succeed(None)
        waiter: Deferred[None] = Deferred(lambda waiter: self._waiting.remove(owner, waiter))
        self._waiting.add(owner, waiter)
        return waiter

    def give_back(self, owner: str) -> None:
        """One of the owner's places is free again."""
        self._free += 1
        self._shares.give_back(owner)
        first = self._shares.next(self._waiting)
        if first is not None:
            waiter = self._waiting.of(first)[0]
            self._waiting.remove(first, waiter)
            self._grant(first)
            waiter.callback(None)

    def _grant(self, owner: str) -> None:
        self._free -= 1
        self._shares.take(owner)


OUTAGE_TURNS = 4
"""In an outage every fourth event is one that has failed, the others are new."""


def _order(event: OutboxEvent) -> tuple[int, int]:
    """The one that failed least often comes first, and of these the oldest."""
    return event.attempts, event.seq


@frozen
class Turn:
    """The event that may go next: of that kind and owner, the oldest or the ``newest``.

    ``came_last``: the owner has the turn because they began to wait last."""

    kind: Lines[OutboxEvent]
    owner: str
    newest: bool = False
    came_last: bool = False


class EventTurns:
    """Events that are ``new``, those of owners that hang, which go ``slow``-ly, and those that have ``failed``.

    An owner is in ``hanging`` once no answer to one of its events came in time, until there is an answer to one. The
    slow and the failed ones are held back: half of the places are not for them.
    ``places``: how many go at once, but in an outage, where they go ``one_at_a_time``.
    """

    def __init__(self, places: int) -> None:
        self.new, self.slow, self.failed = (Lines[OutboxEvent](_order) for _ in range(3))
        self.hanging: dict[str, bool] = {}  # by owner, whether the newest of theirs went last
        self.one_at_a_time = False
        self._shares = Shares(places)
        self._most_held_back = max(1, places // 2)
        self._under_way: dict[str, Turn] = {}  # by upload
        self._passed = 0  # new ones that went since the last slow or failed one
        self._was_last = False
        self._was_slow = False  # and not failed

    def __len__(self) -> int:
        return len(self.new) + len(self.slow) + len(self.failed)

    def fresh(self, owner: str) -> Lines[OutboxEvent]:
        """The lines in which the owner's events wait that have never failed."""
        return self.slow if owner in self.hanging else self.new

    def hangs(self, owner: str) -> list[OutboxEvent]:
        """The owner hangs from now on. Returns their new events, which have to be added again."""
        self.hanging[owner] = False
        return list(self.new.pop(owner))

    def answers(self, owner: str) -> list[OutboxEvent]:
        """The owner hangs no longer. Returns their slow events, which have to be added again."""
        del self.hanging[owner]
        return list(self.slow.pop(owner))

    def clear(self) -> list[OutboxEvent]:
        """Take all events; nobody hangs any longer."""
        self.hanging.clear()
        return [event for kind in (self.new, self.slow, self.failed) for event in kind.clear()]

    def next(self) -> Turn | None:
        """The turn of the event that may go next; None: none may."""
        held_back = self._next_held_back()
        share = OUTAGE_TURNS if self.one_at_a_time else 2
        if held_back is None or self._passed < share - 1:
            last = self._is_turn_of_last()
            new = self._shares.next(reversed(self.new) if last else self.new)
            if new is not None:
                return Turn(self.new, new, self._is_turn_of_newest(new), last)
        return held_back

    def _is_turn_of_last(self) -> bool:
        """While anybody hangs, owners that came last and owners that have waited longest get as many places."""
        if not self.hanging:
            return False
        last = [each.came_last for each in self._under_way.values() if not self._is_held_back(each)]
        return _fewer(last, as_many=not self._was_last)

    def _is_turn_of_newest(self, owner: str) -> bool:
        """Whether fewer of the owner's newest than of their oldest are under way; if as many, the two take turns."""
        theirs = [each for each in self._under_way.values() if each.owner == owner and each.kind is not self.failed]
        return _fewer([each.newest for each in theirs], as_many=not self.hanging.get(owner, True))

    def _is_held_back(self, turn: Turn) -> bool:
        return turn.kind is self.failed or turn.owner in self.hanging

    def _next_held_back(self) -> Turn | None:
        """One that is held back: of the owner that has the fewest such places; else of the kind, slow or failed, that
        has the fewest; else of the kind that did not go last."""
        failed, slow = self._held_back()
        turns = []
        if failed + slow < self._most_held_back:
            used = Counter(each.owner for each in self._under_way.values() if self._is_held_back(each))
            if (owner := self._shares.next(self.slow, used)) is not None:
                turn = Turn(self.slow, owner, self._is_turn_of_newest(owner))
                turns.append((used[owner], slow, self._was_slow, turn))
            if (owner := self._shares.next(self.failed, used)) is not None:
                turns.append((used[owner], failed, not self._was_slow, Turn(self.failed, owner)))
        return min(turns, key=lambda each: each[:3])[-1] if turns else None

    def _held_back(self) -> tuple[int, int]:
        """How many of those held back are under way: of the failed, and of the slow."""
        again = [each.kind is self.failed for each in self._under_way.values() if self._is_held_back(each)]
        return sum(again), len(again) - sum(again)

    @property
    def no_failed_may_go(self) -> bool:
        """Whether no failed event that is here may go now."""
        return sum(self._held_back()) >= self._most_held_back or self._shares.next(self.failed) is None

    @property
    def somebody_waits(self) -> bool:
        """Whether an owner with new events has none under way."""
        first = self._shares.next(self.new)
        return first is not None and not self._shares.of(first)

    def take(self, turn: Turn) -> OutboxEvent:
        """Take the event that has this turn; it is under way until it `ended`."""
        if turn.kind is self.new:
            self._passed, self._was_last = self._passed + 1, turn.came_last
        else:
            self._passed, self._was_slow = 0, turn.kind is self.slow
        if turn.kind is self.slow:
            self.hanging[turn.owner] = turn.newest
        event = turn.kind.of(turn.owner)[-1 if turn.newest else 0]
        turn.kind.remove(turn.owner, event)
        self._shares.take(turn.owner)
        self._under_way[event.fact.upload_id] = turn
        return event

    def ended(self, event: OutboxEvent) -> None:
        """The event is no longer under way."""
        self._shares.give_back(self._under_way.pop(event.fact.upload_id).owner)


def _fewer(flags: Sequence[bool], *, as_many: bool) -> bool:
    """Whether fewer of these are true than false; ``as_many`` if there are as many of either."""
    more = 2 * sum(flags) - len(flags)
    return more < 0 or (more == 0 and as_many)


def owner_of(event: OutboxEvent) -> str:
    """The event's owner, see `event_owner`. Reads no more of the event: this is asked of all that wait."""
    data: Mapping[str, Any] = event.fact.data
    return event_owner(data.get("identity"), data.get("request", {}).get("address", ""))

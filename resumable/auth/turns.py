"""Expensive work is done in turns, so that no client waits behind all the work of another.

Invariants: the work that waits is bounded, in all and for each address. An address with much work loses some of its own
before anybody else's is refused. Known clients wait behind at most as many strangers as known clients. How a client is
treated never depends on whether the name that it gives exists.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred

from resumable.protocol.errors import Unavailable

V = TypeVar("V")
RETRY_AFTER = 5


@frozen
class TurnLimits:
    """``at_once``: pieces of work; ``waiting``: for their turn, in all; ``each``: of one address among these."""

    at_once: int
    waiting: int = 64
    each: int = 8


class FairTurns:
    """Addresses after each other, and of each address the names that it gives after each other."""

    def __init__(self, room: TurnLimits) -> None:
        self._room = room
        self._working = 0
        self._lines = (_Line(), _Line())  # of strangers, of known clients
        self._turn = 0

    async def take(
        self, address: str, name: bytes, work: Coroutine[Deferred[Any], Any, V], *, known: bool = False
    ) -> V:
        """The outcome of ``work``, when its turn has come. Raises Unavailable where there's no room."""
        try:
            if self._working >= self._room.at_once:
                turn = self._wait(self._lines[known], address, name)
                await turn
            else:
                self._working += 1
        except BaseException:
            work.close()
            raise
        try:
            return await work
        finally:
            self._next()

    def _wait(self, line: _Line, address: str, name: bytes) -> Deferred[None]:
        """A place in the line, which may cost somebody else's."""
        turn: Deferred[None] = Deferred(lambda given_up: line.leave(address, name, given_up))
        line.add(address, name, turn)
        loser = None
        if line.waiting(address) > self._room.each:
            loser = line.drop(address)
        elif len(line) > self._room.waiting:
            loser = line.drop(line.longest(address))
        if loser is not None:
            loser.errback(Unavailable("Too many are being checked now.", retry_after=RETRY_AFTER))
        return turn

    def _next(self) -> None:
        """One has ended: its place goes to the next, from either line in turn."""
        self._turn = 1 - self._turn
        line = self._lines[self._turn] if len(self._lines[self._turn]) else self._lines[1 - self._turn]
        if len(line):
            line.take().callback(None)
        else:
            self._working -= 1


class _Line:
    """Work that waits, by address and by name. The last one of the longest queue goes when there is no room."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, OrderedDict[bytes, deque[Deferred[None]]]] = OrderedDict()
        self._counts: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def waiting(self, address: str) -> int:
        """How many of this address."""
        return self._counts.get(address, 0)

    def longest(self, newcomer: str) -> str:
        """The address with most of all; the newcomer's if no other has more."""
        return max(self._counts, key=lambda each: (self._counts[each], each == newcomer))

    def add(self, address: str, name: bytes, turn: Deferred[None]) -> None:
        """At the end of its name's queue."""
        self._addresses.setdefault(address, OrderedDict()).setdefault(name, deque()).append(turn)
        self._counts[address] = self.waiting(address) + 1
        self._count += 1

    def take(self) -> Deferred[None]:
        """The first of the name whose turn it is, of the address whose turn it is; both have their next one last."""
        address = next(iter(self._addresses))
        names = self._addresses[address]
        name = next(iter(names))
        turn = names[name].popleft()
        names.move_to_end(name)
        self._addresses.move_to_end(address)
        self._removed(address, name)
        return turn

    def leave(self, address: str, name: bytes, turn: Deferred[None]) -> None:
        """It waits no longer."""
        self._addresses[address][name].remove(turn)
        self._removed(address, name)

    def drop(self, address: str) -> Deferred[None]:
        """The last of the address's name with most; of several such, of the one that came last."""
        names = self._addresses[address]
        name = max(reversed(names), key=lambda each: len(names[each]))
        turn = names[name].pop()
        self._removed(address, name)
        return turn

    def _removed(self, address: str, name: bytes) -> None:
        names = self._addresses[address]
        if not names[name]:
            del names[name]
        if not names:
            del self._addresses[address]
        self._count -= 1
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]

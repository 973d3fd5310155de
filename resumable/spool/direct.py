"""The direct way of a long body: a thread moves its bytes from the socket to the data file, and this process sees none.

It is a call in the pool that goes on as long as the bytes come fast, in turns with others that wait. The reactor is
told how far it is, counts the bytes as it counts all others, and sets how far it may go. A second thread for the same
body made it slower by a tenth on an idle machine of two cores.

Invariant: nothing else reads from the socket or writes to the file until it has ended; by then, all bytes that were
taken from the socket are in the file and counted, unless the file has failed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.aio.threads import AGAIN, IPool
from resumable.spool.disk import IDisk
from resumable.spool.splice import CannotSplice

PATIENCE: Final = 0.02
"""Seconds of silence after which the reactor waits for the client again. With 1 ms, the changes cost more than they
save; a longer time keeps a thread from others."""
TURN: Final = 8 << 20
"""Bytes after which the reactor is told, and other transfers have their turn. A new call never waits so long."""
AHEAD: Final = 2 * TURN
"""Bytes, at most, that may be taken before the reactor knows of them."""
WORTHWHILE: Final = 1 << 20
"""A turn that brought less is the last one while others wait; if it may bring no more, none begins."""
SAMPLE: Final = 16
"""How many times bytes are taken before the reactor is told, and the average is looked at."""
POOR: Final = 128 << 10
"""Bytes at a time, on the average, below which the reactor's way is the faster one: the path's segments are small."""


class Ending(enum.Enum):
    """What to do after a transfer. AGAIN: begin the next, there is more. LATER: the reactor reads, until there is much
    to read again. NEVER: the reactor reads this body."""

    AGAIN = enum.auto()
    LATER = enum.auto()
    NEVER = enum.auto()


class DirectTransfer:
    """What the reactor and the threads know of one transfer, from the offset ``position`` to ``end`` at the most.

    ``source``: the socket, non-blocking. ``told``: called in the thread when more is in the file. ``pool``: whose
    thread it is. ``limit``: how far it may go now; 0: no further. ``taken``, ``put``, ``counted``: offsets
    up to which bytes have left the socket, are in the file, and are known to the reactor. ``ending``: why it takes no
    more.
    """

    def __init__(
        self,
        source: int,
        position: int,
        end: int,
        ahead: int,
        told: Callable[[], None],
        pool: IPool,
    ) -> None:
        self.end = end
        self.limit = min(end, position + ahead)
        self.taken = self.put = self.counted = position
        self.ending: Ending | None = None
        self._source, self._told, self._pool = source, told, pool
        self._begin = self._stint = self._reported = self._looked = position
        self._times = 0
        self._due = False

    def move(self, disk: IDisk, fd: int) -> object:
        """In a thread: move bytes into the open file until the end, or until others want the thread: then the answer is
        AGAIN. Raises OSError of the file."""
        while size := self._take(disk):
            disk.put(fd, self.put)
            self.put += size
            self._tell()
        return AGAIN if self.ending is None else None

    def _tell(self) -> None:
        if self.put - self._reported >= TURN or self._due:
            self._reported, self._due = self.put, False
            self._told()

    def _take(self, disk: IDisk) -> int:
        """Take bytes and answer how many. 0: it is others' turn, or over, as ``ending`` says."""
        if self.ending is not None:
            return 0
        turn, room, crowded = self.taken - self._begin, self.limit - self.taken, self._pool.crowded
        if room <= 0:
            self.ending = Ending.AGAIN
            return 0
        if crowded and turn >= TURN:
            self._begin = self._stint = self.taken
            return 0
        if self.taken > self._stint and self._pool.urgent:
            self._stint = self.taken
            return 0
        try:
            size = disk.take(self._source, room, 0 if crowded else PATIENCE)
        except CannotSplice:
            self.ending = Ending.NEVER
            return 0
        if not size:
            if size is None and crowded and turn >= WORTHWHILE:
                self._begin = self.taken
            else:
                self.ending = Ending.LATER
            return 0
        self.taken += size
        self._times += 1
        if self._times == SAMPLE:
            if self.taken - self._looked < SAMPLE * POOR:
                self.ending = Ending.NEVER
            self._looked, self._times, self._due = self.taken, 0, True
        return size


class IDirectConsumer(Interface):
    """A consumer that can take bytes from a socket by itself."""

    def receive(source: int, size: int, arrived: Callable[[int], None]) -> Deferred[Ending] | None:
        """Take up to ``size`` bytes from the socket, which is non-blocking. None: not now, and nothing is done.

        ``arrived`` is told of the bytes that came, as they come. Nothing may read from the socket, or be written to
        this consumer, before the Deferred fires; it never fails. `unregisterProducer`, and a pause of the producer, end
        it soon.
        """

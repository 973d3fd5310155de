"""What a client of HTTP/2 may have in memory: bytes that it sends ahead, bytes held for all together.

Changes when one of these bounds does. Invariant: memory depends on the number of connections, never on what they send.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from h2.errors import ErrorCodes

from resumable.http.h2.frames import Violation

STREAM_WINDOW: Final = 16 << 20
"""Bytes that a client may send of one body ahead of us. Seven eighths of them are 140 MiB/s over 50 ms each way; with
half as much, a client at 50 MiB/s waits most of the time, since buffers on the way fill up too."""
CONNECTION_WINDOW: Final = 32 << 20
"""Bytes that it may send ahead on one connection, and so what all its bodies may hold while they are paused."""
MAX_HELD: Final = 64 << 20
"""Bytes of all the bodies that wait in memory. At more, connections that hold any are not read. One client may hold
half of them, which is what one connection may send ahead: the other half is left for others."""


class Window:
    """What a client may send: of one body, or on one connection."""

    __slots__ = ("_left", "_owed", "_step")

    def __init__(self, size: int) -> None:
        self._left = size
        self._owed = 0
        self._step = size // 8

    def take(self, size: int) -> None:
        """So much has come. Raises Violation when it wasn't allowed."""
        self._left -= size
        if self._left < 0:
            raise Violation(ErrorCodes.FLOW_CONTROL_ERROR)

    def give(self, size: int) -> int:
        """So much of it is free again. Answers by how much the client is to be told to go on: mostly 0."""
        self._owed += size
        if self._owed < self._step:
            return 0
        more, self._owed = self._owed, 0
        self._left += more
        return more


class Holder(Protocol):
    """A connection."""

    def regulate(self) -> None:
        """What `Held.full` answers may have changed."""


class Held:
    """How many bytes of bodies wait in memory, over all connections of a site."""

    def __init__(self, limit: int = MAX_HELD) -> None:
        self.size = 0
        self._limit = limit
        self._by_client: Counter[str] = Counter()
        self._stopped: set[Holder] = set()

    def full(self, client: str) -> bool:
        """Whether no more of this client's may wait."""
        return self.size > self._limit or self._by_client[client] > self._limit // 2

    def add(self, client: str, size: int) -> None:
        """So much more of a client's, or less."""
        before = self.size > self._limit, self._by_client[client] > self._limit // 2
        self.size += size
        self._by_client[client] += size
        now = self.size > self._limit, self._by_client[client] > self._limit // 2
        if not self._by_client[client]:
            del self._by_client[client]
        if now < before:
            stopped, self._stopped = self._stopped, set()
            for holder in stopped:
                holder.regulate()

    def stopped(self, holder: Holder) -> None:
        """It isn't read until there is room."""
        self._stopped.add(holder)

    def forget(self, holder: Holder) -> None:
        self._stopped.discard(holder)

"""How much memory and work one client of HTTP/2 may cost: windows, bytes held for all clients together, budgets.

Invariants: memory depends on the number of connections, never on the bytes that they send. A client that asks for too
much gets it later. Its connection isn't ended for that, as behind a proxy many clients share one, and one of them would
end the uploads of the others. Every frame counts, whatever its kind, so no list of floods has to be complete. By name
they are CVE-2023-44487 (rapid reset), CVE-2025-8671 (resets that the server is made to send), CVE-2019-9512 to 9518
(pings, settings, priorities, empty frames), CVE-2024-27316 (CONTINUATION, whose length is bounded in frames.py).
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
"""Bytes that it may send ahead on one connection, and so the bytes that all its paused bodies may hold."""
MAX_HELD: Final = 64 << 20
"""Bytes of all the bodies that wait in memory. At more, connections that hold any are not read. One client may hold
half of them, which is what one connection may send ahead: the other half is left for others."""


class ReceiveWindow:
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


class BytesHolder(Protocol):
    """A connection."""

    def regulate(self) -> None:
        """What `HeldBytes.full` answers may have changed."""


class HeldBytes:
    """How many bytes of bodies wait in memory, over all connections of a site."""

    def __init__(self, limit: int = MAX_HELD) -> None:
        self.size = 0
        self._limit = limit
        self._by_client: Counter[str] = Counter()
        self._stopped: set[BytesHolder] = set()

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

    def stopped(self, holder: BytesHolder) -> None:
        """It isn't read until there is room."""
        self._stopped.add(holder)

    def forget(self, holder: BytesHolder) -> None:
        """The connection is closed."""
        self._stopped.discard(holder)


FRAMES: Final = 10_000
"""Frames that a client may send at once beside those that it needs: see `SENT` and `ANSWERED`."""
FRAMES_RATE: Final = 330
"""And each second in the long run. Both are nghttp2's. Who sends more is read more slowly, and that is all."""
REQUESTS: Final = 1_000
"""Requests that may be begun at once and given up before they are answered. One that is answered costs nothing."""
REQUESTS_RATE: Final = 33
"""And each second in the long run. More wait for their turn; to give up one that waits costs nothing."""
SENT: Final = 1_024
"""Bytes of answers that a client needs a frame for: Go's clients allow 4 KiB more at a time, of a stream and of all."""
ANSWERED: Final = 8
"""Frames that one request needs: its head and trailers, the end of its body, and those that allow us to send on."""
HEAD: Final = 1_024
"""Bytes of a head, unpacked, that cost as much as a frame: packed, a few may stand for many."""


class TokenBudget:
    """``size`` at once, and ``rate`` each second in the long run."""

    __slots__ = ("_left", "_rate", "_since", "_size")

    def __init__(self, size: int, rate: int, now: float) -> None:
        self._size, self._rate = size, rate
        self._left = float(size)
        self._since = now

    @property
    def spent(self) -> bool:
        """Whether nothing is left for now. It may have been overdrawn: that takes as much longer to come back."""
        return self._left < 1

    def refill(self, now: float) -> None:
        """Add the share of the time since the last call."""
        self.earn((now - self._since) * self._rate)
        self._since = now

    def earn(self, gain: float) -> None:
        """Add to the budget, up to its size."""
        self._left = min(self._size, self._left + gain)

    def spend(self, cost: int = 1) -> None:
        """Take from the budget, which may overdraw it."""
        self._left -= cost


class ClientPace:
    """How fast one client may make us work: a budget for its frames, and one for its requests."""

    __slots__ = ("_frames", "_requests")

    def __init__(self, now: float) -> None:
        self._frames = TokenBudget(FRAMES, FRAMES_RATE, now)
        self._requests = TokenBudget(REQUESTS, REQUESTS_RATE, now)

    @property
    def ahead(self) -> bool:
        """Whether the client has sent so much that it isn't to be read for now."""
        return self._frames.spent

    def refill(self, now: float) -> None:
        """Some time has passed."""
        self._frames.refill(now)
        self._requests.refill(now)

    def frame(self, head: int = 0) -> None:
        """A frame has come; or, with ``head``, it was a head of so many bytes when unpacked."""
        self._frames.spend(head // HEAD if head else 1)

    def data(self, short: int) -> None:
        """So many frames have come that brought next to nothing of a body. They count by what they announce: a client's
        records of TLS may cut each of its frames in two."""
        if short:
            self._frames.spend(short)

    def sent(self, size: int) -> None:
        """So much of an answer has gone: the client will have to make room for more."""
        self._frames.earn(size / SENT)

    def may_begin(self) -> bool:
        """Whether one more request may be begun now; it is."""
        if self._requests.spent:
            return False
        self._requests.spend()
        return True

    def answered(self) -> None:
        """A request that was begun has its answer."""
        self._requests.earn(1)
        self._frames.earn(ANSWERED)

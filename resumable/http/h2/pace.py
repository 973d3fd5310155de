"""How fast the client of one HTTP/2 connection may make us work.

Changes when one of these bounds does. Invariant: a client that asks for too much gets it later. Its connection isn't
ended for that, as behind a proxy many clients share one, and one of them would end the uploads of the others. Every
frame counts, whatever its kind, so no list of floods has to be complete. By name they are CVE-2023-44487 (rapid reset),
CVE-2025-8671 (resets that the server is made to send), CVE-2019-9512 to 9518 (pings, settings, priorities, empty
frames), CVE-2024-27316 (CONTINUATION, whose length is bounded in frames.py).
"""

from __future__ import annotations

from typing import Final

FRAMES: Final = 10_000
"""Frames that a client may send at once beside those that it needs: see `SENT` and `ANSWERED`."""
FRAMES_RATE: Final = 330
"""And each second in the long run. Both are nghttp2's. Who sends more is read more slowly, and that is all."""
REQUESTS: Final = 1_000
"""Requests that may be begun at once and given up before they are answered. One that is answered costs nothing."""
REQUESTS_RATE: Final = 33
"""And each second in the long run. More wait for their turn; what waits can be given up for nothing."""
SENT: Final = 1_024
"""Bytes of answers that a client needs a frame for: Go's clients allow 4 KiB more at a time, of a stream and of all."""
ANSWERED: Final = 8
"""Frames that one request needs: its head and trailers, the end of its body, what allows us to send on."""
SHORT: Final = 64
"""Bytes of a body that a frame has to bring to be more than a frame."""
HEAD: Final = 1_024
"""Bytes of a head, unpacked, that cost as much as a frame: packed, a few may stand for many."""


class Budget:
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
        """With what has come in meanwhile."""
        self.earn((now - self._since) * self._rate)
        self._since = now

    def earn(self, gain: float) -> None:
        self._left = min(self._size, self._left + gain)

    def spend(self, cost: int = 1) -> None:
        self._left -= cost


class Pace:
    """See the module."""

    __slots__ = ("_frames", "_requests")

    def __init__(self, now: float) -> None:
        self._frames = Budget(FRAMES, FRAMES_RATE, now)
        self._requests = Budget(REQUESTS, REQUESTS_RATE, now)

    @property
    def ahead(self) -> bool:
        """Whether the client has sent so much that it isn't to be read for now."""
        return self._frames.spent

    def refill(self, now: float) -> None:
        """Some time has passed."""
        self._frames.refill(now)
        self._requests.refill(now)

    def frame(self, head: int = 0) -> None:
        """One has come; or what was in it is a head of so many bytes."""
        self._frames.spend(head // HEAD if head else 1)

    def data(self, size: int) -> None:
        """So much of a body has come in one."""
        if size < SHORT:
            self._frames.spend()

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

"""Whether a client takes the bytes that are written for it.

Invariants: a client that takes no byte for a time-out is found, however many the kernel has accepted for it; a client
that takes bytes steadily, at ``--min-rate`` or faster, is never given up. How much of a write the kernel's buffer takes
shows neither: it holds megabytes, and asks for more only when a third of it is free, which takes a slow reader minutes.
Hence Linux is asked how much the other side's system has acknowledged (`tcp(7)`, TCP_INFO; `unix(7)`, SIOCOUTQ).
On other systems a client has to make room for the next piece within the time-out.
"""

from __future__ import annotations

import fcntl
import math
import socket
import struct
import sys
from typing import Any, Final

STEPS: Final = 10
"""How often a transport that is full is looked at in one time-out."""

_ACKED: Final = struct.Struct("=120xQ")
"""``tcpi_bytes_acked`` within ``struct tcp_info`` of linux/tcp.h (since Linux 4.1)."""
_SIOCOUTQ: Final = 0x5411


class Outgoing:
    """What one connection has written and its client has not taken yet.

    ``deadline``: when `stuck` is to be called; infinity while the transport takes what is written.
    """

    __slots__ = ("_outq", "_progress", "_step", "_taken", "_transport", "deadline")

    def __init__(self, transport: Any, timeout: float, rate: float) -> None:
        self.deadline = math.inf
        self._transport = transport
        self._progress = TakingProgress(timeout, rate)
        self._step = timeout / STEPS
        self._taken = self._outq = 0

    def full(self, now: float) -> None:
        """The transport has enough for now; or all is written, and the connection is to close when it's taken."""
        if self.deadline == math.inf:
            self._look()
            self._progress.begin(now, self._taken)
            self.deadline = now + self._step

    def empty(self) -> None:
        """The transport has handed all of it on."""
        self.deadline = math.inf
        self._progress.end()

    def stuck(self, now: float) -> bool:
        """Whether the client doesn't take it."""
        self._look()
        self.deadline = now + self._step
        return self._progress.overdue(now, self._taken)

    def _look(self) -> None:
        """See how much has been taken since the last time."""
        sock = getattr(self._transport, "socket", None)
        try:
            if sock is None or sys.platform != "linux":
                return
            if sock.family == socket.AF_UNIX:
                waits = _waiting(sock)
                self._taken += max(0, self._outq - waits)
                self._outq = waits
            else:
                (self._taken,) = _ACKED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size))
        except (OSError, ValueError, struct.error):  # it is closed; or the kernel is older than that
            pass


def _waiting(sock: socket.socket) -> int:
    """Bytes that the other side hasn't read, with the kernel's overhead for them."""
    (waits,) = struct.unpack("=i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4)))
    return int(waits)


class TakingProgress:
    """Whether at least ``rate`` bytes a second are taken, on the average of each ``timeout``, and one at the least.

    ``deadline``: when `overdue` may answer something else; infinity while nothing waits.
    """

    __slots__ = ("_least", "_taken", "_timeout", "deadline")

    def __init__(self, timeout: float, rate: float) -> None:
        self.deadline = math.inf
        self._timeout = timeout
        self._least = max(1.0, rate * timeout)
        self._taken = 0

    def begin(self, now: float, taken: int) -> None:
        """Bytes wait, if none did before. ``taken``: how many were taken up to now."""
        if self.deadline == math.inf:
            self.deadline, self._taken = now + self._timeout, taken

    def end(self) -> None:
        """Nothing waits any more."""
        self.deadline = math.inf

    def overdue(self, now: float, taken: int) -> bool:
        """Whether this client should be given up."""
        if now < self.deadline:
            return False
        if taken - self._taken < self._least:
            return True
        self.deadline, self._taken = now + self._timeout, taken
        return False

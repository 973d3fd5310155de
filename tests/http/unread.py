"""What a transport that nobody reads from looks like to a connection."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.defer import Deferred, succeed


class Kernel:
    """In the place of a TCP socket: what the other side's system has acknowledged is what the test says."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.acknowledged = 0

    def getsockopt(self, *_: int) -> bytes:
        return struct.pack("=120xQ", self.acknowledged)


def unread(wire: Any) -> Kernel:
    """From now on the transport's buffer is full; what the client takes is to be told to the answer."""
    wire.socket = kernel = Kernel()
    wire.producer.pauseProducing()
    return kernel


def read_on(wire: Any) -> None:
    """The buffer is empty again."""
    wire.producer.resumeProducing()


STEADY = 10_000


class File:
    """A source with as many bytes as are asked for, which are there at once."""

    def __init__(self) -> None:
        self.closed = 0

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        return succeed(bytes(size))

    def close(self) -> None:
        self.closed += 1

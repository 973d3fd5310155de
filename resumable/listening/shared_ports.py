"""Ports on sockets that another process has bound, and that several processes accept from.

The kernel wakes all of them for each connection, and the one that is awake already gets it: of eight uploads that begin
at once one process would serve all. So a process that has more connections than another leaves that one the next, for
a moment. (SO_REUSEPORT would spread them by chance alone, and leave those of a process that died or hangs to it.)

Invariants: nothing is changed that the others would see: neither the socket's queue, nor the name and the permissions
of a Unix socket. Nobody waits for another process longer than `MOMENT`. Whoever bound the socket closes it.
Spec: accept(2), epoll(7); twisted.internet.tcp.Port, whose ports shut the socket down at their end.
"""

from __future__ import annotations

import mmap
import os
import socket
from typing import Any, Final

from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.tcp import Port as TcpPort
from twisted.internet.tcp import Server as TcpServer
from twisted.internet.unix import Port as UnixPort
from twisted.internet.unix import Server as UnixServer

from resumable.aio.deferreds import Timer
from resumable.aio.system import shared_memory

MOMENT: Final = 0.005
"""Seconds that a connection is left to the others."""
AT_ONCE: Final = 4
"""Connections that are accepted at once when nobody else has taken them."""
_ABSENT: Final = (1 << 64) - 1


class ConnectionTable:
    """How many connections each process has, in memory that they share. ``descriptor``: of a file from `new`; stays the
    caller's."""

    def __init__(self, descriptor: int, count: int) -> None:
        self._numbers = memoryview(mmap.mmap(descriptor, 8 * count)).cast("Q")

    @staticmethod
    def new(count: int) -> int:
        """The file descriptor of a new one, for so many processes."""
        descriptor = shared_memory("connections")
        os.truncate(descriptor, 8 * count)
        table = ConnectionTable(descriptor, count)
        for number in range(1, count + 1):
            table.leave(number)
        return descriptor

    def set(self, number: int, connections: int) -> None:
        """The process with that number, from 1 on, has so many."""
        self._numbers[number - 1] = connections

    def leave(self, number: int) -> None:
        """It accepts none, and nobody waits for it."""
        self._numbers[number - 1] = _ABSENT

    def fewest(self) -> int:
        """How many the one that has the fewest has."""
        return min(self._numbers)


class Share:
    """This process's share of the connections. ``table``: None if there is no other."""

    def __init__(self, table: ConnectionTable | None = None, number: int = 1) -> None:
        self._table = table
        self._number = number
        self._count = 0

    def begin(self) -> None:
        """It accepts from now on."""
        self.changed(0)

    def changed(self, by: int) -> None:
        """It has so many connections more, or less."""
        self._count += by
        if self._table is not None:
            self._table.set(self._number, self._count)

    @property
    def is_more(self) -> bool:
        """Than what another process has."""
        return self._table is not None and self._count > self._table.fewest()


class _Counted:
    """A connection that counts."""

    server: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.server.share.changed(1)

    def connectionLost(self, reason: Any) -> None:
        """It counts no more."""
        self.server.share.changed(-1)
        super().connectionLost(reason)  # type: ignore[misc]


class _CountedTcp(_Counted, TcpServer):
    pass


class _CountedUnix(_Counted, UnixServer):
    pass


class _SharedPort:
    """What both kinds have in common. `stopReading` ends it."""

    share: Share

    def startListening(self: Any) -> None:
        """Accept when the reactor runs."""
        self._turn = Timer(self.reactor, self._take)
        self.most = 1
        self.factory.doStart()
        self.fileno = self.socket.fileno
        self.reactor.callWhenRunning(self.share.begin)
        self.startReading()

    @property
    def numberAccepts(self: Any) -> int:
        """Connections to accept at once. Twisted would raise it after each one that came alone."""
        most: int = self.most
        return most

    @numberAccepts.setter
    def numberAccepts(self, value: int) -> None:
        """Stays."""

    def doRead(self: Any) -> None:
        """A connection waits, or did."""
        if self.share.is_more:
            super().stopReading()  # type: ignore[misc]
            self._turn.set(MOMENT)
        else:
            super().doRead()  # type: ignore[misc]

    def _take(self: Any) -> None:
        """Take what nobody else has taken."""
        self.most = AT_ONCE
        super().doRead()  # type: ignore[misc]
        self.most = 1
        self.startReading()

    def stopReading(self: Any) -> None:
        """Accept no more."""
        self._turn.clear()
        super().stopReading()  # type: ignore[misc]


class SharedTcpPort(_SharedPort, TcpPort):
    """``given``: a TCP socket that listens."""

    transport = _CountedTcp  # type: ignore[assignment]

    def __init__(self, given: socket.socket, factory: IProtocolFactory, reactor: Any, share: Share) -> None:
        super().__init__(0, factory, interface=given.getsockname()[0], reactor=reactor)
        self.socket = given
        self.share = share


class SharedUnixPort(_SharedPort, UnixPort):
    """``given``: a Unix socket that listens."""

    transport = _CountedUnix

    def __init__(self, given: socket.socket, factory: IProtocolFactory, reactor: Any, share: Share) -> None:
        super().__init__(given.getsockname(), factory, reactor=reactor)
        self.socket = given
        self.share = share


def shared_port(descriptor: int, factory: IProtocolFactory, reactor: Any, share: Share) -> IListeningPort:
    """The port on an inherited socket, which it owns from now on. It accepts when the reactor runs. Raises OSError."""
    given = socket.socket(fileno=descriptor)
    given.setblocking(False)
    kind = SharedUnixPort if given.family == socket.AF_UNIX else SharedTcpPort
    port: Any = kind(given, factory, reactor, share)
    port.startListening()
    found: IListeningPort = port
    return found

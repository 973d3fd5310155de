"""Ports on one socket in several processes; here they are several in one, on sockets that are real."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.listening.shared_ports import AT_ONCE, MOMENT, ConnectionTable, Share, shared_port


class Reactor(Clock):
    """Knows what is read, and reads when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def callWhenRunning(self, call: Any) -> None:
        call()

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    removeWriter = removeReader


class Process:
    """One of ``count`` with a port on the socket."""

    def __init__(self, number: int, table: ConnectionTable, listening: socket.socket) -> None:
        self.reactor = Reactor()
        self.taken: list[Protocol] = []
        self.share = Share(table, number)
        taken = self.taken

        class Taken(Protocol):
            def connectionMade(self) -> None:
                taken.append(self)

        descriptor = os.dup(listening.fileno())
        self.port: Any = shared_port(descriptor, Factory.forProtocol(Taken), self.reactor, self.share)

    def wake(self) -> int:
        """As the kernel would. How many connections it has then."""
        if self.port in self.reactor.readers:
            self.port.doRead()
        return len(self.taken)


class Scene:
    def __init__(self, count: int) -> None:
        self.descriptor = ConnectionTable.new(count)
        self.table = ConnectionTable(self.descriptor, count)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.clients: list[socket.socket] = []
        self.processes = [Process(number, self.table, self.socket) for number in range(1, count + 1)]

    def connect(self, count: int = 1) -> None:
        for _ in range(count):
            self.clients.append(socket.create_connection(self.socket.getsockname()))

    def close(self) -> None:
        for process in self.processes:
            for each in process.taken:
                each.transport.connectionLost(Failure(ConnectionError()))  # type: ignore[union-attr]
            process.port.socket.close()
        for client in self.clients:
            client.close()
        self.socket.close()
        os.close(self.descriptor)


@pytest.fixture
def two() -> Iterator[Scene]:
    scene = Scene(2)
    yield scene
    scene.close()


def test_a_process_takes_one_connection_at_a_time(two: Scene) -> None:
    two.connect(3)
    assert two.processes[0].wake() == 1


def test_who_has_more_leaves_the_next_to_the_other(two: Scene) -> None:
    one, other = two.processes
    two.connect(4)
    assert [one.wake(), one.wake()] == [1, 1]
    assert [other.wake(), other.wake()] == [1, 2]
    one.reactor.advance(MOMENT)
    assert len(one.taken) == 2


def test_what_nobody_else_takes_is_taken_after_a_moment(two: Scene) -> None:
    """The other process may be busy, stopped or just starting."""
    one, _ = two.processes
    two.connect(10)
    one.wake()
    one.wake()
    one.reactor.advance(MOMENT)
    assert len(one.taken) == 1 + AT_ONCE
    one.wake()
    one.reactor.advance(MOMENT)
    assert len(one.taken) == 1 + 2 * AT_ONCE


def test_nobody_waits_for_a_process_that_is_gone(two: Scene) -> None:
    one, _ = two.processes
    two.table.leave(2)
    two.connect(3)
    assert [one.wake(), one.wake(), one.wake()] == [1, 2, 3]


def test_a_connection_that_is_lost_counts_no_more(two: Scene) -> None:
    one, _ = two.processes
    two.connect(2)
    one.wake()
    assert one.share.is_more
    one.taken.pop().transport.connectionLost(Failure(ConnectionError()))  # type: ignore[union-attr]
    assert not one.share.is_more
    assert one.wake() == 1


def test_a_port_that_has_stopped_takes_nothing_more_and_the_others_do(two: Scene) -> None:
    one, other = two.processes
    two.connect(3)
    one.wake()
    one.wake()
    one.port.stopReading()
    one.reactor.advance(MOMENT)
    assert (len(one.taken), one.reactor.readers, one.reactor.getDelayedCalls()) == (1, one.reactor.readers, [])
    assert one.port not in one.reactor.readers
    assert other.wake() == 1


def test_one_process_alone_waits_for_nobody() -> None:
    share = Share()
    share.changed(5)
    assert not share.is_more


def test_a_unix_socket_keeps_its_permissions(tmp_path: Path) -> None:
    """Twisted would let everybody in."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen()
        port: Any = shared_port(os.dup(listening.fileno()), Factory(), Reactor(), Share())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert port.getHost().name == os.fsencode(path)
        port.stopReading()
        port.socket.close()
        assert path.is_socket()

"""Whether a client takes what is written for it: the rule, and what the kernel says of real sockets."""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from resumable.http.connections import STEPS, Outgoing, TakingProgress

TIMEOUT, RATE = 60.0, 100
LEAST = 6_000


def test_nothing_is_due_while_nothing_waits() -> None:
    progress = TakingProgress(TIMEOUT, RATE)
    assert progress.deadline == math.inf and not progress.overdue(1e9, 0)


@pytest.mark.parametrize(("taken", "overdue"), [(0, True), (1, True), (LEAST - 1, True), (LEAST, False)])
def test_too_little_in_a_time_out_is_too_slow(taken: int, overdue: bool) -> None:
    progress = TakingProgress(TIMEOUT, RATE)
    progress.begin(1000, 500)
    assert not progress.overdue(1059, 500 + taken)
    assert progress.overdue(1060, 500 + taken) is overdue


def test_each_time_out_counts_for_itself() -> None:
    progress = TakingProgress(TIMEOUT, RATE)
    progress.begin(0, 0)
    for minute in range(1, 100):
        assert not progress.overdue(60.0 * minute, LEAST * minute)
    assert progress.overdue(6000, LEAST * 99 + 5)


def test_without_a_rate_one_byte_is_enough() -> None:
    progress = TakingProgress(TIMEOUT, 0)
    progress.begin(0, 0)
    assert not progress.overdue(60, 1)
    assert progress.overdue(120, 1)


def test_what_begins_again_does_not_begin_anew_and_what_has_ended_does() -> None:
    progress = TakingProgress(TIMEOUT, RATE)
    progress.begin(0, 0)
    progress.begin(30, 0)
    assert progress.deadline == 60
    progress.end()
    progress.begin(50, 0)
    assert progress.deadline == 110


def both_ends(kind: str) -> tuple[socket.socket, socket.socket]:
    if kind == "unix":
        return socket.socketpair()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        theirs = socket.create_connection(server.getsockname())
        return server.accept()[0], theirs


@pytest.fixture(params=["tcp", "unix"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours, whose buffer in the kernel is full, and theirs."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells what the other side has taken")
    ours, theirs = both_ends(request.param)
    ours.setblocking(False)
    with closing(ours), closing(theirs):
        yield ours, theirs


def fill(ours: socket.socket) -> int:
    size = 0
    try:
        while True:
            size += ours.send(b"x" * 65_536)
    except BlockingIOError:
        return size


def test_the_kernel_s_buffer_does_not_read_in_the_client_s_place(ends: tuple[socket.socket, socket.socket]) -> None:
    """What it has accepted was taken by nobody, and its being full is no sign that nothing was."""
    ours, theirs = ends
    outgoing = Outgoing(SimpleNamespace(socket=ours), TIMEOUT, RATE)
    waits = fill(ours)
    outgoing.full(0)
    assert not outgoing.stuck(30)
    while waits > 0:  # all of it is read, so that it is sure to have been acknowledged
        waits -= len(theirs.recv(1 << 20))
    assert not outgoing.stuck(59) and not outgoing.stuck(60)
    assert outgoing.stuck(120)


def test_a_transport_that_tells_nothing_has_to_be_emptied_in_time() -> None:
    outgoing = Outgoing(object(), TIMEOUT, RATE)
    assert outgoing.deadline == math.inf
    outgoing.full(0)
    assert outgoing.deadline == TIMEOUT / STEPS
    assert not outgoing.stuck(59)
    outgoing.empty()
    assert outgoing.deadline == math.inf
    outgoing.full(59)
    assert not outgoing.stuck(118)
    assert outgoing.stuck(119)


def test_a_socket_that_is_closed_is_not_asked() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    outgoing = Outgoing(SimpleNamespace(socket=ours), TIMEOUT, RATE)
    outgoing.full(0)
    assert outgoing.stuck(60)

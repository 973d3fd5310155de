"""Descriptions made into ports: where a path leads, what the log is told, which layers are there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from resumable.listening.endpoints import Terms, point
from resumable.listening.listeners import Listeners
from resumable.option_values import networks
from resumable.startup import StartupError


def listeners(*descriptions: str) -> Listeners:
    pool: Any = None
    return Listeners(reactor, descriptions, lambda _: Factory.forProtocol(Protocol), Terms(), pool=pool, wall=time.time)


@pytest.fixture
def bound() -> Iterator[Any]:
    """Binds, and says where."""
    made: list[Listeners] = []

    def bind(*descriptions: str) -> list[str]:
        made.append(listeners(*descriptions))
        return made[-1].bind()

    yield bind
    for each in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.stop()))


def test_a_port_that_was_free_is_named(bound: Any) -> None:
    (place,) = bound("tcp:0:interface=127.0.0.1")
    host, _, port = place.rpartition(":")
    assert host == "127.0.0.1"
    socket.create_connection((host, int(port)), timeout=5).close()


def test_ipv6_is_shown_in_brackets_and_takes_ipv4_too(bound: Any) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    (place,) = bound("tcp6:0")
    assert place.startswith("[::]:")
    socket.create_connection(("::1", int(place.rpartition(":")[2])), timeout=5).close()


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_is_where_it_was_asked_for_with_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the daemon goes: relative to where it was started."""
    monkeypatch.chdir(tmp_path)
    one, two = listeners("unix:one.sock:mode=600"), listeners("unix:address=a\\:b.sock:mode=660:lockfile=0")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [*one.bind(), *two.bind()] == [f"unix:{tmp_path}/one.sock", f"unix:{tmp_path}/a:b.sock"]
    assert [os.stat(tmp_path / name).st_mode & 0o777 for name in ("one.sock", "a:b.sock")] == [0o600, 0o660]
    assert not (tmp_path / "a:b.sock.lock").exists()
    for each in (one, two):
        await each.stop()
    assert not (tmp_path / "one.sock").exists()


def test_a_port_in_use_is_one_line_that_names_it() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        description = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        with pytest.raises(StartupError, match=f"{description}: the port is in use"):
            listeners(description).bind()


def test_a_socket_that_systemd_has_not_handed_over_is_missed_when_it_is_bound() -> None:
    for description in ("systemd:domain=INET:index=0", "systemd:domain=UNIX:name=web"):
        waiting = listeners(description)
        with pytest.raises(StartupError, match="systemd has handed over no such socket"):
            waiting.bind()


@pytest.mark.parametrize(
    ("description", "handed_over"),
    [
        ("systemd:domain=UNIX:name=web", True),
        ("systemd:UNIX:index=0", True),
        ("haproxy:systemd:domain=UNIX:index=0", True),
        ("systemd:domain=INET:name=UNIX", False),
        ("unix:/run/x", False),
    ],
)
def test_which_sockets_are_systemds_own(description: str, handed_over: bool) -> None:
    at = point(None, description, Terms(trusted=networks(["loopback"])), time.time)
    assert at.handed_over is handed_over

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
from twisted.logger import capturedLogs, formatEvent

from resumable.listening.endpoints import Terms, listening_point
from resumable.listening.listeners import Listeners
from resumable.model.errors import StartupError
from resumable.model.values import networks


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


@pytest.mark.parametrize("lock", ["1", "0"])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket_that_somebody_has_removed_closes_like_any_other(tmp_path: Path, lock: str) -> None:
    one = listeners(f"unix:{tmp_path}/one.sock:lockfile={lock}", "tcp:0:interface=127.0.0.1")
    _, tcp = one.bind()
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(f"{tmp_path}/one.sock")
        (tmp_path / "one.sock").unlink()
        await one.stop()
        link.settimeout(5)
        with pytest.raises(ConnectionResetError):  # what waited in it is told that nobody is there
            link.recv(1)
    assert list(tmp_path.iterdir()) == [], "nor is its lock left"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(tcp.rpartition(":")[2])), timeout=5)


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_whose_name_can_not_be_removed_is_closed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    one = listeners(f"unix:{tmp_path}/one.sock:lockfile=0")
    one.bind()
    with socket.socket(socket.AF_UNIX) as link, capturedLogs() as logged:
        with monkeypatch.context() as patch:
            patch.setattr("twisted.internet.unix.os.unlink", unlink)
            await one.stop()
        with pytest.raises(ConnectionRefusedError):
            link.connect(f"{tmp_path}/one.sock")
    told = [event for event in logged if event["log_namespace"] == "resumable.listening.listeners"]
    assert [formatEvent(event) for event in told] == [f"the socket unix:{tmp_path}/one.sock stays: Permission denied"]


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
    at = listening_point(None, description, Terms(trusted=networks(["loopback"])), time.time)
    assert at.handed_over is handed_over

"""What the service manager is told, over a real socket, on a clock that stands still."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from resumable.daemon.systemd import ServiceManager
from tests.daemon.site_rig import Listening

PID = 4711


class Systemd:
    """Its end of the socket; `heard` is what has come since the last time."""

    def __init__(self, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(name)

    def heard(self) -> list[list[str]]:
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(4096).decode().split("\n"))
        return found


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    one = Systemd(f"{tmp_path}/notify")
    yield one
    one.socket.close()


def manager(environment: Mapping[str, str], clock: Clock | None = None) -> ServiceManager:
    return ServiceManager(environment, clock or Clock(), lambda: PID, lambda: 12.5)


def words(heard: list[list[str]]) -> list[str]:
    return [line for lines in heard for line in lines if not line.startswith("STATUS=")]


def test_a_life(systemd: Systemd, tmp_path: Path) -> None:
    it = manager({"NOTIFY_SOCKET": f"{tmp_path}/notify"})
    it.starting()
    assert words(systemd.heard()) == ["EXTEND_TIMEOUT_USEC=900000000"]
    it.ready()
    assert words(systemd.heard()) == ["READY=1"]
    it.reloading()
    assert words(systemd.heard()) == ["RELOADING=1", "MONOTONIC_USEC=12500000"]
    it.ready()
    it.stopping(25)
    assert words(systemd.heard()) == ["READY=1", "STOPPING=1", "EXTEND_TIMEOUT_USEC=25000000"]
    it.stopped()
    assert systemd.heard() == []


def test_each_message_has_a_status_for_people(systemd: Systemd, tmp_path: Path) -> None:
    it = manager({"NOTIFY_SOCKET": f"{tmp_path}/notify"})
    for tell in (it.starting, it.ready, it.reloading, lambda: it.stopping(1)):
        tell()
        (lines,) = systemd.heard()
        assert len([line for line in lines if line.startswith("STATUS=")]) == 1


def test_the_watchdog_is_told_twice_in_its_time_once_the_daemon_is_ready(systemd: Systemd, tmp_path: Path) -> None:
    clock = Clock()
    it = manager({"NOTIFY_SOCKET": f"{tmp_path}/notify", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": f"{PID}"}, clock)
    it.starting()
    clock.advance(100)
    systemd.heard()
    it.ready()
    it.ready()
    assert words(systemd.heard()) == ["READY=1", "WATCHDOG=1", "READY=1"]
    clock.advance(29)
    assert systemd.heard() == []
    clock.advance(1)
    assert words(systemd.heard()) == ["WATCHDOG=1"]
    it.stopping(1)
    systemd.heard()
    clock.advance(30)
    assert words(systemd.heard()) == ["WATCHDOG=1"], "a long stop is no hang"
    it.stopped()
    clock.advance(100)
    assert systemd.heard() == []


@pytest.mark.parametrize(
    "watchdog",
    [
        {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": ""},
        {},
    ],
)
def test_a_watchdog_that_is_off_or_somebody_elses(systemd: Systemd, tmp_path: Path, watchdog: dict[str, str]) -> None:
    clock = Clock()
    manager({"NOTIFY_SOCKET": f"{tmp_path}/notify", **watchdog}, clock).ready()
    assert not clock.getDelayedCalls()
    assert words(systemd.heard()) == ["READY=1"]


def test_an_abstract_socket(tmp_path: Path) -> None:
    name = f"resumable-{tmp_path.name}-{id(tmp_path)}"
    systemd = Systemd(f"\0{name}")
    manager({"NOTIFY_SOCKET": f"@{name}"}).ready()
    assert words(systemd.heard()) == ["READY=1"]
    systemd.socket.close()


def test_without_a_service_manager_nothing_happens() -> None:
    with Listening() as events:
        it = manager({})
        it.starting()
        it.ready()
        it.stopping(1)
        it.stopped()
    assert not events


@pytest.mark.parametrize("name", ["/nowhere/at/all", "vsock:2:9", "x" * 200, "@"])
def test_a_service_manager_that_can_not_be_told_is_logged_once(name: str) -> None:
    with Listening() as events:
        it = manager({"NOTIFY_SOCKET": name})
        for _ in range(3):
            it.ready()
    assert len(events) == 1 and events[0]["log_level"].name == "warn" and events[0]["socket"] == name

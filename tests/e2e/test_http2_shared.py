"""One connection of HTTP/2 that many clients share, as behind a proxy; and clients that never read."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from .daemon import Daemon, eventually
from .http2 import Http2
from .tus import OCTETS, Tus, pattern

DATA = pattern(20_000_000, seed=43)
CANCEL = 8


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon("--h2c", "--network-timeout", "2") as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


def append(length: int) -> dict[str, str]:
    return {
        "Tus-Resumable": "1.0.0",
        "Upload-Offset": "0",
        "Content-Type": OCTETS,
        "Content-Length": str(length),
    }


def finished(tus: Tus) -> str:
    path = tus.create(len(DATA))
    assert tus.patch(path, 0, DATA).status == 204
    return path


def test_hundreds_of_requests_that_are_broken_off_harm_no_upload_beside_them(daemon: Daemon, tus: Tus) -> None:
    """Client A closes tabs and tries again, 600 times; client B's upload goes through on the same connection."""
    path, other = tus.create(6_000_000), tus.create(1_000_000_000)
    with Http2(daemon.port) as link:
        upload = link.begin("PATCH", path, append(6_000_000))
        for turn in range(300):
            link.send(upload, DATA[turn * 20_000 : (turn + 1) * 20_000], end=turn == 299)
            link.reset(link.begin("GET", path, end=True))
            broken = link.begin("PATCH", other, append(1_000_000_000))
            link.send(broken, b"x" * 1_000)
            link.reset(broken)
        assert link.answer(upload).status == 204
        assert link.goaway is None
        assert link.ask("HEAD", path).offset == 6_000_000
    assert tus.content(path) == DATA[:6_000_000]


def test_a_download_that_nobody_makes_room_for_is_cut_off_alone(daemon: Daemon, tus: Tus) -> None:
    path = finished(tus)
    with Http2(daemon.port) as link:
        link.h2.acknowledge_received_data = lambda *_: []  # type: ignore[method-assign]
        stuck = link.begin("GET", path, end=True)
        assert link.reset_of(stuck) == CANCEL
        assert 0 < len(link.bodies[stuck]) < len(DATA)
        assert link.goaway is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_download_that_is_never_read_is_cut_off(daemon: Daemon, tus: Tus, version: int) -> None:
    path = finished(tus)
    if version == 1:
        with closing(socket.create_connection(("127.0.0.1", daemon.port))) as wire:
            wire.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert_cut_off(wire)
    else:
        with Http2(daemon.port) as link:
            link.h2.increment_flow_control_window(1 << 26)
            link.h2.update_settings({4: 1 << 26})
            link.begin("GET", path, end=True)
            assert_cut_off(link.socket)


def assert_cut_off(wire: socket.socket) -> None:
    """Without a byte having been read of it."""
    eventually(lambda: wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0)

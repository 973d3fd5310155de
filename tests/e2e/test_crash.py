"""Invariant 1 under SIGKILL and SIGTERM: what was acknowledged is there afterwards, byte for byte."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from .daemon import BOUND, Daemon, eventually
from .tus import Tus, check, head_bytes, patch_head, pattern
from .wire import Wire


@pytest.fixture(scope="module", params=["default", "direct"])
def body_way(request: pytest.FixtureRequest) -> str:
    """Both ways of long bodies."""
    return str(request.param)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon() as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


@dataclass
class Sender:
    """A client thread that uploads ``data`` in appends of random sizes until it is done or the server is gone."""

    port: int
    path: str
    data: bytes
    rng: random.Random
    at: int
    acknowledged: int = 0
    sent: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    threshold: int = 0

    def start(self) -> threading.Thread:
        self.acknowledged = self.sent = self.at
        thread = threading.Thread(target=self._run)
        thread.start()
        return thread

    def _run(self) -> None:
        try:
            while self.at < len(self.data):
                self._append(min(self.rng.choice([1, 500, 40_000, 700_000, 5_000_000]), len(self.data) - self.at))
        except (OSError, EOFError):
            pass
        self.reached.set()

    def _append(self, size: int) -> None:
        chunked = self.rng.random() < 0.3
        with Wire(self.port) as wire:
            wire.send(patch_head(self.path, self.at, None if chunked else size))
            for begin in range(self.at, self.at + size, 65_536):
                piece = self.data[begin : min(begin + 65_536, self.at + size)]
                wire.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                self.sent = begin + len(piece)
                if self.sent >= self.threshold:
                    self.reached.set()
            if chunked:
                wire.send(b"0\r\n\r\n")
            answer = check("PATCH", wire.answer())
            assert answer.status == 204, answer
            self.at = self.acknowledged = answer.offset


@pytest.mark.slow
def test_kill_9_at_random_points_loses_nothing_that_was_acknowledged(daemon: Daemon) -> None:
    rng = random.Random(1)
    data = pattern(28_000_000, seed=1)
    tus = daemon.attach(Tus(daemon.port))
    path = tus.create(len(data), None, data[:1000])
    at, kills = 1000, 0
    while at < len(data):
        sender = Sender(daemon.port, path, data, rng, at, threshold=at + rng.randrange(1, 6_000_000))
        thread = sender.start()
        assert sender.reached.wait(BOUND)
        kills += 1
        daemon.kill()
        thread.join(BOUND)
        daemon.start()
        at = tus.offset(path)
        assert sender.acknowledged <= at <= sender.sent
    assert kills >= 5
    assert tus.content(path) == data


def test_offsets_that_head_reported_survive(daemon: Daemon) -> None:
    """Not only answers to PATCH acknowledge: so does HEAD, in the middle of one."""
    data = pattern(3_000_000, seed=5)
    tus = daemon.attach(Tus(daemon.port))
    path = tus.create(len(data))
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, len(data)) + data[:1_234_567])
        seen = eventually(lambda: tus.offset(path))
        daemon.restart()
    assert seen <= tus.offset(path) <= 1_234_567
    tus.finish(path, data)
    assert tus.content(path) == data


def test_creations_with_upload_that_were_answered_are_there(daemon: Daemon) -> None:
    answered: dict[str, bytes] = {}
    enough = threading.Event()

    def create(number: int) -> None:
        client = daemon.attach(Tus(daemon.port))
        try:
            for turn in range(10_000):
                data = pattern(4096, seed=number * 100_000 + turn)
                answered[client.create(len(data), None, data)] = data
                if len(answered) > 150:
                    enough.set()
        except (OSError, EOFError):
            client.close()

    threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert enough.wait(BOUND)
    daemon.kill()
    for thread in threads:
        thread.join(BOUND)
    daemon.start()
    tus = daemon.attach(Tus(daemon.port))
    assert len(answered) > 150
    for path, data in answered.items():
        assert tus.content(path) == data


def test_terminated_uploads_stay_gone_and_finals_come_to_their_end(daemon: Daemon) -> None:
    tus = daemon.attach(Tus(daemon.port))
    gone = tus.create(100_000, None, b"x" * 100_000)
    part = tus.partial(pattern(9_000_000, seed=6))
    assert tus.delete(gone).status == 204
    final = tus.concat(part, part)
    daemon.restart()
    assert tus.head(gone).status == 410
    assert not (daemon.upload_dir / gone.removeprefix("/files/")).exists()
    assert tus.content(final) == pattern(9_000_000, seed=6) * 2


def hold(tus: Tus, path: str, length: int, sent: bytes) -> Wire:
    """An append whose bytes the server has taken: it answers later requests of the same socket's machine."""
    wire = tus.wire()
    wire.send(patch_head(path, 0, length, {"Expect": "100-continue"}))
    assert wire.interim() == 100
    wire.send(sent)
    with tus.wire() as other:  # whatever was there before these answers has been read
        for _ in range(5):
            assert other.send(head_bytes("GET", "/healthz")).answer().status == 200
    return wire


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("size", [10, 60_000])
def test_a_stop_commits_what_was_received(size: int, stop: signal.Signals, daemon: Daemon) -> None:
    """server stopping | stops listening first; requests under way: received bytes committed, PATCH 503 with
    Retry-After, HEAD answered"""
    data = pattern(1_000_000, seed=7)
    tus = daemon.attach(Tus(daemon.port))
    path = tus.create(len(data))
    idle = tus.wire()
    with hold(tus, path, len(data), data[:size]) as wire:
        assert daemon.process is not None
        daemon.process.send_signal(stop)
        answer = check("PATCH", wire.answer())
        assert answer.status == 503 and "retry-after" in answer
        assert wire.ended()
        # twistd ends a Ctrl-C by the signal itself, as a shell expects
        assert daemon.wait() == (0 if stop == signal.SIGTERM else -stop)
    assert idle.ended()
    idle.close()
    daemon.start()
    assert tus.offset(path) == size
    tus.finish(path, data)
    assert tus.content(path) == data


def test_a_stop_commits_what_was_received_although_the_unix_sockets_were_removed() -> None:
    """Whoever tidies up /run or the upload directory takes only their names; every step of stopping is taken."""
    data = pattern(1_000_000, seed=7)
    with Daemon("--listen", "unix:http.sock") as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(len(data))
        with hold(tus, path, len(data), data[:60_000]) as wire:
            (daemon.home / "http.sock").unlink()
            (daemon.upload_dir / ".resumable" / "admin.sock").unlink()
            daemon.terminate()
            answer = check("PATCH", wire.answer())
            assert answer.status == 503 and "retry-after" in answer
            assert daemon.wait() == 0
        assert "every byte that was received is committed" in daemon.log
        assert not daemon.complaints() and "failed" not in daemon.log, daemon.log
        daemon.start()
        assert tus.offset(path) == 60_000


def test_a_stop_keeps_nothing_of_a_checked_append(daemon: Daemon) -> None:
    tus = daemon.attach(Tus(daemon.port))
    path = tus.create(1_000_000, None, b"x" * 10)
    with tus.wire() as wire:
        fields = {"Upload-Checksum": "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "Expect": "100-continue"}
        wire.send(patch_head(path, 10, 500_000, fields))
        assert wire.interim() == 100
        wire.send(b"y" * 200_000)
        daemon.terminate()
        assert check("PATCH", wire.answer()).status == 503
        assert daemon.wait() == 0
    daemon.start()
    assert tus.offset(path) == 10


def test_a_stop_under_a_hundred_uploads_ends_with_status_0(daemon: Daemon) -> None:
    tus = daemon.attach(Tus(daemon.port))
    data = pattern(20_000, seed=8)
    held = {path: hold(tus, path, 100_000, data) for path in (tus.create(100_000) for _ in range(100))}
    assert daemon.stop() == 0
    for wire in held.values():
        assert check("PATCH", wire.answer()).status == 503
        wire.close()
    daemon.start()
    assert {tus.offset(path) for path in held} == {20_000}


def test_a_stop_in_the_middle_of_an_early_answer_is_bounded() -> None:
    """A client that never ends its refused body keeps nobody from stopping."""
    with Daemon("--shutdown-timeout", "1") as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(10)
        with tus.wire() as wire:
            wire.send(patch_head(path, 0, 10**9))
            assert check("PATCH", wire.answer()).status == 413
            assert daemon.stop() == 0

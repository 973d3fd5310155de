"""Who may append: one test for each row of the decisions on holds. Each docstring is the row.

Nothing here measures time: the bounds are measured by the benchmark.
"""

from __future__ import annotations

import threading
import time

import pytest

from .daemon import BOUND, Daemon, eventually
from .tus import Tus, check, chunk, head_bytes, holder, patch_head, pattern
from .wire import Answer, Wire


@pytest.fixture(scope="module", params=["default", "direct"])
def body_way(request: pytest.FixtureRequest) -> str:
    """Both ways of long bodies."""
    return str(request.param)


def test_an_append_that_can_not_match_evicts_nobody(tus: Tus) -> None:
    """PATCH that can't match (its offset is not what the holder started from plus what it has received) | 409 at
    once, nobody evicted"""
    path = tus.create(100)
    with holder(tus, path, 0, 100, b"x" * 10) as first:
        for offset in (5, 50, 99):
            assert tus.patch(path, offset, b"y").status == 409
        first.send(b"x" * 90)
        answer = check("PATCH", first.answer())
        assert (answer.status, answer.offset) == (204, 100)
    assert tus.content(path) == b"x" * 100


def test_the_second_at_one_offset_takes_over_from_a_silent_first(tus: Tus) -> None:
    """two PATCHes at the same offset, no byte received yet by the first | the first keeps the hold, the second gets
    409 when the first has moved, else takes over from a silent one"""
    path = tus.create(100)
    with holder(tus, path, 0, 100) as first:
        answer = tus.patch(path, 0, b"y" * 100)
        assert (answer.status, answer.offset) == (204, 100)
        evicted = check("PATCH", first.answer())
        assert evicted.status == 423 and "retry-after" in evicted
        assert first.ended()
    assert tus.content(path) == b"y" * 100


def test_the_second_at_one_offset_loses_to_a_first_that_moves(tus: Tus) -> None:
    """two PATCHes at the same offset, no byte received yet by the first | the first keeps the hold, the second gets
    409 when the first has moved, else takes over from a silent one"""
    path = tus.create(1_000_000)
    with holder(tus, path, 0, 1_000_000, b"x" * 10) as first, tus.wire() as second:
        drip = Drip(first, b"x" * 100, 9_999)
        drip.wait()
        second.send(patch_head(path, 0, 10) + b"y" * 10)
        refused = check("PATCH", second.answer())
        assert refused.status == 409
        answer = drip.finish(1_000_000 - 10)
        assert (answer.status, answer.offset) == (204, 1_000_000)
    assert tus.content(path) == b"x" * 1_000_000


class Drip:
    """A thread that sends small pieces one right after the other, so that a holder is never silent."""

    def __init__(self, wire: Wire, piece: bytes, limit: int) -> None:
        self._wire, self._piece, self._limit = wire, piece, limit
        self._stop, self._going = threading.Event(), threading.Event()
        self.sent = 0
        self.longest_pause = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(0.005) and self.sent < self._limit * len(self._piece):
            if not self._wire.offer(self._piece):
                return
            now = time.monotonic()
            self.longest_pause, last = max(self.longest_pause, now - last), now
            self.sent += len(self._piece)
            self._going.set()

    def wait(self) -> None:
        """Return once it has begun."""
        assert self._going.wait(BOUND)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self, total: int) -> Answer:
        """Send the rest in one go; the answer."""
        self.stop()
        self._wire.offer(self._piece[:1] * (total - self.sent))
        return check("PATCH", self._wire.answer())


@pytest.mark.parametrize("chunked", [False, True])
def test_polling_never_kills_a_live_upload(chunked: bool, tus: Tus) -> None:
    """HEAD while a live holder is receiving (a byte within the last 250 ms) | commits, answers the committed offset,
    evicts nobody: polling never kills an upload"""
    for _ in range(5):
        answer, drip = poll_a_live_upload(tus, chunked)
        if answer.status == 204:
            return
        assert drip.longest_pause > 0.2, "a live holder was evicted"
    pytest.skip("this machine stalls so often that no client of ours stays live")


def poll_a_live_upload(tus: Tus, chunked: bool) -> tuple[Answer, Drip]:
    """Ask a hundred times for an offset while it moves."""
    path, size = tus.create(1_000_000), 1_000_000
    piece = chunk(b"x" * 500) if chunked else b"x" * 500
    with holder(tus, path, 0, None if chunked else size) as first:
        drip = Drip(first, piece, 1_900)
        drip.wait()
        seen = [tus.offset(path) for _ in range(100)]
        drip.stop()
        assert seen == sorted(seen), "an offset went back"
        assert seen[-1] > 0, "HEAD did not commit what was there"
        rest = b"x" * (size - drip.sent // len(piece) * 500)
        first.offer(chunk(rest) + b"0\r\n\r\n" if chunked else rest)
        answer = check("PATCH", first.answer())
    if answer.status == 204:
        assert answer.offset == size
        assert tus.content(path) == b"x" * size
    return answer, drip


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [10, 300_000])
def test_head_takes_over_from_a_silent_holder(size: int, chunked: bool, tus: Tus) -> None:
    """HEAD or PATCH while the holder is silent or half-open | the holder is evicted: its bytes committed, its request
    answered 423 and closed; within 0.5 s"""
    data = pattern(1_000_000, seed=size)
    path = tus.create(len(data))
    with holder(tus, path, 0, None if chunked else len(data), data[:size]) as first:
        assert eventually(lambda: tus.offset(path) == size)  # while it is live this commits, then it evicts
        assert eventually(lambda: tus.offset(path) == size and readable(first))
        answer = check("PATCH", first.answer())
        assert answer.status == 423 and "retry-after" in answer
        assert answer["connection"] == "close"
        assert first.ended()
    tus.finish(path, data)
    assert tus.content(path) == data


def readable(wire: Wire) -> bool:
    wire.socket.settimeout(0.05)
    try:
        return bool(wire.socket.recv(1, 2))  # MSG_PEEK
    except TimeoutError:
        return False
    finally:
        wire.socket.settimeout(BOUND)


def test_patch_takes_over_from_a_half_open_holder(tus: Tus) -> None:
    """HEAD or PATCH while the holder is silent or half-open | the holder is evicted: its bytes committed, its request
    answered 423 and closed; within 0.5 s"""
    data = pattern(500_000, seed=3)
    path = tus.create(len(data))
    with holder(tus, path, 0, len(data), data[:200_000]):
        assert eventually(lambda: tus.offset(path) == 200_000)
        answer = tus.patch(path, 200_000, data[200_000:])
        assert (answer.status, answer.offset) == (204, len(data))
    assert tus.content(path) == data


def test_what_an_evicted_holder_still_sends_goes_nowhere(tus: Tus) -> None:
    """the hold changes hands | only after the old writer has confirmed its last write; every new append and every
    rollback first truncates the file to the committed offset"""
    path = tus.create(300_000)
    with holder(tus, path, 0, 300_000, b"a" * 100_000) as first:
        assert eventually(lambda: tus.offset(path) == 100_000)
        assert tus.patch(path, 100_000, b"b" * 100_000).status == 204
        first.offer(b"a" * 200_000)
        assert check("PATCH", first.answer()).status == 423
        assert tus.offset(path) == 200_000
        assert tus.patch(path, 200_000, b"c" * 100_000).status == 204
    assert tus.content(path) == b"a" * 100_000 + b"b" * 100_000 + b"c" * 100_000


def test_a_checked_append_that_is_evicted_leaves_nothing(tus: Tus) -> None:
    """the hold changes hands | ... every rollback first truncates the file to the committed offset"""
    path = tus.create(300_000, None, b"a" * 10)
    with tus.wire() as first:
        fields = {"Upload-Checksum": "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "Expect": "100-continue"}
        first.send(patch_head(path, 10, 299_990, fields))
        assert first.interim() == 100
        first.send(b"x" * 200_000)
        assert eventually(lambda: tus.head(path) and readable(first))
        assert check("PATCH", first.answer()).status == 423
    assert tus.offset(path) == 10
    tus.finish(path, b"a" * 300_000)
    assert tus.content(path) == b"a" * 300_000


@pytest.mark.parametrize("sent", [0, 10, 300_000])
def test_delete_always_evicts(sent: int, tus: Tus, daemon: Daemon) -> None:
    """DELETE | always evicts"""
    path = tus.create(1_000_000)
    with holder(tus, path, 0, 1_000_000, b"x" * sent) as first:
        assert tus.delete(path).status == 204
        answer = check("PATCH", first.answer())
        assert answer.status in (410, 423)
        assert first.ended()
    assert tus.head(path).status == 410
    assert not (daemon.upload_dir / path.removeprefix("/files/")).exists()


@pytest.mark.parametrize("size", [1_000, 200_000])
def test_one_of_eight_wins_and_nothing_interleaves(size: int, tus: Tus) -> None:
    """Eight PATCHes racing at one offset with different bytes: one wins, nothing interleaves."""
    path = tus.create(2 * size, None, b"-" * size)
    together = threading.Barrier(8)
    answers: list[Answer] = []

    def race(letter: bytes) -> None:
        with tus.wire() as wire:
            together.wait(BOUND)
            for at in range(0, size + 1, max(1, size // 4)):
                piece = patch_head(path, size, size) if at == 0 else b""
                if not wire.offer(piece + letter * min(size // 4, size - at)):
                    break
            answers.append(check("PATCH", wire.answer()))

    racers = [threading.Thread(target=race, args=(bytes([65 + n]),)) for n in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(BOUND)
    statuses = sorted(answer.status for answer in answers)
    assert len(statuses) == 8 and statuses.count(204) == 1, statuses
    assert set(statuses) <= {204, 409, 423}
    content = tus.content(path)
    assert content[:size] == b"-" * size
    assert len(set(content[size:])) == 1 and len(content) == 2 * size


def test_two_clients_that_take_turns_never_lose_a_byte(tus: Tus) -> None:
    """A client that comes back on a new connection each time, while the old ones are half-open."""
    data = pattern(400_000, seed=4)
    path = tus.create(len(data))
    wires: list[Wire] = []
    at = 0
    while at < len(data):
        wire = tus.wire()
        wires.append(wire)
        wire.send(patch_head(path, at, len(data) - at) + data[at : at + 50_000])
        after = eventually(lambda: offset if (offset := tus.offset(path)) > at else None)  # noqa: B023
        assert after <= at + 50_000
        at = after
    for wire in wires:
        wire.close()
    assert tus.content(path) == data


def test_looking_at_the_health_touches_no_hold(tus: Tus) -> None:
    """monitoring | GET of the status resource never touches the hold"""
    path = tus.create(100)
    with holder(tus, path, 0, 100, b"x" * 10) as first, tus.wire() as monitor:
        for _ in range(20):
            assert monitor.send(head_bytes("GET", "/healthz")).answer().status == 200
            assert tus.get(path).status == 404
        first.send(b"x" * 90)
        assert check("PATCH", first.answer()).status == 204

"""Bodies of requests: how much of them is in memory, and who waits for whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from resumable.remotes.s3.body import HELD, PIECE, Memory, RegionBody


class Slow:
    """A region whose reads fire when the test says so."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.reads: list[tuple[int, int, Deferred[bytes]]] = []

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        answer: Deferred[bytes] = Deferred()
        self.reads.append((offset, size, answer))
        return answer

    def fire(self) -> None:
        _, size, answer = self.reads[-1]
        answer.callback(bytes(size))


class Transport:
    """Pauses its producer at once, as a socket does that is slower than the disk."""

    def __init__(self) -> None:
        self.held = self.sent = 0
        self.producer: RegionBody | None = None

    def write(self, data: bytes) -> None:
        self.held += len(data)
        self.producer.pauseProducing()

    def drain(self) -> None:
        self.sent += self.held
        self.held = 0
        self.producer.resumeProducing()


class BodyTests(SynchronousTestCase):
    def start(self, size: int) -> tuple[Slow, Transport, RegionBody, Deferred[None]]:
        region, transport = Slow(size), Transport()
        body = transport.producer = RegionBody(region)
        return region, transport, body, body.startProducing(transport)

    def test_a_body_never_holds_more_than_its_share(self):
        region, transport, body, done = self.start(5 * PIECE + 7)
        while transport.sent + transport.held < region.size:
            read = sum(size for _, size, answer in region.reads if not answer.called)
            ahead = sum(size for _, size, answer in region.reads if answer.called) - body.sent
            assert read + ahead + transport.held <= HELD
            if not region.reads[-1][2].called:
                region.fire()
            else:
                transport.drain()
        transport.drain()
        assert [offset for offset, _, _ in region.reads] == [i * PIECE for i in range(6)]
        self.assertIsNone(self.successResultOf(done))

    def test_the_next_piece_is_read_when_the_last_is_sent(self):
        region, transport, _, _ = self.start(4 * PIECE)
        region.fire()
        assert transport.held == PIECE and len(region.reads) == 1
        transport.drain()
        assert len(region.reads) == 2

    def test_nothing_is_written_after_the_stop(self):
        region, transport, body, done = self.start(4 * PIECE)
        region.fire()
        body.stopProducing()
        transport.drain()
        assert transport.sent == PIECE and not done.called
        body.stopProducing()

    def test_a_read_that_fails_is_remembered(self):
        region, _, body, done = self.start(10)
        region.reads[-1][2].errback(OSError("gone"))
        self.failureResultOf(done, OSError)
        assert body.failure.check(OSError)

    def test_a_region_that_answers_too_little_or_too_much_fails(self):
        for answer in (b"", b"x" * 11):
            region, _, _, done = self.start(10)
            region.reads[-1][2].callback(answer)
            self.failureResultOf(done, ValueError)


class MemoryTests(SynchronousTestCase):
    def test_who_comes_first_is_served_first(self):
        memory = Memory(10)
        first, second, third = memory.acquire(8), memory.acquire(5), memory.acquire(1)
        assert first.called and not second.called and not third.called
        memory.release(8)
        assert second.called and third.called and memory.used == 6

    def test_who_gives_up_lets_the_next_in(self):
        memory = Memory(10)
        memory.acquire(8)
        large, small = memory.acquire(5), memory.acquire(2)
        large.cancel()
        self.failureResultOf(large, CancelledError)
        assert small.called and memory.used == 10


@given(st.lists(st.integers(0, 10), max_size=40), st.randoms())
def test_the_limit_holds_and_everybody_gets_a_turn(sizes, random):
    memory, holding, waiting = Memory(10), [], []
    for size in sizes:
        waiting.append((size, memory.acquire(size)))
        assert memory.used <= memory.limit
        if random.random() < 0.5 and (done := [each for each in waiting if each[1].called]):
            memory.release(done[0][0])
            waiting.remove(done[0])
            holding.append(done[0])
    while waiting:
        done = [each for each in waiting if each[1].called]
        assert done
        for each in done:
            memory.release(each[0])
            waiting.remove(each)
    assert memory.used == 0


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1])
def test_pieces_add_up(size):
    case = BodyTests("start")
    region, transport, _, done = case.start(size)
    while not done.called:
        if region.reads and not region.reads[-1][2].called:
            region.fire()
        transport.drain()
    assert transport.sent + transport.held == size

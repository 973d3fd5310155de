"""Bodies of requests: how much of them is in memory, and who waits for whom."""

from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from resumable.config.options import Options
from resumable.daemon import remote_tier as tiers
from resumable.httpclient.bodies import PIECE, RegionBody
from resumable.remotes import urls
from resumable.remotes.gcs.credentials import Anonymous
from resumable.remotes.gcs.requests import GcsPlace, GcsRequests
from resumable.remotes.regions import BodyMemory, BytesRegion
from resumable.remotes.s3.credentials import StaticCredentials
from resumable.remotes.s3.endpoint import S3Place, dialect, resolve
from resumable.remotes.s3.requests import Payload, S3Requests
from resumable.replication.service import SMALL_MEMORY


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
            assert read + ahead + transport.held <= PIECE
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
        memory = BodyMemory(10)
        first, second, third = memory.acquire(8), memory.acquire(5), memory.acquire(1)
        assert first.called and not second.called and not third.called
        memory.release(8)
        assert second.called and third.called and memory.used == 6

    def test_who_gives_up_lets_the_next_in(self):
        memory = BodyMemory(10)
        memory.acquire(8)
        large, small = memory.acquire(5), memory.acquire(2)
        large.cancel()
        self.failureResultOf(large, CancelledError)
        assert small.called and memory.used == 10


@given(st.lists(st.integers(0, 10), max_size=40), st.randoms())
def test_the_limit_holds_and_everybody_gets_a_turn(sizes, random):
    memory, holding, waiting = BodyMemory(10), [], []
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


# -- all remotes together


class Silent:
    """A network on which nothing may be sent."""

    def request(self, *args, **more):
        raise AssertionError("it was sent")


def requests_of(scheme, memory):
    """What sends a body of two pieces to a store of this kind."""
    data = BytesRegion(bytes(2 * PIECE))
    if scheme == "s3":
        place = resolve(S3Place("bucket", None, "http://127.0.0.1:1"), dialect("generic"))
        requests = S3Requests(place, StaticCredentials("a", "b"), Silent(), None, time.time, memory=memory)
        return Deferred.fromCoroutine(requests.send("put", "PUT", "key", payload=Payload(data)))
    if scheme == "gs":
        requests = GcsRequests(GcsPlace("bucket"), Anonymous(), Silent(), memory=memory)
        return Deferred.fromCoroutine(requests.send("put", "PUT", GcsPlace("bucket").object("key"), body=data))
    calls = pytest.importorskip("resumable.remotes.azure.calls").Calls(None, None, 1, time.time, memory)
    return Deferred.fromCoroutine(calls.send("put", Silent().request, data))


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_no_body_begins_while_those_of_other_remotes_hold_all_the_memory(scheme):
    memory = BodyMemory(4 * PIECE)
    memory.acquire(4 * PIECE)
    waiting = requests_of(scheme, memory)
    assert not waiting.called
    waiting.cancel()
    failed = []
    waiting.addErrback(failed.append)
    assert failed[0].check(CancelledError)
    memory.release(4 * PIECE)
    assert memory.used == 0


def test_all_remotes_of_a_daemon_share_one_memory(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(urls, "make", lambda spec, means: given.append(means.memory))
    remotes = ["--remote", "memory://a", "--remote", "memory://b"]
    options = Options({})
    options.parseOptions(["--upload-dir", str(tmp_path), *remotes])
    tiers.make(options.settings(), None, None, lambda name: None, time.time, Random(1))
    assert len(given) == 2 and given[0] is given[1] and given[0].limit + SMALL_MEMORY == 16 << 20

"""Bodies that come piece by piece: at the reader's pace, given up in time, on connections of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from resumable.httpclient.bodies import PIECE
from resumable.httpclient.client import Http, HttpLimits
from resumable.httpclient.errors import HttpError, TimedOut, TooLong
from resumable.remotes.reading import IObjectStream, ObjectStream
from tests.httpclient.turns import turn, until

LARGE = 64 << 20


class Store(Protocol):
    """Answers a request with what the test says, and sends as fast as it is read."""

    def connectionMade(self) -> None:
        self.factory.open.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.factory.requests.append(data)
        self.factory.answer(self)

    def connectionLost(self, reason: Any) -> None:
        self.factory.open.remove(self)

    def stream(self, size: int) -> None:
        self.left = size
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self.left:
            piece = min(65536, self.left)
            self.left -= piece
            self.factory.sent += piece
            self.transport.write(bytes(piece))
        if not self.left:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        self.left = 0


class Stores(Factory):
    protocol = Store
    noisy = False

    def __init__(self) -> None:
        self.open: list[Store] = []
        self.requests: list[bytes] = []
        self.sent = 0
        self.answer: Callable[[Store], None] = lambda store: None


@asynccontextmanager
async def connected(clock: Any = None) -> AsyncIterator[tuple[Http, Stores, str]]:
    stores = Stores()
    port = reactor.listenTCP(0, stores, interface="127.0.0.1")
    http = Http(reactor, HttpLimits(idle_timeout=30.0, connections=1), clock=clock)
    try:
        yield http, stores, f"http://127.0.0.1:{port.getHost().port}/b/k"
    finally:
        await http.close()
        await port.stopListening()
        for each in list(stores.open):
            each.transport.abortConnection()
        while stores.open:
            await turn()
        await turn()


def head(size: int, status: str = "200 OK", *more: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {size}", *more, "", ""]).encode()


def large(store: Store) -> None:
    store.transport.write(head(LARGE))
    store.stream(LARGE)


@pytest_twisted.ensureDeferred
async def test_who_does_not_read_is_sent_no_more_than_fits() -> None:
    async with connected() as (http, stores, url):
        stores.answer = large
        opened = await http.stream(url, {"X-A": "b"})
        assert verifyObject(IObjectStream, ObjectStream(opened.stream)) and opened.headers["content-length"] == str(
            LARGE
        )
        assert b"GET /b/k HTTP/1.1" in stores.requests[0] and b"X-A: b" in stores.requests[0]
        before = -1
        while before != stores.sent:  # until the kernel's buffers are full, too
            before = stores.sent
            for _ in range(200):
                await turn()
        assert stores.sent < LARGE // 2
        got = largest = 0
        while piece := await opened.stream.read():
            got, largest = got + len(piece), max(largest, len(piece))
        assert got == LARGE and largest <= PIECE + (1 << 18)
        assert await opened.stream.read() == b""


@pytest_twisted.ensureDeferred
async def test_what_is_given_up_takes_its_connection_along() -> None:
    async with connected() as (http, stores, url):
        stores.answer = large
        opened = await http.stream(url, {})
        assert await opened.stream.read()
        opened.stream.close()
        opened.stream.close()
        await until(lambda: not stores.open)
        with pytest.raises(CancelledError):
            await opened.stream.read()


@pytest_twisted.ensureDeferred
async def test_streams_take_no_place_of_requests_and_a_connection_is_used_again() -> None:
    async with connected() as (http, stores, url):
        stores.answer = lambda store: store.transport.write(head(2))
        streams = [(await http.stream(url, {})).stream for _ in range(3)]
        asking = Deferred.fromCoroutine(http.request("GET", url, {}, None, largest=10))
        await until(lambda: len(stores.requests) == 4)
        for each in list(stores.open):
            each.transport.write(b"ok")
        assert (await asking).body == b"ok"
        for stream in streams:
            assert await stream.read() == b"ok" and await stream.read() == b""
        assert len(stores.open) == 4
        opened = await http.stream(url, {})
        assert len(stores.open) == 4
        opened.stream.close()


@pytest_twisted.ensureDeferred
async def test_silence_is_given_up_while_somebody_waits_and_only_then() -> None:
    clock = Clock()
    async with connected(clock) as (http, stores, url):
        asking = Deferred.fromCoroutine(http.stream(url, {}))
        await until(lambda: bool(stores.requests))
        clock.advance(31)
        with pytest.raises(TimedOut, match="nothing moved"):
            await asking
        stores.answer = lambda store: store.transport.write(head(10) + b"12345")
        opened = await http.stream(url, {})
        clock.advance(1000)
        assert await opened.stream.read() == b"12345"
        waiting = opened.stream.read()
        clock.advance(29)
        assert not waiting.called
        clock.advance(1)
        with pytest.raises(TimedOut, match="nothing moved"):
            await waiting
        await until(lambda: not stores.open)
        assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_a_body_that_ends_early_is_a_failure() -> None:
    async with connected() as (http, stores, url):

        def cut(store: Store) -> None:
            store.transport.write(head(10) + b"12345")
            store.transport.loseConnection()

        stores.answer = cut
        opened = await http.stream(url, {})
        got = b""
        with pytest.raises(HttpError):
            while True:
                got += await opened.stream.read()
        assert got == b"12345"


@pytest_twisted.ensureDeferred
async def test_a_refusal_comes_with_its_body_unless_that_is_too_long() -> None:
    async with connected() as (http, stores, url):
        stores.answer = lambda store: store.transport.write(head(4, "404 Not Found", "X-Code: a") + b"gone")
        opened = await http.stream(url, {})
        assert (opened.status, opened.body, opened.headers["x-code"]) == (404, b"gone", "a")
        stores.answer = lambda store: store.transport.write(head(LARGE, "500 Oops") + bytes(100_000))
        with pytest.raises(TooLong, match="too long"):
            await http.stream(url, {})


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_told_as_such() -> None:
    async with connected() as (http, stores, url):
        stores.answer = lambda store: store.transport.abortConnection()
        with pytest.raises(HttpError):
            await http.stream(url, {})


@pytest_twisted.ensureDeferred
async def test_who_waits_no_longer_gives_it_up() -> None:
    async with connected() as (http, stores, url):
        asking = Deferred.fromCoroutine(http.stream(url, {}))
        await until(lambda: bool(stores.requests))
        asking.cancel()
        with pytest.raises(CancelledError):
            await asking
        stores.answer = lambda store: store.transport.write(head(10))
        opened = await http.stream(url, {})
        waiting = opened.stream.read()
        waiting.cancel()
        with pytest.raises(CancelledError):
            await waiting
        await until(lambda: not stores.open)


@pytest.mark.parametrize("end", [lambda store: None, lambda store: store.transport.abortConnection()])
@pytest_twisted.ensureDeferred
async def test_a_store_that_stops_in_the_middle_of_an_answer_is_given_up_in_silence(end) -> None:
    """Nothing of it is in the log, whether the time-out ends the connection or the store's death does."""
    clock = Clock()
    with capturedLogs() as logged:
        async with connected(clock) as (http, stores, url):
            stores.answer = lambda store: store.transport.write(head(10) + b"12345")
            asking = Deferred.fromCoroutine(http.request("GET", url, {}, None, largest=100))
            await until(lambda: bool(stores.requests))
            for _ in range(100):  # until the head and half of the body have come
                await turn()
            (store,) = stores.open
            clock.advance(31)
            end(store)
            with pytest.raises(TimedOut, match="nothing moved"):
                await asking
            await until(lambda: not stores.open)
            assert not clock.getDelayedCalls()
        await turn()
    assert [each for each in logged if "log_failure" in each] == []


@pytest_twisted.ensureDeferred
async def test_an_answer_that_nobody_waits_for_any_more_is_given_up_in_silence() -> None:
    with capturedLogs() as logged:
        async with connected() as (http, stores, url):
            stores.answer = lambda store: store.transport.write(head(10) + b"12345")
            asking = Deferred.fromCoroutine(http.request("GET", url, {}, None, largest=100))
            await until(lambda: bool(stores.requests))
            for _ in range(100):
                await turn()
            asking.cancel()
            with pytest.raises(CancelledError):
                await asking
            await until(lambda: not stores.open)
        await turn()
    assert [each for each in logged if "log_failure" in each] == []

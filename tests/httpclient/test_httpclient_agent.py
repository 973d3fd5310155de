"""Our agent: what goes out, what comes back, and which connections are used again; and treq on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.web.client import (
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    RequestGenerationFailed,
    ResponseFailed,
    readBody,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resumable.httpclient.agent import LightAgent
from resumable.httpclient.answer import EARLY
from resumable.httpclient.bodies import BytesBody
from resumable.httpclient.connections import ClientEndpoints
from resumable.httpclient.exchange import KeptLost
from tests.httpclient.turns import until


class Scripted(Protocol):
    """Answers each piece that comes with what the test says. ``kept``: connections that are open."""

    def connectionMade(self) -> None:
        self.factory.kept.append(self)
        self.factory.connections += 1

    def dataReceived(self, data: bytes) -> None:
        self.factory.came.append(data)
        self.factory.answer(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.kept.remove(self)


@asynccontextmanager
async def serving(
    answer: bytes | Callable[[Any], None], clock: Any = None, **more: Any
) -> AsyncIterator[tuple[LightAgent, Any, bytes]]:
    factory: Any = Factory.forProtocol(Scripted)
    factory.noisy, factory.came, factory.kept, factory.connections = False, [], [], 0
    factory.answer = (lambda peer: peer.transport.write(answer)) if isinstance(answer, bytes) else answer
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    endpoints = ClientEndpoints(reactor, reactor, BrowserLikePolicyForHTTPS(), 10.0)
    given = {"kept": 2, "kept_for": 60.0, "repeats": False} | more
    agent = LightAgent(reactor, clock or reactor, endpoints, **given)
    try:
        yield agent, factory, b"http://127.0.0.1:%d" % port.getHost().port
    finally:
        await agent.close()
        await port.stopListening()
        for each in list(factory.kept):
            each.transport.abortConnection()
        await until(lambda: not factory.kept)
        await deferLater(reactor, 0)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest_twisted.ensureDeferred
async def test_treq_works_over_it() -> None:
    head = b"HTTP/1.1 201 Made\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    said = head + b'7\r\n{"a":1}\r\n0\r\n\r\n'
    async with serving(said) as (agent, server, url):
        verifyObject(IAgent, agent)
        client = HTTPClient(agent)
        answer = await client.post(url.decode() + "/x?y=z", json={"b": 2}, headers={"X-A": "b"})
        assert (answer.code, answer.phrase, await answer.json()) == (201, b"Made", {"a": 1})
        assert await (await client.get(url.decode() + "/")).text() == '{"a":1}'
    first = b"".join(server.came[:-1])
    assert first.startswith(b"POST /x?y=z HTTP/1.1\r\n") and first.endswith(b'\r\n\r\n{"b":2}')
    assert b"\r\nContent-Length: 7\r\n" in first and b"\r\nX-A: b\r\n" in first and server.connections == 1


@pytest_twisted.ensureDeferred
async def test_an_answer_is_one_of_twisteds() -> None:
    said = OK.replace(b"\r\n\r\n", b"\r\nX-A: b\r\nConnection: x\r\n\r\n")
    async with serving(said) as (agent, _, url):
        answer = await agent.request(b"GET", url, Headers({b"X": [b"y"]}))
        verifyObject(IResponse, answer)
        assert (answer.version, answer.code, answer.phrase, answer.length) == ((b"HTTP", 1, 1), 200, b"OK", 2)
        assert list(answer.headers.getAllRawHeaders()) == [(b"X-A", [b"b"])], "those of the connection are its own"
        assert await readBody(answer) == b"ok"


@pytest_twisted.ensureDeferred
async def test_an_answer_to_head_tells_the_length_and_has_no_body() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n") as (agent, server, url):
        for _ in range(2):
            answer = await agent.request(b"HEAD", url)
            assert answer.headers.getRawHeaders(b"content-length") == [b"99"] and await readBody(answer) == b""
        assert server.connections == 1


@pytest.mark.parametrize(
    ("target", "line"), [(b"", b"GET / "), (b"?a=b", b"GET /?a=b "), (b"/a%2F//b?c#d", b"GET /a%2F//b?c ")]
)
@pytest_twisted.ensureDeferred
async def test_the_target_is_sent_as_it_is(target: bytes, line: bytes) -> None:
    async with serving(OK) as (agent, server, url):
        await agent.request(b"GET", url + target)
    assert server.came == [line + b"HTTP/1.1\r\nHost: " + url.removeprefix(b"http://") + b"\r\n\r\n"]


@pytest.mark.parametrize("bad", [b"/a b", b"/a\r\nX: y", b"/\xe4"])
@pytest_twisted.ensureDeferred
async def test_what_would_be_another_request_is_not_sent(bad: bytes) -> None:
    async with serving(OK) as (agent, server, url):
        with pytest.raises(ValueError, match="can't be sent"):
            await agent.request(b"GET", url + bad)
        with pytest.raises(ValueError, match="can't be sent"):
            await agent.request(b"GET X", url)
    assert server.came == []


@pytest_twisted.ensureDeferred
async def test_a_connection_is_used_again_unless_something_speaks_against_it() -> None:
    async with serving(OK) as (agent, server, url):
        for _ in range(3):
            assert await readBody(await agent.request(b"POST", url, None, BytesBody(b"x"))) == b"ok"
        assert server.connections == 1
        for said in (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            OK + b"something else",
        ):
            before = server.connections
            server.answer = lambda peer, said=said: peer.transport.write(said)
            assert await readBody(await agent.request(b"GET", url)) == b"ok"
            await until(lambda: not server.kept)
            await readBody(await agent.request(b"GET", url))
            assert server.connections == before + 2 - (before == 1)
            await until(lambda: not server.kept)


@pytest_twisted.ensureDeferred
async def test_so_many_are_kept_and_so_long() -> None:
    clock, held = Clock(), []
    async with serving(held.append, clock, kept=2, kept_for=10.0) as (agent, server, url):
        asked = [agent.request(b"GET", url) for _ in range(3)]
        await until(lambda: len(held) == 3)
        for peer in held:
            peer.transport.write(OK)
        for each in asked:
            await readBody(await each)
        await until(lambda: len(server.kept) == 2)
        clock.advance(9)
        server.answer = lambda peer: peer.transport.write(OK)
        await readBody(await agent.request(b"GET", url))
        clock.advance(1)
        await until(lambda: len(server.kept) == 1)
        clock.advance(9)
        await until(lambda: not server.kept)
        assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_none_is_kept_where_that_is_not_wanted() -> None:
    async with serving(OK, kept=0) as (agent, server, url):
        await readBody(await agent.request(b"GET", url))
        await until(lambda: not server.kept)
    assert b"\r\nConnection: close\r\n" in server.came[0]


@pytest.mark.parametrize(("method", "repeats"), [(b"GET", True), (b"GET", False), (b"POST", True)])
@pytest_twisted.ensureDeferred
async def test_a_kept_connection_that_was_closed_is_told_or_replaced(method: bytes, repeats: bool) -> None:
    async with serving(OK, repeats=repeats) as (agent, server, url):
        await readBody(await agent.request(b"GET", url))

        def gone_once(peer: Any) -> None:
            peer.transport.abortConnection()
            server.answer = lambda peer: peer.transport.write(OK)

        server.answer = gone_once
        asking = agent.request(method, url, None, None if method == b"GET" else BytesBody(b"x"))
        if repeats and method == b"GET":
            assert await readBody(await asking) == b"ok"
        else:
            with pytest.raises(KeptLost):
                await asking
        assert server.connections == (2 if repeats and method == b"GET" else 1)


@pytest_twisted.ensureDeferred
async def test_what_comes_unasked_ends_an_idle_connection() -> None:
    async with serving(OK) as (agent, server, url):
        await readBody(await agent.request(b"GET", url))
        server.kept[0].transport.write(OK)
        await until(lambda: not server.kept)
        await readBody(await agent.request(b"GET", url))
        assert server.connections == 2


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_answer_fails_and_ends_the_connection(said: bytes) -> None:
    async with serving(said) as (agent, server, url):
        with pytest.raises(Exception, match=r"line|length"):
            await agent.request(b"GET", url)
        await until(lambda: not server.kept)


@pytest_twisted.ensureDeferred
async def test_a_body_that_can_not_be_read_on_fails() -> None:
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nnone\r\n"
    async with serving(said) as (agent, server, url):
        with pytest.raises(Exception, match="chunk"):
            await readBody(await agent.request(b"GET", url))
        await until(lambda: not server.kept)


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_cut_off_fails() -> None:
    def cut(peer: Any) -> None:
        peer.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
        peer.transport.loseConnection()

    async with serving(cut) as (agent, _, url):
        answer = await agent.request(b"GET", url)
        with pytest.raises(ResponseFailed):
            await readBody(answer)


@implementer(IBodyProducer)
class Producer:
    """Writes ``pieces``, then fires with or fails as told."""

    def __init__(self, length: Any, pieces: list[bytes], error: Exception | None = None, ends: bool = True) -> None:
        self.length, self.pieces, self.error, self.ends, self.stopped = length, pieces, error, ends, 0

    def startProducing(self, consumer: Any) -> Deferred[None]:
        for each in self.pieces:
            consumer.write(each)
        done: Deferred[None] = Deferred()
        if self.error is not None:
            done.errback(self.error)
        elif self.ends:
            done.callback(None)
        return done

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None:
        self.stopped += 1


@pytest_twisted.ensureDeferred
async def test_a_body_of_unknown_length_goes_out_in_chunks() -> None:
    def at_end(peer: Any) -> None:
        if b"".join(server.came).endswith(b"0\r\n\r\n"):
            peer.transport.write(OK)

    async with serving(at_end) as (agent, server, url):
        body = Producer(UNKNOWN_LENGTH, [b"abc", b"", b"0123456789abcdefg"])
        await readBody(await agent.request(b"PUT", url, None, body))
    assert b"".join(server.came).endswith(b"chunked\r\n\r\n3\r\nabc\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "body", [Producer(3, [b"ab"]), Producer(3, [b"ab", b"cd"]), Producer(3, [b"ab"], OSError("a fault"))]
)
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_not_what_it_said_fails_the_request(body: Producer) -> None:
    async with serving(lambda peer: None) as (agent, server, url):
        with pytest.raises(RequestGenerationFailed):
            await agent.request(b"PUT", url, None, body)
        await until(lambda: not server.kept)


@pytest_twisted.ensureDeferred
async def test_an_early_answer_is_heard_and_ends_the_body() -> None:
    async with serving(OK) as (agent, server, url):
        endless = Producer(1 << 40, [b"a piece"], ends=False)
        answer = await agent.request(b"PUT", url, None, endless)
        assert await readBody(answer) == b"ok" and endless.stopped
        await until(lambda: not server.kept)


@pytest_twisted.ensureDeferred
async def test_no_request_gets_into_the_rest_of_a_body_that_was_answered_early() -> None:
    held: list[Any] = []

    def answer(peer: Any) -> None:
        if not held:
            held.append(peer)
            peer.transport.pauseProducing()
        peer.transport.write(OK)

    async with serving(answer) as (agent, server, url):
        body = b"x" * (32 << 20)  # more than the kernel takes
        assert await readBody(await agent.request(b"PUT", url, None, BytesBody(body))) == b"ok"
        asking = agent.request(b"POST", url, None, BytesBody(b"second"))
        held[0].transport.resumeProducing()
        assert await readBody(await asking) == b"ok"
        assert server.connections == 2
        await until(lambda: len(server.kept) == 1)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_being_ended_takes_no_request() -> None:
    clock = Clock()
    async with serving(OK, clock, kept_for=10.0) as (agent, server, url):
        await readBody(await agent.request(b"GET", url))
        clock.advance(10)  # it is closed in the reactor's next turn
        assert await readBody(await agent.request(b"POST", url, None, BytesBody(b"x"))) == b"ok"
        assert server.connections == 2


@pytest_twisted.ensureDeferred
async def test_no_more_is_taken_than_somebody_reads() -> None:
    size = 64 << 20

    class Pull:
        def __init__(self, transport: Any) -> None:
            self.transport, self.sent = transport, 0

        def resumeProducing(self) -> None:
            self.sent += 1 << 16
            self.transport.write(bytes(1 << 16))
            if self.sent == size:
                self.transport.unregisterProducer()

        def stopProducing(self) -> None: ...

    pulls: list[Pull] = []

    def answer(peer: Any) -> None:
        peer.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        pulls.append(Pull(peer.transport))
        peer.transport.registerProducer(pulls[0], False)

    async with serving(answer) as (agent, _, url):
        got = await agent.request(b"GET", url)
        before = -1
        while before != pulls[0].sent:  # until the kernel's buffers are full, too
            before = pulls[0].sent
            for _ in range(200):
                await deferLater(reactor, 0)
        assert EARLY <= pulls[0].sent < size // 2
        assert len(await readBody(got)) == size


@pytest_twisted.ensureDeferred
async def test_a_request_that_nobody_waits_for_is_given_up() -> None:
    async with serving(lambda peer: None) as (agent, server, url):
        asking = agent.request(b"GET", url)
        await until(lambda: bool(server.came))
        failed: list[Any] = []
        asking.addErrback(failed.append)
        asking.cancel()
        assert failed
        await until(lambda: not server.kept)


@pytest_twisted.ensureDeferred
async def test_a_body_in_memory_is_sent_whole_though_the_network_takes_it_in_pieces() -> None:
    size, held = 8 << 20, []

    def at_end(peer: Any) -> None:
        if not held:
            held.append(peer)
            peer.transport.pauseProducing()
        if sum(map(len, server.came)) > size:
            peer.transport.write(OK)

    async with serving(at_end) as (agent, server, url):
        body = bytes(range(256)) * (size // 256)
        asking = agent.request(b"PUT", url, None, BytesBody(body))
        await until(lambda: bool(held))
        held[0].transport.resumeProducing()
        assert await readBody(await asking) == b"ok"
        assert b"".join(server.came).partition(b"\r\n\r\n")[2] == body


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_gone_when_it_is_written_to_is_told() -> None:
    async with serving(OK) as (agent, server, url):
        await readBody(await agent.request(b"GET", url))
        (kept,) = server.kept
        kept.transport.abortConnection()
        kept.transport.getHandle().close()  # the kernel knows at once, and our side's reactor not yet
        with pytest.raises(KeptLost):
            await agent.request(b"GET", url)


@pytest_twisted.ensureDeferred
async def test_a_body_of_twisteds_own_is_sent(tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(bytes(300_000))

    def at_end(peer: Any) -> None:
        if sum(map(len, server.came)) > 300_000:
            peer.transport.write(OK)

    async with serving(at_end) as (agent, server, url):
        body = FileBodyProducer((tmp_path / "file").open("rb"))
        assert await readBody(await agent.request(b"PUT", url, None, body)) == b"ok"

"""What goes out is what was asked for, byte for byte; what comes back is as it was sent: treq changes neither."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from resumable.httpclient.bodies import BytesBody
from resumable.httpclient.client import Http, retry_after
from resumable.httpclient.errors import TooLong, Unreached
from resumable.model.telemetry import REQUEST

BOMB = gzip.compress(bytes(1 << 20))


class Echo(Protocol):
    """Keeps each request, and answers it with ``answer``."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.requests.append(data)
        self.transport.write(self.factory.answer)


def answer(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""])
    return head.encode() + body


@asynccontextmanager
async def serving(said: bytes) -> AsyncIterator[tuple[Http, Any, str]]:
    factory: Any = Factory.forProtocol(Echo)
    factory.noisy, factory.requests, factory.answer = False, [], said
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    http = Http(reactor)
    try:
        yield http, factory, f"127.0.0.1:{port.getHost().port}"
    finally:
        await http.close()
        await port.stopListening()
        await deferLater(reactor, 0.01)


@pytest.mark.parametrize("target", ["/a%2Fb%2e/../c;d?x=&y&z=%20+&&q", "/", "//a//b", "/%7e!'()*?a=b=c", "/k?uploads="])
@pytest_twisted.ensureDeferred
async def test_a_target_and_headers_go_out_as_they_were_signed(target: str) -> None:
    async with serving(answer(b"ok")) as (http, server, netloc):
        await http.request("GET", f"http://{netloc}{target}", {"X-Signed": "a,b"}, None, largest=10)
    assert server.requests == [f"GET {target} HTTP/1.1\r\nX-Signed: a,b\r\nHost: {netloc}\r\n\r\n".encode()]


@pytest_twisted.ensureDeferred
async def test_an_answer_is_not_unpacked() -> None:
    """A stranger's small answer would become gigabytes; and an object that was stored packed comes back packed."""
    async with serving(answer(BOMB, "Content-Encoding: gzip")) as (http, server, netloc):
        got = await http.request("GET", f"http://{netloc}/", {}, None, largest=len(BOMB))
        opened = await http.stream(f"http://{netloc}/", {"Accept-Encoding": "identity"})
        streamed = b""
        while piece := await opened.stream.read():
            streamed += piece
    assert got.body == streamed == BOMB
    assert got.headers["content-encoding"] == opened.headers["content-encoding"] == "gzip"
    assert b"gzip" not in b"".join(server.requests)


@pytest_twisted.ensureDeferred
async def test_no_cookie_is_kept_and_no_redirect_followed() -> None:
    said = answer(b"", "Set-Cookie: a=b; Path=/", "Location: /other", status="302 Found")
    async with serving(said) as (http, server, netloc):
        for _ in range(2):
            got = await http.request("POST", f"http://{netloc}/", {}, BytesBody(b"x"), largest=10)
            assert (got.status, got.headers["location"], got.headers["set-cookie"]) == (302, "/other", "a=b; Path=/")
    assert len(server.requests) == 2 and not any(b"cookie" in each.lower() for each in server.requests)


@pytest_twisted.ensureDeferred
async def test_the_id_of_the_request_goes_along_unless_another_is_given() -> None:
    async with serving(answer(b"")) as (http, server, netloc):
        before = REQUEST.set("one")
        try:
            await http.request("GET", f"http://{netloc}/", {}, None, largest=10)
            await http.request("GET", f"http://{netloc}/", {"X-Request-ID": "two"}, None, largest=10)
        finally:
            REQUEST.reset(before)
    assert [line for each in server.requests for line in each.splitlines() if line.startswith(b"X-Request-I")] == [
        b"X-Request-Id: one",
        b"X-Request-Id: two",
    ]


@pytest_twisted.ensureDeferred
async def test_a_longer_answer_than_asked_for_is_refused() -> None:
    async with serving(answer(b"12345678901")) as (http, _, netloc):
        with pytest.raises(TooLong):
            await http.request("GET", f"http://{netloc}/", {}, None, largest=10)


@pytest_twisted.ensureDeferred
async def test_an_ipv6_address_is_an_address() -> None:
    http = Http(reactor)
    with pytest.raises(Unreached, match="no answer"):
        await http.request("GET", "http://[::1]:1/", {}, None, largest=10)


def test_a_pause_is_read_from_seconds_milliseconds_or_a_date() -> None:
    date = "Thu, 01 Jan 1970 00:02:00 GMT"
    assert retry_after({"retry-after": date}) is None, "from when on?"
    assert retry_after({"retry-after": date, "date": "Thu, 01 Jan 1970 00:01:30 GMT"}) == 30.0
    assert retry_after({"retry-after": date}, 100.0) == 20.0
    assert retry_after({"retry-after": "9999"}) == 3600.0
    assert retry_after({"retry-after": "9999"}, longest=86400.0) == 9999.0
    assert retry_after({"retry-after-ms": "1500"}) == 1.5

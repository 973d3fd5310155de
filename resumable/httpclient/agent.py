"""An IAgent with less between a request and its connection than Twisted's: for stores, and for treq.

Invariants: the URL and the headers go out as they were given; no redirect is followed, nothing unpacked. So many idle
connections are kept at most, each for so long; one that the other side has ended, or has said something on, isn't used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from resumable.httpclient.exchange import HttpConnection, KeptLost
from resumable.httpclient.sendfile import FileSender

REPEATABLE = (b"GET", b"HEAD")
PLACES = 256
"""Origins whose parts are remembered."""
_TARGET = re.compile(rb"[\x21-\x7e]*")


class _Connections(Factory):
    noisy = False  # else each connection is two lines of the log

    def __init__(self, make: Callable[[], HttpConnection]) -> None:
        self._make = make

    def buildProtocol(self, addr: object) -> HttpConnection:
        return self._make()


@implementer(IAgent)
class LightAgent:
    """``kept``: idle connections of one host, each for ``kept_for`` seconds of ``clock``; 0: none is used again.

    ``repeats``: a GET or HEAD goes out again by itself where the other side had closed a kept connection; else it
    fails with `KeptLost`.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        endpoints: IAgentEndpointFactory,
        *,
        kept: int,
        kept_for: float,
        repeats: bool,
    ) -> None:
        self._clock = clock
        self._endpoints = endpoints
        self._kept, self._kept_for = kept, kept_for
        self._repeats = repeats
        self._sender = FileSender(reactor)
        self._idle: dict[bytes, list[HttpConnection]] = {}
        self._places: dict[bytes, tuple[URI, bytes]] = {}

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """See IAgent."""
        given = headers or Headers()
        lines = [b"%b: %b\r\n" % (name, value) for name, values in given.getAllRawHeaders() for value in values]
        return self.ask(method, uri, b"".join(lines), bodyProducer, has_host=given.hasHeader(b"host"))

    def ask(
        self, method: bytes, url: bytes, fields: bytes, body: IBodyProducer | None, *, has_host: bool
    ) -> Deferred[Any]:
        """The `AgentAnswer`, once its head is there. ``fields``: whole lines; ``has_host``: one of them is Host."""
        scheme, _, rest = url.partition(b"#")[0].partition(b"://")
        netloc = rest[: min(found for found in (rest.find(b"/"), rest.find(b"?"), len(rest)) if found >= 0)]
        target = rest[len(netloc) :]
        target = target if target.startswith(b"/") else b"/" + target
        if not _TARGET.fullmatch(target) or not method.isalpha():
            return fail(ValueError("a method or URL that can't be sent"))
        origin = b"%b://%b" % (scheme, netloc)
        if origin not in self._places:
            if len(self._places) >= PLACES:
                self._places.clear()
            try:
                uri: URI = URI.fromBytes(origin + b"/")
            except ValueError:
                return fail()
            usual = uri.port == (443 if uri.scheme == b"https" else 80)
            host = b"[%b]" % uri.host if b":" in uri.host else uri.host
            self._places[origin] = uri, host if usual else b"%b:%d" % (host, uri.port)
        uri, host = self._places[origin]
        more = b"" if has_host else b"Host: %b\r\n" % host
        if not self._kept:
            more += b"Connection: close\r\n"
        head = b"%b %b HTTP/1.1\r\n%b%b" % (method, target, fields, more)
        return self._once(origin, uri, method, head, body)

    def _once(self, origin: bytes, uri: URI, method: bytes, head: bytes, body: IBodyProducer | None) -> Deferred[Any]:
        idle = self._idle.get(origin)
        if not idle:
            sender = None if uri.scheme == b"https" else self._sender
            factory = _Connections(lambda: HttpConnection(sender, partial(self._rest, origin), self._lost))
            opened: Deferred[Any] = self._endpoints.endpointForURI(uri).connect(factory)
            return opened.addCallback(lambda connection: connection.ask(method, head, body))
        asked: Deferred[Any] = idle.pop().ask(method, head, body)
        if self._repeats and method in REPEATABLE and body is None:

            def again(failure: Failure) -> Deferred[Any] | Failure:
                return self._once(origin, uri, method, head, body) if failure.check(KeptLost) else failure

            asked.addErrback(again)
        return asked

    def _rest(self, origin: bytes, connection: HttpConnection) -> None:
        idle = self._idle.setdefault(origin, [])
        if len(idle) >= self._kept:
            connection.abort()
            return
        idle.append(connection)
        connection.closing = self._clock.callLater(self._kept_for, connection.abort)

    def _lost(self, connection: HttpConnection) -> None:
        for origin, idle in list(self._idle.items()):
            if connection in idle:
                idle.remove(connection)
                if not idle:
                    del self._idle[origin]

    def close(self) -> Deferred[None]:
        """Close the idle ones, and send no more from files; fires when they are closed."""
        idle = [connection for each in self._idle.values() for connection in each]
        closed = [connection.closed for connection in idle]
        for connection in idle:
            connection.abort()
        self._sender.stop()
        return gatherResults(closed).addCallback(lambda _: None)

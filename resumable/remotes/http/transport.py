"""HTTP to a store: bounded persistent connections, own time-outs, small answers.

One reason to change: how requests travel.

Invariant: every request ends: nothing waits longer than a time-out for the next sign of progress. An answer that
comes before its request is fully sent stops the body. Connections are at most as many as the limit, and none is
repeated here: whether a request may be sent twice is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attrs import frozen
from twisted.internet import error
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseNeverReceived,
)
from twisted.web.iweb import IPolicyForHTTPS, IResponse

from resumable.remotes.errors import RemoteError, Transient
from resumable.remotes.http.bodies import BytesBody, RegionBody
from resumable.remotes.http.connections import Endpoints
from resumable.remotes.http.failures import causes_of, meaning, timed_out
from resumable.remotes.http.streams import Opened, Streams, sent
from resumable.remotes.http.watch import Watch

STALE = "KeptConnectionClosed"
"""The code of a failure that a new connection may well not have: the store had closed the one that was kept."""


@frozen
class Limits:
    """``idle_timeout``: seconds without a byte moving either way. ``connections``: more let more parts go at once."""

    connect_timeout: float = 10.0
    idle_timeout: float = 60.0
    kept_for: float = 15.0
    connections: int = 32


@frozen
class Answer:
    """``headers`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class IHttp(Protocol):
    """What `Http` does, so that tests can do without a network."""

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: BytesBody | RegionBody | None,
        *,
        largest: int,
        patience: float = 1.0,
    ) -> Answer:
        """See `Http.request`."""

    async def stream(self, url: str, headers: Mapping[str, str]) -> Opened:
        """A GET whose answer comes piece by piece. Its connection is none of those that `request` uses."""

    def close(self) -> Deferred[None]:
        """See `Http.close`."""


class _Collector(TwistedProtocol):
    """Gathers a body of ``largest`` bytes at most. Who cancels ``done`` gives the connection up."""

    def __init__(self, largest: int, touch: Callable[[], None]) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._lose())
        self._pieces: list[bytes] = []
        self._room = largest
        self._touch = touch

    def dataReceived(self, data: bytes) -> None:
        self._touch()
        self._room -= len(data)
        if self._room < 0:
            self._pieces.clear()
            self._lose()
        else:
            self._pieces.append(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        done, self.done = self.done, Deferred()
        if done.called:  # it was given up, and the connection has ended for that
            return
        if self._room < 0:
            done.errback(Transient("the answer is too long"))
        elif reason is not None and reason.check(ResponseDone):
            done.callback(b"".join(self._pieces))
        else:
            done.errback(reason or Failure(error.ConnectionLost()))

    def _lose(self) -> None:
        if self.transport is not None:
            self.transport.stopProducing()  # type: ignore[attr-defined]


class Http:
    """A client for one store. ``clock`` measures the time-outs; ``reactor`` does the rest."""

    def __init__(
        self,
        reactor: Any,
        limits: Limits | None = None,
        *,
        clock: IReactorTime | None = None,
        policy: IPolicyForHTTPS | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._clock: IReactorTime = clock or reactor
        self._slots = DeferredSemaphore(self._limits.connections)
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.retryAutomatically = False
        self._pool.maxPersistentPerHost = self._limits.connections
        self._pool.cachedConnectionTimeout = self._limits.kept_for  # type: ignore[assignment]
        self._endpoints = Endpoints(
            reactor, self._clock, policy or BrowserLikePolicyForHTTPS(), self._limits.connect_timeout
        )
        self._agent = Agent.usingEndpointFactory(reactor, self._endpoints, self._pool)
        self._streams = Streams(reactor, self._endpoints, self._clock, self._limits.idle_timeout, self._limits.kept_for)

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: BytesBody | RegionBody | None,
        *,
        largest: int,
        patience: float = 1.0,
    ) -> Answer:
        """Send it and gather the answer, whatever its status.

        ``url`` goes out as it is. ``largest``: bytes of the answer. ``patience`` multiplies the idle time-out. Raises
        Transient, Unusable (the certificate), CancelledError; what reading the body raised.
        """
        await self._slots.acquire()
        watch = Watch(self._clock, self._limits.idle_timeout * patience)
        try:
            return await self._exchange(method, url, headers, body, largest, watch)
        except RemoteError:
            raise
        except Exception as problem:
            raise self._told(problem, body, watch) from None
        finally:
            watch.stop()
            if isinstance(body, RegionBody):
                body.stopProducing()
            self._slots.release()

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: BytesBody | RegionBody | None,
        largest: int,
        watch: Watch,
    ) -> Answer:
        if isinstance(body, RegionBody):
            body.progress = watch.touch
        opened = self._endpoints.opened
        asking = self._agent.request(method.encode(), url.encode("ascii"), sent(headers), body)
        kept = self._endpoints.opened == opened  # it takes a connection at once, or opens one
        watch.give_up = asking.cancel
        try:
            response: IResponse = await asking
        except (ResponseNeverReceived, RequestTransmissionFailed) as problem:
            if kept and not watch.expired and isinstance(causes_of(problem)[-1], error.ConnectionClosed):
                raise Transient("the store closed a kept connection", code=STALE) from None
            raise
        watch.touch()
        collector = _Collector(largest, watch.touch)
        collected = collector.done
        watch.give_up = collected.cancel
        response.deliverBody(collector)
        content = await collected
        got = {
            name.decode("latin-1").lower(): values[0].decode("utf-8", "replace")
            for name, values in response.headers.getAllRawHeaders()
        }
        return Answer(response.code, got, content)

    async def stream(self, url: str, headers: Mapping[str, str]) -> Opened:
        """See IHttp."""
        return await self._streams.open(url, headers)

    def close(self) -> Deferred[None]:
        """Close what is idle; fires when it is closed."""
        return gatherResults([self._pool.closeCachedConnections(), self._streams.close()]).addCallback(lambda _: None)

    def _told(self, problem: Exception, body: BytesBody | RegionBody | None, watch: Watch) -> BaseException:
        """What a failure of the request means."""
        if isinstance(body, RegionBody) and body.failure is not None:
            return body.failure.value or problem
        return timed_out(self._limits.idle_timeout) if watch.expired else meaning(problem)

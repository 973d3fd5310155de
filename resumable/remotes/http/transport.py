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
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
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
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS, IResponse

from resumable.remotes.errors import RemoteError, Transient, Unusable
from resumable.remotes.http.bodies import BytesBody, RegionBody
from resumable.remotes.http.connections import Endpoints
from resumable.trace import REQUEST

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

    def close(self) -> Deferred[None]:
        """See `Http.close`."""


class _Watch:
    """Calls ``give_up`` when ``seconds`` have passed since the last `touch`."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self.expired = False
        self.give_up: Callable[[], None] = lambda: None
        self._seconds = seconds
        self._call = clock.callLater(seconds, self._expire)

    def touch(self) -> None:
        if self._call.active():
            self._call.reset(self._seconds)

    def stop(self) -> None:
        if self._call.active():
            self._call.cancel()

    def _expire(self) -> None:
        self.expired = True
        self.give_up()


class _Collector(TwistedProtocol):
    """Gathers a body of ``largest`` bytes at most."""

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
        if self._room < 0:
            done.errback(Transient("the answer is too long"))
        elif reason is not None and reason.check(ResponseDone):
            done.callback(b"".join(self._pieces))
        else:
            done.errback(reason or Failure(error.ConnectionLost()))

    def _lose(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


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
        watch = _Watch(self._clock, self._limits.idle_timeout * patience)
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
        watch: _Watch,
    ) -> Answer:
        if isinstance(body, RegionBody):
            body.progress = watch.touch
        sent_headers = Headers({name.encode(): [value.encode("latin-1")] for name, value in headers.items()})
        if not sent_headers.hasHeader(b"x-request-id") and (name := REQUEST.get()):
            sent_headers.setRawHeaders(b"x-request-id", [name.encode("latin-1")])
        opened = self._endpoints.opened
        asking = self._agent.request(method.encode(), url.encode("ascii"), sent_headers, body)
        kept = self._endpoints.opened == opened  # it takes a connection at once, or opens one
        watch.give_up = asking.cancel
        try:
            response: IResponse = await asking
        except (ResponseNeverReceived, RequestTransmissionFailed) as problem:
            if kept and not watch.expired and isinstance(_causes(problem)[-1], error.ConnectionClosed):
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

    def close(self) -> Deferred[None]:
        """Close what is idle; fires when it is closed."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    def _told(self, problem: Exception, body: BytesBody | RegionBody | None, watch: _Watch) -> BaseException:
        """What a failure of the request means."""
        if isinstance(body, RegionBody) and body.failure is not None:
            return body.failure.value or problem
        if watch.expired:
            return Transient(f"nothing moved for {self._limits.idle_timeout:.0f} s and more", code="TimedOut")
        causes = list(_causes(problem))
        if any(isinstance(cause, CancelledError) for cause in causes):
            return CancelledError()
        for cause in causes:
            if type(cause).__module__.startswith(("OpenSSL", "service_identity")):
                return Unusable(f"no secure connection: {_tls(cause)}", advice="check the certificate and the address")
        if isinstance(problem, error.DNSLookupError):
            return Transient("the store's name was not found", code="NameNotFound", advice="check endpoint and region")
        last = causes[-1]
        return Transient(f"no answer: {type(last).__name__}", code=type(last).__name__)


def _causes(problem: BaseException) -> list[BaseException]:
    """What it was made of, and itself."""
    found: list[BaseException] = [problem]
    for reason in getattr(problem, "reasons", ()):
        found.extend(_causes(reason.value))
    return found


def _tls(cause: BaseException) -> str:
    return "".join(char if char.isprintable() else "?" for char in f"{type(cause).__name__} {cause}")[:160]

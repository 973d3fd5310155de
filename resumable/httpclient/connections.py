"""Pooled connections that hear an early answer and are given up in time, and treq on them.

Invariants: an answer is heard while its request is still being sent; at most `EARLY` bytes of it, and a piece more,
are taken then. The URL and the headers go out as they were given, byte for byte; no redirect is followed, no
cookie kept, nothing unpacked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treq.client import HTTPClient
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from resumable.httpclient.bodies import PIECE

EARLY = 64 << 10
"""Bytes of an answer that are taken while its request is still being sent."""


class ClientConnection(ProtocolWrapper):
    """Sits between Twisted's HTTP client and the network.

    The client stops reading at an answer's head until somebody wants its body, but gives the answer out only when the
    request is sent or the body complete; a server that answers early and reads no further would never be heard.
    """

    sending = False
    early = 0

    def makeConnection(self, transport: Any) -> None:
        """A body's piece goes to the network in one turn, if that takes it; Twisted's own limit would be several."""
        getattr(transport, "transport", transport).SEND_LIMIT = PIECE  # TLS has the network below it
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    @property
    def _network(self) -> Any:
        return self.transport

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.sending, self.early = True, 0
        self._network.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.sending = False
        self._network.unregisterProducer()

    def pauseProducing(self) -> None:
        if not self.sending:
            self._network.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        if self.sending:
            self.early += len(data)
            if self.early > EARLY:
                self._network.pauseProducing()
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def loseConnection(self) -> None:
        """A body that is being sent would be sent to its end first."""
        if self.sending:
            self._network.abortConnection()
        else:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def stopProducing(self) -> None:
        """The answer isn't wanted any more. Closing in peace would wait until the server has sent all of it."""
        self._network.abortConnection()


class _Factory(WrappingFactory[ClientConnection]):
    protocol = ClientConnection
    noisy = False


@implementer(IStreamClientEndpoint)
class _Timed:
    """An endpoint that gives up on our clock, and whose connections are `ClientConnection`."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, clock: IReactorTime, seconds: float, opening: Callable[[], None]
    ) -> None:
        self._opening = opening
        self._endpoint = endpoint
        self._clock = clock
        self._seconds = seconds

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        self._opening()
        protocolFactory.noisy = False  # type: ignore[attr-defined]  # else each connection is two lines of the log
        connecting: Deferred[Any] = self._endpoint.connect(_Factory(protocolFactory))  # type: ignore[no-untyped-call]
        connecting.addTimeout(self._seconds, self._clock, _never_connected)
        return connecting.addCallback(lambda connection: connection.wrappedProtocol)


def _never_connected(failure: Failure | object, seconds: float) -> Failure:
    return Failure(error.TimeoutError())


@implementer(IAgentEndpointFactory)
class ClientEndpoints:
    """Makes the endpoints that the client connects to. ``opened`` counts the connections that it asked for.

    ``seconds``: the time to connect.
    """

    def __init__(self, reactor: Any, clock: IReactorTime, policy: IPolicyForHTTPS, seconds: float) -> None:
        self._reactor = reactor
        self._clock = clock
        self._policy = policy
        self._seconds = seconds
        self.opened = 0

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        # its own time-out runs on the reactor's clock; ours comes first
        endpoint: Any = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=2 * self._seconds)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return _Timed(endpoint, self._clock, self._seconds, self._one_more)

    def _one_more(self) -> None:
        self.opened += 1


@implementer(IAgent)
class _Untouched:
    """One request below treq's agents, which would change it and its answer.

    treq asks for gzip and unpacks it, so that a small answer may become gigabytes; it takes URLs apart and puts them
    together otherwise, which breaks signatures, and fails for IPv6 addresses; it keeps cookies. So it gets neither URL
    nor headers.
    """

    def __init__(self, agent: Agent, url: bytes, headers: Headers) -> None:
        self._agent = agent
        self._url = url
        self._headers = headers
        self.response: Any = None

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[Any]:
        asked: Deferred[Any] = self._agent.request(method, self._url, self._headers, bodyProducer)
        return asked.addCallback(self._answered)

    def _answered(self, response: IResponse) -> _Headless:
        self.response = response
        return _Headless()


class _Headless:
    """The part of an answer that treq's agents look at: there is nothing to unpack, and no cookie."""

    def __init__(self) -> None:
        self.headers = Headers()


_NOWHERE = "http:///"
"""The URL that treq sees: it would encode a host anew for each request."""


class ConnectionPool:
    """Connections that are used again, by treq. ``seconds``: the time to connect.

    ``kept``: idle connections for one host, each for ``kept_for`` seconds. ``repeats``: a GET goes out again by itself
    where the other side had closed a kept connection.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        policy: IPolicyForHTTPS,
        seconds: float,
        *,
        kept: int,
        kept_for: float,
        repeats: bool,
    ) -> None:
        self._reactor = reactor
        self._endpoints = ClientEndpoints(reactor, clock, policy, seconds)
        self._pool = HTTPConnectionPool(reactor, persistent=kept > 0)
        self._pool.retryAutomatically = repeats
        self._pool.maxPersistentPerHost = kept
        self._pool.cachedConnectionTimeout = kept_for  # type: ignore[assignment]
        self._agent = Agent.usingEndpointFactory(reactor, self._endpoints, self._pool)

    @property
    def opened(self) -> int:
        """How many connections were asked for so far. A request that opens one does so before `request` returns."""
        return self._endpoints.opened

    def request(
        self, method: str, url: str, headers: Headers, body: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """The answer once its head is there. Fails as Twisted's Agent. Cancelling it gives the connection up."""
        agent = _Untouched(self._agent, url.encode("ascii"), headers)
        asked: Deferred[Any] = HTTPClient(agent).request(
            method, _NOWHERE, data=body, allow_redirects=False, unbuffered=True, reactor=self._reactor
        )
        answered: Deferred[IResponse] = asked.addCallback(lambda _: agent.response)
        return answered

    def close(self) -> Deferred[None]:
        """Close the idle ones; fires when they are closed."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

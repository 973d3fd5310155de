"""The endpoints of connections, which are given up in time, and treq on pooled ones.

Invariant: the URL and the headers go out as they were given, byte for byte; no redirect is followed, no cookie kept,
nothing unpacked.
"""

from __future__ import annotations

from typing import Any

from treq.client import HTTPClient
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from resumable.httpclient.agent import LightAgent


@implementer(IStreamClientEndpoint)
class _Timed:
    """An endpoint that gives up on our clock."""

    def __init__(self, endpoint: IStreamClientEndpoint, clock: IReactorTime, seconds: float) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._seconds = seconds

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addTimeout(self._seconds, self._clock, _never_connected)


def _never_connected(failure: Failure | object, seconds: float) -> Failure:
    return Failure(error.TimeoutError())


@implementer(IAgentEndpointFactory)
class ClientEndpoints:
    """Makes the endpoints that the client connects to. ``seconds``: the time to connect."""

    def __init__(self, reactor: Any, clock: IReactorTime, policy: IPolicyForHTTPS, seconds: float) -> None:
        self._reactor = reactor
        self._clock = clock
        self._policy = policy
        self._seconds = seconds

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        # its own time-out runs on the reactor's clock; ours comes first
        endpoint: Any = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=2 * self._seconds)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return _Timed(endpoint, self._clock, self._seconds)


@implementer(IAgent)
class _Untouched:
    """One request below treq's agents, which would change it and its answer.

    treq asks for gzip and unpacks it, so that a small answer may become gigabytes; it takes URLs apart and puts them
    together otherwise, which breaks signatures, and fails for IPv6 addresses; it keeps cookies. So it gets neither URL
    nor headers.
    """

    def __init__(self, agent: IAgent, url: bytes, headers: Headers) -> None:
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
        endpoints = ClientEndpoints(reactor, clock, policy, seconds)
        self.agent = LightAgent(reactor, clock, endpoints, kept=kept, kept_for=kept_for, repeats=repeats)

    def request(
        self, method: str, url: str, headers: Headers, body: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """The answer once its head is there. Fails as Twisted's Agent. Cancelling it gives the connection up."""
        agent = _Untouched(self.agent, url.encode("ascii"), headers)
        asked: Deferred[Any] = HTTPClient(agent).request(
            method, _NOWHERE, data=body, allow_redirects=False, unbuffered=True, reactor=self._reactor
        )
        answered: Deferred[IResponse] = asked.addCallback(lambda _: agent.response)
        return answered

    def close(self) -> Deferred[None]:
        """Close the idle ones; fires when they are closed."""
        return self.agent.close()

"""Connections to a store that hear an early answer and are given up in time.

One reason to change: how Twisted's HTTP client behaves towards its connection.

Invariant: an answer is heard while its request is still being sent; at most `EARLY` bytes of it, and a piece more,
are taken then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from resumable.remotes.regions import PIECE

EARLY = 64 << 10
"""Bytes of an answer that are taken while its request is still being sent."""


class Connection(ProtocolWrapper):
    """Sits between Twisted's HTTP client and the network.

    The client stops reading at an answer's head until somebody wants its body, but gives the answer out only when the
    request is sent or the body complete; a store that answers early and reads no further would never be heard.
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
        """The answer isn't wanted any more. Closing in peace would wait for the store to stop sending it."""
        self._network.abortConnection()


class _Factory(WrappingFactory[Connection]):
    protocol = Connection
    noisy = False


@implementer(IStreamClientEndpoint)
class _Timed:
    """An endpoint that gives up on our clock, and whose connections are `Connection`."""

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
class Endpoints:
    """Makes the endpoints that the client connects to; ``opened`` counts the connections it wanted."""

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

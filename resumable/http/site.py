"""The factory of connections: it makes channels, and has the settings that they share.

HTTP/2 is chosen by TLS (`StreamingSite.acceptableProtocols`), or by the client's first bytes (`StreamingChannel`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource
from twisted.web.server import Site

from resumable.http.channel import StreamingChannel
from resumable.http.connections import Connections
from resumable.http.h1.head import Fields
from resumable.http.h2.limits import HeldBytes
from resumable.http.request import RequestObserver, StreamingRequest


class StreamingSite(Connections, Site):
    """Makes connections, and keeps them as `Connections` says.

    ``network_timeout``: seconds for which a client may be silent in a head, a wanted body or between requests, or take
    no byte of an answer that waits.
    ``min_rate``: bytes a second that a wanted body must bring, and that must be taken of an answer, on the average of a
    ``network_timeout``; 0: any.
    ``linger``, ``linger_bytes``: seconds for which, and bytes up to which a body is read and dropped after an early
    answer.
    ``max_body_buffer``: bytes of the largest read, and so those that one paused body may hold in memory.
    ``refusal_fields``: from the values of Origin, the fields of a refusal that is sent before there is a request.
    ``http2``: offer HTTP/2 over TLS. ``h2c``: speak it with each client that begins with it, without TLS too.
    ``max_connections``: when there are more, an idle one is closed, or the new one is turned away.
    ``held``: bytes of paused bodies of HTTP/2 in memory.
    ``watch``: sees each request. ``received``: bytes that have come in, on all connections.
    """

    protocol = StreamingChannel  # type: ignore[assignment]
    requestFactory = StreamingRequest
    displayTracebacks = False
    noisy = False

    def __init__(
        self,
        resource: IResource,
        *,
        reactor: IReactorTime,
        network_timeout: float = 60,
        min_rate: int = 100,
        linger: float = 10,
        linger_bytes: int = 16 << 20,
        max_body_buffer: int = 1 << 20,
        refusal_fields: Callable[[Sequence[bytes]], Fields] = lambda origins: (),
        watch: RequestObserver | None = None,
        http2: bool = True,
        h2c: bool = False,
        max_connections: int = sys.maxsize,
    ) -> None:
        super().__init__(resource, reactor=reactor, parsePOSTFormSubmission=False)  # type: ignore[no-untyped-call]
        self.network_timeout = network_timeout
        self.min_rate = min_rate
        self.linger = linger
        self.linger_bytes = linger_bytes
        self.max_body_buffer = max_body_buffer
        self.refusal_fields = refusal_fields
        self.watch = watch or RequestObserver()
        self.http2 = http2
        self.h2c = h2c
        self.held = HeldBytes()
        self.received = 0
        self.begin(reactor, max(0.01, min(1.0, network_timeout / 10, linger / 10)), max_connections)

    # Twisted's own would keep a timer for its dates.

    def startFactory(self) -> None:
        pass

    def stopFactory(self) -> None:
        pass

    def log(self, request: HTTPRequest) -> None:
        """The answer is complete, or nobody is there to read it."""
        assert isinstance(request, StreamingRequest)
        self.watch.done(request, max(0.0, self.seconds() - request.began))

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel = StreamingChannel()  # type: ignore[no-untyped-call]
        channel.factory = channel.site = self
        channel.requestFactory = self.requestFactory
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may agree upon, the best first."""
        return [b"h2", b"http/1.1"] if self.http2 else [b"http/1.1"]

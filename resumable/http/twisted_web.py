"""The only file that knows private names of twisted.web. It changes when Twisted does: `TESTED_TWISTED`, `PRIVATES`.

Its two classes give those names plain ones, and change no behaviour beyond what their docstrings say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HTTPRequest
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from resumable.http.h1 import RequestHead

TESTED_TWISTED: Final = ("26.4", "26.10")
"""The oldest and the newest version of Twisted that the tests ran with."""

PRIVATES: Final[Mapping[type, tuple[str, ...]]] = {
    HTTPChannel: ("_requestProducer", "_waitingForTransport", "pauseProducing", "resumeProducing", "writeHeaders"),
    HTTPRequest: ("_cleanup", "_disconnected", "_log", "requestReceived"),
    Request: ("_handleStar",),
}
"""The names that are used beyond Twisted's documented interface. A test fails when one of them is missing."""


class WebRequest(Request):
    """Twisted's request, without a content type of its own."""

    defaultContentType = None
    gone = False
    """Whether the client has gone: there is nobody to answer."""

    @property
    def logger(self) -> Logger:
        """Twisted's log of requests."""
        return self._log

    def receive(self, head: RequestHead) -> None:
        """Take the head; Twisted calls `process` then. ``content`` stays empty, and no cookie is read."""
        self.requestHeaders = head.headers
        self.content = BytesIO()
        self.requestReceived(head.method, head.target, head.version)  # type: ignore[no-untyped-call]

    def answer_asterisk(self) -> None:
        """Answer ``OPTIONS *``."""
        self._handleStar()  # type: ignore[no-untyped-call]

    def set_gone(self) -> None:
        """The client has gone; `connectionLost` follows."""
        self.gone = self._disconnected = True


class WebChannel(HTTPChannel):
    """Twisted's channel, which writes answers. It leaves it to its subclass when to read."""

    _networkProducer: Any
    _secure: bool | None = None

    def isSecure(self) -> bool:
        """Whether the transport is one of TLS, as Twisted says, which takes long to find out and never changes."""
        if self._secure is None:
            self._secure = bool(super().isSecure())  # type: ignore[no-untyped-call]
        return self._secure

    @property
    def choked(self) -> bool:
        """Whether the transport's send buffer is full."""
        return bool(self._waitingForTransport)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """The head of an answer in one piece: a transport looks at each of the dozens that Twisted makes of it."""
        lines = [b"%b %b %b" % (version, code, reason)]
        lines += [b"%b: %b" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")  # type: ignore[union-attr]

    def set_reading(self, wanted: bool) -> None:
        """Open or close the TCP window."""
        if wanted:
            self._networkProducer.resumeProducing()
        else:
            self._networkProducer.pauseProducing()

    def borrow_socket(self) -> int | None:
        """Another descriptor of the connection's socket, to be closed; it outlives the connection.

        None where the bytes are not those of a socket (TLS), or there is none to be had. Whoever reads from it stops
        the transport's own reading first.
        """
        transport = None if self.isSecure() else getattr(self.transport, "proxied", self.transport)
        if not isinstance(transport, Connection) or not transport.connected:
            return None
        try:
            return os.dup(transport.fileno())
        except OSError:  # too many are open
            return None

    def leave_transport(self) -> None:
        """The transport has no producer any more, so that it can be half closed, or given to somebody else."""
        self._networkProducer.unregisterProducer()

    # Twisted's own versions of these two close and open the TCP window as well.

    def pauseProducing(self) -> None:
        self._waitingForTransport = True
        if self._requestProducer is not None:
            self._requestProducer.pauseProducing()

    def resumeProducing(self) -> None:
        self._waitingForTransport = False
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()

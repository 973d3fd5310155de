"""The only file that knows private names of twisted.web. It changes when Twisted does: `TESTED_TWISTED`, `PRIVATES`.

Its two classes give those names plain ones, and change no behaviour beyond what their docstrings say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.internet.tcp import Connection, Server
from twisted.logger import Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, HTTPChannel, parse_qs, toChunk
from twisted.web.http import Request as HTTPRequest
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from resumable.aio.transports import unsent, write_now
from resumable.http.h1 import CR, LF, Fields, RequestHead

TESTED_TWISTED: Final = ("26.4", "26.10")
"""The oldest and the newest version of Twisted that the tests ran with."""

PRIVATES: Final[Mapping[type, tuple[str, ...]]] = {
    HTTPChannel: ("_requestProducer", "_waitingForTransport", "pauseProducing", "resumeProducing"),
    HTTPRequest: ("_disconnected", "_log"),
    Request: ("_handleStar",),
    Headers: ("_rawHeaders",),
}
"""The names that are used beyond Twisted's documented interface. A test fails when one of them is missing."""

_MOST_NAMES: Final = 1_000
_canonical: dict[bytes, bytes] = {}


def canonical(name: bytes) -> bytes:
    """The name of a field as Twisted's headers spell it, remembered: to ask them takes six times as long."""
    known = _canonical.get(name)
    if known is None:
        headers = Headers()
        headers.setRawHeaders(name, ())
        ((known, _),) = headers.getAllRawHeaders()
        if len(_canonical) < _MOST_NAMES:
            _canonical[name] = known
    return known


class QuickHeaders(Headers):
    """Twisted's headers, in which a field is found and set in a third of the time."""

    __slots__ = ()

    @classmethod
    def of(cls, fields: Fields) -> QuickHeaders:
        """These fields, whose names are tokens and whose values have no line ends."""
        made = cls()
        values = made._rawHeaders
        for name, value in fields:
            known = _canonical.get(name) or canonical(name)
            if known in values:
                values[known].append(value)
            else:
                values[known] = [value]
        return made

    def put(self, name: bytes, value: bytes) -> None:
        """The same as ``setRawHeaders(name, [value])``."""
        if LF in value or CR in value:
            self.setRawHeaders(name, [value])
        else:
            self._rawHeaders[_canonical.get(name) or canonical(name)] = [value]

    def getRawHeaders(self, name: Any, default: Any = None) -> Any:
        """As Twisted's."""
        known = _canonical.get(name)
        if known is None:
            if isinstance(name, str):
                return super().getRawHeaders(name, default)
            known = canonical(name)
        return self._rawHeaders.get(known) or default


class WebRequest(Request):
    """Twisted's request with a short way from its head to its answer.

    It has no content type of its own, and sends neither the cookies nor the ``etag`` and ``lastModified`` that
    Twisted's would: fields are set in ``responseHeaders``.
    """

    defaultContentType = None
    gone = False
    """Whether the client has gone: there is nobody to answer."""
    responseHeaders: QuickHeaders
    _bodiless = False  # whatever is written after the head is dropped

    def __init__(self, channel: Any) -> None:
        # In place of Twisted's, which asks the kernel for both addresses of the connection.
        Componentized.__init__(self)
        self.channel: Any = channel
        self.transport = channel.transport
        self.client = channel.getPeer()
        self.queued = False
        self.notifications = []
        self.responseHeaders = QuickHeaders()

    @property
    def host(self) -> IAddress:
        """The address that the client has connected to."""
        address: IAddress = self.channel.getHost()
        return address

    @property
    def logger(self) -> Logger:
        """Twisted's log of requests."""
        return self._log

    def receive(self, head: RequestHead) -> None:
        """Take the head; Twisted calls `process` then. ``content`` stays empty, and no cookie is read."""
        self.requestHeaders = head.headers
        self.content = BytesIO()
        self.method, self.uri, self.clientproto = head.method, head.target, head.version
        self.path, mark, query = head.target.partition(b"?")
        self.args = parse_qs(query, True) if mark else {}
        self.process()  # type: ignore[no-untyped-call]

    def write(self, data: bytes) -> None:
        """Send these bytes of the answer's body, after its head; both in one piece, where the head isn't out yet."""
        if self.finished:
            raise RuntimeError("the answer is complete")
        if self._disconnected or (self._bodiless and self.startedWriting):
            return
        if not self.startedWriting:
            self._begin(data)
        elif data:
            self.sentLength += len(data)
            if self.chunked:
                self.channel.writeSequence(toChunk(data))
            else:
                self.channel.write(data)

    def _begin(self, data: bytes) -> None:
        """Send the head of the answer, and ``data`` if it has a body."""
        self.startedWriting = 1
        headers = self.responseHeaders
        length = headers.getRawHeaders(b"Content-Length")
        self._bodiless = self.method == b"HEAD" or self.code in NO_BODY_CODES
        if self._bodiless:
            data = b""
        elif length is None and self.clientproto == b"HTTP/1.1":
            headers.put(b"Transfer-Encoding", b"chunked")
            self.chunked = 1
        self.sentLength = len(data)
        whole = self._bodiless or (length is not None and length[0] == b"%d" % len(data))
        if data and self.chunked:
            data = b"".join(toChunk(data))
        self.channel.begin_answer(self.clientproto, b"%d" % self.code, self.code_message, headers, data, whole)

    def finish(self) -> None:
        """The answer is complete."""
        if self._disconnected:
            raise RuntimeError("there is nobody to answer")
        if self.finished:
            return
        if not self.startedWriting:
            self.write(b"")
        channel = self.channel
        if self.chunked:
            channel.write(b"0\r\n\r\n")
        channel.site.log(self)
        self.finished = 1
        if self.producer:
            self.logger.failure("", Failure(RuntimeError("the producer was not unregistered")))
            self.unregisterProducer()  # type: ignore[no-untyped-call]
        channel.requestDone(self)
        del self.channel
        notifications, self.notifications = self.notifications, []
        for each in notifications:
            each.callback(None)

    def answer_asterisk(self) -> None:
        """Answer ``OPTIONS *``."""
        self._handleStar()  # type: ignore[no-untyped-call]

    def set_gone(self) -> None:
        """The client has gone; `connectionLost` follows."""
        self.gone = self._disconnected = True


def _response(version: bytes, code: bytes, reason: bytes, headers: Headers, data: bytes) -> bytes:
    lines = [b"%b %b %b" % (version, code, reason)]
    lines += [b"%b: %b" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
    lines += (b"", data)
    return b"\r\n".join(lines)


class WebChannel(HTTPChannel):
    """Twisted's channel, which writes answers. It leaves it to its subclass when to read."""

    _networkProducer: Any
    _secure: bool | None = None
    _peer: IAddress | None = None

    def __init__(self, peer: IAddress | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._connected_from = peer

    def isSecure(self) -> bool:
        """Whether the transport is one of TLS, as Twisted says, which takes long to find out and never changes."""
        if self._secure is None:
            self._secure = bool(super().isSecure())  # type: ignore[no-untyped-call]
        return self._secure

    @property
    def choked(self) -> bool:
        """Whether the transport's send buffer is full."""
        return bool(self._waitingForTransport)

    def getPeer(self) -> IAddress:
        """The address of the client, or of its proxy; the transport makes a new one each time that it's asked."""
        if self._peer is None:
            plain = type(self.transport) is Server  # in front of others there may be a proxy
            self._peer = (plain and self._connected_from) or super().getPeer()  # type: ignore[no-untyped-call]
        return self._peer

    def begin_answer(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers, data: bytes, whole: bool
    ) -> None:
        """See `RequestChannel.begin_answer`. A transport looks at each piece that it's given, so it's given one."""
        response = _response(version, code, reason, headers, data)
        if whole:
            write_now(self.transport, response)
        else:
            self.transport.write(response)  # type: ignore[union-attr]

    def push(self, data: bytes) -> None:
        """See `RequestChannel.push`."""
        write_now(self.transport, data)

    @property
    def backed_up(self) -> bool:
        """See `RequestChannel.backed_up`."""
        return self.choked or unsent(self.transport)

    def send_interim(self, code: bytes, reason: bytes, headers: Headers) -> None:
        """Send an informational response, after all that was written before."""
        write_now(self.transport, _response(b"HTTP/1.1", code, reason, headers, b""))

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

"""One connection of a client of HTTP/1.1: a request goes out, its answer comes back, and then the next.

Invariants: an answer is heard while its request is still being sent, and ends the sending. The next request comes only
when both are over, and nothing else came. A body that lies in a file goes out through the kernel, where there is a
`FileSender`.
Spec: RFC 9112, section 9.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import (
    RequestGenerationFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer

from resumable.aio.transports import unsent, write_now
from resumable.httpclient.answer import AgentAnswer
from resumable.httpclient.bodies import PIECE, BytesBody, RegionBody
from resumable.httpclient.http1 import CHUNKED, AnswerHead, BadAnswer, ChunkedAnswer, HeadReader
from resumable.httpclient.sendfile import FileSender, FileSending

_DONE, _LOST = Failure(ResponseDone()), Failure(error.ConnectionLost())
_OF_NETWORK = {errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENOTCONN}


class KeptLost(ResponseNeverReceived):
    """A connection that was kept has ended before anything of the answer came."""


class HttpConnection(Protocol):
    """One connection, for one request after the other. ``idle`` is called when the next may come, ``lost`` at its end.

    ``sender`` sends files; None: where the connection is encrypted, or the kernel can't.
    """

    def __init__(
        self, sender: FileSender | None, idle: Callable[[HttpConnection], None], lost: Callable[[HttpConnection], None]
    ) -> None:
        self.closing: IDelayedCall | None = None
        self.closed: Deferred[None] = Deferred()
        self._sender = sender
        self._idle = idle
        self._lost = lost
        self._used = False
        self._rest()

    def _rest(self) -> None:
        """Nothing is asked."""
        self._asked: Deferred[AgentAnswer] | None = None
        self._answer: AgentAnswer | None = None
        self._body: Any = None
        self._sending: FileSending | None = None
        self._reader: HeadReader | ChunkedAnswer | None = None
        self._left: int | None = 0
        self._heard = self._answered = self._keep = False

    def connectionMade(self) -> None:
        """A body's piece goes to the network in one turn, if that takes it; Twisted's own limit would be several."""
        transport: Any = self.transport
        network = getattr(transport, "transport", transport)  # TLS has the network below it
        network.SEND_LIMIT = PIECE
        if hasattr(network, "setTcpNoDelay"):
            network.setTcpNoDelay(True)

    def _wanted(self) -> None:
        """It is no longer one of those that are closed after a while."""
        if self.closing is not None and self.closing.active():
            self.closing.cancel()
        self.closing = None

    # -- the request

    def ask(self, method: bytes, head: bytes, body: IBodyProducer | None) -> Deferred[AgentAnswer]:
        """Send a request. ``head`` has all fields but those that tell of the body, and no empty line at its end."""
        self._wanted()
        self._method, self._reader = method, HeadReader()
        asked: Deferred[AgentAnswer] = Deferred(lambda _: self.abort())
        self._asked = asked
        if body is None:
            write_now(self.transport, head + b"\r\n")
        elif isinstance(body, BytesBody):
            write_now(self.transport, b"%bContent-Length: %d\r\n\r\n%b" % (head, body.length, body.data))
        elif not self._send_file(head, body):
            self._send_pieces(head, body)
        return asked

    def _send_file(self, head: bytes, body: IBodyProducer) -> bool:
        """Begin to send a body that is a region of a file; False where that can't be."""
        if self._sender is None or self._sender.stopped or not isinstance(body, RegionBody):
            return False
        loan = body.lend()
        if loan is None:
            return False
        transport: Any = self.transport
        try:
            to = transport.getHandle().dup()
        except OSError:  # no descriptor is left
            loan.give_back()
            return False
        head += b"Content-Length: %d\r\n\r\n" % body.length
        self._body = body
        self._sending = sending = self._sender.send(to, head, loan.file, body.length, body.progress)
        sending.done.addCallback(lambda _: loan.give_back())
        sending.done.addCallback(lambda _: self._file_sent(sending, body))
        return True

    def _file_sent(self, sending: FileSending, body: RegionBody) -> None:
        if self._sending is not sending:
            return  # the connection is lost
        self._sending = None
        if sending.sent == sending.size:
            self._request_over()
        elif self._answered or sending.error is None:
            self.abort()  # the answer came before its end
        elif not (isinstance(sending.error, ConnectionError | TimeoutError) or sending.error.errno in _OF_NETWORK):
            # the file system can't do this, or the file is bad: whoever reads it knows better what is wrong with it
            body.sent = sending.sent
            self._produce(body, sending.head, _Counted(self.transport, body.length - body.sent))
        # else an answer may be here already; the network itself ends the connection

    def _send_pieces(self, head: bytes, body: IBodyProducer) -> None:
        if body.length is UNKNOWN_LENGTH:
            self._produce(body, head + b"Transfer-Encoding: chunked\r\n\r\n", _Chunks(self.transport))
        else:
            head += b"Content-Length: %d\r\n\r\n" % body.length
            self._produce(body, head, _Counted(self.transport, body.length))

    def _produce(self, body: IBodyProducer, head: bytes, consumer: Any) -> None:
        network: Any = self.transport
        network.write(head)
        self._body = body
        network.registerProducer(body, True)
        maybeDeferred(body.startProducing, consumer).addCallbacks(
            lambda _: self._pieces_sent(body, consumer), lambda failure: self._pieces_failed(body, failure)
        )

    def _pieces_sent(self, body: IBodyProducer, consumer: Any) -> None:
        if self._body is not body:
            return
        self.transport.unregisterProducer()  # type: ignore[union-attr]
        try:
            consumer.end()
        except ValueError:
            self._end(Failure(RequestGenerationFailed([Failure()])))
        else:
            self._request_over()

    def _pieces_failed(self, body: IBodyProducer, failure: Failure) -> None:
        if self._body is body:
            self._end(Failure(RequestGenerationFailed([failure])))

    def _request_over(self) -> None:
        self._body = None
        if self._answered:
            self._both_over()

    # -- the answer

    def dataReceived(self, data: bytes) -> None:
        if self._answer is None and self._asked is None:
            self.abort()  # nothing was asked
            return
        self._heard = True
        try:
            if isinstance(self._reader, HeadReader):
                found = self._reader.feed(data)
                if found is not None:
                    self._head_came(*found)
            else:
                self._body_came(data)
        except BadAnswer:
            self._end(Failure())

    def _head_came(self, head: AnswerHead, rest: bytes) -> None:
        asked = self._asked
        size = head.body_size(self._method)
        self._keep = head.keeps_open and size is not None
        self._left, self._reader = size, ChunkedAnswer() if size == CHUNKED else None
        known = size is not None and size != CHUNKED
        self._answer = answer = AgentAnswer(head, size if known else UNKNOWN_LENGTH, self, self._method == b"HEAD")
        if rest or size == 0:
            self._body_came(rest)
        self._asked = None
        if asked is not None and not asked.called:
            asked.callback(answer)

    def _body_came(self, data: bytes) -> None:
        answer = self._answer
        assert answer is not None
        over = False
        if isinstance(self._reader, ChunkedAnswer):
            data = self._reader.feed(data)
            over = self._reader.over
        elif self._left is not None:
            if len(data) > self._left:
                self._keep, data = False, data[: self._left]  # what follows was not asked for
            self._left -= len(data)
            over = not self._left
        if data:
            answer.came(data)
        if over and not self._answered:
            self._answer_over(answer)

    def _answer_over(self, answer: AgentAnswer) -> None:
        self._answered = True
        if self._body is None:
            self._both_over()
        elif self._sending is not None:
            self._sending.cancel()  # it may be sent by now: the thread knows
        else:
            self._body.stopProducing()
            self.abort()
        answer.ended(_DONE)

    def _both_over(self) -> None:
        keep, waits = self._keep, unsent(self.transport)
        self._rest()
        if waits:
            self.abort()  # an early answer: the next request would get into the rest of this one
        elif keep:
            self._used = True
            self.resume()
            self._idle(self)
        else:
            self.transport.loseConnection()  # type: ignore[union-attr]

    # -- the connection

    def pause(self) -> None:
        """Take no more for now."""
        self.transport.pauseProducing()  # type: ignore[union-attr]

    def resume(self) -> None:
        """Take more."""
        self.transport.resumeProducing()  # type: ignore[union-attr]

    def abort(self) -> None:
        """End it at once, whatever is under way. Twisted tells `connectionLost` only in its next turn."""
        self._lost(self)  # until then nobody may ask here
        if self._sending is not None:
            self._sending.cancel()  # it has a descriptor of the connection's own
        self.transport.abortConnection()  # type: ignore[union-attr]

    def _end(self, why: Failure) -> None:
        """The request can't be sent, or its answer not be read."""
        self._fail(why)
        self.abort()

    def connectionLost(self, reason: Failure = _LOST) -> None:
        self._wanted()
        kind: Any = ResponseFailed if self._heard else KeptLost if self._used else ResponseNeverReceived
        if self._answer is not None and self._left is None:
            self._answer.ended(Failure(PotentialDataLoss()))
        self._fail(Failure(kind([reason])))
        self._lost(self)
        self.closed.callback(None)

    def _fail(self, why: Failure) -> None:
        asked, answer, body, sending = self._asked, self._answer, self._body, self._sending
        self._asked = self._body = self._sending = None
        if sending is not None:
            sending.cancel()
        elif body is not None:
            body.stopProducing()
        if answer is not None:
            answer.ended(why)
        if asked is not None and not asked.called:
            asked.errback(why)


class _Counted:
    """Passes on as many bytes as the head has promised. ``end`` raises ValueError where there were fewer."""

    def __init__(self, network: Any, length: int) -> None:
        self._network = network
        self._left = length

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("a body is longer than it said")
        self._network.write(data)

    def end(self) -> None:
        if self._left:
            raise ValueError("a body is shorter than it said")


class _Chunks:
    """Frames the pieces of a body of unknown length. RFC 9112, section 7.1."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def write(self, data: bytes) -> None:
        if data:
            self._network.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self._network.write(b"0\r\n\r\n")

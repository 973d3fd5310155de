"""One HTTP/2 stream: the channel of one request, and the connection of its body.

Changes when what a request asks of its channel does (streaming.py), or a body of its connection (body.py). Invariants:
what arrived is delivered, however the stream ends; a client may send on only as far as its bytes were taken; an answer
is complete before anything is reset. Spec: RFC 9113 sections 8.1 and 8.1.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from h2.errors import ErrorCodes
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from resumable.http.body import Body
from resumable.http.connections import UNREAD
from resumable.http.h1.head import RefusedRequest, RequestHead, problem, take_expectation
from resumable.http.h2.frames import Data, Violation
from resumable.http.h2.head import Fields, trailers_of
from resumable.http.h2.limits import STREAM_WINDOW, ReceiveWindow
from resumable.http.outgoing import TakingProgress
from resumable.http.request import StreamingRequest

if TYPE_CHECKING:
    from resumable.http.h2.connection import Http2Connection

TURN: Final = 65_536
"""Bytes that a stream sends before another one has its turn."""
GRAIN: Final = 65_536
"""Bytes of the windows that are given back at once, at least."""

PIECE: Final = 16_384
"""Bytes that are brought for an answer at once, at least, and so what one may have waiting that isn't read."""

_BODILESS = (b"204", b"304")


class Http2Stream:
    """See the module. ``unsent``: bytes of the answer that wait for the client's windows, or for the transport."""

    persistent = True
    """A request may set it to False. It means this request only, whose stream ends with its answer anyway."""

    def __init__(self, connection: Http2Connection, number: int, ended: bool) -> None:
        self.number = number
        self.site: Any = connection.site
        self.factory: Any = connection.site
        self.transport = connection.transport
        self.unsent = bytearray()
        self.producer: IPushProducer | None = None
        self.producing = False
        self.body = Body(self, 0)
        self._connection = connection
        self._site = connection.site
        self._window = ReceiveWindow(STREAM_WINDOW)
        self._head: RequestHead | None = None
        self._request: StreamingRequest | None = None
        self._heard = ended  # the client has said all
        self._done = False  # the answer is complete, sent or not
        self._said = False  # and its end is sent
        self._over = False
        self._until: float | None = None  # when to call off what a client still sends that has its answer
        self._progress = TakingProgress(self._site.network_timeout, self._site.min_rate)
        self._sent = 0
        self._came = self._credited = self._held = self._dropped = 0

    # For the connection

    def accept(self, head: RequestHead) -> None:
        """This is the request; `begin` follows when all has been taken in that came along with it. Raises Refused."""
        self.body = Body(self, head.length, take_expectation(head.headers))
        self._head = head

    def begin(self) -> None:
        """Dispatch the request."""
        if self._over or self._head is None:
            return
        if self._heard and not self.body.received:
            self.body.length = 0
        self._request = request = self._site.requestFactory(self)
        request.begin(self._head, self.body)

    def arrived(self, data: Data) -> None:
        """Bytes of the body, or its end. Raises Violation."""
        if self._heard:
            raise Violation(ErrorCodes.STREAM_CLOSED)
        self._window.take(data.size)
        self._came += data.size
        payload, length = data.payload, self.body.length
        excess = 0 if length is None else max(0, self.body.received + len(payload) - length)
        if payload:
            self.body.arrived(payload[: len(payload) - excess] if excess else payload)
        if excess:
            self.body.end("malformed")
        if self._over:
            return
        if data.ends:
            self._connection.machine.body_ended(self.number)
            self.ended(None)
        else:
            self.regulate()

    def ended(self, trailers: Fields | None) -> None:
        """The client has said all."""
        self._heard = True
        reason = ""
        if self._head is not None and self._head.length not in (None, self.body.received):
            reason = "malformed"
        elif trailers is not None:
            try:
                self.body.trailers = trailers_of(trailers)
            except RefusedRequest:
                reason = "malformed"
        self.body.end(reason)
        self.regulate()
        if self._until is not None:
            self.leave()

    def refuse(self, refused: RefusedRequest, asked: Fields) -> None:
        """Answer what isn't a request that a resource could see; ``asked``: its fields."""
        self._site.watch.refused(refused.status)
        document = problem(refused.status, refused.detail)
        origins = [value for name, value in asked if name == b"origin"]
        fields = [(name.lower(), value) for name, value in [*refused.fields, *self._site.refusal_fields(origins)]]
        fields += [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(document))]
        self._said = (b":method", b"HEAD") in asked  # a body would be an error of the protocol
        head = [(b":status", b"%d" % refused.status), *fields]
        self._connection.machine.send_headers(self.number, head, end_stream=self._said)
        self._done = True
        if self._said:
            self._connection.answers.pump(self)
        else:
            self.write(document)

    def check(self, now: float) -> float:
        """Give up the body, or the answer, if it should be. Answers when to look again, at the earliest."""
        if self._over:
            return math.inf
        if self._wants_to_send() and self.window <= 0:
            if self._progress.overdue(now, self._sent):
                self.give_up()
                return math.inf
        else:
            self._progress.end()
        return min(self._progress.deadline, self._check_body(now))

    def give_up(self) -> None:
        """Its client doesn't take the answer."""
        self._site.cut_off(UNREAD, self.transport)
        self.abort()

    def _check_body(self, now: float) -> float:
        if self._heard:
            return math.inf
        if self._until is not None:
            if now < self._until:
                return self._until
            self.call_off()
            return math.inf
        timeout = self._site.network_timeout
        reason = self.body.overdue(now, timeout, self._site.min_rate)
        if reason is not None:
            self.body.end(reason)
        return self.body.next_check(now, timeout)

    def call_off(self) -> None:
        """Tell a client that has its answer, and still sends, that the rest isn't needed."""
        if self._until is not None and not self._over:
            self._connection.machine.reset_stream(self.number, ErrorCodes.NO_ERROR)
            self._connection.lingers = True
            self.leave()

    def lost(self, reason: Failure) -> None:
        """The client has given up this request, or has gone; or its answer can't be completed."""
        self.leave()
        request, self._request = self._request, None
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        if request is not None:
            request.connectionLost(reason)
        self.body.end("disconnected")

    def leave(self) -> None:
        """Nothing more comes or goes. What was lent of the connection's window and memory is given back."""
        if self._over:
            return
        self._over = True
        connection = self._connection
        if self._held:
            connection.hold(-self._held)
        connection.took(self._came - self._credited)
        connection.answers.unsent -= len(self.unsent)
        self.unsent.clear()
        connection.forget(self)

    def send(self) -> int:
        """Send what the client's windows take, one turn at most. Answers how many bytes went."""
        machine, room = self._connection.machine, 0
        if self.unsent:
            room = min(len(self.unsent), TURN, machine.local_flow_control_window(self.number))
        sent = 0
        while sent < room:
            frame = bytes(self.unsent[sent : min(room, sent + machine.max_outbound_frame_size)])
            sent += len(frame)
            self._said = self._done and sent == len(self.unsent)
            machine.send_data(self.number, frame, end_stream=self._said)
        del self.unsent[:sent]
        self._connection.answers.went(sent)
        self._sent += sent
        if not self.unsent:
            self._progress.end()
        if self._done and not self.unsent:
            self._conclude()
        return sent

    @property
    def window(self) -> int:
        """How much the client would take of this answer."""
        known = self._connection.machine.streams.get(self.number)
        return 0 if known is None else known.outbound_flow_control_window

    def shut_out(self) -> bool:
        """Whether it has something to say that its client would not take; from now on not for ever."""
        if self.window > 0:
            self._progress.end()
            return False
        self._progress.begin(self.seconds(), self._sent)
        self._connection.look_at(self._progress.deadline)
        return True

    def _wants_to_send(self) -> bool:
        return bool(self.unsent) or (self.producer is not None and not self.producing)

    # For the body

    def seconds(self) -> float:
        return self._site.seconds()

    def dropped(self, size: int) -> None:
        self._dropped += size
        if self._dropped > self._site.linger_bytes:
            self.call_off()

    def send_continue(self) -> None:
        if not self._over and self._request is not None and not self._request.startedWriting:
            self._connection.machine.send_headers(self.number, [(b":status", b"100")])
            self._connection.flush()

    def regulate(self) -> None:
        """Let the client send as much again as was taken, or dropped within bounds."""
        if self._over:
            return
        held = self.body.held
        if held != self._held:
            more, self._held = held - self._held, held
            self._connection.hold(more)
        owed = self._came - held - self._credited
        if owed >= GRAIN and self._dropped <= self._site.linger_bytes:
            self._credited += owed
            if not self._heard:
                self._connection.credit(self.number, self._window, owed)
            self._connection.took(owed)

    # For the request

    @property
    def room(self) -> int:
        """Bytes of the answer that have somewhere to go, or a few more: what is brought beyond that waits here."""
        if self._over:
            return PIECE
        return max(PIECE, min(self._connection.answers.piece, self.window - len(self.unsent)))

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def isSecure(self) -> bool:
        return self._connection.secure

    def answering(self, request: Any) -> None:
        """The headers of an answer are about to go out. Nothing has to be closed for it."""

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        if not self._over:
            fields = [(name.lower(), value) for name, values in headers.getAllRawHeaders() for value in values]
            empty = code in _BODILESS or (b"content-length", b"0") in fields
            self._said = empty or (self._request is not None and self._request.method == b"HEAD")
            machine = self._connection.machine
            machine.send_headers(self.number, [(b":status", code), *fields], end_stream=self._said)
            self._connection.flush()

    def write(self, data: bytes) -> None:
        if not self._over and not self._said:
            self.unsent += data
            self._connection.answers.unsent += len(data)
            self._connection.answers.pump(self)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def requestDone(self, request: Any) -> None:
        """The answer is complete."""
        self._request = None
        self._done = True
        if not self._over:
            self._connection.pace.answered()
            if not self._heard:
                self.body.end("disconnected")
            self._connection.answers.pump(self)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """It is resumed when its bytes would have somewhere to go."""
        assert streaming, "only push producers are used here"
        if self._over:
            producer.stopProducing()
            return
        self.producer = producer
        producer.pauseProducing()
        self._connection.answers.may_produce(self)

    def unregisterProducer(self) -> None:
        self.producer = None
        self._connection.answers.produced(self)

    def loseConnection(self) -> None:
        """The answer can't be completed."""
        self._reset(ErrorCodes.INTERNAL_ERROR)

    def abort(self) -> None:
        """Nobody waits for the end of this request any more."""
        self._reset(ErrorCodes.CANCEL)

    # Inside

    def _reset(self, code: ErrorCodes) -> None:
        if not self._over:
            if not (self._said and self._heard):  # else it's over for both already
                self._connection.machine.reset_stream(self.number, code)
            self.lost(Failure(ConnectionAborted()))
            self._connection.answers.pump()

    def _conclude(self) -> None:
        """The answer is out. Who hasn't said all yet gets a while to see it: a reset at once would eat it (curl 7)."""
        if not self._said:
            self._said = True
            self._connection.machine.end_stream(self.number)
        if self._heard:
            self.leave()
            return
        self._until = self._connection.linger()
        if self._dropped > self._site.linger_bytes:
            self.call_off()

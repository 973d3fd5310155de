"""One HTTP/2 connection: it hands frames to its streams, and decides when to close.

Invariants: a stream's request knows nothing of its neighbours; a client learns which requests were read before the
connection closes. Only frames that no honest client sends end the connection, as it may be a proxy's, with the requests
of many clients. Spec: RFC 9113.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.http.connections import Connections, Outgoing, client_at, no_room
from resumable.http.h1 import RefusedRequest
from resumable.http.h2.answers import AnswerQueue
from resumable.http.h2.frames import Data, FrameReader, Violation, head_of, size_of
from resumable.http.h2.link import CLOSED, LINGER, LINGERING, MAX_STREAMS, OPEN, Http2Link
from resumable.http.h2.stream import Http2Stream


@implementer(IPushProducer)
class Http2Connection(Http2Link):
    """See the module, and `resumable.http.connections.OpenConnection`."""

    def __init__(self, site: Connections) -> None:
        super().__init__(site)
        self.answers = AnswerQueue(self)
        self._reader = FrameReader()
        self._streams: dict[int, Http2Stream] = {}
        self._fresh: dict[int, Http2Stream] = {}  # their requests are to be begun, in this order
        self._came = 0  # bytes of bodies in this read
        self._turned_away = False  # there is no room, and the client is told so
        self._take: dict[type[events.Event], Callable[[Any], None]] = {
            events.RequestReceived: self._head_came,
            events.TrailersReceived: self._trailers_came,
            events.StreamReset: self._reset_came,
            events.WindowUpdated: lambda _: self.answers.pump(),
            events.RemoteSettingsChanged: self._settings_came,
            events.ConnectionTerminated: self._goaway_came,
        }

    @property
    def deadline(self) -> float:
        """When `expire` wants to be called, on the site's clock: soon, while something waits for its budget."""
        return 0.0 if self._state is OPEN and (self._fresh or self.pace.ahead) else self._due

    def connectionMade(self) -> None:
        self.secure = ISSLTransport(self.transport, None) is not None
        self._client = client_at(self.transport)
        self.outgoing = Outgoing(self.transport, self.site.network_timeout, self.site.min_rate)
        self._due = self.site.seconds() + self.site.network_timeout
        self.transport.registerProducer(self, True)
        self.flush()
        self.site.connected(self)
        if self._state is OPEN:
            self.site.idle(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._state, self._due = CLOSED, math.inf
        try:
            self._lose_streams(reason)
        finally:
            self.site.held.forget(self)
            self.site.disconnected(self)

    # What comes

    def dataReceived(self, data: bytes) -> None:
        self.site.received += len(data)
        if self._state is not OPEN:
            return
        self._busy = True
        self._came = 0
        self.pace.refill(self.site.seconds())
        code = self._read(data)
        if code is None:
            self._begin_requests()
        else:
            self._leaving = self.lingers = True
            self._lose_streams(Failure(ConnectionDone(f"the client broke HTTP/2: {code}")))
        self._busy = False
        self.read_more(self._came)
        self.regulate()
        self.settle()

    def _read(self, data: bytes) -> ErrorCodes | int | None:
        """Returns the error that was sent to the client, if there is one."""
        try:
            for frame in self._reader.feed(data):
                if isinstance(frame, Data):
                    self._data_came(frame)
                    continue
                self.pace.frame()
                for event in self.machine.receive_data(frame):
                    if type(event) in self._take:
                        self._take[type(event)](event)
        except Violation as violation:
            self.machine.close_connection(violation.code)
            return violation.code
        except ProtocolError as error:  # the machine has said GOAWAY itself
            return error.error_code
        return None

    def _begin_requests(self) -> None:
        """Begin as many requests as the budget allows; those that are given up before need none."""
        while self._fresh and self.pace.may_begin():
            self._fresh.pop(next(iter(self._fresh))).begin()

    def _data_came(self, data: Data) -> None:
        self._window.take(data.size)
        stream = self._streams.get(data.stream)
        self.pace.data(data.short)
        self._came += len(data.payload)
        if stream is not None:
            stream.arrived(data)
        elif data.stream > self.machine.highest_inbound_stream_id or data.stream % 2 == 0:
            raise Violation(ErrorCodes.PROTOCOL_ERROR)
        else:  # it was answered or given up while this was under way
            self.credit(0, self._window, data.size)

    def _head_came(self, event: events.RequestReceived) -> None:
        number = event.stream_id
        self.pace.frame(size_of(event.headers))
        # Either it was told that this one would not be looked at, or it is one more than it may ask for.
        if self._leaving or len(self._streams) >= MAX_STREAMS:
            self.machine.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        if not self._streams:
            self._due = math.inf
            self.site.busy(self)
        ended = event.stream_ended is not None
        stream = self._streams[number] = Http2Stream(self, self.answers, self.forget, number, ended)
        try:
            if self._turned_away:
                raise no_room(dict(event.headers).get(b":method", b""))
            head = head_of(event.headers, ended)
            stream.accept(head)
        except RefusedRequest as refused:
            stream.refuse(refused, event.headers)
            if self._turned_away:
                self.stop()
            return
        if head.length != 0:
            self.look_at(self.site.seconds() + self.site.network_timeout)
        self._fresh[number] = stream

    def _trailers_came(self, event: events.TrailersReceived) -> None:
        self.pace.frame(size_of(event.headers))
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.ended(event.headers)

    def _reset_came(self, event: events.StreamReset) -> None:
        """The client has reset a stream; or the machine has, because of the client's error."""
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.lost(Failure(ConnectionDone("the client has given up this request")))

    def _settings_came(self, event: events.RemoteSettingsChanged) -> None:
        self.machine.settings_changed()
        self.answers.pump()

    def _goaway_came(self, event: events.ConnectionTerminated) -> None:
        self._leaving = True

    # For the transport, whose producer this is

    def pauseProducing(self) -> None:
        self.choked = True
        self.outgoing.full(self.site.seconds())

    def resumeProducing(self) -> None:
        self.choked = False
        self.outgoing.empty()
        self._backlog = 0
        self.regulate()
        self.answers.pump()

    def stopProducing(self) -> None:
        """`connectionLost` follows."""

    # For the streams

    def forget(self, stream: Http2Stream) -> None:
        """The stream is over."""
        del self._streams[stream.number]
        self._fresh.pop(stream.number, None)
        self.answers.forget(stream)
        if not self._streams and self._state is OPEN:
            self.site.idle(self)
            self._due = self.site.seconds() + self.site.network_timeout

    # The end

    def turn_away(self) -> None:
        """Take one request, answer that there is no room, and close."""
        self._turned_away = True

    def stop(self) -> None:
        """Take no new requests; close when the last one is answered."""
        if self._state is OPEN:
            idle = not self._streams
            self._leaving = True
            self.machine.close_connection()
            for stream in list(self._streams.values()):
                stream.call_off()
            self.settle()
            if idle:  # don't wait for a client that doesn't answer the goodbye of TLS
                self.look_at(self.site.seconds() + LINGER)

    def abort(self) -> None:
        """Close at once, with a reset."""
        self._state, self._due = CLOSED, math.inf
        self.transport.abortConnection()

    def expire(self, now: float) -> None:
        """`deadline` has passed."""
        if self._state is OPEN:
            self.pace.refill(now)
            self._begin_requests()
            self.regulate()
            self.settle()
        if now < self._due:
            return
        if self._state is CLOSED:
            self.abort()
        elif self._state is LINGERING:
            self._close()
        elif self._full:
            self._due = now + self.site.network_timeout
        elif self._streams:
            self._due = math.inf
            for stream in list(self._streams.values()):
                self.look_at(stream.check(now))
            self.look_at(self.answers.check(now))
            self.settle()
        else:
            self.lingers = False
            self.stop()

    def _lose_streams(self, reason: Failure) -> None:
        streams = list(self._streams.values())
        for stream in streams:
            stream.leave()
        for stream in streams:  # losing one stream may have effects on another
            stream.lost(reason)

    def settle(self) -> None:
        """Send all frames that wait; after the last ones, let the client read them, and close."""
        if self._busy:
            return
        self.flush()
        if self._leaving and not self._streams and self._state is OPEN:
            if self.lingers:
                self._state, self._due = LINGERING, self.site.seconds() + LINGER
            else:
                self._close()

    def _close(self) -> None:
        self._state, self._due = CLOSED, math.inf
        self.outgoing.full(self.site.seconds())
        self.transport.unregisterProducer()
        self.transport.loseConnection()

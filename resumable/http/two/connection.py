"""One HTTP/2 connection: its frames to its streams, and its end.

Changes when the rules do by which a connection is kept or closed. Invariants: a stream's request knows nothing of its
neighbours; a client is told how far it was understood before it is let go; nothing that it sends makes memory grow
beyond `limits`. Spec: RFC 9113.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.http.body import READ_AHEAD
from resumable.http.framing import Refused
from resumable.http.two.answers import Answers
from resumable.http.two.frames import Data, FrameReader, Violation, window_update
from resumable.http.two.head import head_of
from resumable.http.two.limits import CONNECTION_WINDOW, FRAME, RESET, Calm, Window
from resumable.http.two.machine import Machine
from resumable.http.two.site import Site
from resumable.http.two.stream import Stream

LINGER: Final = 2.0
"""Seconds for a client to read the last words before its connection is closed; closing at once could eat them."""
MAX_BACKLOG: Final = 256 << 10
"""Bytes that wait for a client which doesn't read, beside the bodies of its answers."""

_OPEN, _LINGERING, _CLOSED = range(3)


@implementer(IPushProducer)
class Connection(TwistedProtocol):
    """See the module, and `resumable.http.connections.Connection`.

    ``secure``: whether it is encrypted. ``lingers``: the client may be sending what nobody reads, so that closing at
    once would reset the connection.
    """

    transport: Any

    def __init__(self, site: Site) -> None:
        self.site = site
        self.machine = Machine()
        self.answers = Answers(self.flush, self._settle)
        self.deadline = math.inf
        self.lingers = self.secure = False
        self._reader = FrameReader()
        self._window = Window(CONNECTION_WINDOW)
        self._calm = Calm(site.seconds())
        self._streams: dict[int, Stream] = {}
        self._fresh: list[Stream] = []  # their heads came with the bytes being read
        self._updates: list[bytes] = []  # frames to be sent that the machine needn't know
        self._held = 0
        self._backlog = 0
        self._state = _OPEN
        self._leaving = False  # one side has said GOAWAY
        self._reading = True
        self._busy = False  # reading, further up the stack
        self._take: dict[type[events.Event], Callable[[Any], None]] = {
            events.RequestReceived: self._head_came,
            events.TrailersReceived: self._trailers_came,
            events.StreamReset: self._reset_came,
            events.WindowUpdated: lambda _: self.answers.pump(),
            events.RemoteSettingsChanged: self._settings_came,
            events.ConnectionTerminated: self._goaway_came,
            **dict.fromkeys(
                (
                    events.SettingsAcknowledged,
                    events.PingReceived,
                    events.PingAckReceived,
                    events.PriorityUpdated,
                    events.UnknownFrameReceived,
                ),
                lambda _: self._spend(FRAME),
            ),
        }

    def connectionMade(self) -> None:
        self.secure = ISSLTransport(self.transport, None) is not None
        self.deadline = self.site.seconds() + self.site.network_timeout
        self.transport.registerProducer(self, True)
        self.flush()
        self.site.connected(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._state, self.deadline = _CLOSED, math.inf
        try:
            self._lose_streams(reason)
        finally:
            self.site.held.forget(self)
            self.site.disconnected(self)

    # What comes

    def dataReceived(self, data: bytes) -> None:
        self.site.received += len(data)
        if self._state != _OPEN:
            return
        self._busy = True
        code = self._read(data)
        fresh, self._fresh = self._fresh, []
        if code is None:
            for stream in fresh:
                stream.begin()
        else:
            self._leaving = self.lingers = True
            self._lose_streams(Failure(ConnectionDone(f"the client broke HTTP/2: {code}")))
        self._busy = False
        self._settle()

    def _read(self, data: bytes) -> ErrorCodes | int | None:
        """Answers what the client was told to have done wrong, if anything."""
        try:
            for frame in self._reader.feed(data):
                if isinstance(frame, Data):
                    self._data_came(frame)
                else:
                    for event in self.machine.receive_data(frame):
                        if type(event) in self._take:
                            self._take[type(event)](event)
        except Violation as violation:
            self.machine.close_connection(violation.code)
            return violation.code
        except ProtocolError as error:  # the machine has said GOAWAY itself
            return error.error_code
        return None

    def _data_came(self, data: Data) -> None:
        self._window.take(data.size)
        stream = self._streams.get(data.stream)
        if not data.payload and not data.ends:
            self._spend(FRAME)
        if stream is not None:
            stream.arrived(data)
        elif data.stream > self.machine.highest_inbound_stream_id or data.stream % 2 == 0:
            raise Violation(ErrorCodes.PROTOCOL_ERROR)
        else:  # it was answered or given up while this was under way
            self._spend(FRAME)
            self.credit(0, self._window, data.size)

    def _head_came(self, event: events.RequestReceived) -> None:
        number = event.stream_id
        if self._leaving:  # it was told that this one would not be looked at
            self.machine.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        if not self._streams:
            self.deadline = math.inf
        ended = event.stream_ended is not None
        stream = self._streams[number] = Stream(self, number, ended)
        try:
            head = head_of(event.headers, ended)
            stream.accept(head)
        except Refused as refused:
            stream.refuse(refused, event.headers)
            return
        if head.length != 0:
            self.deadline = min(self.deadline, self.site.seconds() + self.site.network_timeout)
        self._fresh.append(stream)

    def _trailers_came(self, event: events.TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.ended(event.headers)

    def _reset_came(self, event: events.StreamReset) -> None:
        """The client's reset; or the machine's, for what the client did."""
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.lost(Failure(ConnectionDone("the client has given up this request")))
        self._spend(RESET)

    def _settings_came(self, event: events.RemoteSettingsChanged) -> None:
        self._spend(FRAME)
        self.machine.settings_changed()
        self.answers.pump()

    def _goaway_came(self, event: events.ConnectionTerminated) -> None:
        self._spend(FRAME)
        self._leaving = True

    def _spend(self, cost: int) -> None:
        self._calm.spend(cost, self.site.seconds())

    # For the transport, whose producer this is

    def pauseProducing(self) -> None:
        self.answers.choked = True

    def resumeProducing(self) -> None:
        self.answers.choked = False
        self._backlog = 0
        self.answers.pump()

    def stopProducing(self) -> None:
        """`connectionLost` follows."""

    # For the streams

    def flush(self) -> None:
        """Hand to the transport what there is to say."""
        data = self.machine.data_to_send()
        if self._updates:
            data += b"".join(self._updates)
            self._updates.clear()
        if not data or self._state == _CLOSED:
            return
        if self.answers.choked:
            self._backlog += len(data)
            if self._backlog > MAX_BACKLOG:
                self.abort()
                return
        self.transport.write(data)

    def credit(self, number: int, window: Window, size: int) -> None:
        """So many bytes of a window are free again; ``number`` is the stream's, or 0."""
        more = window.give(size)
        if more and self._state == _OPEN:
            self._updates.append(window_update(number, more))
            if not self._busy:
                self.flush()

    def took(self, size: int) -> None:
        """A stream has done with so many bytes."""
        self.credit(0, self._window, size)

    def hold(self, size: int) -> None:
        """So many more bytes of bodies wait in memory, or fewer."""
        self._held += size
        self.site.held.add(size)
        self.regulate()

    def linger(self) -> float:
        """Until when a client may go on to send what nobody needs."""
        until = self.site.seconds() + (min(self.site.linger, LINGER) if self._leaving else self.site.linger)
        self.deadline = min(self.deadline, until)
        return until

    def forget(self, stream: Stream) -> None:
        """It is over."""
        del self._streams[stream.number]
        self.answers.forget(stream)
        if not self._streams and self._state == _OPEN:
            self.deadline = self.site.seconds() + self.site.network_timeout

    def regulate(self) -> None:
        """Read on, unless all connections together hold too much, and this one has a part in it."""
        wanted = self._held <= READ_AHEAD or not self.site.held.full
        if not wanted:
            self.site.held.stopped(self)
        if wanted != self._reading and self._state != _CLOSED:
            self._reading = wanted
            if wanted:
                self.deadline = self.site.seconds() + self.site.network_timeout  # nobody was slow in the meantime
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # The end

    def stop(self) -> None:
        """Take no new requests; close when the last one is answered."""
        if self._state == _OPEN:
            idle = not self._streams
            self._leaving = True
            self.machine.close_connection()
            for stream in list(self._streams.values()):
                stream.call_off()
            self._settle()
            if idle:  # who doesn't answer the goodbye of TLS isn't waited for
                self.deadline = min(self.deadline, self.site.seconds() + LINGER)

    def abort(self) -> None:
        """Close at once, with a reset."""
        self._state, self.deadline = _CLOSED, math.inf
        self.transport.abortConnection()

    def expire(self, now: float) -> None:
        """`deadline` has passed."""
        if self._state == _CLOSED:
            self.abort()
        elif self._state == _LINGERING:
            self._close()
        elif not self._reading:
            self.deadline = now + self.site.network_timeout
        elif self._streams:
            checks = [stream.check(now) for stream in list(self._streams.values())]
            if self._streams:
                self.deadline = min((check for check in checks if check is not None), default=math.inf)
            self._settle()
        else:
            self.lingers = False
            self.stop()

    def _lose_streams(self, reason: Failure) -> None:
        streams = list(self._streams.values())
        for stream in streams:
            stream.leave()
        for stream in streams:  # what one of them sets off may reach another one
            stream.lost(reason)

    def _settle(self) -> None:
        """Say what is to be said; and where that was the last, let the client read it, and close."""
        if self._busy:
            return
        self.flush()
        if self._leaving and not self._streams and self._state == _OPEN:
            if self.lingers:
                self._state, self.deadline = _LINGERING, self.site.seconds() + LINGER
            else:
                self._close()

    def _close(self) -> None:
        self._state, self.deadline = _CLOSED, self.site.seconds() + self.site.network_timeout
        self.transport.unregisterProducer()
        self.transport.loseConnection()

"""The answers on one HTTP/2 connection: how each is sent, and how they share the connection.

Invariants: streams take turns; no producer works whose bytes would only wait, so that a client that reads slowly, or
not at all, costs a bounded amount of memory, and stops no other answer. Spec: RFC 9113 sections 5.2 and 6.9; the
priorities of section 5.3 are deprecated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from twisted.internet.interfaces import IPushProducer

from resumable.http.connections import UNREAD, TakingProgress
from resumable.http.h2.link import Http2Link

MAX_UNSENT: Final = 2 << 20
"""Bytes of answers in memory from which on no producer goes on. A `PIECE` of each stream may be among them for long."""
MAX_PRODUCED: Final = 1 << 20
"""Bytes that all producers share: each may bring a piece that then has to wait. None waits for another, as that may be
one that reads from far away: the more there are, the smaller are their pieces."""
TURN: Final = 65_536
"""Bytes that a stream sends before another one has its turn."""
PIECE: Final = 16_384
"""Bytes that a producer may bring at once, at least, and so what each unread answer may have in memory."""


class StreamAnswer:
    """The answer of one stream: the bytes of it that wait, and the producer that brings more.

    ``unsent``: bytes that wait for the client's windows, or for the transport. ``producing``: whether the producer may
    bring more.
    """

    def __init__(self, link: Http2Link, queue: AnswerQueue, number: int) -> None:
        self.number = number
        self.unsent = bytearray()
        self.producer: IPushProducer | None = None
        self.producing = False
        self._link = link
        self._queue = queue
        self._done = False  # the answer is complete, sent or not
        self._said = False  # and its end is sent
        self._over = False
        self._sent = 0
        self._progress = TakingProgress(link.site.network_timeout, link.site.min_rate)

    def send(self) -> int:
        """Send as much as the client's windows take, one turn at most. Returns how many bytes were sent."""
        machine, room = self._link.machine, 0
        if self.unsent:
            room = min(len(self.unsent), TURN, machine.local_flow_control_window(self.number))
        sent = 0
        while sent < room:
            frame = bytes(self.unsent[sent : min(room, sent + machine.max_outbound_frame_size)])
            sent += len(frame)
            self._said = self._done and sent == len(self.unsent)
            machine.send_data(self.number, frame, end_stream=self._said)
        del self.unsent[:sent]
        self._queue.went(sent)
        self._sent += sent
        if not self.unsent:
            self._progress.end()
        if self._done and not self.unsent:
            self._conclude()
        return sent

    @property
    def window(self) -> int:
        """How many bytes of this answer the client would take now."""
        known = self._link.machine.streams.get(self.number)
        return 0 if known is None else known.outbound_flow_control_window

    def shut_out(self) -> bool:
        """Whether the client takes no byte of this answer now. The time that it has for that begins."""
        if self.window > 0:
            self._progress.end()
            return False
        self._progress.begin(self._link.site.seconds(), self._sent)
        self._link.look_at(self._progress.deadline)
        return True

    def _wants_to_send(self) -> bool:
        return bool(self.unsent) or (self.producer is not None and not self.producing)

    # For the request

    @property
    def room(self) -> int:
        """Bytes of the answer that can be sent now, or a few more: the rest waits here."""
        if self._over:
            return PIECE
        return max(PIECE, min(self._queue.piece, self.window - len(self.unsent)))

    def write(self, data: bytes) -> None:
        """Send these bytes of the answer's body, or keep them until the client takes them."""
        if not self._over and not self._said:
            self.unsent += data
            self._queue.unsent += len(data)
            self._queue.pump(self)

    push = write

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """The same for several pieces."""
        self.write(b"".join(data))

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """The producer is resumed when its bytes can be sent."""
        assert streaming, "only push producers are used here"
        if self._over:
            producer.stopProducing()
            return
        self.producer = producer
        producer.pauseProducing()
        self._queue.may_produce(self)

    def unregisterProducer(self) -> None:
        """The producer has brought everything."""
        self.producer = None
        self._queue.produced(self)

    # The end

    def give_up(self) -> None:
        """The client doesn't take the answer: reset the stream."""
        self._link.site.cut_off(UNREAD, self._link.transport)
        self.abort()

    def abort(self) -> None:
        """Reset the stream: nobody waits for the end of this request any more."""
        raise NotImplementedError

    def _conclude(self) -> None:
        """All of the answer is sent."""
        raise NotImplementedError


class AnswerQueue:
    """The answers of all streams. ``unsent``: bytes of them that wait."""

    def __init__(self, link: Http2Link) -> None:
        self.unsent = 0
        self._link = link
        self._machine = link.machine
        self._sending: dict[int, StreamAnswer] = {}
        self._waiting: dict[int, StreamAnswer] = {}  # their producers may go on in this order
        self._producers: set[int] = set()  # streams that have one
        self._pumping = False
        self._sent = 0
        self._progress = TakingProgress(link.site.network_timeout, link.site.min_rate)

    def pump(self, stream: StreamAnswer | None = None) -> None:
        """Send as much as the windows and the transport take; ``stream`` has more to send, or is complete."""
        if stream is not None:
            self._sending[stream.number] = stream
        if self._pumping:
            return
        self._pumping = True
        while self._turn():
            pass
        self._pumping = False
        for each in self._sending.values():
            if each.producing and each.unsent:
                self._rest(each)
            if not self._link.choked:
                each.shut_out()
        self._let_produce()
        self._link.settle()

    def _turn(self) -> bool:
        """One turn for each stream; False when nothing more can be sent."""
        sent = 0
        for stream in list(self._sending.values()):
            if self._link.choked and stream.unsent:
                continue
            sent += stream.send()
            if not stream.unsent:
                self._sending.pop(stream.number, None)
                if stream.producer is not None and not stream.producing:
                    self._waiting[stream.number] = stream
            self._link.flush()
        return sent > 0

    @property
    def piece(self) -> int:
        """Bytes that a producer may bring at once."""
        return MAX_PRODUCED // max(1, len(self._producers))

    def went(self, size: int) -> None:
        """So many bytes were sent."""
        self.unsent -= size
        self._sent += size
        self._link.pace.sent(size)

    def _shut_out(self) -> bool:
        """Whether answers wait, and the client would take no byte of any."""
        return self._machine.outbound_flow_control_window <= 0 and bool(self._sending or self._waiting)

    def check(self, now: float) -> float:
        """Give up the answers if the client takes no byte of any. Returns when to look again, at the earliest."""
        if not self._shut_out():
            self._progress.end()
        elif self._progress.overdue(now, self._sent):
            for stream in [*self._sending.values(), *self._waiting.values()]:
                stream.give_up()
            self._progress.end()
        return self._progress.deadline

    def forget(self, stream: StreamAnswer) -> None:
        """The stream is over."""
        self._sending.pop(stream.number, None)
        self.produced(stream)

    # Producers

    def may_produce(self, stream: StreamAnswer) -> None:
        """The stream has a producer, which is paused."""
        self._producers.add(stream.number)
        self._waiting[stream.number] = stream
        self._let_produce()

    def produced(self, stream: StreamAnswer) -> None:
        """The stream has no producer any more."""
        self._waiting.pop(stream.number, None)
        self._producers.discard(stream.number)
        stream.producing = False

    def _rest(self, stream: StreamAnswer) -> None:
        stream.producing = False
        if stream.producer is not None:
            stream.producer.pauseProducing()

    def _let_produce(self) -> None:
        for stream in list(self._waiting.values()):
            if (
                self._link.choked
                or self._pumping
                or self.unsent >= MAX_UNSENT
                or self._machine.outbound_flow_control_window <= 0
            ):
                break
            if stream.number in self._waiting and not stream.shut_out():
                del self._waiting[stream.number]
                stream.producing = True
                if stream.producer is not None:
                    stream.producer.resumeProducing()
        if self._shut_out():
            self._progress.begin(self._link.site.seconds(), self._sent)
            self._link.look_at(self._progress.deadline)
        else:
            self._progress.end()

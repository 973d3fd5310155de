"""How the answers on one HTTP/2 connection share it.

Changes when the order does in which they are sent. Invariants: streams take turns; no producer works whose bytes would
only wait, so that a client that reads slowly, or not at all, costs a bounded amount of memory, and keeps none from the
answers beside it. Spec: RFC 9113 sections
5.2 and 6.9; its priorities (section 5.3) are history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from resumable.http.h2.machine import Http2Machine
from resumable.http.outgoing import TakingProgress

if TYPE_CHECKING:
    from resumable.http.h2.connection import Http2Connection
    from resumable.http.h2.stream import Http2Stream

MAX_UNSENT: Final = 2 << 20
"""Bytes of answers in memory from which on no producer goes on. A `PIECE` of each stream may be among them for long."""
MAX_PRODUCED: Final = 1 << 20
"""Bytes that all producers share: each may bring a piece that then has to wait. None waits for another, as that may be
one that reads from far away: the more there are, the smaller are their pieces."""


class AnswerQueue:
    """``choked``: the transport takes nothing for now. ``unsent``: bytes that wait, of all the streams."""

    def __init__(self, connection: Http2Connection, machine: Http2Machine) -> None:
        self.choked = False
        self.unsent = 0
        self._connection = connection
        self._machine = machine
        self._sending: dict[int, Http2Stream] = {}
        self._waiting: dict[int, Http2Stream] = {}  # their producers may go on in this order
        self._producers: set[int] = set()  # streams that have one
        self._pumping = False
        self._sent = 0
        self._progress = TakingProgress(connection.site.network_timeout, connection.site.min_rate)

    def pump(self, stream: Http2Stream | None = None) -> None:
        """Send what the windows and the transport take; ``stream`` has more to say, or has said all."""
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
            if not self.choked:
                each.shut_out()
        self._let_produce()
        self._connection.settle()

    def _turn(self) -> bool:
        """One turn for each stream; False when nothing more can be sent."""
        sent = 0
        for stream in list(self._sending.values()):
            if self.choked and stream.unsent:
                continue
            sent += stream.send()
            if not stream.unsent:
                self._sending.pop(stream.number, None)
                if stream.producer is not None and not stream.producing:
                    self._waiting[stream.number] = stream
            self._connection.flush()
        return sent > 0

    @property
    def piece(self) -> int:
        """Bytes that a producer may bring at once."""
        return MAX_PRODUCED // max(1, len(self._producers))

    def went(self, size: int) -> None:
        """So many bytes have gone."""
        self.unsent -= size
        self._sent += size
        self._connection.pace.sent(size)

    def _shut_out(self) -> bool:
        """Whether the client would take nothing of any answer, and there is one."""
        return self._machine.outbound_flow_control_window <= 0 and bool(self._sending or self._waiting)

    def check(self, now: float) -> float:
        """Give up the answers if nothing is taken of any. Answers when to look again, at the earliest."""
        if not self._shut_out():
            self._progress.end()
        elif self._progress.overdue(now, self._sent):
            for stream in [*self._sending.values(), *self._waiting.values()]:
                stream.give_up()
            self._progress.end()
        return self._progress.deadline

    def forget(self, stream: Http2Stream) -> None:
        """It is over."""
        self._sending.pop(stream.number, None)
        self.produced(stream)

    # Producers

    def may_produce(self, stream: Http2Stream) -> None:
        """It has a producer, which is paused."""
        self._producers.add(stream.number)
        self._waiting[stream.number] = stream
        self._let_produce()

    def produced(self, stream: Http2Stream) -> None:
        """It has none any more."""
        self._waiting.pop(stream.number, None)
        self._producers.discard(stream.number)
        stream.producing = False

    def _rest(self, stream: Http2Stream) -> None:
        stream.producing = False
        if stream.producer is not None:
            stream.producer.pauseProducing()

    def _let_produce(self) -> None:
        for stream in list(self._waiting.values()):
            if (
                self.choked
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
            self._progress.begin(self._connection.site.seconds(), self._sent)
            self._connection.look_at(self._progress.deadline)
        else:
            self._progress.end()

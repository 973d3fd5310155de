"""How the answers on one HTTP/2 connection share it.

Changes when the order does in which they are sent. Invariants: streams take turns; no producer works whose bytes would
only wait, so that a client that reads slowly, or not at all, costs a bounded amount of memory. Spec: RFC 9113 sections
5.2 and 6.9; its priorities (section 5.3) are history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from resumable.http.two.stream import Stream

MAX_UNSENT: Final = 1 << 20
"""Bytes of answers in memory from which on no producer goes on."""
MAX_PRODUCING: Final = 4
"""Producers that work at once: each may bring a chunk that then has to wait."""


class Answers:
    """``flush`` hands to the transport what is ready; ``settle`` is called when all was sent that could be.

    ``choked``: the transport takes nothing for now. ``unsent``: bytes that wait, of all the streams.
    """

    def __init__(self, flush: Callable[[], None], settle: Callable[[], None]) -> None:
        self.choked = False
        self.unsent = 0
        self._flush = flush
        self._settle = settle
        self._sending: dict[int, Stream] = {}
        self._waiting: dict[int, Stream] = {}  # their producers may go on in this order
        self._producing = 0
        self._pumping = False

    def pump(self, stream: Stream | None = None) -> None:
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
        self._let_produce()
        self._settle()

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
            self._flush()
        return sent > 0

    def forget(self, stream: Stream) -> None:
        """It is over."""
        self._sending.pop(stream.number, None)
        self.produced(stream)

    # Producers

    def may_produce(self, stream: Stream) -> None:
        """It has a producer, which is paused."""
        self._waiting[stream.number] = stream
        self._let_produce()

    def produced(self, stream: Stream) -> None:
        """It has none any more."""
        self._waiting.pop(stream.number, None)
        if stream.producing:
            stream.producing = False
            self._producing -= 1

    def _rest(self, stream: Stream) -> None:
        stream.producing = False
        self._producing -= 1
        if stream.producer is not None:
            stream.producer.pauseProducing()

    def _let_produce(self) -> None:
        while (
            self._waiting
            and not self.choked
            and not self._pumping
            and self.unsent < MAX_UNSENT
            and self._producing < MAX_PRODUCING
        ):
            stream = self._waiting.pop(next(iter(self._waiting)))
            stream.producing = True
            self._producing += 1
            if stream.producer is not None:
                stream.producer.resumeProducing()

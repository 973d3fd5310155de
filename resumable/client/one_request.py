"""One request of the blocking face, over h11 and a socket: a file goes by sendfile, answers are read while it goes.

Invariants: an informational response is never taken for the answer, and is told at once; an answer that comes before
all is sent is read, also when the server has closed the connection behind it; memory is flat.
Spec: RFC 9112; RFC 9110, 15.2.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import Final

import h11

from resumable.client.effects import TAIL, CutShort, Exchange, HttpReply, Lost
from resumable.client.exceptions import SourceChanged
from resumable.client.links import Interrupt
from resumable.client.pace import TokenBucket

AT_ONCE: Final = 4 << 20
"""Bytes that the kernel is given of a file in one call."""
BLOCK: Final = 256 << 10
"""Bytes that are read or received at once."""
KEPT: Final = 1 << 20
"""Bytes of an answer's content that are kept."""
ASK: Final = 1.0
"""Seconds between two questions whether to go on."""


class _Many:
    """Stands for so many bytes that `socket.sendfile` and others send past h11."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class OneRequest:
    """One request on its way."""

    def __init__(
        self,
        sock: socket.socket,
        conn: h11.Connection,
        is_plain: bool,
        timeout: float,
        bucket: TokenBucket | None,
        interrupt: Interrupt,
        exchange: Exchange,
    ) -> None:
        self._sock, self._conn, self._is_plain, self._timeout = sock, conn, is_plain, timeout
        self._bucket, self._interrupt, self._exchange = bucket, interrupt, exchange
        self._waiting = memoryview(b"")
        self._sent = 0
        self._size = exchange.body.size if exchange.body is not None else 0
        self._broken: OSError | None = None
        self._reply: HttpReply | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._content = bytearray()
        self.heard = False
        self._not_before = 0.0
        self._moved_at = monotonic()
        self._asked_at = monotonic()

    def result(self, head: bytes) -> HttpReply:
        """See `wire.Link.run`."""
        self._waiting = memoryview(head)
        self._head_left = len(head)
        if not self._size:
            self._end_of_request()
        while True:
            sending = self._reply is None and self._broken is None and (bool(self._waiting) or self._sent < self._size)
            ready = self._ready(sending)
            if ready & ~select.POLLOUT and self._receive():
                assert self._reply is not None
                return HttpReply(self._reply.status, self._reply.fields, bytes(self._content))
            if sending and self._reply is None and ready & select.POLLOUT:
                self._send()

    def _ready(self, sending: bool) -> int:
        now = monotonic()
        limit = self._moved_at + self._timeout
        events = select.POLLIN
        if sending:
            if self._not_before <= now:
                events |= select.POLLOUT
            else:
                limit = self._not_before
        elif self._not_before > now:
            events, limit = 0, self._not_before
        if self._exchange.may_go is not None and (sending or self._sink is not None):
            self._ask(now)
            limit = min(limit, now + ASK)
        ready = self._interrupt.ready(self._sock, events, limit - now)
        if not ready and monotonic() >= self._moved_at + self._timeout and self._not_before <= monotonic():
            raise Lost(f"nothing has moved for {self._timeout:g} s")
        return ready

    def _ask(self, now: float) -> None:
        assert self._exchange.may_go is not None
        if now - self._asked_at >= ASK:
            self._asked_at = now
            if (wait := self._exchange.may_go()) > 0:
                raise CutShort(wait)

    # -- sending

    def _send(self) -> None:
        try:
            if not self._waiting and self._sent < self._size:
                if self._is_plain and self._send_file():
                    return
                self._fill()
            if self._waiting:
                count = self._sock.send(self._waiting)
                self._waiting = self._waiting[count:]
                self._has_sent(count)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            if _wants(error):
                return
            self._broken = error  # there may be an answer all the same
            self._waiting = memoryview(b"")

    def _allowed(self, want: int) -> int:
        if self._bucket is None:
            return want
        granted, wait = self._bucket.take(want)
        if not granted:
            self._not_before = monotonic() + wait
            self._moved_at = self._not_before
        return granted

    def _send_file(self) -> bool:
        """True: something was sent, or mustn't be yet. False: there is no file."""
        body = self._exchange.body
        assert body is not None
        file = body.source.fileno()
        if file is None:
            return False
        if body.is_tail(self._sent + 1):
            return False  # these bytes are read, so that a look at the file after that holds for what is sent
        end = self._size - TAIL if body.before_last is not None else self._size
        want = self._allowed(min(AT_ONCE, end - self._sent))
        if want:
            sent = 0
            try:
                sent = os.sendfile(self._sock.fileno(), file, body.offset + self._sent, want)
                if not sent:
                    raise SourceChanged("the file is shorter than it was when it was begun", "")
            finally:
                if self._bucket is not None and sent < want:
                    self._bucket.give_back(want - sent)
            self._sent_content(sent)
        return True

    def _fill(self) -> None:
        body = self._exchange.body
        assert body is not None
        if want := self._allowed(min(BLOCK, self._size - self._sent)):
            block = body.read(self._sent, want)
            if not block:
                raise SourceChanged("the source is shorter than it was when it was begun", "")
            self._waiting = memoryview(block)

    def _has_sent(self, count: int) -> None:
        of_head = min(count, self._head_left)
        self._head_left -= of_head
        if of_head:
            self._moved_at = monotonic()
        if count > of_head:
            self._sent_content(count - of_head)

    def _sent_content(self, count: int) -> None:
        self._moved_at = monotonic()
        self._sent += count
        many: bytes = _Many(count)  # type: ignore[assignment]
        self._conn.send_with_data_passthrough(h11.Data(data=many))
        if self._sent == self._size:
            self._end_of_request()
        if self._exchange.moved is not None:
            self._exchange.moved(self._sent)

    def _spend(self, count: int) -> None:
        if self._bucket is not None and (wait := self._bucket.spend(count)) > 0:
            self._moved_at = self._not_before = monotonic() + wait

    def _end_of_request(self) -> None:
        self._conn.send(h11.EndOfMessage())

    # -- the answer

    def _receive(self) -> bool:
        """Take in what has come; True: the answer is whole."""
        while self._sink is None or self._not_before <= monotonic():
            self._interrupt.check()  # it may come faster than it is taken in, without an end
            if self._exchange.may_go is not None and self._sink is not None:
                self._ask(monotonic())
            try:
                data = self._sock.recv(BLOCK)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if _wants(error):
                    return False
                raise Lost(f"the connection is lost: {(self._broken or error).strerror or error}") from error
            self._moved_at = monotonic()
            self.heard = self.heard or bool(data)
            try:
                self._conn.receive_data(data)
                if self._take_events():
                    return True
            except h11.RemoteProtocolError as error:
                raise Lost(_no_answer(data, self._broken, error)) from error
            if not data:
                raise Lost(_no_answer(data, self._broken, None))
        return False

    def _take_events(self) -> bool:
        while True:
            event = self._conn.next_event()
            if isinstance(event, h11.InformationalResponse):
                if self._exchange.informed is not None:
                    self._exchange.informed(event.status_code, _reply(event))
            elif isinstance(event, h11.Response):
                self._reply = _reply(event)
                if self._exchange.accept is not None:
                    self._sink = self._exchange.accept(self._reply)
            elif isinstance(event, h11.Data):
                if self._sink is not None:
                    self._sink(bytes(event.data))
                    self._spend(len(event.data))
                elif len(self._content) < KEPT:
                    self._content += event.data[: KEPT - len(self._content)]
            else:  # EndOfMessage; or NEED_DATA, PAUSED, ConnectionClosed
                return isinstance(event, h11.EndOfMessage)


def _reply(event: h11.InformationalResponse | h11.Response) -> HttpReply:
    return HttpReply(
        event.status_code, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
    )


def _wants(error: OSError) -> bool:
    """Whether TLS only waits for the network."""
    import ssl

    return isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError)


def _no_answer(data: bytes, broken: OSError | None, error: Exception | None) -> str:
    if data and error is not None:
        return f"the answer is no HTTP/1.1: {error}"
    return f"the connection was closed without an answer{f' ({broken.strerror})' if broken else ''}"

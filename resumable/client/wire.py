"""Requests of the blocking face, over h11 and sockets: files go by sendfile, and answers are read while they go.

Invariants: an informational response is never taken for the answer, and is told at once; an answer that comes before
all is sent is read, also when the server has closed the connection behind it; memory is flat.
Spec: RFC 9112; RFC 9110, 15.2.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11

from resumable.client.effects import CutShort, Exchange, Lost, Reply
from resumable.client.failures import SourceChanged
from resumable.client.links import Connector, Interrupt, Origin, origin_of, proxy_fields
from resumable.client.pace import TokenBucket

if TYPE_CHECKING:
    pass

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


class Wire:
    """Connections of one client, used again where that is possible. May be used in several threads."""

    def __init__(self, connector: Connector, timeout: float, bucket: TokenBucket | None) -> None:
        self._connector, self._timeout, self._bucket = connector, timeout, bucket
        self._idle: list[tuple[Origin, Link]] = []
        self._lock = threading.Lock()

    def exchange(self, exchange: Exchange, interrupt: Interrupt) -> Reply:
        """The answer. Raises Lost, CutShort, NotTrusted, BadOption, SourceError, TransferCancelled."""
        origin = origin_of(exchange.url)
        link = self._take(origin)
        if link is not None:
            try:
                return self._over(link, exchange, origin, interrupt)
            except Lost:
                # The server has closed it while it was idle. What it may have done all the same doesn't harm: an
                # append at an offset that it has passed is refused. A creation isn't repeated.
                if link.heard or exchange.method == "POST":
                    raise
        link = Link(*self._connector.connect(exchange.url, interrupt), self._timeout, self._bucket)
        return self._over(link, exchange, origin, interrupt)

    def _over(self, link: Link, exchange: Exchange, origin: Origin, interrupt: Interrupt) -> Reply:
        try:
            reply = link.run(exchange, origin, interrupt)
        except BaseException:
            link.close()
            raise
        if link.again():
            with self._lock:
                self._idle.append((origin, link))
        else:
            link.close()
        return reply

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, link in idle:
            link.close()

    def _take(self, origin: Origin) -> Link | None:
        with self._lock:
            found = [each for each in self._idle if each[0] == origin]
            self._idle = [each for each in self._idle if each[0] != origin]
        usable = None
        for _, link in found:
            if usable is None and link.alive():
                usable = link
            else:
                link.close()
        return usable


class Link:
    """One connection. ``proxy``: whole URLs are sent to it."""

    def __init__(self, sock: socket.socket, proxy: str | None, timeout: float, bucket: TokenBucket | None) -> None:
        self._sock, self._proxy, self._timeout, self._bucket = sock, proxy, timeout, bucket
        self._conn = h11.Connection(h11.CLIENT)
        self._is_plain = type(sock) is socket.socket
        self.heard = False
        """Whether something of the last answer has come."""

    def alive(self) -> bool:
        """Whether the other side hasn't closed it, or said something unasked."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return not poll.poll(0)

    def again(self) -> bool:
        """Make it ready for the next request. False: it can't be used again."""
        if self._conn.our_state is not h11.DONE or self._conn.their_state is not h11.DONE:
            return False
        self._conn.start_next_cycle()
        return True

    def close(self) -> None:
        """Close it."""
        with suppress(OSError):
            self._sock.close()

    def run(self, exchange: Exchange, origin: Origin, interrupt: Interrupt) -> Reply:
        """Send the request, and answer its final answer. See `Wire.exchange`."""
        head = self._head(exchange, origin)
        run = _Run(self._sock, self._conn, self._is_plain, self._timeout, self._bucket, interrupt, exchange)
        try:
            return run.result(head)
        finally:
            self.heard = run.heard

    def _head(self, exchange: Exchange, origin: Origin) -> bytes:
        parts = urlsplit(exchange.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = [("Host", origin.authority), *exchange.fields]
        if self._proxy is not None:
            target = f"http://{origin.authority}{target}"
            fields += proxy_fields(self._proxy)
        if exchange.body is not None or exchange.method == "POST":
            fields.append(("Content-Length", str(exchange.body.size if exchange.body else 0)))
        try:
            request = h11.Request(method=exchange.method, target=target, headers=fields)
            return self._conn.send(request) or b""
        except h11.LocalProtocolError as error:
            raise Lost(f"the request can't be sent: {error}") from error


class _Run:
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
        self._reply: Reply | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._content = bytearray()
        self.heard = False
        self._not_before = 0.0
        self._moved_at = monotonic()
        self._asked_at = monotonic()

    def result(self, head: bytes) -> Reply:
        """See `Link.run`."""
        self._waiting = memoryview(head)
        self._head_left = len(head)
        if not self._size:
            self._end_of_request()
        while True:
            sending = self._reply is None and self._broken is None and (bool(self._waiting) or self._sent < self._size)
            ready = self._ready(sending)
            if ready & ~select.POLLOUT and self._receive():
                assert self._reply is not None
                return Reply(self._reply.status, self._reply.fields, bytes(self._content))
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
        want = self._allowed(min(AT_ONCE, self._size - self._sent))
        if want:
            sent = 0
            try:
                sent = os.sendfile(self._sock.fileno(), file, body.offset + self._sent, want)
                if not sent:
                    raise SourceChanged("the file is shorter than it was when it was begun: send it anew", "")
            finally:
                if self._bucket is not None and sent < want:
                    self._bucket.give_back(want - sent)
            self._sent_content(sent)
        return True

    def _fill(self) -> None:
        body = self._exchange.body
        assert body is not None
        if want := self._allowed(min(BLOCK, self._size - self._sent)):
            block = body.source.read(body.offset + self._sent, want)
            if not block:
                raise SourceChanged("the source is shorter than it was when it was begun: send it anew", "")
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


def _reply(event: h11.InformationalResponse | h11.Response) -> Reply:
    return Reply(
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

"""Connections of the blocking face, which are used again, and requests over them.

Invariant: a connection that the server has closed while it was idle costs nothing: the request goes out again, unless
it makes an upload. Spec: RFC 9112, 9.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

import h11

from resumable.client.effects import Exchange, HttpReply, Lost
from resumable.client.links import Connector, Interrupt, LinkOrigin, origin_of, proxy_fields
from resumable.client.one_request import OneRequest
from resumable.client.pace import TokenBucket


class Wire:
    """Connections of one client, used again where that is possible. May be used in several threads."""

    def __init__(self, connector: Connector, timeout: float, bucket: TokenBucket | None) -> None:
        self._connector, self._timeout, self._bucket = connector, timeout, bucket
        self._idle: list[tuple[LinkOrigin, Link]] = []
        self._lock = threading.Lock()

    def exchange(self, exchange: Exchange, interrupt: Interrupt) -> HttpReply:
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

    def _over(self, link: Link, exchange: Exchange, origin: LinkOrigin, interrupt: Interrupt) -> HttpReply:
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

    def _take(self, origin: LinkOrigin) -> Link | None:
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

    def run(self, exchange: Exchange, origin: LinkOrigin, interrupt: Interrupt) -> HttpReply:
        """Send the request, and answer its final answer. See `Wire.exchange`."""
        head = self._head(exchange, origin)
        run = OneRequest(self._sock, self._conn, self._is_plain, self._timeout, self._bucket, interrupt, exchange)
        try:
            return run.result(head)
        finally:
            self.heard = run.heard

    def _head(self, exchange: Exchange, origin: LinkOrigin) -> bytes:
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

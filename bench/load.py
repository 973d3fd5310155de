"""The load generator: a small HTTP/1.1 client on blocking sockets, cheap enough not to be what is measured.

Changes when requests are to be sent in another way. Invariant: an answer that is not the one expected raises, so no
figure is ever made of failures. Bodies are sent from a mapped file, which neither copies them
through Python nor holds the interpreter's lock; sendfile(2) from a tmpfs was tried and costs the receiver twice the
CPU, as it must gather single pages. Many small requests are in ``storm.py``. Follows RFC 9112 as far as is needed.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

HOST = "127.0.0.1"
OCTETS = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0"}
SEND_MAX = 1 << 20


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class LoadError(Exception):
    """A server did not do what it was asked to; the figure that was being measured does not exist."""


@dataclass(frozen=True)
class Answer:
    """A final response; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def expect(self, *statuses: int) -> Answer:
        """Return itself, or raise LoadError when the status is none of ``statuses``."""
        if self.status not in statuses:
            raise LoadError(f"answered {self.status}, not {' or '.join(map(str, statuses))}: {self.body[:200]!r}")
        return self


def head_of(method: str, path: str, headers: Mapping[str, str], spoken: Mapping[str, str] = TUS) -> bytes:
    """Return the bytes of a request's head; ``spoken`` are the fields of its protocol."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    lines += [f"{name}: {value}" for name, value in {**spoken, **headers}.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def secure(plain: socket.socket, protocol: str) -> ssl.SSLSocket:
    """Return it with TLS for "http/1.1" or "h2". The certificate is anyone's: this is about speed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    link = context.wrap_socket(plain)
    if link.selected_alpn_protocol() != protocol:
        raise LoadError(f"{protocol} was not agreed upon")
    return link


class Connection:
    """One connection to a server on this machine, used for one request after the other.

    ``timeout`` (seconds) bounds each wait for the peer. It is set in the kernel and not by ``settimeout``, which would
    make the socket non-blocking and cost a poll for each send.
    """

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self.sock = socket.create_connection((HOST, port), timeout=timeout)
        self.sock.settimeout(None)
        bound = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def secure(self) -> None:
        """Go on over TLS, from before the first request."""
        self.sock = secure(self.sock, "http/1.1")

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send all of ``data``; LoadError when the peer is gone or stuck."""
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise LoadError(f"sending failed: {error}") from error

    def send_from(self, view: memoryview, size: int, start: int = 0) -> None:
        """Send ``size`` bytes of what is viewed, from ``start`` on, going round to its beginning where it ends."""
        try:
            while size > 0:
                at = start % len(view)
                sent = self.sock.send(view[at : at + min(size, SEND_MAX)])
                start, size = start + sent, size - sent
        except OSError as error:
            raise LoadError(f"sending failed with {size} bytes to go: {error}") from error

    def answered(self) -> bool:
        """Tell whether something has come from the peer, an answer or its going away."""
        return bool(self._rest or select.select([self.sock], [], [], 0)[0])

    def answer(self, method: str = "") -> Answer:
        """Wait for the final response to the request sent last, which had that method."""
        while True:
            head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            status = int(head[0].split(" ", 2)[1])
            if status >= 200:
                break
        headers = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in head[1:])}
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        else:
            body = self._exactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Send a request and return its answer."""
        sized = {**headers, "Content-Length": str(len(body))} if body or method in ("POST", "PATCH") else headers
        self.send(head_of(method, path, sized) + body)
        return self.answer(method)

    def _more(self) -> None:
        try:
            data = self.sock.recv(1 << 16)
        except OSError as error:
            raise LoadError(f"no answer: {error}") from error
        if not data:
            raise LoadError("the connection was closed before the answer")
        self._rest += data

    def _until(self, end: bytes) -> bytes:
        while end not in self._rest:
            self._more()
        found, _, self._rest = self._rest.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._more()
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n").partition(b";")[0], 16):
            body += self._exactly(size)
            self._until(b"\r\n")
        while self._until(b"\r\n"):
            pass
        return body


def create(connection: Connection, root: str, length: int, body: bytes = b"") -> str:
    """Create an upload of ``length`` bytes, with ``body`` as its first bytes, and return its path."""
    headers = {"Upload-Length": str(length), **({"Content-Type": OCTETS} if body else {})}
    answer = connection.ask("POST", root, headers, body).expect(201)
    return path_of(answer.headers["location"])


def path_of(location: str) -> str:
    """Return the path of a Location, absolute or not."""
    return urlsplit(location).path


def offset_of(connection: Connection, path: str) -> int:
    """Ask by HEAD for an upload's offset (bytes)."""
    return int(connection.ask("HEAD", path, {}).expect(200, 204).headers["upload-offset"])


def patch_head(path: str, offset: int, length: int) -> bytes:
    """Return the head of a PATCH that announces ``length`` bytes at ``offset``."""
    headers = {"Upload-Offset": str(offset), "Content-Type": OCTETS, "Content-Length": str(length)}
    return head_of("PATCH", path, headers)

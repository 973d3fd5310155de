"""Connections to servers for the blocking face: TCP, TLS, and proxies on the way.

Invariants: nothing here waits longer than its time limit, and everything ends soon when it is interrupted; a server
whose certificate can't be verified is never spoken to, unless that was asked for.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import h11
from attrs import frozen

from resumable.client.effects import Lost
from resumable.client.exceptions import BadOption, NotTrusted, TransferCancelled

if TYPE_CHECKING:
    import ssl

PORTS: Final = {"http": 80, "https": 443}


class Interrupt:
    """Ends what blocks, in any thread. One may be a part of another, and ends with it."""

    def __init__(self, whole: Interrupt | None = None) -> None:
        self._read, self._write = os.pipe()
        self._lock = threading.Lock()
        self._parts: set[Interrupt] = set()
        self._whole = whole
        self.is_set = False
        self.abandon: Callable[[], None] = lambda: None
        """Ends work that goes on in this process."""
        if whole is not None:
            with whole._lock:
                whole._parts.add(self)
            if whole.is_set:
                self.set()

    def set(self) -> None:
        """End it. May be repeated, and called in a handler of signals."""
        self.is_set = True
        with suppress(OSError):
            os.write(self._write, b"x")
        self.abandon()
        for part in list(self._parts):
            part.set()

    def check(self) -> None:
        """Raises TransferCancelled."""
        if self.is_set:
            raise TransferCancelled("the transfer was cancelled; the same call goes on where it ended")

    def wait(self, seconds: float) -> None:
        """Sleep so long. Raises TransferCancelled."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self.check()
            select.select([self._read] if self._read < 1024 else [], [], [], min(left, 3600.0))
        self.check()

    def ready(self, sock: socket.socket, events: int, seconds: float) -> int:
        """Which of these events of the socket have come, within so many seconds. Raises TransferCancelled."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        poll.register(sock, events)
        found = dict(poll.poll(max(0.0, seconds) * 1000))
        self.check()
        return found.get(sock.fileno(), 0)

    def close(self) -> None:
        """It isn't used any more."""
        if self._whole is not None:
            with self._whole._lock:
                self._whole._parts.discard(self)
        self._whole = None
        os.close(self._read)
        os.close(self._write)


@frozen
class LinkOrigin:
    """Where a URL leads."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """For the Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def origin_of(url: str) -> LinkOrigin:
    """The origin of an address of http or https."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    with suppress(UnicodeError):
        host = host.encode("idna").decode() if not host.isascii() else host
    return LinkOrigin(parts.scheme, host, parts.port or PORTS[parts.scheme])


def proxy_of(url: str, given: str | None) -> str | None:
    """The proxy for a URL: the one given, or the environment's; None: there is none. Raises BadOption."""
    if given is None:
        if not any(name.lower().endswith("_proxy") for name in os.environ):
            return None
        from urllib.request import getproxies_environment, proxy_bypass

        parts = urlsplit(url)
        found = getproxies_environment()
        given = found.get(parts.scheme) or found.get("all")
        if not given or proxy_bypass(parts.netloc.rpartition("@")[2]):
            return None
    if not given:
        return None
    proxy = given if "://" in given else f"http://{given}"
    if urlsplit(proxy).scheme != "http" or not urlsplit(proxy).hostname:
        raise BadOption(f"{given!r} is no HTTP proxy: write http://HOST:PORT")
    return proxy


def tls_context(ca_file: str | os.PathLike[str] | None, insecure: bool) -> ssl.SSLContext:
    """How servers are verified. Raises BadOption."""
    import ssl

    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else os.fspath(ca_file))
    except (OSError, ValueError) as error:
        raise BadOption(f"the certificates in {ca_file} can't be read: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Connector:
    """Makes connections. ``context`` is asked for once TLS is needed."""

    def __init__(self, timeout: float, proxy: str | None, context: Callable[[], ssl.SSLContext]) -> None:
        self._timeout, self._proxy, self._context = timeout, proxy, context

    def connect(self, url: str, interrupt: Interrupt) -> tuple[socket.socket, str | None]:
        """A non-blocking connection that leads to this URL, and the proxy to which whole URLs are sent, if any. Raises
        Lost, NotTrusted, BadOption, TransferCancelled."""
        origin, proxy = origin_of(url), proxy_of(url, self._proxy)
        if proxy is None:
            sock = self._open(origin.host, origin.port, interrupt)
        else:
            parts = urlsplit(proxy)
            sock = self._open(parts.hostname or "", parts.port or 80, interrupt)
        try:
            if origin.scheme == "https":
                if proxy is not None:
                    self._tunnel(sock, origin, proxy, interrupt)
                return self._secured(sock, origin, interrupt), None
            return sock, proxy
        except BaseException:
            sock.close()
            raise

    def _open(self, host: str, port: int, interrupt: Interrupt) -> socket.socket:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Lost(f"the name {host} isn't found: {getattr(error, 'strerror', None) or error}") from error
        trouble: Lost | None = None
        for family, kind, number, _, address in found:
            sock = socket.socket(family, kind, number)
            try:
                sock.setblocking(False)
                with suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                code = sock.connect_ex(address)
                if code == errno.EINPROGRESS:
                    if not interrupt.ready(sock, select.POLLOUT, self._timeout):
                        raise TimeoutError(errno.ETIMEDOUT, f"no connection within {self._timeout:g} s")
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                return sock
            except OSError as error:
                sock.close()
                trouble = Lost(f"{host} at port {port} isn't reached: {error.strerror or error}")
            except BaseException:
                sock.close()
                raise
        raise trouble or Lost(f"the name {host} has no address")

    def _secured(self, sock: socket.socket, origin: LinkOrigin, interrupt: Interrupt) -> socket.socket:
        import ssl

        until = monotonic() + self._timeout
        tls = self._context().wrap_socket(sock, server_hostname=origin.host, do_handshake_on_connect=False)
        try:
            while True:
                try:
                    tls.do_handshake()
                    return tls
                except ssl.SSLWantReadError:
                    wanted = select.POLLIN
                except ssl.SSLWantWriteError:
                    wanted = select.POLLOUT
                if not interrupt.ready(tls, wanted, until - monotonic()):
                    raise Lost(f"{origin.host} doesn't answer the TLS handshake within {self._timeout:g} s")
        except ssl.SSLCertVerificationError as error:
            tls.close()
            raise NotTrusted(
                f"the certificate of {origin.authority} isn't trusted: {error.verify_message}; for an authority of "
                "your own give its certificate (ca_file)"
            ) from error
        except (ssl.SSLError, OSError) as error:
            tls.close()
            if getattr(error, "reason", None) in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
                raise NotTrusted(f"{origin.authority} doesn't speak TLS: is it http:// there?") from error
            raise Lost(f"no secure connection to {origin.authority}: {error.strerror or error}") from error
        except BaseException:
            tls.close()
            raise

    def _tunnel(self, sock: socket.socket, origin: LinkOrigin, proxy: str, interrupt: Interrupt) -> None:
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        target = f"{host}:{origin.port}"
        conn = h11.Connection(h11.CLIENT)
        fields = [("Host", target), *proxy_fields(proxy)]
        waiting = conn.send(h11.Request(method="CONNECT", target=target, headers=fields)) or b""
        until = monotonic() + self._timeout
        try:
            while True:
                event = conn.next_event()
                if isinstance(event, h11.Response):
                    if event.status_code != 200:
                        raise Lost(f"the proxy answers {event.status_code} to the way to {target}")
                    return
                if event is not h11.NEED_DATA:
                    continue
                ready = interrupt.ready(sock, select.POLLOUT if waiting else select.POLLIN, until - monotonic())
                if not ready:
                    raise Lost(f"the proxy doesn't answer within {self._timeout:g} s")
                if waiting:
                    waiting = waiting[sock.send(waiting) :]
                else:
                    conn.receive_data(sock.recv(65536))
        except (OSError, h11.RemoteProtocolError) as error:
            raise Lost(f"the proxy ends the connection: {error}") from error


def proxy_fields(proxy: str) -> list[tuple[str, str]]:
    """What a proxy wants to know of us."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return []
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return [("Proxy-Authorization", "Basic " + b64encode(user.encode()).decode())]

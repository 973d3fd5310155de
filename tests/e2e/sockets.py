"""A daemon at every kind of socket at once: systemd's, TLS, unix, and behind the PROXY protocol.

The test's process plays systemd: it makes sockets, hands them over, keeps them, and is told how the daemon is.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from tests.certificates import laptop

from .daemon import BOUND, Daemon, free_port
from .tus import Tus, pattern
from .wire import Wire

# What systemd does between fork and exec: sockets become 3, 4, ..., LISTEN_PID the id that the process keeps.
HAND_OVER = """
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",")]
for place, fd in enumerate(high, 3):
    os.dup2(fd, place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES="web:door")
os.execvp(sys.argv[2], sys.argv[2:])
"""
CLIENT = "127.0.0.5"
"""Where clients of HAProxy come from; HAProxy itself is at 127.0.0.1, the only proxy that is trusted."""


class Line(Wire):
    """A connection that somebody else has made."""

    def __init__(self, link: socket.socket) -> None:
        link.settimeout(BOUND)
        self.socket = link
        self._buffer = b""


class Through(Tus):
    """A client whose connections ``connect`` makes."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        super().__init__(0)
        self._connect = connect

    def wire(self) -> Wire:
        return Line(self._connect())


class Systemd:
    """The sockets that it keeps, and what it was told."""

    def __init__(self, home: Path) -> None:
        self.web = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.web.getsockname()[1]
        self.path = home / "door.sock"
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(str(self.path))
        self.door.listen(128)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.notify.bind(f"{home}/notify")
        self.told: list[str] = []

    def hear(self) -> bool:
        """Read what has come. The socket has room for a few messages; what comes when it is full is lost."""
        with suppress(BlockingIOError):
            while True:
                self.told += self.notify.recv(4096).decode().split("\n")
        return True

    def has_told(self, *lines: str) -> bool:
        """Whether these have come, in this order; what was told is forgotten then."""
        self.hear()
        rest = iter(self.told)
        if all(line in rest for line in lines):
            self.told.clear()
            return True
        return False

    def close(self) -> None:
        for each in (self.web, self.door, self.notify):
            each.close()


class Scene:
    """The daemon and its ports."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        home = daemon.home
        self.systemd = Systemd(home)
        self.tls, self.proxied, self.proxied_tls = free_port(), free_port(), free_port()
        self.unix = home / "http.sock"
        self.pem = home / "server.pem"
        self.certificate = laptop().both
        self.pem.write_bytes(self.certificate)
        files = f"privateKey={self.pem}:certKey={self.pem}"
        endpoints = (
            "systemd:domain=INET:name=web",
            "systemd:domain=UNIX:index=1",
            f"ssl:{self.tls}:interface=127.0.0.1:{files}",
            f"haproxy:tcp:{self.proxied}:interface=127.0.0.1",
            f"haproxy:ssl:{self.proxied_tls}:interface=127.0.0.1:{files}",
            f"unix:{self.unix}:mode=660",
        )
        listen = tuple(word for each in endpoints for word in ("--listen", each))
        daemon.flags = ("--behind-proxy", "127.0.0.1", "--access-log", "info", *listen)
        daemon.env = {"NOTIFY_SOCKET": f"{home}/notify", "WATCHDOG_USEC": "600000"}
        daemon.descriptors = (self.systemd.web.fileno(), self.systemd.door.fileno())
        daemon.wrapper = [sys.executable, "-c", HAND_OVER, ",".join(map(str, daemon.descriptors))]

    def client(self, connect: Callable[[], socket.socket]) -> Tus:
        return self.daemon.attach(Through(connect))

    def shown(self) -> bytes:
        """The certificate that a new connection is shown."""
        with closing(tls_at(self.tls)) as link:
            return link.getpeercert(binary_form=True) or b""


def tls_at(port: int, protocols: Sequence[str] = (), source: str = "127.0.0.1") -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    link = socket.create_connection(("127.0.0.1", port), timeout=BOUND, source_address=(source, 0))
    return context.wrap_socket(link)


def unix_at(path: Path) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(BOUND)
    link.connect(str(path))
    return link


def upload_and_read(tus: Tus) -> None:
    data = pattern(300_000, seed=7)
    path = tus.create(len(data), None, data[:100_000])
    tus.finish(path, data)
    assert tus.content(path) == data

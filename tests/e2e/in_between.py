"""Something between a client and a server: it refuses long requests, loses answers, and passes everything else on."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class InBetween:
    """``most``: bytes that a request may have; ``loses``: how many answers to PATCH are lost from now on."""

    def __init__(self, port: int, most: int | None = None) -> None:
        self._port, self.most, self.loses = port, most, 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        """Where uploads are created."""
        return f"http://127.0.0.1:{self.port}/files/"

    def close(self) -> None:
        """End all."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for each in (self._listening, *self._sockets):
            each.close()

    @staticmethod
    def _start(call: Callable[[], None]) -> None:
        threading.Thread(target=call, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._sockets.append(client)
                self._start(lambda client=client: self._talk(client))  # type: ignore[misc]

    def _talk(self, client: socket.socket) -> None:
        """One request for each connection: the server is asked to close it."""
        with suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                block = client.recv(1 << 16)
                if not block:
                    return
                head += block
            head, _, rest = head.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            if self.most is not None and size > self.most:
                client.sendall(
                    b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                return
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                server.sendall(head + b"\r\nConnection: close\r\n\r\n" + rest)
                left = size - len(rest)
                while left and (block := client.recv(min(left, 1 << 16))):
                    server.sendall(block)
                    left -= len(block)
                lost = head.startswith(b"PATCH") and self.loses > 0
                self.loses -= lost
                while block := server.recv(1 << 16):
                    if not lost:
                        client.sendall(block)


@contextmanager
def in_between(port: int, most: int | None = None) -> Iterator[InBetween]:
    """One before the server at this port."""
    it = InBetween(port, most)
    try:
        yield it
    finally:
        it.close()

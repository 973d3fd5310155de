"""A server of raw sockets, which does to each connection what a test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Conversation = Callable[[socket.socket], None]


class RawServer:
    """``conversations``: one for each connection, in order; each runs in a thread. ``heard``: the heads of requests."""

    def __init__(self, *conversations: Conversation) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.heard: list[bytes] = []
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._serve, args=(conversations,), daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/files/"

    def _serve(self, conversations: tuple[Conversation, ...]) -> None:
        for conversation in conversations:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(conversation, connection), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, conversation: Conversation, connection: socket.socket) -> None:
        with connection:
            try:
                conversation(connection)
            except ConnectionError:
                pass  # the client has gone
            except BaseException as error:
                self.errors.append(error)

    def close(self) -> None:
        """Stop, and wait for the threads."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(10)
        assert self.errors == []

    def head(self, connection: socket.socket) -> bytes:
        """The head of the next request; what follows it is lost, but for a request without content there is nothing."""
        data = b""
        while b"\r\n\r\n" not in data:
            block = connection.recv(1) if len(data) > 20 else connection.recv(20)
            if not block:
                raise ConnectionResetError
            data += block
        self.heard.append(data)
        return data


@contextmanager
def raw_server(*conversations: Callable[[RawServer, socket.socket], None]) -> Iterator[RawServer]:
    """A server whose connections go so."""
    servers: list[RawServer] = []

    def bound(conversation: Callable[[RawServer, socket.socket], None]) -> Conversation:
        return lambda connection: conversation(servers[0], connection)

    servers.append(RawServer(*map(bound, conversations)))
    try:
        yield servers[0]
    finally:
        servers[0].close()


def received(connection: socket.socket, count: int) -> bytes:
    """So many bytes."""
    data = bytearray()
    while len(data) < count:
        block = connection.recv(min(1 << 16, count - len(data)))
        if not block:
            raise ConnectionResetError
        data += block
    return bytes(data)

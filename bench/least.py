"""The same work by the least program that can do it: what can be hoped for on this machine.

Changes when another kind of work is measured. Invariant: what is acknowledged is as durable as with resumable (the file
synced, then a row committed), and nothing else is done: no request is checked, and no upload is taken up again.

``python -m bench.least PORT DIRECTORY [tls PORT KEY] [store URL BUCKET]``. One thread with epoll for requests and small
bodies, a row for each in one transaction for all that are ready at once; for each longer body a thread that moves it by
splice(2), or decrypts it into a buffer. With a store, a long body is sent on in parts as it comes.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import re
import select
import socket
import sqlite3
import ssl
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from bench.load import HOST
from bench.parts import Parts, Store

READ = 1 << 16
LONG = 1 << 20
"""From this size on a body gets a thread; it is the size of the pipe and of the buffer as well."""
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CREATED = "HTTP/1.1 201 Created\r\nLocation: /files/{}\r\nContent-Length: 0\r\n\r\n"
DONE = b"HTTP/1.1 204 No Content\r\n\r\n"


class Least:
    """The server, and its catalog in the directory."""

    def __init__(self, directory: Path, store: Store | None) -> None:
        self.directory, self.store, self.names = directory, store, itertools.count()
        self.catalog = sqlite3.connect(directory / "catalog", isolation_level=None, check_same_thread=False)
        self.catalog.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        self.catalog.execute("CREATE TABLE uploads (name TEXT PRIMARY KEY, offset INTEGER)")
        self.lock, self.poller = threading.Lock(), select.epoll()

    def commit(self, rows: Iterable[tuple[str, int]]) -> None:
        with self.lock:
            self.catalog.execute("BEGIN")
            self.catalog.executemany("INSERT OR REPLACE INTO uploads VALUES (?, ?)", rows)
            self.catalog.execute("COMMIT")

    def serve(self, port: int) -> None:
        """Serve until killed."""
        listener = socket.create_server((HOST, port), backlog=512)
        clients: dict[int, tuple[socket.socket, bytearray]] = {}
        self.poller.register(listener, select.EPOLLIN)
        while True:
            rows: list[tuple[str, int]] = []
            answers: list[tuple[socket.socket, bytes]] = []
            for fd, _ in self.poller.poll():
                if fd == listener.fileno():
                    sock, _ = listener.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    clients[sock.fileno()] = sock, bytearray()
                    self.poller.register(sock, select.EPOLLIN)
                    continue
                sock, heard = clients[fd]
                if data := sock.recv(READ):
                    heard += data
                    self.take(sock, heard, rows, answers)
                else:
                    self.poller.unregister(fd)
                    clients.pop(fd)[0].close()
            if rows:
                self.commit(rows)
            for sock, answer in answers:
                sock.sendall(answer)

    def take(
        self,
        sock: socket.socket,
        heard: bytearray,
        rows: list[tuple[str, int]],
        answers: list[tuple[socket.socket, bytes]],
    ) -> None:
        """Do what a request asks for once all of it was heard; the row and the answer are to follow."""
        end = heard.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        name, size = _asked(heard[:end])
        if size >= LONG:
            self.poller.unregister(sock)
            threading.Thread(target=self.splice, args=(sock, name, bytes(heard[end:]), size)).start()
            heard.clear()
        elif len(heard) - end >= size:
            if heard.startswith(b"POST"):
                name = str(next(self.names))
                answers.append((sock, CREATED.format(name).encode()))
            else:
                answers.append((sock, DONE))
            if not heard.startswith(b"OPTIONS"):
                self.keep(name, bytes(heard[end:]))
                rows.append((name, size))
            heard.clear()

    def keep(self, name: str, body: bytes) -> None:
        """Write and sync a small body, and send it on."""
        fd = os.open(self.directory / name, os.O_WRONLY | os.O_CREAT)
        if body:
            os.write(fd, body)
            os.fdatasync(fd)
            if self.store:
                self.store.put(name, body)
        os.close(fd)

    def splice(self, sock: socket.socket, name: str, first: bytes, size: int) -> None:
        """Move a body from the socket into its file, answer, and give the socket back."""
        fd = os.open(self.directory / name, os.O_RDWR)
        parts = Parts(self.store, name, fd) if self.store else None
        at = os.write(fd, first)
        source, sink = os.pipe()
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, LONG)
        while at < size:
            left = os.splice(sock.fileno(), sink, min(LONG, size - at))
            while left:
                moved = os.splice(source, fd, left, offset_dst=at)
                left, at = left - moved, at + moved
            if parts:
                parts.reach(at)
        os.fdatasync(fd)
        self.commit([(name, size)])
        sock.sendall(DONE)
        if parts:
            parts.reach(size, last=True)
            parts.complete()
        for each in (source, sink, fd):
            os.close(each)
        self.poller.register(sock, select.EPOLLIN)

    def secured(self, port: int, key: str) -> None:
        """Serve one PATCH after the other over TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(key)
        context.set_alpn_protocols(["http/1.1"])
        listener = socket.create_server((HOST, port))
        while True:
            with context.wrap_socket(listener.accept()[0], server_side=True) as sock:
                self.decrypt(sock)

    def decrypt(self, sock: socket.socket) -> None:
        """Read a PATCH into its file, a full buffer at a time, and answer."""
        heard = b""
        while b"\r\n\r\n" not in heard:
            heard += sock.recv(READ)
        head, _, first = heard.partition(b"\r\n\r\n")
        name, size = _asked(head)
        fd = os.open(self.directory / name, os.O_WRONLY)
        at, buffer = os.write(fd, first), memoryview(mmap.mmap(-1, LONG))
        while at < size:
            full = 0
            while full < min(LONG, size - at):
                full += sock.recv_into(buffer[full:])
            at += os.write(fd, buffer[:full])
        os.fdatasync(fd)
        os.close(fd)
        self.commit([(name, size)])
        sock.sendall(DONE)


def _asked(head: bytes | bytearray) -> tuple[str, int]:
    """The last segment of a request's path, and the size of its body."""
    length = LENGTH.search(head)
    return head.split(b" ", 2)[1].rpartition(b"/")[2].decode(), int(length[1]) if length else 0


def main() -> None:
    port, directory, *more = sys.argv[1:]
    said = {kind: more[at + 1 : at + 3] for at, kind in enumerate(more) if kind in ("tls", "store")}
    least = Least(Path(directory), Store(*said["store"]) if "store" in said else None)
    if "tls" in said:
        threading.Thread(target=least.secured, args=(int(said["tls"][0]), said["tls"][1]), daemon=True).start()
    least.serve(int(port))


if __name__ == "__main__":
    main()

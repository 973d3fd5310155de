"""A server that answers every request and keeps nothing: what it gets is the most that the load generator can give.

Changes when the calibration needs another request answered. Invariant: it does no work that could be left out, so it is
no tus server. One thread, epoll, HTTP/1.1 with Content-Length only. Run as ``python -m bench.null PORT``.
"""

from __future__ import annotations

import mmap
import re
import select
import socket
import sys

from bench.load import HOST

READ = 1 << 20
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CREATED = b"HTTP/1.1 201 Created\r\nLocation: /files/x\r\nUpload-Offset: 0\r\nContent-Length: 0\r\n\r\n"
OTHER = b"HTTP/1.1 204 No Content\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n\r\n"


class Client:
    """One connection: the head that is not complete yet, the bytes of the body to come, the answer they will get."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.head, self.left, self.reply = sock, b"", 0, OTHER

    def feed(self, data: memoryview) -> None:
        """Take what arrived (one request at a time, as the load generator sends them)."""
        if self.left == 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = LENGTH.search(self.head, 0, end + 2)
            self.left = int(length[1]) if length else 0
            self.left -= len(self.head) - end - 4
            self.reply = CREATED if self.head.startswith(b"POST") else OTHER
            self.head = b""
        else:
            self.left -= len(data)
        if self.left <= 0:
            self.left = 0
            self.sock.sendall(self.reply)


def serve(port: int) -> None:
    """Serve until killed."""
    listener = socket.create_server((HOST, port), backlog=512)
    clients: dict[int, Client] = {}
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    # Aligned to a page: into a bytearray, 16 bytes past a page, the kernel copies at a third of the speed.
    buffer = memoryview(mmap.mmap(-1, READ))
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                clients[sock.fileno()] = Client(sock)
                poller.register(sock, select.EPOLLIN)
                continue
            client = clients[fd]
            try:
                got = client.sock.recv_into(buffer)
                if got:
                    client.feed(buffer[:got])
                    continue
            except OSError:
                pass
            poller.unregister(fd)
            clients.pop(fd).sock.close()


if __name__ == "__main__":
    serve(int(sys.argv[1]))

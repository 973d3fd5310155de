"""A network link between two sockets of this machine: ``python -m bench.link LISTEN TARGET SECONDS RATE``.

Changes when another kind of link is wanted. Invariant: no byte arrives sooner than SECONDS after it was sent, nor more
than RATE bytes in a second, in either direction; no more is under way than a link of twice that length would hold.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time

CHUNK = 65_536


class Direction:
    """One way from ``source`` to ``target``."""

    def __init__(self, source: socket.socket, target: socket.socket, delay: float, rate: float) -> None:
        self.source, self.target, self.delay, self.rate = source, target, delay, rate
        self.line: queue.Queue[tuple[float, bytes]] = queue.Queue(int(2 * delay * rate / CHUNK) + 64)
        for work in (self.take, self.bring):
            threading.Thread(target=work, daemon=True).start()

    def take(self) -> None:
        """Put on the line what comes, as fast as the line takes it."""
        free = 0.0
        data = b"-"
        while data:
            try:
                data = self.source.recv(CHUNK)
            except OSError:
                data = b""
            free = max(free, time.monotonic()) + len(data) / self.rate
            time.sleep(max(0.0, free - time.monotonic()))
            self.line.put((free + self.delay, data))

    def bring(self) -> None:
        """Hand over what has been under way long enough."""
        with contextlib.suppress(OSError):
            while True:
                due, data = self.line.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    self.target.shutdown(socket.SHUT_WR)
                    return
                self.target.sendall(data)


def serve(listen: int, target: int, delay: float, rate: float) -> None:
    """Carry each connection to 127.0.0.1:``listen`` on to 127.0.0.1:``target``, until the process is ended."""
    with socket.create_server(("127.0.0.1", listen)) as server:
        while True:
            client, _ = server.accept()
            behind = socket.create_connection(("127.0.0.1", target))
            for each in (client, behind):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Direction(client, behind, delay, rate)
            Direction(behind, client, delay, rate)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))

"""What watchers cost: ``python -m bench.watchers [WATCHERS] [UPLOADS] [SECONDS]``.

A daemon has uploads under way, of which 50 get a byte twice a second; watchers are spread over their statuses.
Prints the processor time of the daemon without watchers and with them, in per cent of a core, the events that
came, and how long a stop takes with all of them connected.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from itertools import cycle, islice
from pathlib import Path

from tests.e2e.daemon import Daemon
from tests.e2e.tus import Tus


def spent(process: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watchers:
    """Connections that read events and count them."""

    def __init__(self, port: int, paths: list[str], count: int) -> None:
        self.events = 0
        self._selector = selectors.DefaultSelector()
        for number in range(count):
            link = socket.create_connection(("127.0.0.1", port))
            path = paths[number % len(paths)]
            link.sendall(f"GET {path}/status HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n".encode())
            link.setblocking(False)
            self._selector.register(link, selectors.EVENT_READ)

    def read(self, until: float) -> None:
        """What has come, and what comes until then."""
        while True:
            for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(1 << 16)
                if not data:
                    self._selector.unregister(key.fileobj)
                self.events += data.count(b"event: ")
            if time.monotonic() >= until:
                return

    @property
    def open(self) -> int:
        return len(self._selector.get_map())


def measure(daemon: Daemon, tus: Tus, uploads: dict[str, int], watchers: Watchers | None, seconds: float) -> float:
    """Per cent of a core."""
    assert daemon.process is not None
    began, before = time.monotonic(), spent(daemon.process.pid)
    turn, turns = began, cycle(uploads)
    while turn < began + seconds:
        for path in islice(turns, 50):
            answer = tus.patch(path, uploads[path], b"x")
            uploads[path] = answer.offset
        turn += 0.5
        if watchers is not None:
            watchers.read(turn)
        else:
            time.sleep(max(0.0, turn - time.monotonic()))
    return (spent(daemon.process.pid) - before) / (time.monotonic() - began) * 100


def main(count: int = 1000, uploads: int = 20, seconds: float = 20.0) -> None:
    with Daemon("--min-rate", "0") as daemon:
        daemon.start()
        tus = Tus(daemon.port)
        paths = {tus.create(1 << 30): 0 for _ in range(uploads)}
        alone = measure(daemon, tus, paths, None, seconds)
        watchers = Watchers(daemon.port, list(paths), count)
        watchers.read(time.monotonic() + 3)
        before = watchers.events
        with_them = measure(daemon, tus, paths, watchers, seconds)
        came = (watchers.events - before) / seconds
        quiet_began, quiet = time.monotonic(), spent(daemon.process.pid)  # type: ignore[union-attr]
        watchers.read(quiet_began + seconds)
        idle = (spent(daemon.process.pid) - quiet) / seconds * 100  # type: ignore[union-attr]
        still = watchers.open
        began = time.monotonic()
        daemon.stop()
        took = time.monotonic() - began
    print(f"{count} watchers of {uploads} uploads, {still} still there at the end")
    print(f"without watchers {alone:.1f} %, with them {with_them:.1f} % of a core, {came:.0f} events a second")
    print(f"while nothing changes: {idle:.1f} %; a stop takes {took:.2f} s")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*(int(each) for each in given[:2]), *(float(each) for each in given[2:3]))

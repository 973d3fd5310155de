"""What is measured of two nodes that share their uploads: requests that land on the other one, and the end of a keeper.

Changes when such a measurement does. Invariant: the nodes share one directory and one database; what is read back in
the end is compared by SHA-256 with what was sent.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bench import proc, small, storm
from bench.interrupt import Sender
from bench.load import Connection, LoadError, offset_of, patch_head
from bench.measure import MIB, Bench, Measure, check_file, new_upload
from bench.servers import Running

PIECE = 256 << 10
PIECES = 200
#: Times that a keeper is frozen or falls silent.
TIMES = 10
#: Uploads under way at the node that is killed.
UNDER_WAY = 8


@contextmanager
def _other(server: Running) -> Iterator[Running]:
    """A second node of the same uploads."""
    if server.database is None:
        raise LoadError("shares its uploads with no other server")
    other = Running(server.kind, server.log.parent, server.store, database=server.database, log="other.log")
    try:
        other.start()
        other.warm()
        yield other
    finally:
        other.kill()


def round_robin(bench: Bench, server: Running) -> dict[str, float]:
    """200 PATCHes of 256 KiB, one after the other: of one node, and in turns of two: PATCHes/s and how they compare."""
    server.warm()
    with _other(server) as other:
        one = _patched(bench, server, [server])
        both = _patched(bench, server, [server, other])
    return {"one": one, "both": both, "ratio": both / one}


def _patched(bench: Bench, server: Running, nodes: list[Running]) -> float:
    path = new_upload(server, PIECE * PIECES)
    connections = [Connection(node.port) for node in nodes]
    began = time.perf_counter()
    for number in range(PIECES):
        connection = connections[number % len(connections)]
        connection.send(patch_head(path, number * PIECE, PIECE))
        connection.send_from(bench.source.view, PIECE, number * PIECE)
        connection.answer("PATCH").expect(204)
    took = time.perf_counter() - began
    for connection in connections:
        connection.close()
    check_file(server, path, bench.source.digest(0, PIECE * PIECES))
    return PIECES / took


def creation(bench: Bench, server: Running) -> dict[str, float]:
    """Creations with upload, half of the connections to each of two nodes: uploads/s."""
    server.warm()
    with _other(server) as other:
        connections = [one for node in (server, other) for one in node.connections(bench.sizes.lanes // 2)]
        lanes = storm.lanes(connections, server.kind.root, bench.sizes.small)
        return {"rate": small.stormed(bench, server, lanes)["rate"]}


def elsewhere(bench: Bench, server: Running) -> dict[str, float]:
    """The keeper's client is silent, or its process frozen; at the other node HEAD, then PATCH: the slowest (s).

    ``round-trip``: seconds of one to the database.
    """
    server.warm()
    with _other(server) as other:
        silent = max(_taken_over(bench, server, other, freeze=False) for _ in range(TIMES))
        frozen = max(_taken_over(bench, server, other, freeze=True) for _ in range(TIMES))
        round_trip = server.database.round_trip() if server.database else 0.0
    return {"silent": silent, "frozen": frozen, "round-trip": round_trip}


def _taken_over(bench: Bench, keeper: Running, other: Running, freeze: bool) -> float:
    """Seconds until a HEAD and a PATCH are both answered."""
    size = 4 * MIB
    path = new_upload(keeper, size)
    with Connection(keeper.port) as first, Connection(other.port) as second:
        first.send(patch_head(path, 0, size))
        first.send_from(bench.source.view, size // 2, 0)
        with Connection(keeper.port) as asking:
            while offset_of(asking, path) < size // 2:
                time.sleep(0.005)
        stopped = list(proc.tree(keeper.pid)) if freeze else []
        try:
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            began = time.perf_counter()
            at = offset_of(second, path)
            second.send(patch_head(path, at, 1024))
            second.send_from(bench.source.view, 1024, at)
            second.answer("PATCH").expect(204)
            return time.perf_counter() - began
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)


def killed(bench: Bench, server: Running) -> dict[str, float]:
    """The keeper is killed under load; its clients go on at the other node: the longest time until one may (s)."""
    with _other(server) as other:
        length = 64 * MIB
        senders = []
        for _ in range(UNDER_WAY):
            path = new_upload(other, length)
            sender = Sender(bench, Connection(server.port), path, length, deaf=True)
            sender.start()
            senders.append(sender)
        time.sleep(0.3)
        server.kill()
        began = time.perf_counter()
        spans: list[float] = []

        def go_on(path: str) -> None:
            with Connection(other.port) as connection:
                while True:
                    with suppress(LoadError):
                        at = offset_of(connection, path)
                        connection.send(patch_head(path, at, 1024))
                        connection.send_from(bench.source.view, 1024, at)
                        connection.answer("PATCH").expect(204)
                        spans.append(time.perf_counter() - began)
                        return

        threads = [threading.Thread(target=go_on, args=(sender.path,)) for sender in senders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for sender in senders:
            sender.join()
    return {"longest": max(spans)}


MEASURES: dict[str, Measure] = {
    "two-nodes": creation,
    "round-robin": round_robin,
    "elsewhere": elsewhere,
    "killed": killed,
}

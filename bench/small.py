"""What is measured of small uploads: of many over kept connections, and of many new connections.

Changes when such a measurement does. Invariant: the acknowledged uploads are looked for in what the server kept, and
some of them are compared by SHA-256 with what was sent, after the clock has stopped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from bench import proc, storm
from bench.load import LoadError
from bench.measure import Bench, Measure, check_file
from bench.servers import Running


def creation(bench: Bench, server: Running) -> dict[str, float]:
    """Creations with upload over keep-alive connections: uploads/s, p50 and p99 (ms), CPU ms for each."""
    sizes = bench.sizes
    return stormed(bench, server, storm.lanes(server.connections(sizes.lanes), server.kind.root, sizes.small))


def append(bench: Bench, server: Running) -> dict[str, float]:
    """The same uploads, each created by an empty POST and then sent by a PATCH, on the same connection."""
    sizes = bench.sizes
    lanes = storm.lanes(server.connections(sizes.lanes), server.kind.root, sizes.small, split=True)
    return stormed(bench, server, lanes)


def stormed(bench: Bench, server: Running, lanes: Sequence[storm.Lane]) -> dict[str, float]:
    """Let the lanes blow at the server, and look for what it has acknowledged: values as of `creation`."""
    sizes = bench.sizes
    warm = storm.blow(lanes, sizes.warm_seconds)
    log = server.database.log() if server.database else 0
    before = server.spent()
    blown = storm.blow(lanes, sizes.storm_seconds)
    spent = server.spent(before)
    log = server.database.log() - log if server.database else 0
    for lane in lanes:
        check_file(server, storm.last_path(lane), hashlib.sha256(lane.body).hexdigest())
        lane.connection.close()
    acknowledged = warm.acknowledged + blown.acknowledged
    if server.kind.keeps:
        files = (entry.stat().st_size for entry in os.scandir(server.directory) if entry.is_file())
        if (kept := sum(size == sizes.small for size in files)) < acknowledged:
            raise LoadError(f"{server.kind.name} acknowledged {acknowledged} uploads and kept {kept}")
    return {
        "rate": blown.rate,
        "p50": blown.quantile(0.5) * 1e3,
        "p99": blown.quantile(0.99) * 1e3,
        **spent.each(blown.acknowledged / 1e3),
        "log": log / blown.acknowledged,
    }


def connect(bench: Bench, server: Running) -> dict[str, float]:
    """New connections that each create an upload, send half of it and stay open: uploads/s, CPU ms for each."""
    sizes, half = bench.sizes, bench.source.read(0, bench.sizes.half)
    server.warm()
    cpu = proc.cpu_seconds(server.pid)
    took, lanes = storm.crowd(server.port, server.kind.root, sizes.connections, half, sizes.lanes)
    cpu = proc.cpu_seconds(server.pid) - cpu
    for lane in lanes[:: max(1, len(lanes) // 16)]:
        lane.connection.send(half)
        lane.connection.answer("PATCH").expect(204)
        check_file(server, storm.last_path(lane), hashlib.sha256(half + half).hexdigest())
    for lane in lanes:
        lane.connection.close()
    return {"rate": len(lanes) / took, "cpu": cpu / len(lanes) * 1e3}


MEASURES: dict[str, Measure] = {"creation": creation, "append": append, "connect": connect}

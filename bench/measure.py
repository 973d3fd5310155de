"""What is measured: speed and memory of one server that was started for it.

Changes when a measurement does. Invariant: the timed part holds nothing but the load; what the server kept is checked
after it, byte for byte by SHA-256, and a difference raises. ``interrupt.py`` measures what happens when things break.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import select
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench import proc
from bench.load import Connection, LoadError, create, offset_of, patch_head
from bench.servers import Running

MIB, GIB = 1 << 20, 1 << 30
CHECK_CHUNK = 4 * MIB


@dataclass(frozen=True)
class Sizes:
    """How much of everything; bytes and seconds. ``half`` is the sent half of an upload that is left open."""

    big: int = GIB
    huge: int = 10 * GIB
    each: int = 128 * MIB
    parallel: int = 8
    lanes: int = 32
    small: int = 4096
    warm_seconds: float = 1.0
    storm_seconds: float = 5.0
    turns: int = 10
    connections: int = 2000
    open: int = 5000
    half: int = 64 << 10
    settle: float = 8.0
    silences: tuple[float, ...] = (0.1, 0.3, 1.0)
    patch: int = 256 * MIB
    patches: int = 8
    stored: int = 512 * MIB
    stored_each: int = 128 * MIB
    stored_lanes: int = 16
    pace: int = 100 * MIB
    paced: int = 32 * MIB
    paced_rate: int = 12 * MIB
    linked: int = 512 * MIB
    backlog: int = 10_000


SMOKE = Sizes(
    big=32 * MIB,
    each=4 * MIB,
    patch=4 * MIB,
    patches=2,
    lanes=8,
    warm_seconds=0.2,
    storm_seconds=0.8,
    turns=2,
    connections=100,
    open=100,
    half=16 << 10,
    settle=1.0,
    silences=(0.3,),
    paced=2 * MIB,
    stored=24 * MIB,
    stored_each=9 * MIB,
    stored_lanes=4,
    linked=8 * MIB,
    backlog=100,
)


class Source:
    """The bytes that are uploaded: a file of random ones; what is longer goes round it."""

    def __init__(self, path: Path, size: int) -> None:
        with path.open("wb") as out:
            for start in range(0, size, CHECK_CHUNK):
                out.write(os.urandom(min(CHECK_CHUNK, size - start)))
        with path.open("rb") as file:
            self.view = memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))
        self.size = size
        self.digest = cache(self._digest)

    def read(self, start: int, size: int) -> bytes:
        """Return ``size`` bytes (no more than the file has) from ``start``."""
        at = start % self.size
        return bytes(self.view[at : at + size]) + bytes(self.view[: max(0, at + size - self.size)])

    def _digest(self, start: int, size: int) -> str:
        found = hashlib.sha256()
        for at in range(start, start + size, CHECK_CHUNK):
            found.update(self.read(at, min(CHECK_CHUNK, start + size - at)))
        return found.hexdigest()


@dataclass(frozen=True)
class Bench:
    """What every measurement is given besides the server."""

    source: Source
    sizes: Sizes


Measure = Callable[[Bench, Running], dict[str, float]]


def check_file(server: Running, path: str, digest: str) -> None:
    """Raise LoadError unless the upload's data file has that SHA-256 (hexadecimal)."""
    if not server.kind.keeps:
        return
    if server.kind.shared:
        await_file(server, path)
    with server.file_of(path).open("rb") as data:
        if hashlib.file_digest(data, "sha256").hexdigest() != digest:
            raise LoadError(f"{server.kind.name} kept other bytes than were sent")


def await_file(server: Running, path: str) -> None:
    """Return once the file is there: that of an upload in several segments comes soon after the answer."""
    end = time.monotonic() + 30
    while not server.file_of(path).exists():
        if time.monotonic() > end:
            raise LoadError("the file of a finished upload did not come")
        time.sleep(0.01)


def send_whole(bench: Bench, server: Running, path: str, start: int, size: int) -> None:
    with Connection(server.port) as connection:
        connection.send(patch_head(path, 0, size))
        connection.send_from(bench.source.view, size, start)
        connection.answer("PATCH").expect(204)


def new_upload(server: Running, length: int) -> str:
    with Connection(server.port) as connection:
        return create(connection, server.kind.root, length)


def big(bench: Bench, server: Running) -> dict[str, float]:
    """One PATCH: MiB/s, CPU seconds per GiB, and the peak of memory above idle (MiB)."""
    return _one_patch(bench, server, bench.sizes.big)


def huge(bench: Bench, server: Running) -> dict[str, float]:
    """The same with ten times as much, for memory that must not follow."""
    size = bench.sizes.huge
    if server.kind.swallows:
        raise LoadError("holds a whole body in memory")
    if proc.available() < size * 5 // 4:
        raise LoadError(f"needs {size * 5 // 4 // GIB} GiB of free memory")
    return _one_patch(bench, server, size)


def _one_patch(bench: Bench, server: Running, size: int) -> dict[str, float]:
    server.warm()
    path = new_upload(server, size)
    idle = proc.memory(server.pid, "VmRSS")
    proc.forget_peak(server.pid)
    cpu, began = proc.cpu_seconds(server.pid), time.perf_counter()
    send_whole(bench, server, path, 0, size)
    took, cpu = time.perf_counter() - began, proc.cpu_seconds(server.pid) - cpu
    peak = proc.memory(server.pid, "VmHWM")
    check_file(server, path, bench.source.digest(0, size))
    return {"rate": size / MIB / took, "cpu": cpu * GIB / size, "memory": max(0, peak - idle) / MIB}


def patches(bench: Bench, server: Running) -> dict[str, float]:
    """Several PATCHes of one upload each, one after the other: MiB/s (median), CPU s per GiB."""
    server.warm()
    size, count, seconds = bench.sizes.patch, bench.sizes.patches, []
    paths = [new_upload(server, size) for _ in range(count)]
    before = server.spent()
    for path in paths:
        began = time.perf_counter()
        send_whole(bench, server, path, 0, size)
        seconds.append(time.perf_counter() - began)
    spent = server.spent(before)
    for path in paths:
        check_file(server, path, bench.source.digest(0, size))
    return {"rate": size / MIB / statistics.median(seconds), **spent.each(size * count / GIB)}


def parallel(bench: Bench, server: Running) -> dict[str, float]:
    """Several PATCHes at once, of different bytes: MiB/s of all together, CPU s per GiB, time of slowest / fastest."""
    server.warm()
    return at_once(bench, server, server.connections(bench.sizes.parallel))


def at_once(bench: Bench, server: Running, connections: Sequence[Connection]) -> dict[str, float]:
    """One PATCH on each of these connections, all at once: values as of `parallel`. The connections are closed."""
    size, count = bench.sizes.each, len(connections)
    paths = [new_upload(server, size) for _ in range(count)]
    failures: list[Exception] = []
    seconds: list[float] = []
    before, began = server.spent(), time.perf_counter()

    def one(number: int) -> None:
        try:
            with connections[number] as connection:
                connection.send(patch_head(paths[number], 0, size))
                connection.send_from(bench.source.view, size, number * size)
                connection.answer("PATCH").expect(204)
        except (LoadError, OSError) as error:
            failures.append(error)
        seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = server.spent(before)
    if failures:
        raise LoadError(str(failures[0]))
    for number, path in enumerate(paths):
        check_file(server, path, bench.source.digest(number * size % bench.source.size, size))
    total = size * count
    rate, fair = total / MIB / max(seconds), max(seconds) / min(seconds)
    return {"rate": rate, **spent.each(total / GIB), "fair": fair}


def paced(bench: Bench, server: Running) -> dict[str, float]:
    """As many PATCHes at once that each come at a slow rate, in pieces of 16 KiB: CPU seconds per GiB."""
    server.warm()
    size, rate, count, piece = bench.sizes.paced, bench.sizes.paced_rate, bench.sizes.parallel, 16 << 10
    paths = [new_upload(server, size) for _ in range(count)]
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(server.port)) for _ in paths]
        cpu, began = proc.cpu_seconds(server.pid), time.perf_counter()
        for connection, path in zip(connections, paths, strict=True):
            connection.send(patch_head(path, 0, size))
        for start in range(0, size, piece):
            time.sleep(max(0.0, began + start / rate - time.perf_counter()))
            for connection in connections:
                connection.send_from(bench.source.view, piece, start)
        for connection in connections:
            connection.answer("PATCH").expect(204)
        took, cpu = time.perf_counter() - began, proc.cpu_seconds(server.pid) - cpu
    for path in paths:
        check_file(server, path, bench.source.digest(0, size))
    total = size * count
    return {"cpu": cpu * GIB / total, "rate": total / MIB / took}


def _settled(pid: int, least: float, most: float = 40.0) -> int:
    """Return RssAnon (bytes) once it has stayed within 0.5 % for 1.5 s, between ``least`` and ``most`` seconds."""
    began, seen = time.monotonic(), [proc.memory(pid, "RssAnon")]
    while time.monotonic() - began < most:
        time.sleep(0.5)
        seen.append(proc.memory(pid, "RssAnon"))
        if time.monotonic() - began >= least and max(seen[-4:]) <= min(seen[-4:]) * 1.005:
            break
    return seen[-1]


def open_uploads(bench: Bench, server: Running) -> dict[str, float]:
    """Many uploads of which one half was sent and the connection stays open: KiB of memory for each."""
    server.warm()
    count, half = bench.sizes.open, bench.sizes.half
    idle = _settled(server.pid, least=1.0)
    with ExitStack() as stack:
        with Connection(server.port) as asking:
            paths = [create(asking, server.kind.root, 2 * half) for _ in range(count)]
        piece, opened, poller = bench.source.read(0, half), [], select.poll()
        for path in paths:
            connection = stack.enter_context(Connection(server.port))
            connection.send(patch_head(path, 0, 2 * half) + piece)
            opened.append(connection)
            poller.register(connection.sock, select.POLLIN)
        memory = _settled(server.pid, bench.sizes.settle) - idle
        if ended := len(poller.poll(0)):
            raise LoadError(f"{ended} of {count} open uploads were answered or closed")
        for connection, path in list(zip(opened, paths, strict=True))[:: max(1, count // 16)]:
            connection.send_from(bench.source.view, half, half)
            connection.answer("PATCH").expect(204)
            with Connection(server.port) as asking:
                if offset_of(asking, path) != 2 * half:
                    raise LoadError("an upload that was left half-sent did not end at its length")
            check_file(server, path, bench.source.digest(0, 2 * half))
    return {"memory": memory / 1024 / count, "count": count}


MEASURES: dict[str, Measure] = {
    "big": big,
    "patches": patches,
    "parallel": parallel,
    "paced": paced,
    "open": open_uploads,
    "huge": huge,
}

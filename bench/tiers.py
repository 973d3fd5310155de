"""What is measured of both tiers together: a server with an S3 store behind it.

Changes when such a measurement does. Invariant: an upload counts as stored when the store shows its object, whole; what
is there is compared by SHA-256 with what was sent, after the clock has stopped.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

from bench import proc, storm
from bench.load import Connection, LoadError, create, patch_head
from bench.measure import MIB, Bench, Measure, new_upload, send_whole
from bench.servers import Running
from bench.store import Gateway


def store_of(server: Running) -> Gateway:
    """Return the store behind the server; LoadError where there is none."""
    if server.store is None:
        raise LoadError("was started without a store")
    return server.store


def name_of(path: str) -> str:
    """The object of the upload at that path; after a plus, tusd tells the store's name for the transfer."""
    return path.rstrip("/").rpartition("/")[2].partition("+")[0]


def _check(file: Path, digest: str) -> None:
    with file.open("rb") as data:
        if hashlib.file_digest(data, "sha256").hexdigest() != digest:
            raise LoadError("the store has other bytes than were sent")


def big(bench: Bench, server: Running) -> dict[str, float]:
    """One PATCH, until the object is there: MiB/s, CPU seconds of the server per GiB."""
    store, size = store_of(server), bench.sizes.stored
    server.warm()
    path = new_upload(server, size)
    cpu, began = proc.cpu_seconds(server.pid), time.perf_counter()
    send_whole(bench, server, path, 0, size)
    answered = time.perf_counter() - began
    file = store.wait_for(name_of(path), size)
    took, cpu = time.perf_counter() - began, proc.cpu_seconds(server.pid) - cpu
    _check(file, bench.source.digest(0, size))
    return {"rate": size / MIB / took, "answered": size / MIB / answered, "cpu": cpu * 1024 * MIB / size}


def paced(bench: Bench, server: Running) -> dict[str, float]:
    """What a client sees of the remote: its time for a paced upload and its speed at full, beside a server without."""
    size, rate = bench.sizes.stored // 2, bench.sizes.pace
    figures = {}
    with Running(server.kind, server.directory.parent / "alone") as alone:
        for name, each in (("with", server), ("without", alone)):
            each.warm()
            path = new_upload(each, size)
            figures[f"paced-{name}"] = _send_paced(bench, each, path, size, rate)
        for name, each in (("with", server), ("without", alone)):
            path = new_upload(each, size)
            began = time.perf_counter()
            send_whole(bench, each, path, 0, size)
            figures[f"full-{name}"] = time.perf_counter() - began
    return {
        "paced": figures["paced-with"] / figures["paced-without"],
        "full": figures["full-without"] / figures["full-with"],
    }


def _send_paced(bench: Bench, server: Running, path: str, size: int, rate: int) -> float:
    """Send at ``rate`` bytes/s; return the seconds until the answer."""
    step = rate // 100
    with Connection(server.port) as connection:
        began = time.perf_counter()
        connection.send(patch_head(path, 0, size))
        for start in range(0, size, step):
            ahead = began + start / rate - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
            connection.send_from(bench.source.view, min(step, size - start), start)
        connection.answer("PATCH").expect(204)
        return time.perf_counter() - began


def small(bench: Bench, server: Running) -> dict[str, float]:
    """Creations with upload until all their objects are there: uploads/s, CPU ms and requests to the store for each."""
    store, sizes = store_of(server), bench.sizes
    lanes = storm.lanes(server.connections(sizes.stored_lanes), server.kind.root, sizes.small)
    warm = storm.blow(lanes, sizes.warm_seconds)
    _drained(server, store, warm.acknowledged)
    before, cpu = sum(store.asked().values()), proc.cpu_seconds(server.pid)
    began = time.perf_counter()
    blown = storm.blow(lanes, sizes.storm_seconds)
    acknowledged = warm.acknowledged + blown.acknowledged
    _drained(server, store, acknowledged)
    took, cpu = time.perf_counter() - began, proc.cpu_seconds(server.pid) - cpu
    for lane in lanes:
        _check(store.bucket / name_of(storm.last_path(lane)), hashlib.sha256(lane.body).hexdigest())
        lane.connection.close()
    asked = sum(store.asked().values()) - before
    return {
        "rate": blown.acknowledged / took,
        "cpu": cpu / blown.acknowledged * 1e3,
        "requests": asked / blown.acknowledged,
        "lag": took - sizes.storm_seconds,
    }


def _drained(server: Running, store: Gateway, count: int, seconds: float = 120.0) -> None:
    """Wait until the store has that many uploads' objects."""
    wanted = count * server.kind.objects
    end = time.monotonic() + seconds
    while store.objects() < wanted:
        if time.monotonic() > end:
            raise LoadError(f"{store.objects()} of {wanted} objects after {seconds:.0f} s")
        time.sleep(0.02)


def slices(bench: Bench, server: Running) -> dict[str, float]:
    """200 PATCHes of 256 KiB: how many requests the store got."""
    store, each, count = store_of(server), 256 << 10, 200
    server.warm()
    time.sleep(1.0)  # what it asks the store at its start, and for the first small upload
    path = new_upload(server, each * count)
    before = sum(store.asked().values())
    began = time.perf_counter()
    with Connection(server.port) as connection:
        for number in range(count):
            connection.send(patch_head(path, number * each, each))
            connection.send_from(bench.source.view, each, number * each)
            connection.answer("PATCH").expect(204)
    file = store.wait_for(name_of(path), each * count)
    took = time.perf_counter() - began
    _check(file, bench.source.digest(0, each * count))
    time.sleep(0.2)  # the log's last lines
    return {"requests": sum(store.asked().values()) - before, "seconds": took}


def many(bench: Bench, server: Running) -> dict[str, float]:
    """16 uploads at once until their objects are there: the peak of memory above idle (MiB), MiB/s of all."""
    store, size, count = store_of(server), bench.sizes.stored_each, 16
    server.warm()
    paths = [new_upload(server, size) for _ in range(count)]
    failures: list[Exception] = []

    def one(path: str) -> None:
        try:
            send_whole(bench, server, path, 0, size)
        except (LoadError, OSError) as error:
            failures.append(error)

    idle = proc.memory(server.pid, "VmRSS")
    proc.forget_peak(server.pid)
    began = time.perf_counter()
    threads = [threading.Thread(target=one, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise LoadError(str(failures[0]))
    files = [store.wait_for(name_of(path), size) for path in paths]
    took, peak = time.perf_counter() - began, proc.memory(server.pid, "VmHWM")
    _check(files[0], bench.source.digest(0, size))
    return {"memory": max(0, peak - idle) / MIB, "rate": count * size / MIB / took}


def backlog(bench: Bench, server: Running) -> dict[str, float]:
    """Replicas that an outage has left: seconds from the start to the first answer, growth of memory, then drained."""
    store, count = store_of(server), bench.sizes.backlog
    store.stop()
    with Connection(server.port) as connection:
        body = os.urandom(1024)
        for _ in range(count):
            create(connection, server.kind.root, len(body), body)
    idle = proc.memory(server.pid, "VmRSS")
    server.stop()
    began = time.perf_counter()
    server.start()
    listening = time.perf_counter() - began
    time.sleep(3.0)
    memory = proc.memory(server.pid, "VmHWM")
    store.start()
    began = time.perf_counter()
    _drained(server, store, count, 300.0)
    took = time.perf_counter() - began
    return {"seconds": listening, "memory": max(0, memory - idle) / MIB, "rate": count / took}


MEASURES: dict[str, Measure] = {
    "s3-big": big,
    "s3-paced": paced,
    "s3-small": small,
    "s3-slices": slices,
    "s3-many": many,
    "s3-backlog": backlog,
}
ONLY_OWN = ("s3-paced", "s3-many", "s3-backlog")

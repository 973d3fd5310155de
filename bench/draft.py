"""The IETF draft beside tus: the same work for the same server, in turns.

Changes when such a measurement does. Invariant: turns alternate, and so does who comes first, so that what else the
machine does meets both alike; what was kept is compared by SHA-256 after the clock has stopped.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Iterator

from bench import storm
from bench.load import Connection, head_of, patch_head, path_of
from bench.measure import GIB, MIB, Bench, Measure, check_file, new_upload
from bench.servers import Running

SPOKEN = {"Upload-Draft-Interop-Version": "10"}
PARTIAL = "application/partial-upload"


def turns(one: Tally, other: Tally, count: int) -> Iterator[Tally]:
    """So many turns of each."""
    for number in range(count):
        yield from (one, other) if number % 2 == 0 else (other, one)


def lanes(server: Running, count: int, size: int) -> list[storm.Lane]:
    """On each connection uploads of ``size`` bytes of its own will be sent, each in one request."""
    opened = []
    for connection in server.connections(count):
        body = os.urandom(size)
        fields = {"Upload-Complete": "?1", "Content-Length": str(size)}
        request = head_of("POST", server.kind.root, fields, SPOKEN) + body
        opened.append(storm.Lane(connection, body, request, size, status=b"200"))
    return opened


class Tally:
    """What the turns gave: the speed in each, and the work and CPU seconds of all together."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.done = 0
        self.cpu = 0.0

    def add(self, rate: float, done: int, cpu: float) -> None:
        self.rates.append(rate)
        self.done += done
        self.cpu += cpu

    def beside(self, tus: Tally, unit: float) -> dict[str, float]:
        """Values of the draft: speed, CPU seconds for each ``unit`` of work, and both divided by those of tus."""
        rate, cpu = statistics.median(self.rates), self.cpu / self.done
        ratios = {"beside": rate / statistics.median(tus.rates)}
        if tus.cpu:  # CPU time comes in ticks, and a short run may have none
            ratios["cpu-beside"] = cpu / (tus.cpu / tus.done)
        return {"rate": rate, "cpu": cpu * unit, **ratios}


def creation(bench: Bench, server: Running) -> dict[str, float]:
    """Uploads of 4 KiB in one request each, beside creation-with-upload: values of `Tally.beside`, CPU in ms."""
    sizes = bench.sizes
    by_draft, by_tus = Tally(), Tally()
    over = {
        by_draft: lanes(server, sizes.lanes, sizes.small),
        by_tus: storm.lanes(server.connections(sizes.lanes), server.kind.root, sizes.small),
    }
    for some in over.values():
        storm.blow(some, sizes.warm_seconds)
    for tally in turns(by_draft, by_tus, sizes.turns):
        before = server.spent()
        blown = storm.blow(over[tally], sizes.storm_seconds / sizes.turns)
        tally.add(blown.rate, blown.acknowledged, server.spent(before).server)
    for lane in (*over[by_draft], *over[by_tus]):
        check_file(server, storm.last_path(lane), hashlib.sha256(lane.body).hexdigest())
        lane.connection.close()
    return by_draft.beside(by_tus, 1e3)


def append(bench: Bench, server: Running) -> dict[str, float]:
    """PATCHes of one upload each, beside the same by tus: values of `Tally.beside`, CPU in s per GiB."""
    server.warm()
    size = bench.sizes.patch
    by_draft, by_tus = Tally(), Tally()
    for tally in turns(by_draft, by_tus, bench.sizes.patches):
        path = created(server, size) if tally is by_draft else new_upload(server, size)
        head = append_head(path, size) if tally is by_draft else patch_head(path, 0, size)
        before, began = server.spent(), time.perf_counter()
        with Connection(server.port) as connection:
            connection.send(head)
            connection.send_from(bench.source.view, size)
            connection.answer("PATCH").expect(200 if tally is by_draft else 204)
        took = time.perf_counter() - began
        tally.add(size / MIB / took, size, server.spent(before).server)
        check_file(server, path, bench.source.digest(0, size))
        server.file_of(path).unlink()  # all of them would take much memory
    return by_draft.beside(by_tus, GIB)


def created(server: Running, length: int) -> str:
    """The path of a new upload."""
    with Connection(server.port) as connection:
        fields = {"Upload-Complete": "?0", "Upload-Length": str(length), "Content-Length": "0"}
        connection.send(head_of("POST", server.kind.root, fields, SPOKEN))
        return path_of(connection.answer().expect(201).headers["location"])


def append_head(path: str, size: int) -> bytes:
    """The head of a PATCH with the whole content."""
    fields = {"Upload-Offset": "0", "Upload-Complete": "?1", "Content-Type": PARTIAL, "Content-Length": str(size)}
    return head_of("PATCH", path, fields, SPOKEN)


MEASURES: dict[str, Measure] = {"draft-creation": creation, "draft-append": append}

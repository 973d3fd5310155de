"""Replication on a real catalog and a real spool, over stores in memory, which a test can kill and start again.

A `Rig` is what outlives a process: the catalog's file, the disk, the stores. `Rig.start` is one run; `Rig.kill` leaves
it as it is, and nothing of it ever moves again, because its clock stands still.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.catalog.sqlite import SqliteCatalog
from resumable.model.upload import Commit, GoneReason, Replica, Upload
from resumable.remotes.memory.parts import MemoryPartRemote, MemoryWholeRemote
from resumable.remotes.memory.remote import MemoryBucket, MemoryObject, MemoryRemote
from resumable.remotes.plan import PartLimits as StoreLimits
from resumable.replication.context import Remote, ReplicationLimits
from resumable.replication.journal import CatalogJournal
from resumable.replication.service import Replication
from resumable.spool import Budget, Spool
from resumable.testing import SimulatedDisk, SteppedBatcher, SteppedPool

T = TypeVar("T")

UPLOADS = "/up"
EPOCH = 1_700_000_000.0
TINY = StoreLimits(smallest_part=1, largest_part=1 << 30, parts=10_000, largest_object=1 << 40)
"""A store that takes parts of any size."""
PART = 100

Make = Callable[["Rig", str, CatalogJournal], Any]


def parts(**options: Any) -> Make:
    """A store that takes parts of `PART` bytes in any order."""

    def make(rig: Rig, name: str, journal: CatalogJournal) -> MemoryPartRemote:
        chosen = {"part_size": PART, "limits": TINY, "latency": 0.01} | options
        return MemoryPartRemote(rig.stores[name], journal, rig.clock, **chosen)

    return make


def whole(**options: Any) -> Make:
    """A store that takes parts of `PART` bytes in any order, and an object of one in one go."""

    def make(rig: Rig, name: str, journal: CatalogJournal) -> MemoryWholeRemote:
        chosen = {"part_size": PART, "limits": TINY, "latency": 0.01} | options
        return MemoryWholeRemote(rig.stores[name], journal, rig.clock, **chosen)

    return make


def plain(**options: Any) -> Make:
    """A store that takes chunks in order."""

    def make(rig: Rig, name: str, journal: CatalogJournal) -> MemoryRemote:
        return MemoryRemote(rig.stores[name], journal, rig.clock, **({"latency": 0.01} | options))

    return make


class Once(dict[str, MemoryObject]):
    """A store's objects, each of which may be made once."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def __setitem__(self, key: str, value: MemoryObject) -> None:
        assert key not in self.order or value.upload_id is None, "it was made twice"
        self.order.append(key)
        super().__setitem__(key, value)


class Counting:
    """The catalog's replicas, and how often each method was called."""

    def __init__(self, replicas: Any) -> None:
        self._replicas = replicas
        self.calls: list[str] = []
        self.faults: dict[str, Exception] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        method = getattr(self._replicas, name)

        def call(*args: Any) -> Any:
            self.calls.append(name)
            if name in self.faults:
                return Deferred.fromCoroutine(_raise(self.faults[name]))
            return method(*args)

        return call

    def count(self, *names: str) -> int:
        return sum(self.calls.count(name) for name in names)


async def _raise(error: Exception) -> None:
    raise error


class Rig:
    """``remotes``: what is made for each name. ``specs``: more of `Remote` for some of them."""

    def __init__(
        self,
        directory: Path,
        remotes: Mapping[str, Make] | None = None,
        *,
        limits: ReplicationLimits | None = None,
        specs: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        self._directory = directory
        self.makes = dict(remotes or {"a": parts()})
        self.stores = {name: MemoryBucket(objects=Once()) for name in self.makes}
        self.limits = limits or ReplicationLimits(part_size=PART)
        self.specs = dict(specs or {})
        self.disk = SimulatedDisk()
        self.runs = 0
        self.now = 0.0
        self.data: dict[str, bytes] = {}
        self.lengths: dict[str, int | None] = {}
        self._ids = itertools.count(1)
        self._old: list[tuple[Clock, Sequence[Any]]] = []

    # a run

    def start(self) -> Rig:
        self.runs += 1
        self.clock = Clock()
        self.clock.advance(self.now)
        place = self._directory / f"run-{self.runs}"
        before = self._directory / f"run-{self.runs - 1}"
        if before.exists():
            shutil.copytree(before, place)
        else:
            place.mkdir()
        self.pool = SteppedPool(self.clock)
        self.spool = Spool(
            UPLOADS,
            disk=self.disk,
            batcher=lambda work: SteppedBatcher(self.clock, work),
            pool=self.pool,
            budget=Budget(1 << 20),
        )
        self.catalog = SqliteCatalog(
            str(place / "catalog.sqlite3"),
            batcher=lambda work: SteppedBatcher(self.clock, work),
            deliverers=["test"],
            now=self.wall,
        )
        self.reads = SteppedBatcher(self.clock, self.spool.read_all)
        self.reads.start()
        self.spool.start()
        self.catalog.open()
        self.pool.start()
        self.catalog.start()
        self.replicas = Counting(self.catalog.replicas)
        self.remotes: dict[str, Any] = {}
        self.journals: dict[str, CatalogJournal] = {}
        for name, make in self.makes.items():
            self.journals[name] = CatalogJournal(self.replicas, name)
            self.remotes[name] = make(self, name, self.journals[name])
        self.replication = Replication(
            [
                Remote(name, backend, journal=self.journals[name], **self.specs.get(name, {}))
                for name, backend in self.remotes.items()
            ],
            self.replicas,
            self.spool.reader,
            self.reads.submit,
            clock=self.clock,
            wall=self.wall,
            rng=Random(self.runs),
            run=f"run-{self.runs}",
            limits=self.limits,
        )
        self.replication.start()
        self._old.append((self.clock, (self.replication, self.reads, self.spool, self.catalog, self.pool)))
        return self

    def kill(self) -> Rig:
        """The process is gone; what it had asked for never happens (or after the test: see `bury`)."""
        self.now = self.clock.seconds()
        return self

    def stop(self) -> None:
        """A graceful stop."""
        self.ask(_stop(self._old.pop()[1]))
        assert not self.clock.getDelayedCalls()
        self.kill()

    def bury(self) -> None:
        """After the test: wind up every run, so that no coroutine is left hanging."""
        for clock, rooms in self._old:
            self.clock = clock
            self.ask(_stop(rooms))

    def wall(self) -> float:
        return EPOCH + self.clock.seconds()

    # time

    def pump(self) -> None:
        """All that can be done without time passing."""
        for _ in range(100_000):
            if not any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                return
            self.clock.advance(0)
        raise AssertionError("it goes round in circles")

    def advance(self, seconds: float) -> None:
        """Let time pass, from event to event."""
        end = self.clock.seconds() + seconds
        self.pump()
        while (left := end - self.clock.seconds()) > 1e-9:
            calls = [call.getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()]
            self.clock.advance(min([left, *(delay for delay in calls if delay > 0)]))
            self.pump()

    def until(self, done: Callable[[], bool], seconds: float = 600.0) -> None:
        """Let time pass until it is so."""
        end = self.clock.seconds() + seconds
        self.pump()
        while not done():
            calls = [call.getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()]
            assert calls and self.clock.seconds() < end, "it never comes"
            self.clock.advance(max(0.0, min(calls)))
            self.pump()

    def ask(self, work: Awaitable[T]) -> T:
        found: list[Any] = []
        deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)  # type: ignore[arg-type]
        deferred.addBoth(found.append)
        self.until(lambda: bool(found))
        if isinstance(found[0], Failure):
            found[0].raiseException()
        return found[0]  # type: ignore[no-any-return]

    # what clients do

    def create(self, length: int | None, *, metadata: str | None = None, concat: str | None = None) -> str:
        upload_id = f"{next(self._ids):032x}"
        upload = Upload(upload_id, self.wall(), self.wall(), length, metadata=metadata, concat=concat)
        self.ask(self.catalog.create(upload, (), self.replication.chosen(upload, drawn=True)))
        self.ask(self.spool.put(upload_id, 0, []))
        self.data[upload_id], self.lengths[upload_id] = b"", length
        self.replication.committed(self.row(upload_id))
        if length == 0:
            self.append(upload_id, b"")
        return upload_id

    def append(self, upload_id: str, data: bytes, *, length: int | None = None) -> Upload:
        """Bytes arrive, and are committed; with the last, the upload is finished."""
        row = self.row(upload_id)
        self.ask(self.spool.put(upload_id, row.offset, [data]))
        self.data[upload_id] += data
        self.lengths[upload_id] = total = row.length if length is None else length
        end = row.offset + len(data)
        change = Commit(upload_id, row.epoch, row.offset, end, self.wall(), length=length, finished=end == total)
        assert self.ask(self.catalog.commit(change))
        upload = self.row(upload_id)
        self.replication.committed(upload)
        return upload

    def upload(self, size: int, *, seed: int = 1, metadata: str | None = None) -> str:
        """A whole one, at once."""
        upload_id = self.create(size, metadata=metadata)
        if size:
            self.append(upload_id, pattern(size, seed))
        return upload_id

    def post(self, data: bytes, *, metadata: str | None = None) -> str:
        """A creation with all bytes: the upload is new and finished in one change of the catalog."""
        upload_id, now = f"{next(self._ids):032x}", self.wall()
        self.ask(self.spool.put(upload_id, 0, [data]))
        upload = Upload(upload_id, now, now, len(data), len(data), metadata, finished_at=now)
        assert self.ask(self.catalog.create(upload, (), self.replication.chosen(upload, drawn=True)))
        self.data[upload_id], self.lengths[upload_id] = data, len(data)
        self.replication.committed(upload)
        return upload_id

    def terminate(self, upload_id: str, *, delete: bool = True) -> None:
        assert self.ask(self.catalog.end(upload_id, GoneReason.TERMINATED, self.wall(), (), delete))
        self.replication.ended(upload_id)

    async def restart(self, upload_id: str, remote: str | None = None) -> int:
        """What is parked of it is tried again."""
        count: int = await self.catalog.replicas.restart(upload_id, remote)
        if count:
            self.replication.restarted(upload_id)
        return count

    # what a test may know

    def row(self, upload_id: str) -> Upload:
        row = self.ask(self.catalog.get(upload_id))
        assert row is not None
        return row

    def replica(self, upload_id: str, remote: str = "a") -> Replica | None:
        found = self.ask(self.catalog.replicas.get(upload_id, remote))
        return found[0] if found else None

    def state(self, upload_id: str, remote: str = "a") -> str | None:
        replica = self.replica(upload_id, remote)
        return replica and replica.state.value

    def settle(self, upload_ids: Sequence[str], remote: str = "a", seconds: float = 600.0) -> None:
        """Until all these are stored."""
        self.until(lambda: all(self.state(each, remote) == "stored" for each in upload_ids), seconds)

    def object(self, upload_id: str, remote: str = "a") -> bytes | None:
        found = [each.data for each in self.stores[remote].objects.values() if each.upload_id == upload_id]
        assert len(found) <= 1, "it is there twice"
        return found[0] if found else None

    def calls(self, upload_id: str | None = None, remote: str = "a") -> list[str]:
        """The operations asked of a remote, in order."""
        return [name for name, each in self.remotes[remote].calls if upload_id in (None, each)]

    def check(self, *upload_ids: str, remote: str = "a") -> None:
        """These are stored, right, once, and nothing unfinished is left."""
        for upload_id in upload_ids:
            assert self.object(upload_id, remote) == self.data[upload_id]
            assert self.state(upload_id, remote) == "stored"
        assert not self.stores[remote].unfinished


async def _stop(rooms: Sequence[Any]) -> None:
    for room in rooms:
        await room.stop()


def pattern(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)

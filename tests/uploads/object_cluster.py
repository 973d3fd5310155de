"""The engines of cluster_rig.py over one object store and one catalog of parts and tails: both are simulated.

A request that was sent goes on without its engine: it lands with a turn of the cluster's clock, and its answer comes
with one of the engine's. All sizes are small (`small_sizes`), so that every path is taken with a few kilobytes.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore, fail, succeed
from twisted.internet.task import Clock

from resumable.catalog.batches import CatalogJob
from resumable.catalog.sqlite import SqliteCatalog
from resumable.model.errors import CatalogUnavailable
from resumable.model.stored import StoredLayout
from resumable.model.upload import Commit, StoreChange, Upload
from resumable.protocol import metadata
from resumable.remotes.errors import Transient
from resumable.remotes.object_store import made_from
from resumable.remotes.plan import PartLimits
from resumable.remotes.regions import BodyMemory
from resumable.replication.object_copies import ObjectFiles
from resumable.spool import Budget
from resumable.spool.disk import Disk
from resumable.spool.objects.append_parts import StoreContext
from resumable.spool.objects.completion import Completion
from resumable.spool.objects.object_assembly import AssemblyTools
from resumable.spool.objects.object_names import ObjectNames
from resumable.spool.objects.object_reader import WholeObjects
from resumable.spool.objects.object_spool import ObjectSpool
from resumable.spool.objects.scratch import Scratch
from resumable.testing import SteppedBatcher
from resumable.testing.fake_cluster import FakeCluster
from resumable.testing.memory_catalog import Fate
from resumable.testing.memory_store import MemoryStore, _receipt
from resumable.testing.memory_stored import MemoryStored
from resumable.uploads.completing import Completer
from tests.uploads.cluster_rig import Cluster, Engine, OwnCatalog, Shared

KIB = 1024
PREFIX = "spool/"
SMALL = MOST_IN_ROW = 700
"""A longer body is streamed."""
SMALLEST = 2 * KIB
PART = 4 * KIB
LIMITS = PartLimits(smallest_part=SMALLEST, largest_part=64 * KIB, parts=1000, largest_object=1 << 22)
SCRATCH = 64 * KIB


@contextmanager
def small_sizes() -> Iterator[None]:
    """See the constants above."""
    with (
        mock.patch("resumable.spool.objects.append_parts.MOST_IN_ROW", MOST_IN_ROW),
        mock.patch("resumable.spool.objects.part_sizes.MIB", KIB),
        mock.patch("resumable.spool.sink.HIGH", 2 * KIB),
        mock.patch("resumable.spool.sink.LOW", KIB),
        mock.patch("resumable.spool.sink.TURN", KIB),
    ):
        yield


class Rows(MemoryStored):
    """What the catalog has beside its uploads. Whatever is recorded was checked against the store."""

    bucket: MemoryStore

    def tail_of(self, upload_id: str) -> Deferred[StoredLayout | None]:
        """See IStored."""

        def short(layout: StoredLayout | None) -> StoredLayout | None:
            if layout is None:
                return None
            return evolve(layout, parts=layout.parts if len(layout.parts) < 2 else [layout.parts[0], layout.parts[-1]])

        return self.of(upload_id).addCallback(short)

    def _record(self, row: Any, change: Any, start: int, offset: int, finished: bool) -> bool:
        if isinstance(change, StoreChange):
            change = self._checked(row, change)
        return super()._record(row, change, start, offset, finished)

    def _store(self, row: Any, change: StoreChange, offset: int) -> bool:
        return super()._store(row, self._checked(row, change), offset)

    def _checked(self, row: Any, change: StoreChange) -> StoreChange:
        if change.reserved is None:
            change = evolve(change, reserved=row.reserved)
        last, reserved = row.parts[-1].number if row.parts else 0, max(row.reserved, change.reserved or 0)
        for part in change.parts:
            assert last < part.number, "numbers ascend"
            last = part.number
        if self.bucket.numbered and change.parts:
            assert last <= reserved, "each was reserved"
        if self.bucket.numbered and (change.parts or row.parts):
            assert (change.reserved or 0) >= last
        return change

    def landed(self, row: Any, change: StoreChange | None, start: int, offset: int, finished: bool) -> None:
        """A commit has landed with this."""
        assert self._record(row, change, start, offset, finished), f"{change} doesn't follow {row.layout()}"


class ObjectCatalog(SqliteCatalog):
    """Records what is in the object store; `IStored`, too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.rows = Rows()
        self._coming: dict[str, StoreChange] = {}

    def create(
        self,
        upload: Upload,
        facts: Any,
        replicas: Any = (),
        request: Any = None,
        through: Any = None,
        segment: Any = None,
    ) -> Deferred[bool]:
        """See ICatalog."""
        if segment is not None:
            self._coming[upload.id] = segment
        return super().create(upload, facts, replicas, request, through)

    def _create(self, connection: Any, upload: Upload, *rest: Any) -> bool:
        change = self._coming.pop(upload.id, None)
        landed = super()._create(connection, upload, *rest)
        if landed:
            row = self.rows.rows[upload.id] = self.rows._new_row(upload)
            self.rows.landed(row, change, 0, upload.offset, upload.finished)
        return landed

    def _commit(self, connection: Any, change: Commit) -> bool:
        if not super()._commit(connection, change):
            return False
        row = self.rows.rows[change.upload_id]
        self.rows.landed(row, change.segment, change.start, change.offset, change.finished)  # type: ignore[arg-type]
        return True

    def removable(self, limit: int) -> Deferred[Sequence[str]]:
        """Removal is the reclaimer's of an object store."""
        return succeed(())

    def stored(self, name: str, *given: Any) -> Deferred[Any]:
        """A method of IStored, as a step of the catalog."""

        def done(connection: Any) -> Any:
            for upload_id, row in self.rows.rows.items():
                row.upload = SqliteCatalog._get.__wrapped__(self, connection, upload_id)  # type: ignore[attr-defined]
            outcome: list[Any] = []
            getattr(self.rows, name)(*given).addCallback(outcome.append)
            return outcome[0]

        return self.jobs.submit(CatalogJob(done, writes=True))


class OwnSide(OwnCatalog):
    """The catalog as one engine has it. ``fates``: of its next changes, which may land though nobody hears of it."""

    CHANGES = frozenset({"create", "begin", "commit", "touch", "end", "keep_multipart", "reserve", "unreserve"}) | {
        "completed",
        "add_last",
    }

    def __init__(self, catalog: ObjectCatalog, clock: Clock) -> None:
        super().__init__(catalog, clock)  # type: ignore[arg-type]
        self.fates: deque[Fate] = deque()

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)
        return (lambda *args, **kwargs: self._fated(method, *args, **kwargs)) if name in self.CHANGES else method

    def _fated(self, method: Callable[..., Deferred[Any]], *args: Any, **kwargs: Any) -> Deferred[Any]:
        fate = self.fates.popleft() if self.fates else Fate.LANDS
        if fate is Fate.LANDS:
            return method(*args, **kwargs)
        lost: Deferred[Any] = fail(CatalogUnavailable("nobody knows what became of it"))
        return self._late(lost) if fate is Fate.FAILS else method(*args, **kwargs).addCallback(lambda _: lost)


class OwnStored:
    """IStored by way of an `OwnSide`."""

    def __init__(self, side: OwnSide) -> None:
        self._side = side

    def __getattr__(self, name: str) -> Any:
        if name in OwnSide.CHANGES:
            return lambda *given: self._side._fated(self._side.stored, name, *given)
        return lambda *given: self._side.stored(name, *given)


class OwnStore:
    """The object store as one engine has it. ``away``: it can't be reached from there; ``asked``: what was."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.away = False
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._asking(name, found) if callable(found) and name not in ("token_of", "works_with") else found

    def _asking(self, name: str, method: Callable[..., Deferred[Any]]) -> Any:
        def ask(*given: Any, **named: Any) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred(lambda _: None)

            def answered(outcome: Any) -> None:
                self._clock.callLater(0, lambda: answer.called or answer.callback(outcome))

            self.asked.append(name)
            (fail(Transient("away")) if self.away else method(*given, **named)).addBoth(answered)
            return answer

        return ask


class PlacelessSpool(ObjectSpool):
    """Its files have no places, and nobody asks for one here."""

    def places(self, root: str, rules: Any) -> Any:
        """See ISpool."""
        return None


class WatchedDisk(Disk):
    """``open``: descriptors that were not closed; none is closed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    def close(self, fd: int) -> None:
        assert fd >= 0
        self.closed += 1
        super().close(fd)


@frozen
class Shape:
    """What kind of a store it is."""

    numbered: bool = True
    part_objects: bool = False
    conditional: bool = True
    equal: bool = False
    limits: PartLimits = LIMITS
    part_size: int = PART
    scratch: int = SCRATCH
    options: dict[str, Any] = field(factory=dict)


def _when_whole(engine: Engine, upload_id: str, seconds: float) -> Deferred[bool]:
    whole: Deferred[bool] = engine.completer.when_whole(upload_id, seconds)
    return whole


class ObjectCluster(Cluster):
    """``bucket``: the store; ``requests``: those that have not landed."""

    def __init__(self, directory: Path, deliverers: Sequence[str] = (), shape: Shape | None = None) -> None:
        self.shape = shape = shape or Shape()
        self.directory = directory
        self.clock = Clock()
        self.fake = FakeCluster()
        self.engines: list[Engine] = []
        self.requests: list[Clock] = []
        self.bucket = MemoryStore(
            PREFIX,
            equal=shape.equal,
            conditional=shape.conditional,
            numbered=shape.numbered,
            part_objects=shape.part_objects,
            limits=shape.limits,
            part_size=shape.part_size,
            now=self.clock.seconds,
        )
        self.bucket.before = self._before
        self.catalog: Any = ObjectCatalog(
            str(directory / "catalog.sqlite3"),
            batcher=lambda work: SteppedBatcher(self.clock, work),
            deliverers=deliverers,
        )
        self.catalog.rows.bucket = self.bucket
        self.catalog.rows._now = self.clock.seconds
        self.catalog.open()
        self.catalog.start()

    def _before(self, operation: str, key: str) -> Deferred[None]:
        """Each request is a turn of its own, so that they land in any order."""
        landing: Deferred[None] = Deferred()
        request = Clock()
        request.callLater(0, landing.callback, None)
        self.requests.append(request)
        return landing

    def clocks(self) -> list[Clock]:
        return [*super().clocks(), *self.requests]

    def turn(self, clock: Clock) -> None:
        if clock in self.requests:
            self.requests.remove(clock)
        super().turn(clock)

    def shared_by(self, engine: Engine) -> Shared:
        side, worker = OwnSide(self.catalog, engine.clock), engine.worker
        return Shared(side, self.catalog.replicas, OwnStored(side), self.catalog.jobs.do, worker, worker, worker)

    def spool_of(self, engine: Engine, shared: Shared) -> Any:
        serial = itertools.count(1)
        names = ObjectNames(PREFIX, engine.worker.id, lambda: f"{next(serial):08x}")
        scratch = Scratch(str(self.directory / f"scratch-{engine.worker.id}"), self.shape.scratch, WatchedDisk())
        store: Any = OwnStore(self.bucket, engine.clock)
        context = StoreContext(
            names, store, shared.segments, scratch, engine.clock, Random(len(self.engines)), DeferredSemaphore(8)
        )
        when_whole = partial(_when_whole, engine)
        tools = AssemblyTools(
            WholeObjects(context, engine.pool, engine.clock),  # type: ignore[arg-type]
            lambda upload_id: shared.catalog.get(upload_id).addCallback(
                lambda upload: metadata.parse(upload.metadata or "")
            ),
            when_whole,
        )
        engine.files = ObjectFiles(store, names, shared.segments, when_whole, engine.clock, context.lost)
        spool = PlacelessSpool(context, tools, pool=engine.pool, budget=Budget(32 << 20), url="memory://bucket")
        spool.start()
        return spool

    def finish(self, engine: Engine, shared: Shared, spool: Any) -> None:
        """It completes what it finishes, and with `Completer.sweep` what others have left."""
        context = spool.context
        completion = Completion(
            *(context.store, context.stored, context.names),
            disk=context.scratch.disk,
            pool=engine.pool,
            open_scratch=context.scratch.open,
            room=BodyMemory(1 << 20),
        )
        engine.completer = Completer(engine.context, shared.segments, completion)
        object.__setattr__(engine.context, "objects", engine.files)

    # -- what a test may know

    def stored(self, upload_id: str) -> StoredLayout:
        """The row's layout."""
        row = self.catalog.rows.rows[upload_id]
        row.upload = self.row(upload_id)
        layout: StoredLayout = row.layout()
        return layout

    def object(self, upload_id: str) -> bytes | None:
        """The bytes of its object."""
        key = f"{PREFIX}{'.partials/' if self.stored(upload_id).is_partial else ''}{upload_id}"
        kept = self.bucket.objects.get(key)
        return None if kept is None else kept.data

    def content(self, upload_id: str) -> bytes:
        """What a reader finds by the row, or a completion makes of it."""
        layout = self.stored(upload_id)
        key = f"{PREFIX}{'.partials/' if layout.is_partial else ''}{upload_id}"
        if layout.whole:
            kept = self.bucket.objects[key]
            assert kept.token == made_from(layout.made or {}).token, "the object is the one that the row tells of"
            return kept.data
        kept = self.bucket.objects.get(key)
        if kept is not None and layout.multipart and kept.token == self.bucket.token_of(layout.multipart):
            return kept.data  # it is complete, and the row doesn't know
        rows = {each.name: each.data for each in self.catalog.rows.rows[upload_id].pieces}
        pieces = [
            rows[each.name] if each.in_row else self.bucket.objects[f"{PREFIX}{each.name}"].data
            for each in layout.pieces
        ]
        sent = [self.bucket_part(key, layout, each) for each in layout.parts]
        return b"".join(sent + pieces)

    def bucket_part(self, key: str, layout: StoredLayout, part: Any) -> bytes:
        """A part's bytes, if the store would take it for the one that the row has."""
        name = f"{PREFIX}{part.name}" if part.name.startswith(".") else part.name
        bucket = self.bucket
        if bucket.part_objects:
            data = bucket.objects[name].data
        elif bucket.numbered:
            data = bucket._multiparts[(layout.multipart or "").partition(":")[0]].parts[part.number]
        else:
            data = bucket._blocks[key][part.name]
        assert (len(data), _receipt(data)) == (part.size, part.receipt), "the part is the one that was confirmed"
        return data

    def check_given_back(self, engines: Sequence[Engine] = ()) -> None:
        """No scratch is used by anybody, no file is open."""
        for engine in engines or self.engines:
            scratch = engine.context.spool.context.scratch  # type: ignore[attr-defined]
            assert (scratch.used, scratch.full, scratch._users) == (0, False, {}), scratch._users
            assert self.descriptors(engine) == 0

    def descriptors(self, engine: Engine) -> int:
        """How many scratch files it has open."""
        directory, found = engine.context.spool.context.scratch.directory, 0  # type: ignore[attr-defined]
        for each in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                found += os.readlink(f"/proc/self/fd/{each}").startswith(directory)
        return found


def sent(cluster: ObjectCluster) -> dict[str, int]:
    """The requests since the last call, but for those that remove."""
    found = {name: count for name, count in cluster.bucket.sent.items() if name not in ("remove", "abandon")}
    cluster.bucket.sent.clear()
    return found


def hold(cluster: ObjectCluster, *operations: str) -> list:
    """Requests of this kind wait until the test lets them go; they are collected here."""
    waiting: list = []
    usual = cluster.bucket.before

    def before(operation, key):
        if operation not in operations:
            return usual(operation, key)
        waiting.append(Deferred())
        return waiting[-1]

    cluster.bucket.before = before
    return waiting


def go(cluster: ObjectCluster, waiting: list, which: int = 0) -> None:
    waiting.pop(which).callback(None)
    cluster.pump()

"""Several engines of the use cases over one catalog and one store of segments, each with a clock of its own.

An engine whose clock stands still is frozen: what it asked of the catalog is done, and it doesn't learn of it.
The disk is simulated, and they share it; so is the part of the catalog that counts segments.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.catalog.sqlite import SqliteCatalog
from resumable.daemon.parts import ALGORITHMS
from resumable.model.errors import CatalogUnavailable
from resumable.model.hooks import NoHooks
from resumable.model.principal import NOBODY
from resumable.model.replica import IReplication, NoReplication
from resumable.model.segments import Layout
from resumable.model.upload import WHOLE, Commit, Segment, Upload
from resumable.spool import Budget
from resumable.spool.placed_files import PlacedFiles, PlaceSettings
from resumable.spool.segments import LossSweep, SegmentSpool
from resumable.spool.segments.segment_directory import SegmentDirectory
from resumable.testing import SimulatedDisk, SteppedBatcher, SteppedPool
from resumable.testing.fake_cluster import FakeCluster
from resumable.uploads.context import Questions, UploadContext
from resumable.uploads.digest_rules import DigestRules
from resumable.uploads.janitor import Endings, Reclaimer
from resumable.uploads.limits import SharedDrain, Space, UploadLimits
from resumable.uploads.other_workers import DRAIN, UNREADABLE, OtherWorkers
from resumable.uploads.shared_holds import SharedHolds, SharedRoles
from resumable.uploads.uploads import Uploads
from tests.uploads.harness import EPOCH, UPLOADS, Server
from tests.uploads.machine import content


@define
class SegmentStore:
    """``layout``: what the catalog counts of segments, by upload; ``wholes``: uploads whose bytes are in one file;
    ``built``: finals, whenever their bytes were copied."""

    disk: SimulatedDisk = field(factory=SimulatedDisk)
    layout: dict[str, list[Segment]] = field(factory=dict)
    wholes: set[str] = field(factory=set)
    built: list[str] = field(factory=list)
    coming: dict[str, Segment] = field(factory=dict)
    names: Any = field(factory=lambda: itertools.count(1))

    def record(self, upload_id: str, segment: Segment) -> None:
        """A commit with this segment lands."""
        if segment.name == WHOLE:
            self.wholes.add(upload_id)
            return
        known = self.layout.setdefault(upload_id, [])
        if segment.known:
            assert known[-1].name == segment.name and known[-1].size == segment.known
            known.pop()
        assert segment.start == sum(each.size for each in known), "segments follow each other"
        assert len(self.file(segment.name)) >= segment.size, "only bytes that are there are counted"
        known.append(Segment(segment.start, segment.size, segment.name))

    def file(self, name: str) -> bytes:
        """A segment's bytes."""
        return content(self.disk, f"{UPLOADS}/.resumable/segments/{name}") or b""

    def content(self, upload_id: str) -> bytes:
        """The upload's committed bytes."""
        if upload_id in self.wholes:
            return content(self.disk, f"{UPLOADS}/{upload_id}") or b""
        return b"".join(self.file(each.name)[: each.size] for each in self.layout.get(upload_id, ()))


class SegmentedCatalog(SqliteCatalog):
    """Records segments. ISegments, as far as the spool asks."""

    store: SegmentStore

    def create(self, upload: Upload, *args: Any, segment: Segment | None = None, **kwargs: Any) -> Deferred[bool]:
        if segment is not None:
            self.store.coming[upload.id] = segment
        return super().create(upload, *args, **kwargs)

    def _create(self, connection: Any, upload: Upload, *rest: Any) -> bool:
        segment = self.store.coming.pop(upload.id, None)
        landed = super()._create(connection, upload, *rest)
        if landed and segment is not None:
            self.store.record(upload.id, segment)
        return landed

    def _commit(self, connection: Any, change: Commit) -> bool:
        if not super()._commit(connection, change):
            return False
        if change.segment is not None:
            self.store.record(change.upload_id, change.segment)
        return True

    def removable(self, limit: int) -> Deferred[Sequence[str]]:
        """Data that isn't needed any more stays for a minute, so that others may read it."""
        return succeed(())

    def of(self, upload_id: str) -> Deferred[Layout | None]:
        """See ISegments."""
        return self._get(upload_id).addCallback(lambda row: None if row is None else self._layout(row))

    def of_many(self, upload_ids: Sequence[str]) -> Deferred[Mapping[str, Layout]]:
        """See ISegments."""
        return self.get_many(upload_ids).addCallback(lambda rows: {each: self._layout(rows[each]) for each in rows})

    def kept(self, after: str, limit: int) -> Deferred[tuple[Sequence[Layout], str | None]]:
        """See ISegments; all at once."""
        ids = sorted(self.store.wholes | self.store.layout.keys())
        return self.of_many(ids).addCallback(lambda found: (list(found.values()), None))

    def _layout(self, row: Upload) -> Layout:
        return Layout(row.id, row.offset, row.id in self.store.wholes, tuple(self.store.layout.get(row.id, ())))


class CountingSpool(SegmentSpool):
    """Notes each copy of a final."""

    store: SegmentStore

    def assembly(self, final_id: str, sources: Sequence[tuple[str, int]]) -> Any:
        made: Any = super().assembly(final_id, sources)
        copy = made.copy
        made.copy = lambda size: self.store.built.append(final_id) or copy(size)
        return made


class OwnCatalog:
    """The catalog as one engine has it: answers come with the next turn of its clock."""

    def __init__(self, catalog: SegmentedCatalog, clock: Clock) -> None:
        self._catalog, self._clock = catalog, clock
        #: It can't be reached from there.
        self.away = False

    def __getattr__(self, name: str) -> Any:
        if self.away:
            return lambda *args, **kwargs: self._late(fail(CatalogUnavailable("away")))
        method = getattr(self._catalog, name)
        return lambda *args, **kwargs: self._late(method(*args, **kwargs))

    def _late(self, asked: Deferred[Any]) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred(lambda _: None)

        def answered(outcome: Any) -> None:
            self._clock.callLater(0, lambda: answer.called or answer.callback(outcome))

        asked.addBoth(answered)
        return answer


@frozen
class Shared:
    """What the workers share, as one of them has it: `ICatalog`, `IReplicas`, `ISegments`, ..."""

    catalog: Any
    replicas: Any
    segments: Any
    record: Any
    workers: Any
    claims: Any
    drain: Any


class Cluster:
    """``clock``: the catalog's. ``began``: the time of day when the test begins."""

    began = EPOCH

    def __init__(self, directory: Path, deliverers: Sequence[str] = ()) -> None:
        self.clock = Clock()
        self.store = SegmentStore()
        self.fake = FakeCluster()
        self.engines: list[Engine] = []
        self.catalog = SegmentedCatalog(
            str(directory / "catalog.sqlite3"),
            batcher=lambda work: SteppedBatcher(self.clock, work),
            deliverers=deliverers,
        )
        self.catalog.store = self.store
        self.catalog.open()
        self.catalog.start()

    def shared_by(self, engine: Engine) -> Shared:
        own, worker = OwnCatalog(self.catalog, engine.clock), engine.worker
        return Shared(own, self.catalog.replicas, own, self.catalog.jobs.do, worker, worker, worker)

    def spool_of(self, engine: Engine, shared: Shared) -> Any:
        """Its spool, started."""
        spool = CountingSpool(
            SegmentDirectory(
                self.store.disk,
                UPLOADS,
                installation="here",
                worker_id=engine.worker.id,
                new_name=lambda: f"{next(self.store.names):016x}",
            ),
            shared.segments,
            batcher=lambda work: SteppedBatcher(engine.clock, work),
            pool=engine.pool,
            budget=Budget(32 << 20),
            record=shared.record,
        )
        spool.store = self.store
        spool.start()
        return spool

    def finish(self, engine: Engine, shared: Shared, spool: Any) -> None:
        """What such a spool needs beside the use cases."""
        engine.losses = LossSweep(
            *(spool.names, shared.segments, engine.pool, Endings(engine.context).lose),
            strangers=lambda: succeed(()),
            seconds=engine.clock.seconds,
        )
        engine.others.listen(UNREADABLE, engine.losses.suspect)

    def store_everywhere(self, upload_id: str) -> None:
        """What a worker does that has copied it to all remotes."""
        rows: list[Any] = []
        self.catalog.replicas.of(upload_id).addCallback(rows.extend)
        self.pump()
        for each in rows:
            self.catalog.replicas.store(each, {"location": "there"}, 1.0)
        self.pump()

    def claims(self) -> dict[str, str]:
        """The holders of all claims."""
        return {name: claim.holder for name, claim in self.fake.claims.items()}

    def bury_worker(self, engine: Engine) -> None:
        """Its row is gone."""
        self.fake.bury(engine.worker)

    def content(self, upload_id: str) -> bytes:
        """An upload's committed bytes."""
        return self.store.content(upload_id)

    def engine(self, **options: Any) -> Engine:
        self.engines.append(Engine(self, **options))
        return self.engines[-1]

    def clocks(self) -> list[Clock]:
        """Those that go."""
        return [self.clock, *(each.clock for each in self.engines if not each.frozen)]

    def due(self) -> list[Clock]:
        """Those with something to do."""
        return [each for each in self.clocks() if any(call.getTime() <= each.seconds() for call in each.calls)]

    def turn(self, clock: Clock) -> None:
        """One thing that waits there."""
        call = next(call for call in clock.calls if call.getTime() <= clock.seconds())
        clock.calls.remove(call)
        call.called = 1
        call.func(*call.args, **call.kw)

    def pump(self) -> None:
        """All that can be done without time passing."""
        for _ in range(200_000):
            due = self.due()
            if not due:
                return
            for clock in due:
                if clock in self.due():
                    self.turn(clock)
        raise AssertionError("it never ends")

    def advance(self, seconds: float) -> None:
        """Time passes for all that aren't frozen."""
        self.pump()
        left = seconds
        while left > 1e-9:
            waits = [call.getTime() - each.seconds() for each in self.clocks() for call in each.calls]
            step = min([left, *(wait for wait in waits if wait > 0)])
            for each in self.clocks():
                each.rightNow += step
            left -= step
            self.pump()

    def row(self, upload_id: str) -> Upload:
        """The catalog's record, whatever the engines know."""
        found: list[Any] = []
        self.catalog._get(upload_id).addBoth(found.append)
        while not found:
            self.turn(self.clock)
        assert isinstance(found[0], Upload), found
        return found[0]

    def close(self) -> None:
        """The engines have stopped."""

    def bury(self) -> None:
        """Wind all up."""
        for engine in self.engines:
            engine.frozen = False
            for body in engine.bodies:
                body.lose()
        self.pump()
        for engine in self.engines:
            engine.stop()
        self.close()
        self.catalog.stop()
        self.pump()


def clusters(kind: str) -> type[Cluster]:
    """``postgres`` needs its driver."""
    if kind == "simulated":
        return Cluster
    from tests.uploads.cluster_on_postgres import PostgresCluster

    return PostgresCluster


class Engine(Server):
    """One worker's use cases; requests as `Server` has them. ``frozen``: it does nothing."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        limits: UploadLimits | None = None,
        questions: Questions | None = None,
        replication: IReplication | None = None,
        digests: DigestRules | None = None,
    ) -> None:
        self.cluster = cluster
        self.machine: Any = SimpleNamespace(down=False)
        self.frozen = False
        self.clock = Clock()
        self.clock.rightNow = cluster.clock.rightNow
        self.bodies = []
        self.by = NOBODY
        self.pool = SteppedPool(self.clock)
        self.pool.start()
        number = len(cluster.engines) + 1
        self.losses: Any = None
        self.completer: Any = None
        self.files: Any = None
        self.worker = worker = cluster.fake.join(self.clock, lambda upload_id: self.context.holds.held(upload_id))
        shared = cluster.shared_by(self)
        own, self.claims = shared.catalog, shared.claims
        spool = cluster.spool_of(self, shared)
        self.roles = SharedRoles(shared.claims, self.clock)
        self.others = OtherWorkers(self.clock, worker, shared.claims, self.roles)
        self.drain = SharedDrain(shared.drain, lambda: self.others.tell(DRAIN, ""))
        self.others.listen(DRAIN, lambda _: self.drain.look())
        places = PlacedFiles(spool, self.pool, PlaceSettings(Path(f"{UPLOADS}/finished")))
        self.reclaimer = Reclaimer(own, spool, places)
        self.context = UploadContext(
            catalog=own,
            spool=spool,
            holds=SharedHolds(self.clock, own, shared.workers, worker),
            clock=self.clock,
            wall=lambda: cluster.began + self.clock.seconds(),
            boot_id="boot",
            limits=limits or UploadLimits(),
            space=Space(0),
            places=places,
            replication=replication or NoReplication(),
            replicas=shared.replicas,
            questions=questions or Questions(),
            progress=NoHooks(),
            drain=self.drain,
            others=self.others,
            digests=digests or DigestRules(),
        )
        ids = (f"{number:08x}{serial:024x}" for serial in itertools.count(1))
        self.uploads = Uploads(self.context, self.reclaimer, algorithms=ALGORITHMS, new_id=lambda: next(ids))
        self.assembler, self.janitor = self.uploads.assembler, self.uploads.janitor
        self.assembler.start()
        cluster.finish(self, shared, spool)
        cluster.pump()

    def pump(self) -> None:
        self.cluster.pump()

    def advance(self, seconds: float) -> None:
        self.cluster.advance(seconds)

    def freeze(self) -> None:
        """It does nothing until `thaw`."""
        self.frozen = True

    def thaw(self) -> None:
        """It goes on, and its clock with those of the others."""
        self.frozen = False
        self.clock.rightNow = self.cluster.clock.rightNow
        self.pump()

    def die(self) -> None:
        """It does nothing any more, and was declared dead."""
        self.frozen = True
        self.cluster.bury_worker(self)

    def stop(self) -> None:
        async def stop() -> None:
            await self.uploads.stop()
            await self.assembler.stop()
            await self.uploads.placer.stop()
            if self.completer is not None:
                await self.completer.stop()

        stopped: list[Any] = []
        Deferred.fromCoroutine(stop()).addBoth(stopped.append)
        self.pump()
        assert stopped and not isinstance(stopped[0], Failure), stopped
        self.others.stop()

    def row(self, upload_id: str) -> Upload:
        return self.cluster.row(upload_id)

    def content(self, upload_id: str) -> bytes:
        return self.cluster.content(upload_id)

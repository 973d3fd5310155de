"""What the tests of segments work with: engines over one directory and one catalog, and appends as the use cases do
them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.aio.threads import Batcher, Pool
from resumable.model.upload import GoneReason, Upload
from resumable.protocol.rules import AppendPlan
from resumable.spool import Budget, Disk
from resumable.spool.segments import LossSweep, SegmentDirectory, SegmentSpool, SegmentSweeper
from resumable.testing import CallQueue, SimulatedDisk, SteppedBatcher, SteppedPool
from resumable.testing.memory_segments import MemoryUploads
from resumable.uploads.context import HookContext, UploadListeners
from resumable.uploads.joining import Joiner
from resumable.uploads.limits import Space
from resumable.uploads.other_workers import NoOtherWorkers
from resumable.uploads.record import AppendRecord

ID = "a" * 32
OTHER = "b" * 32
INSTALLATION = "installation-1"
MIB = 1 << 20
PIECES = [b"0123456", b"789", b"abcdefghijklmnop", b"q"]
ALL = b"".join(PIECES)


class Context:
    """What `AppendRecord` and `Joiner` need of an UploadContext."""

    def __init__(self, catalog, spool, clock):
        self.catalog, self.spool, self.clock = catalog, spool, clock
        self.boot_id = "boot"
        self.listeners = UploadListeners()
        self.space = Space(0)
        self.places = SimpleNamespace(wanted=False)
        self.others = NoOtherWorkers()

    def wall(self):
        return 0.0

    def finishes(self, upload, offset, length):
        return offset == length

    def finishing(self, upload):
        return upload

    def facts(self, *args):
        return ()

    def told(self, upload, facts, segment):
        return facts

    def committed(self, upload):
        pass

    async def create(self, upload, facts, changes=None, request=None, through=None, segment=None):
        return upload if await self.catalog.create(upload, facts, (), None, through, segment) else None


class Append:
    """One append from ``start`` on, by an engine. ``new``: it makes the upload."""

    def __init__(self, engine, upload, start, *, new=False, digest=None):
        self.upload_id, self.engine = upload.id, engine
        self.record = AppendRecord(engine.context, upload, start, HookContext(), new)
        self.record.plan = AppendPlan(0, None, None, None, False)
        self.sink = engine.spool.sink(upload.id, start, ceiling=None, digest=digest)
        self.record.segments = self.sink.segments

    async def small(self, data):
        """As a body that stayed in memory."""
        self.sink.take()
        await self.record.put(self.record.committed + len(data), True, [data])

    async def open(self):
        if not self.record.is_new:
            await self.sink.prepare()
        await self.record.open()
        self.sink.start()

    async def write(self, data, last=False):
        """Bytes that are committed."""
        self.sink.write(data)
        offset = await self.sink.sync()
        await self.record.commit(offset, last, last=last)

    async def long(self, pieces):
        """Each of them is committed."""
        await self.open()
        for at, piece in enumerate(pieces):
            await self.write(piece, last=at == len(pieces) - 1)

    async def closing(self, work):
        """Do it, and close, however it ends; nothing more if the machine stops."""
        try:
            await work
        except Exception:
            await self.close()
            raise
        await self.close()

    async def close(self):
        if not self.sink.over:
            await self.sink.close()
        if self.record.joinable:
            for listener in self.engine.context.listeners.joinable:
                listener(self.upload_id)


class Engine:
    """One process. ``pool`` and ``batcher`` are its threads."""

    def __init__(self, disk, catalog, directory, worker, pool, batcher, clock, *, step=8, random=None, **more):
        numbers = itertools.count(1)
        self.disk, self.catalog, self.directory, self.pool, self.clock = disk, catalog, directory, pool, clock
        self.names = SegmentDirectory(
            disk,
            directory,
            installation=more.pop("installation", INSTALLATION),
            worker_id=worker,
            new_name=random or (lambda: f"r{next(numbers)}"),
        )
        self.spool = SegmentSpool(
            self.names,
            catalog,
            batcher=batcher,
            pool=pool,
            budget=Budget(),
            record=catalog.do,
            assembly_step=step,
            **more,
        )
        self.context = Context(catalog, self.spool, clock)
        self.joiner = Joiner(self.context, self.spool, catalog)
        self.sweeper = SegmentSweeper(self.names, catalog, pool)
        self.strangers = []
        self.losses = LossSweep(
            self.names, catalog, pool, self.lose, strangers=lambda: succeed(self.strangers), seconds=clock.seconds
        )

    # what the use cases do

    async def swept(self):
        """Joined what is left over of finished uploads."""
        await self.joiner.sweep()
        await self.joiner._tasks.ended()

    async def joined(self):
        """What is left over of joining."""
        await self.swept()
        await self.joiner.gather()
        await self.joiner._tasks.ended()

    async def create(self, upload_id=ID, length=None, data=None):
        """A POST, with all of its body if there is some."""
        upload = Upload(upload_id, 0.0, 0.0, length=length)
        if data is None:
            assert await self.catalog.create(upload)
            return
        append = Append(self, upload, 0, new=True)
        await append.closing(append.small(data))

    async def begin(self, upload_id=ID, **more):
        """An append at the committed offset."""
        upload = await self.catalog.get(upload_id)
        return Append(self, upload, upload.offset, **more)

    async def small(self, data, upload_id=ID):
        append = await self.begin(upload_id)
        await append.closing(append.small(data))

    async def long(self, *pieces, upload_id=ID):
        """A long append, each piece committed."""
        append = await self.begin(upload_id)
        await append.closing(append.long(pieces))

    async def content(self, upload_id=ID, piece=5):
        """All committed bytes, by a reader, piece by piece."""
        reader = await self.spool.reader(upload_id)
        data, found = b"", b"."
        while found:
            found = await reader.read(len(data), piece)
            data += found
        assert len(data) == reader.size
        await reader.close()
        return data

    async def assemble(self, final_id, sources):
        """As `Building` does it; the final's segment."""
        assembly = self.spool.assembly(final_id, sources)
        await assembly.look()
        while not assembly.complete:
            await assembly.copy(assembly.next_size(False))
        await assembly.name()
        return assembly.segment

    async def lose(self, upload_id):
        """As `Endings.lose`."""
        return await self.catalog.end(upload_id, GoneReason.LOST)

    def finish_final(self, final_id, segment):
        """Its commit."""
        row = self.catalog.rows[final_id]
        row.upload = evolve(row.upload, offset=segment.size, length=segment.size, finished_at=0.0)
        row.whole = segment.start == 0 and segment.name == ""


class SimulatedBench:
    """Engines on a simulated disk, whose threads do nothing until `turn`; in one go, unless a test takes its time."""

    directory = "/up"

    def __init__(self, disk=None, catalog=None, rng=None):
        self.disk = disk or SimulatedDisk()
        self.clock = Clock()
        self.catalog = catalog or MemoryUploads(self.clock.seconds)
        self.rng = rng
        self.pools = []

    def engine(self, worker="w1", **more):
        pool = SteppedPool(self.clock, self.rng)
        pool.start()
        self.pools.append(pool)
        batcher = lambda work: SteppedBatcher(self.clock, work)  # noqa: E731
        engine = Engine(self.disk, self.catalog, self.directory, worker, pool, batcher, self.clock, **more)
        engine.spool.start()
        return engine

    def turn(self):
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def pass_time(self, seconds):
        self.clock.advance(seconds)

    def wait(self, condition):
        """Until it holds."""
        self.turn()
        assert condition()

    def result(self, work):
        results = []
        deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        deferred.addBoth(results.append)
        self.turn()
        assert results, "has not fired"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def file(self, path):
        """A file's bytes; None without one."""
        node = self.disk._names.get(path)
        return None if node is None else bytes(node.content)

    def files(self, path):
        return sorted(name for name in self.disk._names if name.startswith(f"{path}/") and self.file_at(name))

    def file_at(self, path):
        return hasattr(self.disk._names[path], "content")

    def write(self, path, data):
        fd = self.disk.open(path, create=True)
        self.disk.writev(fd, [data], 0)
        self.disk.close(fd)

    def age(self, path, seconds):
        self.disk.age(path, seconds)

    def stop(self):
        pass


class RealSegmentBench(SimulatedBench):
    """The same with real threads on a real directory."""

    def __init__(self, path):
        super().__init__(disk=Disk())
        self.path = path
        self.directory = str(path / "up")
        self.reactor = CallQueue()
        self.engines = []

    def engine(self, worker="w1", **more):
        pool = Pool(self.reactor, 2, "pool")
        batcher = lambda work: Batcher(self.reactor, work, name="puts")  # noqa: E731
        engine = Engine(self.disk, self.catalog, self.directory, worker, pool, batcher, self.clock, **more)
        engine.spool.start()
        pool.start()
        self.engines.append(engine)
        return engine

    def wait(self, condition):
        while not condition():
            self.reactor._calls.get(timeout=30)()

    def result(self, work):
        return self.reactor.until(work if isinstance(work, Deferred) else Deferred.fromCoroutine(work))

    def file(self, path):
        from pathlib import Path

        return Path(path).read_bytes() if Path(path).exists() else None

    def files(self, path):
        from pathlib import Path

        return sorted(str(each) for each in Path(path).rglob("*") if each.is_file())

    def age(self, path, seconds):
        import os

        was = os.stat(path).st_mtime
        os.utime(path, (was - seconds, was - seconds))

    def stop(self):
        for engine in self.engines:
            self.result(engine.joiner.stop())
            self.result(engine.spool.stop())
            self.result(engine.pool.stop())

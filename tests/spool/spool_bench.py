"""What the spool's tests work with."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.aio.threads import Batcher, Pool
from resumable.spool import Budget, Disk, Spool
from resumable.testing import CallQueue, SimulatedDisk, SteppedBatcher, SteppedPool

ID = "a" * 32
MIB = 1 << 20


class Bench:
    """A spool on a simulated disk whose threads do nothing until `turn`."""

    def __init__(self, limit=32 * MIB, rng=None, disk=None, assembly_step=8, record=list):
        self.disk = disk or SimulatedDisk()
        self.clock = Clock()
        self.pool = SteppedPool(self.clock, rng)
        self.pool.start()
        self.budget = Budget(limit)
        self.spool = Spool(
            "/spool",
            disk=self.disk,
            batcher=lambda work: SteppedBatcher(self.clock, work),
            pool=self.pool,
            budget=self.budget,
            record=record,
            assembly_step=assembly_step,
        )
        self.spool.start()
        self.disk.trace.clear()

    def turn(self):
        self.clock.advance(0)

    def put_file(self, data, upload_id=ID):
        """A file with this content, durable."""
        assert self.result(self.spool.put(upload_id, 0, [data])) is None
        self.disk.trace.clear()

    def sink(self, offset=0, ceiling=None, upload_id=ID, **more):
        return self.spool.sink(upload_id, offset, ceiling=ceiling, **more)

    def content(self, disk=None, upload_id=ID):
        """What is in the file; None when it is missing."""
        disk = disk or self.disk
        path = f"/spool/{upload_id}"
        if disk.file_size(path) is None:
            return None
        fd = disk.open(path, read_only=True)
        data = disk.read(fd, 64 * MIB, 0)
        disk.close(fd)
        return data

    def result(self, deferred):
        self.turn()
        results = []
        deferred.addBoth(results.append)
        assert results, "has not fired"
        return results[0]

    def failure(self, deferred):
        result = self.result(deferred)
        assert isinstance(result, Failure)
        return result.value

    def operations(self, *without):
        return [operation for operation, _ in self.disk.trace if operation not in without]


class RealBench:
    """A spool with real threads on a real directory, for a ``with`` statement."""

    def __init__(self, path, disk=None):
        self.reactor = CallQueue()
        self.until = self.reactor.until
        self.pool = Pool(self.reactor, 2, "pool")
        self.spool = Spool(
            str(path),
            disk=disk or Disk(),
            batcher=lambda work: Batcher(self.reactor, work, name="puts"),
            pool=self.pool,
            budget=Budget(),
        )

    def __enter__(self):
        self.pool.start()
        self.spool.start()
        return self

    def __exit__(self, *error):
        self.until(self.spool.stop())
        self.until(self.pool.stop())


class Producer:
    """A body; it remembers what it was asked for."""

    def __init__(self):
        self.calls = []

    def pauseProducing(self):
        self.calls.append("pause")

    def resumeProducing(self):
        self.calls.append("resume")

    def stopProducing(self):
        self.calls.append("stop")

    @property
    def paused(self):
        return bool(self.calls) and self.calls[-1] == "pause"

"""Workers that complete, remove and sweep in one object store and one catalog, each of which a test can stop for good
or for as long as it likes between any two requests.

A request is done in one step and answered in the next; what becomes of it is the test's to say. So the same schedule
gives the same run.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from functools import partial
from types import SimpleNamespace

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.model.errors import CatalogUnavailable
from resumable.model.replica import NoReplication
from resumable.model.upload import Commit, GoneReason, Piece, StoreChange, StoredPart, Upload
from resumable.remotes.errors import Transient
from resumable.remotes.object_store import ObjectProperties
from resumable.remotes.plan import PartLimits
from resumable.remotes.regions import BodyMemory, BytesRegion
from resumable.spool.disk import Disk
from resumable.spool.objects.completion import Completion
from resumable.spool.objects.object_names import ObjectNames
from resumable.spool.objects.object_removal import ObjectRemoval
from resumable.spool.objects.object_sweeper import ObjectSweeper
from resumable.testing.memory_store import MemoryStore
from resumable.testing.memory_stored import MemoryStored
from resumable.uploads.completing import Completer
from resumable.uploads.context import UploadContext, UploadListeners

ID = "a" * 32
OTHER = "b" * 32
PREFIX = "data/"
DATA = bytes(range(97, 123)) * 4
"""Of uploads: as many bytes as they have."""
LIMITS = PartLimits(smallest_part=10, largest_part=1000, parts=40)
PART = 20
DAY = 86_400.0

#: Store's methods without a Deferred.
AT_ONCE = {"token_of", "works_with"}


class Request:
    """To the store or the catalog: done in one step, answered in the next. ``fate``: see `Worker.fates`."""

    def __init__(self, worker, name, do, lost):
        self.worker, self.name, self.do, self.lost = worker, name, do, lost
        self.answer, self.result, self.done = Deferred(), None, False
        self.fate = worker.fate(name)

    def step(self):
        if not self.done:
            self.done = True
            if self.fate in ("done", "unheard"):
                self.do().addBoth(self._note)
            if self.fate == "late":
                self.worker.bench.late.append(_on_its_way(self.do))
            if self.fate != "done":
                self.result = Failure(self.lost(f"{self.name} was lost"))
            return
        self.worker.requests.remove(self)
        result, self.result = self.result, None
        self.answer.callback(result)

    def _note(self, result):
        self.result = result


def _on_its_way(do):
    """The same, with the bytes that there were when it was sent."""
    sent = []
    for each in do.args:
        if hasattr(each, "lend"):
            each.read(0, each.size).addCallback(lambda data: sent.append(BytesRegion(data)))
        else:
            sent.append(each)
    return partial(do.func, *sent, **do.keywords)


class Paced:
    """The store or the catalog, as one worker sees it."""

    def __init__(self, worker, target, lost):
        self._worker, self._target, self._lost = worker, target, lost

    def __getattr__(self, name):
        found = getattr(self._target, name)
        if not callable(found) or name in AT_ONCE:
            return found

        def request(*args, **kwargs):
            asked = Request(self._worker, name, partial(found, *args, **kwargs), self._lost)
            self._worker.requests.append(asked)
            return asked.answer

        return request


class ScratchDisk(Disk):
    """``open``: scratch files that weren't closed. What a test has closed for a dead worker isn't closed again."""

    def __init__(self):
        super().__init__()
        self.open = set()

    def close(self, fd):
        if fd in self.open:
            self.open.remove(fd)
            super().close(fd)


class Threads:
    """A pool whose calls are done at once."""

    def run(self, f, *args, **kwargs):
        try:
            return succeed(f(*args, **kwargs))
        except Exception:
            return fail(Failure())


class Others:
    """The other workers. ``lost``: claims are granted to all, as if their holders were taken for dead."""

    several = True

    def __init__(self, bench, name):
        self.bench, self.name, self.told, self.waiting = bench, name, [], []

    def claim(self, claim):
        if not self.bench.claims_lost and self.bench.claims.setdefault(claim, self.name) != self.name:
            return succeed(False)
        return succeed(True)

    def drop(self, claim):
        self.bench.claims.pop(claim, None)
        return succeed(None)

    def tell(self, topic, upload_id):
        for each in self.bench.workers:
            each.others.told.append((topic, upload_id))
            waiting, each.others.waiting = each.others.waiting, []
            for news in waiting:
                news.callback(None)

    def news(self, upload_id, within=1.0):
        news = Deferred()
        self.waiting.append(news)
        return news


class Worker:
    """``fates``: of its next requests: "done", "failed" (never done), "unheard" (done, and the answer is lost), "late"
    (done when the test says so, and the answer is lost). ``lose``: of the requests of these names, by their number."""

    def __init__(self, bench, name):
        self.bench, self.requests, self.fates, self.asked = bench, [], deque(), []
        self.store = Paced(self, bench.store, Transient)
        self.stored = Paced(self, bench.catalog, CatalogUnavailable)
        names = ObjectNames(PREFIX, name, bench.new_name)
        self.completion = Completion(
            self.store,
            self.stored,
            names,
            disk=bench.disk,
            pool=Threads(),
            open_scratch=bench.open_scratch,
            room=BodyMemory(64),
        )
        self.others = Others(bench, name)
        self.replicated, self.late, self.partials = [], [], []
        replication = NoReplication()
        replication.committed = self.replicated.append
        self.context = SimpleNamespace(
            catalog=self.stored,
            clock=bench.clock,
            wall=bench.clock.seconds,
            records_facts=True,
            listeners=UploadListeners(),
            others=self.others,
            replication=replication,
            partial_finished=self.partials.append,
            stored_facts=lambda upload: UploadContext.stored_facts(self.context, upload),
        )
        self.completer = Completer(self.context, self.stored, self.completion, lambda: self.late.append(1))
        self.removal = ObjectRemoval(self.store, self.stored, names)
        self.sweeper = ObjectSweeper(self.store, self.stored, names, self.stored.get_many, bench.clock.seconds)

    def fate(self, name):
        self.asked.append(name)
        return self.fates.popleft() if self.fates else "done"

    def step(self):
        """The oldest request goes on."""
        self.requests[0].step()

    def go(self):
        """To where nothing is asked any more."""
        while self.requests:
            self.step()


class Bench:
    """``more``: of the store."""

    def __init__(self, **more):
        self.clock = Clock()
        self.clock.advance(10 * DAY)
        self.store = MemoryStore(PREFIX, limits=LIMITS, part_size=PART, now=self.clock.seconds, **more)
        self.catalog = MemoryStored(self.clock.seconds)
        self.claims, self.claims_lost, self.workers = {}, False, []
        self.late = []
        self.disk, self.opened = ScratchDisk(), 0
        self._numbers = itertools.count()
        self.names = ObjectNames(PREFIX, "append", self.new_name)

    def new_name(self):
        return f"{next(self._numbers):04x}"

    def open_scratch(self):
        fd = os.memfd_create("scratch")
        self.disk.open.add(fd)
        self.opened += 1
        return fd

    def worker(self, name):
        worker = Worker(self, name)
        self.workers.append(worker)
        return worker

    def close(self):
        for fd in tuple(self.disk.open):
            self.disk.close(fd)

    def now(self, answer):
        """What a Deferred has fired with."""
        found = []
        answer.addBoth(found.append)
        assert found, "it hasn't fired"
        if isinstance(found[0], Failure):
            found[0].raiseException()
        return found[0]

    def result(self, worker, work):
        """The result of a coroutine or Deferred, once nothing is asked any more."""
        answer = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        worker.go()
        return self.now(answer)

    @staticmethod
    def down(*args, **kwargs):
        """The answer of a store that is down."""
        return fail(Transient("the store is down"))

    def land(self):
        """What is late comes now; how much. Whether it is taken is the store's."""
        late, self.late = self.late, []
        for do in late:
            do().addErrback(lambda failure: None)
        return len(late)

    # -- uploads

    def upload(self, parts=(), pieces=(), *, upload_id=ID, partial=False, required=0, metadata=None):
        """A finished one: sizes of its parts, and of its pieces; negative: in an object. Its multipart's handle."""
        length = sum(parts) + sum(map(abs, pieces))
        concat = "partial" if partial else None
        self.catalog.create(
            Upload(upload_id, 0.0, 0.0, length, concat=concat, required=required, metadata=metadata), (), ()
        )
        key = self.names.key(upload_id, partial)
        handle = self.now(self.store.begin(key, self.properties(upload_id))) if parts else None
        start, epoch = 0, 0
        for number, size in enumerate(parts, 1):
            self.now(self.catalog.begin(upload_id, epoch, start, "boot", 0, 0.0))
            epoch += 1
            name = self.names.new(upload_id) if self.store.part_objects else self.names.label()
            called = self.names.object(name) if self.store.part_objects else name
            data = BytesRegion(DATA[start : start + size])
            receipt = self.now(self.store.write_part(key, handle, number, called, data))
            part = StoredPart(start, size, number, name, receipt)
            change = StoreChange(number, [part], multipart=handle if number == 1 else None)
            start = self.commit(upload_id, epoch, start, size, length, change)
        for size in pieces:
            in_row, size = size > 0, abs(size)
            data = DATA[start : start + size]
            name = self.names.label() if in_row else self.names.new(upload_id)
            if not in_row:
                self.now(self.store.write(self.names.object(name), BytesRegion(data)))
            change = StoreChange(len(parts), piece=Piece(start, size, name, data if in_row else None))
            start = self.commit(upload_id, epoch, start, size, length, change)
            epoch = self.catalog.rows[upload_id].upload.epoch
        if not length:
            self.now(self.catalog.commit(Commit(upload_id, 0, 0, 0, 0.0, finished=True)))
        return handle

    def commit(self, upload_id, epoch, start, size, length, change):
        end = start + size
        landed = self.catalog.commit(Commit(upload_id, epoch, start, end, 0.0, finished=end == length, segment=change))
        assert self.now(landed)
        return end

    def properties(self, upload_id=ID, token="append-token"):
        return ObjectProperties(upload_id, token, {})

    def end(self, upload_id=ID):
        self.now(self.catalog.end(upload_id, GoneReason.TERMINATED))

    def remove(self, worker):
        """What the janitor does, 60 seconds later."""
        self.clock.advance(61)
        ids = self.now(self.catalog.removable(10))
        errors = self.result(worker, worker.removal.remove(ids))
        self.now(self.catalog.data_removed([each for each in ids if each not in errors]))
        return errors

    def sweep(self, worker):
        """All sweeps, now."""
        self.result(worker, worker.sweeper.sweep_discarded())
        self.result(worker, worker.sweeper.sweep_unknown())
        self.result(worker, worker.sweeper.sweep_unfinished())
        self.result(worker, worker.sweeper.sweep_objects())

    # -- what there is

    @property
    def keys(self):
        """Of all objects."""
        return [each.key for each in self.now(self.store.list(PREFIX, "", 1000))]

    @property
    def multiparts(self):
        return list(self.now(self.store.list_unfinished(1000, None)))

    def row(self, upload_id=ID):
        return self.now(self.catalog.of(upload_id))

    def content(self, key=PREFIX + ID):
        made = self.now(self.store.find(key))
        if made is None or not made.size:
            return None if made is None else b""
        stream, data = self.now(self.store.open(key, 0, made.size)), b""
        while piece := self.now(stream.read()):
            data += piece
        return data

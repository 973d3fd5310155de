"""Several processes over one directory and one catalog, each of which a test can stop between any two steps.

Each call in a process's threads runs in a real thread that waits before each operation of the disk until the test lets
it go on; only one runs at a time, so the same schedule gives the same run. What a process asks the catalog happens in
one step, and is answered in another. A process that stands still for a day is *declared dead*: the catalog records
nothing of it any more, but its threads may go on all the same.
"""

from __future__ import annotations

import contextlib
import threading
from functools import partial

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from resumable.model.errors import CatalogUnavailable, StartupError
from resumable.model.upload import Commit, GoneReason, Upload
from resumable.protocol.errors import Gone, Held
from resumable.spool.datafile import NotReadable
from resumable.testing import SimulatedCrash, SimulatedDisk
from resumable.testing.memory_segments import MemoryUploads
from tests.spool.late_disk import LateDisk
from tests.spool.segment_bench import Append, Context, Engine, SimulatedBench

CHANGES = {"create", "begin", "commit", "end", "made_whole", "joined", "removed", "data_removed"}
_here = threading.local()


class PacedCall:
    """One call in a thread."""

    def __init__(self, process, work, answer):
        self.process, self.work, self.answer = process, work, answer
        self.go, self.paused = threading.Semaphore(0), threading.Semaphore(0)
        self.thread, self.result, self.ended = None, None, False

    def step(self):
        """Up to its next operation, or its end."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, daemon=True)
            self.thread.start()
        else:
            self.go.release()
        self.paused.acquire()
        if self.ended:
            self.thread.join()
            self.process.tasks.remove(self)
            if self.answer is not None and not self.process.killed:
                self.answer(self.result)

    def _run(self):
        _here.call = self
        try:
            self.result = self.work()
        except BaseException:
            self.result = Failure()
        self.ended = True
        self.paused.release()

    def pause(self):
        self.paused.release()
        self.go.acquire()
        if self.process.killed:
            raise SimulatedCrash


def pause():
    call = getattr(_here, "call", None)
    if call is not None:
        call.pause()


class Question:
    """What a process asks the catalog: done in one step, answered in the next."""

    def __init__(self, process, ask, answer):
        self.process, self.ask, self.answer, self.result = process, ask, answer, None

    def step(self):
        if self.ask is not None:
            ask, self.ask = self.ask, None
            ask().addBoth(self._note)
            return
        self.process.tasks.remove(self)
        result, self.result = self.result, None
        self.answer(result)

    def _note(self, result):
        self.result = result


class PacedDisk:
    """The directory, as one process's threads see it."""

    def __init__(self, disk):
        self._disk = disk

    def __getattr__(self, name):
        method = getattr(self._disk, name)

        def operation(*args, **kwargs):
            pause()
            return method(*args, **kwargs)

        return operation


class PacedCatalog:
    """The catalog, as one process sees it."""

    def __init__(self, process, catalog):
        self._process, self._catalog = process, catalog

    def __getattr__(self, name):
        method = getattr(self._catalog, name)
        if name == "rows":
            return method

        def ask(*args, **kwargs):
            if name in CHANGES and self._process.dead:
                return fail(CatalogUnavailable("its row is gone"))
            return method(*args, **kwargs)

        def question(*args, **kwargs):
            if any(callable(each) for each in args):  # it goes through the spool
                return method(*args, **kwargs)
            answer = Deferred()
            self._process.tasks.append(Question(self._process, partial(ask, *args, **kwargs), answer.callback))
            return answer

        return question

    def do(self, changes):
        pause()
        if self._process.dead:
            return [Failure(CatalogUnavailable("its row is gone")) for _ in changes]
        results = self._catalog.do(changes)
        pause()
        return results


class Process:
    """An engine, and its threads."""

    def __init__(self, world, worker, disk):
        self.world, self.worker, self.disk = world, worker, disk
        self.tasks, self.calls, self.busy = [], [], set()
        self.killed = self.dead = False
        self.catalog = PacedCatalog(self, world.catalog)
        self.engine = Engine(
            *(PacedDisk(disk), self.catalog, "/up", worker, self, lambda work: Puts(self, work), world.clock),
            random=world.random,
        )
        self.engine.spool.start()  # at once: this thread is none of the paced ones

    # a pool

    crowded = urgent = False

    def run(self, f, *args, **kwargs):
        answer = Deferred()
        self.tasks.append(PacedCall(self, partial(f, *args, **kwargs), answer.callback))
        return answer

    def tell(self, f, *args):
        self.calls.append(partial(f, *args))

    # what a test does

    def step(self, which):
        """One step of one of the things that it does; False: it does nothing."""
        if not self.tasks:
            return False
        self.tasks[which % len(self.tasks)].step()
        calls, self.calls = self.calls, []
        for call in calls:
            call()
        return True

    def run_all(self):
        for _ in range(20_000):
            if not self.step(0):
                return
        raise AssertionError("it does not come to an end")

    def kill(self):
        self.killed = True
        for task in list(self.tasks):
            if isinstance(task, PacedCall) and task.thread is not None:
                task.step()
        self.tasks.clear()

    def begin(self, work, *subjects):
        """Start it; ``subjects``: what no other work of this process may be about at the same time."""
        if self.busy & set(subjects):
            work.close()
            return
        self.busy |= set(subjects)
        Deferred.fromCoroutine(work).addBoth(self._over, subjects)

    def _over(self, result, subjects):
        self.busy -= set(subjects)
        if isinstance(result, Failure):
            allowed = (Held, Gone, CatalogUnavailable)
            if self.dead or self.disk is not self.world.disk:  # it is answered 503, or tried again
                allowed += (OSError,)
            if not result.check(*allowed):
                self.world.failures.append(result)


class Puts:
    """A batcher."""

    def __init__(self, process, work):
        self.process, self.work, self.jobs, self.working = process, work, [], False

    def start(self):
        pass

    def submit(self, job):
        answer = Deferred()
        self.jobs.append((job, answer))
        self._go_on()
        return answer

    def _go_on(self):
        if self.jobs and not self.working:
            self.working = True
            jobs, self.jobs = self.jobs, []
            work = partial(self.work, [job for job, _ in jobs])
            self.process.tasks.append(PacedCall(self.process, work, partial(self._answer, jobs)))

    def _answer(self, jobs, results):
        self.working = False
        self._go_on()
        results = [results] * len(jobs) if isinstance(results, Failure) else results
        for (_, answer), result in zip(jobs, results, strict=True):
            answer.callback(result)


class TruthfulUploads(MemoryUploads):
    """Notes which bytes were committed: ``truth`` by upload."""

    def __init__(self, now):
        super().__init__(now)
        self.truth = {}

    def told(self, content, upload_id, change):
        def do():
            row = self.rows.get(upload_id)
            before = 0 if row is None else row.upload.offset
            done = change()
            if done:
                self.truth[upload_id] = self.truth.get(upload_id, b"") + content(
                    before, self.rows[upload_id].upload.offset
                )
            return done

        return do


def content_of(tag, start, end):
    """The bytes that append number ``tag`` has for these offsets: others' differ."""
    return bytes((tag * 41 + offset * 7) & 0xFF for offset in range(start, end))


class Tagged:
    """The catalog for one append."""

    def __init__(self, process, content):
        self._process, self._content = process, content

    def __getattr__(self, name):
        return getattr(self._process.catalog, name)

    def commit(self, change: Commit, through=None):
        catalog = self._process.world.catalog
        do = catalog.told(self._content, change.upload_id, lambda: catalog._commit(change))
        return self._go(do, through)

    def create(self, upload, facts=(), replicas=(), request=None, through=None, segment=None):
        catalog = self._process.world.catalog
        return self._go(catalog.told(self._content, upload.id, lambda: catalog._create(upload, segment)), through)

    def _go(self, do, through):
        if through is not None:
            return through(do)
        process, answer = self._process, Deferred()

        def ask():
            if process.dead:
                return fail(CatalogUnavailable("its row is gone"))
            return process.world.catalog._submit(do, None)

        process.tasks.append(Question(process, ask, answer.callback))
        return answer


class World:
    """Everything. ``number`` processes, each on a machine of its own if they are ``late``, see `LateDisk`."""

    def __init__(self, number, late=False):
        self.disk = SimulatedDisk()
        self.bench = SimulatedBench(self.disk)
        self.clock = self.bench.clock
        self.catalog = self.bench.catalog = TruthfulUploads(self.clock.seconds)
        self.names = self.tags = 0
        self.failures, self.ghosts, self.reads = [], [], 0
        self.observer = self.bench.engine("observer", random=self.random)
        self.machines = [LateDisk(self.disk, seed) for seed in range(number)] if late else []
        self.processes = [Process(self, f"w{at}", self.machines[at] if late else self.disk) for at in range(number)]
        self.pinned = set()

    def random(self):
        self.names += 1
        return f"n{self.names}"

    def tagged(self, process):
        """For one append: what it does with the catalog, and its bytes."""
        self.tags += 1
        content = partial(content_of, self.tags)
        context = Context(Tagged(process, content), process.engine.spool, self.clock)
        context.listeners = process.engine.context.listeners
        return context, content

    # what processes do

    async def append(self, process, upload_id, sizes, small, unfinished):
        upload = await process.catalog.get(upload_id)
        if upload is None or upload.finished or upload.gone:
            return
        context, content = self.tagged(process)
        append = Append(process.engine, upload, upload.offset)
        append.record._context = context
        await append.closing(self._write(append, upload, content, sizes, small, unfinished))

    async def _write(self, append, upload, content, sizes, small, unfinished):
        at = upload.offset
        if small:
            end = min(at + sizes[0], upload.length)
            await append.small(content(at, end))
            return
        await append.open()
        for number, size in enumerate(sizes):
            end = min(at + size, upload.length)
            if end > at:
                await append.write(content(at, end), last=number == len(sizes) - 1 or end == upload.length)
            at = end
        if unfinished and at < upload.length:  # the body was cut off
            append.sink.write(content(at, upload.length))
            await append.sink.sync()

    async def post(self, process, upload_id, length):
        context, content = self.tagged(process)
        append = Append(process.engine, Upload(upload_id, 0.0, 0.0, length=length), 0, new=True)
        append.record._context = context
        await append.closing(append.small(content(0, length)))

    async def read(self, process, upload_id, how=0):
        """``how``: one of the ways in which the use cases read, 0 to 5."""
        spool, row, found = process.engine.spool, self.catalog.rows.get(upload_id), b""
        least = 0 if row is None else row.upload.offset
        try:
            if how == 0:
                found = await process.engine.content(upload_id, piece=3)
            elif how == 1:
                found = await spool.read(upload_id, 0, 1000)
            elif how == 2:
                found = await spool.read_start((upload_id, 1000))
            else:
                found = await self._follow(process, upload_id, how)
        except NotReadable:
            return
        except FileNotFoundError:
            assert row is None or not row.on_disk, "a reader has taken what it missed for gone"
            return
        except OSError as error:
            raise AssertionError("a miss isn't told from a failure") from error
        truth = self.catalog.truth.get(upload_id, b"")
        assert found == truth[: len(found)], "a reader has seen other bytes"
        assert len(found) >= min(least, 1000) or row.upload.gone, "a reader has missed bytes"
        self.reads += 1

    async def _follow(self, process, upload_id, how):
        """As replication does it: also what is committed while it reads."""
        reader, found = await process.engine.spool.reader(upload_id), b""
        while True:
            upload = await process.catalog.get(upload_id)
            if upload is None or upload.gone is not None or upload.offset <= len(found):
                break
            reaching = reader.reach(upload.offset)
            if reaching is not None:
                await reaching
            size = upload.offset - len(found)
            if how == 3:
                pieces = []
                assert await reader.scan(len(found), size, pieces.append) == size, "a reader has missed bytes"
                piece = b"".join(pieces)
            elif how == 4:
                loan = reader.lend()
                piece = await process.run(loan.read, len(found), size)
                loan.give_back()
            else:
                piece = await reader.read(len(found), size)
            assert len(piece) == size, "a reader has missed bytes"
            found += piece
        await reader.close()
        return found

    async def gather(self, process, upload_id):
        layout = await process.catalog.of(upload_id)
        row = await process.catalog.get(upload_id)
        if layout is not None and not layout.whole and not row.finished:
            with contextlib.suppress(NotReadable, FileNotFoundError):
                await process.engine.joiner._gather(layout)

    async def remove(self, process):
        ids = [each for each in await process.catalog.removable(10) if each not in self.pinned]
        if ids:
            await process.engine.spool.remove(ids)
            await process.catalog.data_removed(ids)

    async def assemble(self, process, final_id, sources):
        rows = self.catalog.rows
        truth = b"".join(self.catalog.truth.get(each, b"") for each in sources)
        self.pinned |= set(sources)
        try:
            segment = await process.engine.assemble(final_id, [(each, rows[each].upload.offset) for each in sources])
        except (NotReadable, FileNotFoundError):
            return
        change = Commit(final_id, 0, 0, len(truth), 0.0, len(truth), True, segment=segment)
        await Tagged(process, lambda start, end: truth[start:end]).commit(change)

    # time

    def pass_time(self, seconds):
        """More than any machine may be late."""
        self.clock.advance(seconds)
        for machine in self.machines:
            machine.expire()

    def day_passes(self):
        """Whoever has something under way has stood still for it, and is declared dead."""
        self.pass_time(90_000)
        for path in self.bench.files("/up"):
            self.disk.age(path, 90_000)
        for process in list(self.processes):
            if process.tasks:
                process.dead = True
                self.replace(process)
                # Files grow older here, and the clock stays; a sweep has read that clock, and would take young files
                # for old ones.
                if "unknown" not in process.busy:
                    self.ghosts.append(process)

    def replace(self, process):
        worker = f"{process.worker.split('x')[0]}x{self.random()}"
        at = self.processes.index(process)
        try:
            self.processes[at] = Process(self, worker, process.disk)
        except (OSError, StartupError):
            process.disk.expire()  # meanwhile: it is started again
            self.processes[at] = Process(self, worker, process.disk)

    # what has to hold

    def check(self):
        """Everything that is counted is readable, and right."""
        if self.failures:
            self.failures[0].raiseException()
        for upload_id, row in self.catalog.rows.items():
            assert row.upload.gone is not GoneReason.LOST, "what is there was taken for lost"
            if row.on_disk and not row.upload.gone:
                found = self.bench.result(self.observer.content(upload_id, piece=1000))
                assert found == self.catalog.truth.get(upload_id, b""), upload_id
                if row.whole:  # places and others take the file as it is
                    assert self.bench.file(self.observer.spool.path(upload_id)) == found, upload_id

    def finish(self):
        """All wake up, go on to their ends, and what is left over is cleared."""
        for process in [*self.processes, *self.ghosts]:
            process.run_all()
        self.check()
        for machine in self.machines:
            machine.late_names = machine.late_files = machine.losses = 0.0
        for process in self.processes:
            for upload_id, row in self.catalog.rows.items():
                if row.on_disk and not row.upload.gone and not process.killed:
                    reads = self.reads
                    process.begin(self.read(process, upload_id))
                    process.run_all()
                    assert self.reads > reads, "bytes are missing at a machine that isn't late"
        self.check()
        self.bench.result(self.observer.joined())
        self.clock.advance(100)
        self.bench.result(self.observer.sweeper.sweep_discarded())
        ended = [each for each, row in self.catalog.rows.items() if row.upload.gone and row.on_disk]
        self.bench.result(self.observer.spool.remove(ended))
        self.catalog.data_removed(ended)
        self.check()
        for path in self.bench.files("/up"):
            self.disk.age(path, 1e6)
        self.bench.result(self.observer.sweeper.sweep_unknown())
        self.check()
        paths = {segment.name for row in self.catalog.rows.values() for segment in row.segments}
        expected = {self.observer.names.segment_path(name) for name in paths}
        expected |= {
            self.observer.spool.path(each) for each, row in self.catalog.rows.items() if row.on_disk and row.whole
        }
        left = set(self.bench.files("/up")) - {"/up/.resumable/marker"}
        spare = {self.observer.spool.path(each) for each, row in self.catalog.rows.items() if row.on_disk}
        assert expected <= left <= expected | spare
        for row in self.catalog.rows.values():
            assert not row.upload.finished or row.upload.gone or row.whole

    def stop(self):
        for process in [*self.processes, *self.ghosts]:
            process.kill()

    def finish_row(self, upload_id, **more):
        row = self.catalog.rows[upload_id]
        row.upload = evolve(row.upload, **more)

"""The real engine on a machine that a test can stop, break and start again.

A `Machine` is what outlives a process: a simulated disk, the catalog's file, the name of the boot. A `Server` is one
run of the engine on it, put together as the service does it, under a `twisted.internet.task.Clock`. A `FakeBody` is
what a client sends. Nothing here waits for real time, and no thread is started.

Every operation of the disk and every COMMIT of the catalog is a step of the machine: `Machine.crash_at` stops it
there. What is stopped raises ordinary errors, so that the old run can be wound up (`Server.bury`) and leaves no
coroutine hanging; what it answers after the stop, nobody has heard (`Answer` does not take it).
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Generic, Literal, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.catalog.batches import connect
from resumable.catalog.sqlite import SqliteCatalog
from resumable.daemon.digests import ALGORITHMS
from resumable.model.errors import BodyLost
from resumable.model.hooks import QuestionKind, RequestView
from resumable.model.replica import IReplication, NoReplication, Progress
from resumable.model.upload import IBody, Replica, Upload
from resumable.protocol import tus
from resumable.protocol.checksum import Checksum
from resumable.protocol.concat import FinalUpload
from resumable.protocol.errors import TusError, Unavailable
from resumable.spool import Budget, Spool
from resumable.spool.assembly import STEP
from resumable.spool.disk import IDisk
from resumable.spool.place_rules import PlaceSettings
from resumable.testing import SimulatedDisk, SteppedBatcher, SteppedPool
from resumable.uploads.assembly import Assembler
from resumable.uploads.caller import NOBODY
from resumable.uploads.engine import Engine, Limits
from resumable.uploads.holds import LocalHolds
from resumable.uploads.janitor import Janitor
from resumable.uploads.placing import Placing
from resumable.uploads.questions import Questions
from resumable.uploads.recovery import Recovered, recover
from resumable.uploads.schedule import Schedule
from resumable.uploads.space import Space
from resumable.uploads.uploads import CreationCut, Uploads
from resumable.uploads.visits import Visit

T = TypeVar("T")

UPLOADS = "/up"
ORPHANS = f"{UPLOADS}/.resumable/orphans"
PLACED = f"{UPLOADS}/finished"
#: One byte more than what is gathered in memory: a body that is written as it arrives.
LONG = 64 * 1024 + 1
#: Where the wall clock stands when a test begins.
EPOCH = 1_700_000_000.0

Moment = Literal["before", "after", "torn"]


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes that differ from place to place and from seed to seed."""
    return Random(seed).randbytes(size)


def sha1(data: bytes) -> Checksum:
    digest = ALGORITHMS["sha1"]()
    digest.update(data)
    return Checksum("sha1", digest.digest())


class Down(OSError):
    """The machine has stopped."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the machine is down")


class Machine:
    """A disk, a catalog file and a boot. ``steps`` counts I/O; ``trace`` names it."""

    def __init__(self, directory: Path, *, disk: SimulatedDisk | None = None, boot: int = 1, run: int = 0) -> None:
        self.catalog_directory = directory
        self.disk = disk or SimulatedDisk()
        self.boot = boot
        self.run = run
        self.steps = 0
        self.trace: list[str] = []
        self.down = False
        self.commit_faults: list[Callable[[Callable[[], Any]], Any]] = []
        self._crash_step: int | None = None
        self._faulty_step: tuple[int, int, bool] | None = None
        self._moment: Moment = "before"
        self._rng = Random(0)

    @property
    def catalog_path(self) -> str:
        return str(self.catalog_directory / "catalog.sqlite3")

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def crash_at(self, step: int, moment: Moment = "before", rng: Random | None = None) -> None:
        """Stop at the step of that number (from now: the next one is 1), before or after its effect.

        ``torn``: a COMMIT is cut off within what it writes; another step is as ``after``.
        """
        self._crash_step, self._moment = self.steps + step, moment
        self._rng = rng or Random(step)

    def fail_at(self, step: int, number: int, landed: bool = False) -> None:
        """Let the step of that number (from now: the next one is 1) fail with this errno; a COMMIT as `fail_commit`."""
        self._faulty_step = self.steps + step, number, landed

    def step(self, name: str, act: Callable[[], T]) -> T:
        if self.down:
            raise Down
        self.steps += 1
        self.trace.append(name)
        if self._faulty_step is not None and self.steps == self._faulty_step[0]:
            self._fail(name, *self._faulty_step[1:])
        if self.steps != self._crash_step:
            return act()
        size = self._log_size()
        try:
            if self._moment != "before":
                act()
        finally:
            self.stop(self._rng.randint(size, max(size, self._log_size())) if self._moment == "torn" else None)
        raise Down

    def _fail(self, name: str, number: int, landed: bool) -> None:
        if name != "COMMIT":
            self.disk.fail_next(name, number)
            return
        # this one is on its way already: what it does is decided now
        self.fail_commit(landed=landed, full=number in (errno.ENOSPC, errno.EDQUOT))

    def stop(self, log_size: int | None = None) -> None:
        """Nothing has an effect from now on. ``log_size``: what is left of the catalog's log."""
        if self.down:
            return
        self.down = True
        after = self.catalog_directory / "left"
        after.mkdir()
        for suffix in ("", "-wal"):
            if os.path.exists(self.catalog_path + suffix):
                shutil.copyfile(self.catalog_path + suffix, after / f"catalog.sqlite3{suffix}")
        if log_size is not None and (after / "catalog.sqlite3-wal").exists():
            os.truncate(after / "catalog.sqlite3-wal", log_size)

    def after_kill(self) -> Machine:
        """The same boot; the process is gone."""
        self.stop()
        return self._next(self.disk.kill(), self.boot)

    def after_power_loss(self, rng: Random) -> Machine:
        """The next boot, with what has survived."""
        self.stop()
        return self._next(self.disk.crash(rng), self.boot + 1)

    def _next(self, disk: SimulatedDisk, boot: int) -> Machine:
        directory = Path(tempfile.mkdtemp(prefix=f"run-{self.run + 1}-", dir=self.catalog_directory.parent))
        shutil.copytree(self.catalog_directory / "left", directory, dirs_exist_ok=True)
        return Machine(directory, disk=disk, boot=boot, run=self.run + 1)

    def fail_commit(self, *, landed: bool = False, times: int = 1, after: int = 0, full: bool = False) -> None:
        """Let COMMITs fail: ``times`` of them, ``after`` so many that work; ``landed``: with their effect."""

        def fault(act: Callable[[], Any]) -> Any:
            if landed:
                act()
            error = sqlite3.OperationalError("no room" if full else "cannot write")
            error.sqlite_errorname = "SQLITE_FULL" if full else "SQLITE_ERROR"
            raise error

        self.commit_faults += [lambda act: act()] * after + [fault] * times

    def connect(self, path: str) -> Any:
        """What SqliteCatalog makes its connection with."""
        if self.down:
            raise sqlite3.OperationalError("the machine is down")
        return _Connection(self, connect(path))

    def commit(self, act: Callable[[], Any]) -> Any:
        return self.step("COMMIT", lambda: self.commit_faults.pop(0)(act) if self.commit_faults else act())

    def _log_size(self) -> int:
        try:
            return os.path.getsize(f"{self.catalog_path}-wal")
        except FileNotFoundError:
            return 0


class _Connection:
    """An sqlite3.Connection whose COMMITs are steps of the machine."""

    def __init__(self, machine: Machine, connection: sqlite3.Connection) -> None:
        self._machine = machine
        self._connection = connection

    def execute(self, statement: str, *parameters: Any) -> Any:
        if statement == "COMMIT":
            try:
                return self._machine.commit(lambda: self._connection.execute(statement))
            except Down as error:
                raise sqlite3.OperationalError(str(error)) from error
        if self._machine.down:
            raise sqlite3.OperationalError("the machine is down")
        return self._connection.execute(statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@implementer(IDisk)
class MachineDisk:
    """The machine's disk; every operation is a step of the machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._machine.disk, name)
        return lambda *args, **kwargs: self._machine.step(name, lambda: method(*args, **kwargs))


@implementer(IBody, IPushProducer)
class FakeBody:
    """What a client sends, when the test says so.

    Ends by itself when ``length`` bytes have arrived; a chunked one (``length`` None) by `end`. ``events`` tells what
    the server did with it: ``deliver``, ``pause``, ``resume``, ``discard``.
    """

    def __init__(self, length: int | None, data: bytes = b"") -> None:
        self.length = length
        self.trailers: Mapping[str, str] = {}
        self.events: list[str] = []
        self._held: list[bytes] = [data] if data else []
        self._arrived = len(data)
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] | None = None
        self._paused = self._discarded = False
        self._result: BodyLost | Literal["complete"] | None = "complete" if self._arrived == length else None

    @classmethod
    def whole(cls, data: bytes) -> FakeBody:
        """One with a Content-Length, all of it here."""
        return cls(len(data), data)

    @classmethod
    def chunked(cls, data: bytes, trailers: Mapping[str, str] | None = None) -> FakeBody:
        """A chunked one, all of it here."""
        body = cls(None, data)
        body.end(trailers)
        return body

    @property
    def discarded(self) -> bool:
        return self._discarded

    # the client

    def arrive(self, data: bytes) -> FakeBody:
        self._arrived += len(data)
        self._held.append(data)
        if self._arrived == self.length:
            self._result = "complete"
        self._flush()
        return self

    def end(self, trailers: Mapping[str, str] | None = None) -> None:
        self.trailers = trailers or {}
        self._result = "complete"
        self._flush()

    def lose(self, reason: str = "disconnected") -> None:
        if self._result is None:
            self._result = BodyLost(reason)
            self._flush()

    # the server

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        assert self._done is None and not self._discarded, "a body is delivered once"
        self.events.append("deliver")
        self._done, self._consumer = Deferred(), consumer
        consumer.registerProducer(self, True)
        self._flush()
        return self._done

    def discard(self) -> None:
        self.events.append("discard")
        self._discarded = True
        self._held.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        self.events.append("pause")
        self._paused = True

    def resumeProducing(self) -> None:
        self.events.append("resume")
        self._paused = False
        self._flush()

    def stopProducing(self) -> None:
        self.lose()

    def _flush(self) -> None:
        lost = isinstance(self._result, BodyLost)
        while self._held and self._consumer is not None and (lost or not self._paused):
            self._consumer.write(self._held.pop(0))
        if self._result is None or self._held or self._consumer is None or self._done is None:
            return
        consumer, self._consumer = self._consumer, None
        consumer.unregisterProducer()
        if isinstance(self._result, BodyLost):
            self._done.errback(self._result)
        else:
            self._done.callback(None)


@implementer(IReplication)
class FakeReplication:
    """The engine between the tiers, as a test wants it: what it was told, and what it says.

    Uploads get a replica in each of ``required`` and ``optional``. ``told``: each record that was said to have
    changed; ``gone``: the ids that have ended; ``again``: those with replicas that are no longer parked; ``moving``:
    what `progress` answers; ``copies``: what `open_copy` does; ``url``: what `signed_url` does. `Server.store` stores.
    """

    def __init__(
        self, required: Sequence[str] = ("far",), optional: Sequence[str] = (), acknowledges: bool = False
    ) -> None:
        self.required, self.optional = tuple(required), tuple(optional)
        self.acknowledges = acknowledges
        self.told: list[Upload] = []
        self.copies: dict[str, Any] = {}
        self.url: str | None = None
        self.signed: list[tuple[Any, ...]] = []
        self.gone: list[str] = []
        self.again: list[str] = []
        self.moving: dict[str, Progress] = {}
        self.waiting: dict[str, list[Deferred[None]]] = {}
        self.lagging = False
        self.paused: list[Deferred[None]] = []

    def chosen(
        self, upload: Upload, remotes: Collection[str] | None = None, key: str | None = None
    ) -> Sequence[Replica]:
        if upload.is_partial:
            return ()
        names = [each for each in (*self.required, *self.optional) if remotes is None or each in remotes]
        return [Replica(upload.id, each, each in self.required, key=key) for each in names]

    def committed(self, upload: Upload) -> None:
        self.told.append(upload)

    def ended(self, upload_id: str) -> None:
        self.gone.append(upload_id)

    def restarted(self, upload_id: str) -> None:
        self.again.append(upload_id)

    def when_stored(self, upload_id: str) -> Deferred[None]:
        return self._waiter(self.waiting.setdefault(upload_id, []))

    def progress(self, upload_id: str) -> Mapping[str, Progress]:
        return self.moving

    def open_copy(self, upload_id: str, start: int, size: int) -> Deferred[Any]:
        if upload_id not in self.copies:
            return fail(Unavailable("no copy", 7))
        return succeed(self.copies[upload_id])

    def signed_url(self, *asked: Any) -> Deferred[str | None]:
        self.signed.append(asked)
        return succeed(self.url)

    def admits(self) -> bool:
        return not self.lagging

    def when_admitted(self) -> Deferred[None]:
        return self._waiter(self.paused) if self.lagging else succeed(None)

    # what a test does

    @property
    def waits(self) -> int:
        """How many wait for anything."""
        return sum(map(len, self.waiting.values())) + len(self.paused)

    def stored(self, upload_id: str) -> None:
        for waiter in tuple(self.waiting.get(upload_id, ())):
            waiter.callback(None)

    def catch_up(self) -> None:
        """The lag is small again."""
        self.lagging = False
        for waiter in tuple(self.paused):
            waiter.callback(None)

    @staticmethod
    def _waiter(waiting: list[Deferred[None]]) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        waiting.append(waiter)

        def over(outcome: Any) -> Any:
            waiting.remove(waiter)
            return outcome

        return waiter.addBoth(over)


class Answer(Generic[T]):
    """What a request was answered with, unless the machine went down before."""

    def __init__(self, machine: Machine, work: Awaitable[T]) -> None:
        self._machine = machine
        self._outcome: list[T | Failure] = []
        deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)  # type: ignore[arg-type]
        self.deferred = deferred
        deferred.addBoth(self._answered)

    def _answered(self, outcome: T | Failure) -> None:
        if not self._machine.down:
            self._outcome.append(outcome)

    @property
    def done(self) -> bool:
        return bool(self._outcome)

    @property
    def error(self) -> BaseException | None:
        """What the client is told instead of a success; None while it waits, too."""
        if self._outcome and isinstance(self._outcome[0], Failure):
            error = self._outcome[0].value
            return error.error if isinstance(error, CreationCut) else error
        return None

    @property
    def status(self) -> int | None:
        """The error's status, None where there is no TusError."""
        return self.error.status if isinstance(self.error, TusError) else None

    @property
    def cut(self) -> Upload | None:
        """The upload that a creation has made, though its body failed."""
        if self._outcome and isinstance(self._outcome[0], Failure):
            error = self._outcome[0].value
            return error.upload if isinstance(error, CreationCut) else None
        return None

    @property
    def made(self) -> Upload:
        """The upload that a creation has made, whatever came of it then."""
        return self.cut or self.value  # type: ignore[return-value]

    @property
    def value(self) -> T:
        assert self._outcome, "not answered yet"
        outcome = self._outcome[0]
        if isinstance(outcome, Failure):
            outcome.raiseException()
        return outcome  # type: ignore[return-value]


class Server:
    """One run of the engine on a machine. ``wall`` may be set; it goes on with the clock. ``by``: who asks."""

    def __init__(
        self,
        machine: Machine,
        *,
        limits: Limits | None = None,
        reserve: int = 0,
        rng: Random | None = None,
        boot_id: str | None = None,
        wall: float = EPOCH,
        assembly_step: int = STEP,
        budget: int = 32 << 20,
        deliverers: Sequence[str] = (),
        new_id: Callable[[], str] | None = None,
        replication: IReplication | None = None,
        delete_objects: bool = True,
        questions: Questions | None = None,
        placing: PlaceSettings | None = None,
    ) -> None:
        self.machine = machine
        self.disk = machine.disk
        self.clock = Clock()
        self.skew = 0.0
        self.bodies: list[FakeBody] = []
        self.by = NOBODY
        self.pool = SteppedPool(self.clock, rng)
        self.spool = Spool(
            UPLOADS,
            disk=MachineDisk(machine),
            batcher=lambda work: SteppedBatcher(self.clock, work),
            pool=self.pool,
            budget=Budget(budget),
            assembly_step=assembly_step,
        )
        self.catalog = SqliteCatalog(
            machine.catalog_path,
            batcher=lambda work: SteppedBatcher(self.clock, work),
            deliverers=deliverers,
            now=lambda: wall,
            connector=machine.connect,
        )
        self.engine = Engine(
            catalog=self.catalog,
            spool=self.spool,
            holds=LocalHolds(self.clock),
            clock=self.clock,
            wall=lambda: wall + self.skew + self.clock.seconds(),
            boot_id=machine.boot_id if boot_id is None else boot_id,
            limits=limits or Limits(),
            space=Space(reserve),
            schedule=Schedule(),
            replication=replication or NoReplication(),
            replicas=self.catalog.replicas,
            delete_objects=delete_objects,
            questions=questions or Questions(),
        )
        self.janitor = Janitor(self.engine)
        self.assembler = Assembler(self.engine, self.janitor)
        self.placing = Placing(self.engine, self.janitor, self.pool, placing or PlaceSettings(Path(PLACED)))
        self.engine.places = self.placing
        ids = (f"{machine.run:08x}{number:024x}" for number in itertools.count(1))
        self.uploads = Uploads(
            self.engine, self.assembler, self.janitor, algorithms=ALGORITHMS, new_id=new_id or (lambda: next(ids))
        )
        self.recovered: Recovered | None = None

    # the run

    def start(self) -> Server:
        """As the service does it."""
        self.spool.start()
        opened = self.catalog.open()
        engine = self.engine
        asks = engine.questions.asks(QuestionKind.FINISH)
        self.recovered = recover(
            *(self.catalog, opened, self.spool, engine.boot_id, engine.wall()),
            asks=asks,
            planned=self.placing.planned,
        )
        self.pool.start()
        self.catalog.start()
        self.assembler.start()
        self.placing.start()
        self.pump()
        return self

    def pump(self) -> None:
        """Do all that can be done without time passing."""
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def turn(self) -> None:
        """One thing of what waits in the threads, and what comes of it in the reactor."""
        due = [call for call in self.clock.calls if call.getTime() <= self.clock.seconds()]
        assert due, "nothing waits"
        self.clock.calls.remove(due[0])
        due[0].called = 1
        due[0].func(*due[0].args, **due[0].kw)

    def advance(self, seconds: float) -> None:
        """Let time pass, in small steps, each with all that comes of it."""
        end = self.clock.seconds() + seconds
        self.pump()
        while (left := end - self.clock.seconds()) > 1e-9:
            calls = [call.getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()]
            self.clock.advance(min([left, *(delay for delay in calls if delay > 0)]))
            self.pump()

    def tick(self) -> int:
        """What the service does once a second; answers how many commits it began."""
        begun = self.engine.schedule.tick(self.clock.seconds())
        self.pump()
        return begun

    def sweep(self) -> None:
        self.ask(self.janitor.sweep()).value  # noqa: B018

    def stop(self) -> None:
        """A graceful stop, to the end."""

        async def stop() -> None:
            for each in (self.uploads, self.assembler, self.placing, self.spool, self.catalog, self.pool):
                await each.stop()

        assert self.ask(stop()).done or self.machine.down
        self.machine.stop()

    def bury(self) -> None:
        """After the machine has stopped: let everything of this run come to nothing."""
        self.machine.stop()
        for body in self.bodies:
            body.lose()
        self.pump()
        self.catalog.stop()
        self.pump()

    # requests

    def ask(self, work: Awaitable[T]) -> Answer[T]:
        answer = Answer(self.machine, work)
        self.pump()
        return answer

    def create(
        self,
        length: int | None = None,
        body: FakeBody | None = None,
        *,
        partial: bool = False,
        checksum: Checksum | None = None,
        trailer: bool = False,
        metadata: str | None = None,
    ) -> Answer[Upload]:
        """A POST; without a length it is deferred."""
        creation = tus.Creation(
            length=length,
            deferred=length is None,
            metadata=metadata,
            concat="partial" if partial else None,
            concat_header="partial" if partial else None,
            checksum=checksum,
            checksum_trailer=trailer,
            has_body=body is not None and body.length != 0,
        )
        return self.ask(self.uploads.create(creation, self._sent(body), self.by))

    def patch(
        self,
        upload_id: str,
        offset: int,
        body: FakeBody | bytes = b"",
        *,
        length: int | None = None,
        checksum: Checksum | None = None,
        trailer: bool = False,
    ) -> Answer[Upload]:
        """A PATCH; bytes for a body are all of it."""
        if isinstance(body, bytes):
            body = FakeBody.whole(body)
        request = tus.Append(offset, length, checksum, trailer)
        return self.ask(self.uploads.append(upload_id, request, self._sent(body), self.by))

    def head(self, upload_id: str) -> Answer[Upload]:
        return self.ask(self.uploads.inspect(upload_id))

    def delete(self, upload_id: str) -> Answer[None]:
        return self.ask(self.uploads.terminate(upload_id))

    def concat(
        self, *partial_ids: str, metadata: str | None = None, request: RequestView | None = None
    ) -> Answer[Upload]:
        """A POST of a final upload; ``request``: what hooks are shown of it."""
        header = "final;" + " ".join(f"/files/{each}" for each in partial_ids)
        creation = tus.Creation(
            length=None,
            deferred=False,
            metadata=metadata,
            concat=FinalUpload(tuple(f"/files/{each}" for each in partial_ids)),
            concat_header=header,
            checksum=None,
            checksum_trailer=False,
            has_body=False,
        )
        return self.ask(self.uploads.concatenate(creation, partial_ids, self.by, Visit(request)))

    def upload(self, data: bytes = b"", length: int | None = None, *, partial: bool = False) -> str:
        """An upload that has ``data``; of that length, or of ``length``."""
        upload_id = self.create(len(data) if length is None else length, partial=partial).value.id
        if data:
            assert self.patch(upload_id, 0, data).value.offset == len(data)
        return upload_id

    def replicas(self, upload_id: str) -> dict[str, Replica]:
        """Its replicas by remote."""
        return {each.remote: each for each in self.ask(self.catalog.replicas.of(upload_id)).value}

    def store(self, upload_id: str, *remotes: str) -> None:
        """What the engine between the tiers does when these remotes (none: all) have the upload."""
        done = False
        for remote, replica in self.replicas(upload_id).items():
            if not remotes or remote in remotes:
                stored = {"location": f"{remote}://{upload_id}"}
                landed, done = self.ask(self.catalog.replicas.store(replica, stored, self.engine.wall())).value
                assert landed
        if done and isinstance(self.engine.replication, FakeReplication):
            self.engine.replication.stored(upload_id)
        self.pump()

    def write_uncommitted(self, upload_id: str, data: bytes) -> None:
        """A whole new upload's bytes get as far as its data file, and no further."""
        body = FakeBody(len(data))
        self.patch(upload_id, 0, body)
        body.arrive(data)
        while self.content(upload_id) != data:
            self.turn()

    def drop(self, *upload_ids: str) -> list[str]:
        """Give up the local data of these, as far as it isn't needed; the files go with the next round."""
        return list(self.ask(self.catalog.replicas.drop(upload_ids, self.engine.wall())).value)

    def _sent(self, body: FakeBody | None) -> FakeBody:
        body = body or FakeBody.whole(b"")
        self.bodies.append(body)
        return body

    # what a test may know that a client can't

    def row(self, upload_id: str) -> Upload:
        """The catalog's record."""
        row = self.ask(self.catalog.get(upload_id)).value
        assert row is not None
        return row

    def content(self, upload_id: str) -> bytes | None:
        """The data file's bytes, None when there is none."""
        return content(self.disk, f"{UPLOADS}/{upload_id}")

    def names(self, directory: str = UPLOADS) -> set[str]:
        paths = [path for path in self.disk._names if os.path.dirname(path) == directory]
        return {os.path.basename(path) for path in paths} - {".resumable"}


def content(disk: SimulatedDisk, path: str) -> bytes | None:
    """A file's bytes as a process would read them; no operation of the disk, so nothing fails or counts."""
    node = disk._names.get(path)
    return None if node is None else bytes(node.content)  # type: ignore[union-attr]


def machines(directory: Path) -> Iterator[Machine]:
    """Fresh machines in directories of their own."""
    for number in itertools.count():
        place = directory / f"machine-{number}" / "run-0"
        place.mkdir(parents=True)
        yield Machine(place)

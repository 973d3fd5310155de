"""The real use cases on a machine that a test can stop, break and start again.

A `Machine` is what outlives a process: a simulated disk, the catalog's file, the name of the boot. A `Server` is one
run of the use cases on it, put together as the service does it, under a `twisted.internet.task.Clock`. Nothing here
waits for real time, and no thread is started.

What is stopped with the machine raises ordinary errors, so that the old run can be wound up (`Server.bury`) and leaves
no coroutine hanging; what it answers after the stop, nobody has heard (`Answer` does not take it).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.catalog.sqlite import SqliteCatalog
from resumable.daemon.parts import ALGORITHMS
from resumable.model.hooks import IProgress, NoHooks, QuestionKind, RequestView
from resumable.model.principal import NOBODY
from resumable.model.replica import IReplication, NoReplication
from resumable.model.upload import Fact, IInterim, Replica, Upload
from resumable.protocol import tus
from resumable.protocol.checksum import Checksum
from resumable.protocol.concat import FinalUpload
from resumable.protocol.digests import NONE, RequestDigests
from resumable.protocol.errors import TusError
from resumable.protocol.requests import Append, Creation
from resumable.spool import Budget, Spool
from resumable.spool.assembly import STEP
from resumable.spool.interfaces import IStoredFiles
from resumable.spool.placed_files import PlacedFiles, PlaceSettings
from resumable.testing import SteppedBatcher, SteppedPool
from resumable.uploads.context import Counts, HookContext, Questions, UploadContext
from resumable.uploads.digest_rules import DigestRules
from resumable.uploads.finishing import CreationCut
from resumable.uploads.holds import LocalHolds
from resumable.uploads.janitor import Reclaimer
from resumable.uploads.limits import IQuota, NoQuota, Space, UploadLimits
from resumable.uploads.recovery import UploadsRecovered, recover
from resumable.uploads.uploads import Uploads
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.machine import Machine, MachineDisk, content

T = TypeVar("T")

UPLOADS = "/up"
ORPHANS = f"{UPLOADS}/.resumable/orphans"
PLACED = f"{UPLOADS}/finished"
#: One byte more than what is gathered in memory: a body that is written as it arrives.
LONG = 64 * 1024 + 1
#: Where the wall clock stands when a test begins.
EPOCH = 1_700_000_000.0


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes that differ from place to place and from seed to seed."""
    return Random(seed).randbytes(size)


def sha1(data: bytes) -> Checksum:
    digest = ALGORITHMS["sha1"]()
    digest.update(data)
    return Checksum("sha1", digest.digest())


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
    """One run of the use cases on a machine. ``wall`` may be set; it goes on with the clock. ``by``: who asks."""

    def __init__(
        self,
        machine: Machine,
        *,
        limits: UploadLimits | None = None,
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
        progress: IProgress | None = None,
        quota: IQuota | None = None,
        placing: PlaceSettings | None = None,
        clock: Clock | None = None,
        objects: IStoredFiles | None = None,
        digests: DigestRules | None = None,
    ) -> None:
        self.machine = machine
        self.disk = machine.disk
        self.clock = clock or Clock()
        self.skew = 0.0
        self.bodies: list[FakeBody] = []
        self.by = NOBODY
        self.pool = SteppedPool(self.clock, rng)
        self.catalog = SqliteCatalog(
            machine.catalog_path,
            batcher=lambda work: SteppedBatcher(self.clock, work),
            deliverers=deliverers,
            now=lambda: wall,
            connector=machine.connect,
        )
        self.spool = Spool(
            UPLOADS,
            disk=MachineDisk(machine),
            batcher=lambda work: SteppedBatcher(self.clock, work),
            pool=self.pool,
            budget=Budget(budget),
            record=self.catalog.jobs.do,
            assembly_step=assembly_step,
        )
        places = PlacedFiles(self.spool, self.pool, placing or PlaceSettings(Path(PLACED)))
        counts = Counts()
        self.reclaimer = Reclaimer(self.catalog, self.spool, places, counts)
        self.context = UploadContext(
            catalog=self.catalog,
            spool=self.spool,
            holds=LocalHolds(self.clock),
            counts=counts,
            clock=self.clock,
            wall=lambda: wall + self.skew + self.clock.seconds(),
            boot_id=machine.boot_id if boot_id is None else boot_id,
            limits=limits or UploadLimits(),
            space=Space(reserve),
            places=places,
            replication=replication or NoReplication(),
            replicas=self.catalog.replicas,
            quota=NoQuota() if quota is None else quota,
            delete_objects=delete_objects,
            questions=questions or Questions(),
            progress=progress or NoHooks(),
            objects=objects,
            digests=digests or DigestRules(),
        )
        ids = (f"{machine.run:08x}{number:024x}" for number in itertools.count(1))
        self.uploads = Uploads(
            self.context, self.reclaimer, algorithms=ALGORITHMS, new_id=new_id or (lambda: next(ids)), pool=self.pool
        )
        self.assembler, self.janitor = self.uploads.assembler, self.uploads.janitor
        self.recovered: UploadsRecovered | None = None

    # the run

    def start(self) -> Server:
        """As the service does it."""
        self.spool.start()
        opened = self.catalog.open()
        context = self.context
        self.recovered = recover(
            *(self.catalog, opened, self.spool, context.boot_id, context.wall()),
            asks=context.questions.asks(QuestionKind.FINISH),
            planned=context.places.planned,
        )
        self.pool.start()
        self.catalog.start()
        self.assembler.start()
        self.uploads.placer.start()
        self.uploads.digester.start()
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

    def age(self) -> None:
        """As if its uploads had been made long ago: their records are read from the disk."""
        self.catalog._fresh.clear()

    def tick(self) -> int:
        """What the service does once a second; answers how many commits it began."""
        begun = self.uploads.appends.tick(self.clock.seconds())
        self.pump()
        return begun

    def sweep(self) -> None:
        self.ask(self.janitor.sweep()).value  # noqa: B018

    def stop(self) -> None:
        """A graceful stop, to the end."""

        async def stop() -> None:
            background = (self.assembler, self.uploads.placer, self.uploads.digester)
            for each in (self.uploads, *background, self.spool, self.catalog, self.pool):
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
        digests: RequestDigests = NONE,
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
            digests=digests,
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
        digests: RequestDigests = NONE,
    ) -> Answer[Upload]:
        """A PATCH; bytes for a body are all of it."""
        if isinstance(body, bytes):
            body = FakeBody.whole(body)
        request = tus.Append(offset, length, checksum, trailer, digests)
        return self.ask(self.uploads.append(upload_id, request, self._sent(body), self.by))

    def draft_create(
        self,
        completes: bool,
        body: FakeBody | bytes = b"",
        *,
        length: int | None = None,
        at_most: int | None = None,
        interim: IInterim | None = None,
        digests: RequestDigests = NONE,
    ) -> Answer[Upload]:
        """A POST of the draft."""
        if isinstance(body, bytes):
            body = FakeBody.whole(body)
        known = body.length if completes and length is None else length
        creation = Creation(
            length=known,
            deferred=known is None,
            metadata=None,
            concat=None,
            concat_header=None,
            checksum=None,
            checksum_trailer=False,
            has_body=body.length != 0,
            completes=completes,
            digests=digests,
            draft=True,
            at_most=at_most,
        )
        return self.ask(self.uploads.create(creation, self._sent(body), self.by, interim=interim))

    def draft_append(
        self,
        upload_id: str,
        offset: int,
        completes: bool,
        body: FakeBody | bytes = b"",
        *,
        length: int | None = None,
        at_most: int | None = None,
        interim: IInterim | None = None,
        digests: RequestDigests = NONE,
    ) -> Answer[Upload]:
        """A PATCH of the draft."""
        if isinstance(body, bytes):
            body = FakeBody.whole(body)
        request = Append(offset, length, None, False, digests, completes=completes, draft=True, at_most=at_most)
        return self.ask(self.uploads.append(upload_id, request, self._sent(body), self.by, interim=interim))

    def look(self, upload_id: str) -> Answer[Upload]:
        """A HEAD of the draft."""
        return self.ask(self.uploads.look(upload_id))

    def head(self, upload_id: str) -> Answer[Upload]:
        return self.ask(self.uploads.inspect(upload_id))

    def delete(self, upload_id: str) -> Answer[None]:
        return self.ask(self.uploads.terminate(upload_id))

    def concat(
        self,
        *partial_ids: str,
        metadata: str | None = None,
        request: RequestView | None = None,
        digests: RequestDigests = NONE,
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
            digests=digests,
        )
        return self.ask(self.uploads.concatenate(creation, partial_ids, self.by, HookContext(request)))

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
                landed, done = self.ask(self.catalog.replicas.store(replica, stored, self.context.wall())).value
                assert landed
        if done and isinstance(self.context.replication, FakeReplication):
            self.context.replication.stored(upload_id)
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
        return list(self.ask(self.catalog.replicas.drop(upload_ids, self.context.wall())).value)

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


def told(server: Server, deliverer: str) -> list[Fact]:
    """Deliver everything that waits for this deliverer: each upload's facts in their order."""
    outbox, facts = server.catalog.outbox, []
    while events := server.ask(outbox.due(deliverer, 1e12, 100)).value:
        facts += [event.fact for event in events]
        server.ask(outbox.delivered([event.seq for event in events]))
    return facts

"""A transfer: a stretch of work on one replica.

One reason to change: in which order a remote is asked for what.

Invariant: a remote is given committed bytes only, is told the length before the last of them, and is asked to
finalise only what is finished and confirmed to the last byte. It is asked for its progress only where that isn't
known: requests to the store are one for a single part, else one for each part and what initiating and finalising cost.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TypeVar

from attrs import asdict, evolve, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError, maybeDeferred

from resumable.model.replica import Progress
from resumable.model.telemetry import REQUEST
from resumable.model.upload import ReplicaState, Upload
from resumable.protocol import metadata
from resumable.remotes.interfaces import (
    IDeletable,
    IKeyed,
    IPartRemote,
    IPlanned,
    NotThere,
    OutOfStep,
    Part,
    Permanent,
    Plan,
    Transient,
)
from resumable.remotes.plan import Step
from resumable.remotes.regions import Window
from resumable.replication.context import Remote, RemoteCounts, ReplicationContext, SpoolSource
from resumable.replication.parallel_parts import ParallelParts
from resumable.replication.progress import ReplicaProgress

T = TypeVar("T")

TRANSFER_PARTS = 8
"""After so many parts a transfer makes room for another; so many are written between two records of the progress."""
MISSTEPS = 3
"""So often in one transfer the remote may have something else than it was thought to have."""


class TransferOutcome(enum.Enum):
    """RESTS: nothing more can be done now, or another upload's time has come. COMPLETE: stored, as the last of the
    required replicas; STORED: any other. REMOVED: nothing is left of it. OVERTAKEN: the catalog's row has changed."""

    RESTS = "rests"
    STORED = "stored"
    COMPLETE = "complete"
    REMOVED = "removed"
    OVERTAKEN = "overtaken"


class Overtaken(Exception):
    """The replica is no longer in the state that it was in."""


@frozen
class TransferContext:
    """What all transfers of one remote work with. ``slots``: the parts that may be on their way to it.

    ``worked`` is told that the remote did something, ``moved`` by how many bytes more are confirmed.
    """

    remote: Remote
    means: ReplicationContext
    slots: DeferredSemaphore
    worked: Callable[[], None]
    moved: Callable[[int], None]
    counts: RemoteCounts


class Transfer:
    """One at a time for a replica. ``crowded`` tells whether others wait for their transfer."""

    def __init__(self, kit: TransferContext, progress: ReplicaProgress, crowded: Callable[[], bool]) -> None:
        self._kit = kit
        self._backend = kit.remote.backend
        self._replicas = kit.means.replicas
        self._limits = kit.means.limits
        self._run = kit.means.run
        self._progress = progress
        self._crowded = crowded
        self._id = progress.replica.upload_id
        self._many = IPartRemote.providedBy(self._backend)
        self._source: SpoolSource | None = None
        self._parts: ParallelParts | None = None
        self._cursor = 0
        self._taken = self._written = 0

    @property
    def progress(self) -> Progress:
        progress = self._progress
        ahead = sum(end - start for start, end in progress.ahead.items())
        under_way = self._parts.size if self._parts else 0
        return Progress(progress.confirmed + ahead + under_way, progress.confirmed)

    def look(self) -> None:
        """The progress's upload has become more."""
        if self._parts:
            self._parts.fill()

    async def run(self) -> TransferOutcome:
        """Raises what the remote, the spool or the catalog failed with."""
        try:
            if self._progress.replica.state is ReplicaState.ENDING:
                return await self._remove()
            return await self._forward()
        except Overtaken:
            return TransferOutcome.OVERTAKEN
        finally:
            if self._source is not None:
                await self._source.close()

    async def _remove(self) -> TransferOutcome:
        kit, replica = self._kit, self._progress.replica
        await self._ask(lambda: self._backend.abort_upload(self._id))
        if replica.delete and IDeletable.providedBy(self._backend):
            await self._ask(lambda: IDeletable(self._backend).delete_object(self._id))
        kit.worked()
        await self._replicas.ended(replica)
        kit.counts.removed += 1
        return TransferOutcome.REMOVED

    async def _forward(self) -> TransferOutcome:
        kit, progress = self._kit, self._progress
        if self._upload.dropped_at is not None:
            raise Permanent("its local data was given up")
        for _ in range(MISSTEPS):
            try:
                await self._write()
                return await self._finish()
            except NotThere:
                kit.moved(progress.begin_anew(self._run))
            except OutOfStep:
                progress.doubt()
        raise Transient("what the remote has is again and again something else than it said")

    @property
    def _upload(self) -> Upload:
        assert self._progress.upload is not None
        return self._progress.upload

    # -- before the first byte

    async def _prepare(self) -> None:
        """Tell the remote what it has to know, and find out what it has."""
        kit, progress = self._kit, self._progress
        if progress.untold:
            upload = self._upload
            pairs = metadata.parse(upload.metadata or "")
            key = await self._ask(lambda: self._initiate(upload, pairs))
            progress.plan = await self._plan()
            progress.whole_parts = IPlanned.providedBy(self._backend)
            progress.told, progress.told_length = True, upload.length
            progress.replica = evolve(progress.replica, key=key)
        if progress.replica.run != self._run:
            kit.moved(await self._learn())

    def _initiate(self, upload: Upload, pairs: Mapping[str, bytes]) -> Deferred[str]:
        """With the key that it was given, or has already."""
        key = self._progress.replica.key
        if key is not None and IKeyed.providedBy(self._backend):
            return IKeyed(self._backend).initiate_upload(self._id, upload.length, pairs, key)
        return self._backend.initiate_upload(self._id, upload.length, pairs)

    async def _plan(self) -> Plan:
        if IPlanned.providedBy(self._backend):
            return await self._ask(lambda: IPlanned(self._backend).part_plan(self._id))
        return Plan((Step(self._limits.part_size, 1 << 40),))

    async def _learn(self) -> int:
        """Ask the remote what it has. Answers by how much that is more than was known."""
        progress = self._progress
        if IPartRemote.providedBy(self._backend):
            return progress.learn(
                await self._ask(lambda: IPartRemote(self._backend).confirmed_parts(self._id)), self._run
            )
        size = await self._ask(lambda: self._backend.get_upload_progress(self._id))
        return progress.believe(min(size, self._upload.offset), self._run)

    # -- parts

    async def _write(self) -> None:
        """Write what may be written, until others wait for their transfer."""
        progress = self._progress
        while True:
            await self._prepare()
            self._cursor = progress.confirmed
            if self._tired or progress.part_from(self._cursor) is None:
                return
            if self._source is None:
                self._source = await self._kit.means.open(self._id)
            self._parts = ParallelParts(self._limits.per_upload if self._many else 1, self._take, self._one)
            try:
                await self._parts.run()
            finally:
                self._parts = None

    @property
    def _tired(self) -> bool:
        return self._taken >= TRANSFER_PARTS and self._crowded()

    def _take(self) -> Part | None:
        """The next part to go; None while there is none, or the remote has to be told something first."""
        if self._tired or self._progress.untold:
            return None
        part = self._progress.part_from(max(self._cursor, self._progress.confirmed))
        if part is not None:
            self._cursor = part.end
            self._taken += 1
        return part

    async def _one(self, part: Part) -> None:
        REQUEST.set(self._progress.request)  # a part begins in the transfer of whatever made room for it
        kit = self._kit
        await kit.slots.acquire()
        try:
            assert self._parts is not None and self._source is not None
            if self._parts.failed:
                return
            data = Window(self._source, part.offset, part.size)
            await self._ask(lambda: self._backend.write_chunk(self._id, part.offset, data, part.size), part.size)
        finally:
            kit.slots.release()
        kit.counts.parts += 1
        kit.counts.bytes += part.size
        kit.moved(self._progress.confirm(part))
        kit.worked()
        self._written += 1
        if self._written % TRANSFER_PARTS == 0:
            await self.save()

    # -- after the last

    async def _finish(self) -> TransferOutcome:
        kit, progress, upload = self._kit, self._progress, self._upload
        if not upload.finished or progress.confirmed != upload.length:
            await self.save()
            return TransferOutcome.RESTS
        stored = await self._ask(lambda: self._backend.finalize_upload(self._id))
        kit.worked()
        landed, complete = await self._replicas.store(progress.replica, asdict(stored), kit.means.wall())
        if not landed:
            return TransferOutcome.OVERTAKEN
        kit.counts.stored += 1
        return TransferOutcome.COMPLETE if complete else TransferOutcome.STORED

    async def save(self) -> None:
        """Record what has changed. Raises Overtaken."""
        progress = self._progress
        replica = progress.settled()
        if replica != progress.saved:
            if not await self._replicas.advance(replica):
                raise Overtaken
            progress.saved = replica

    async def _ask(self, call: Callable[[], Deferred[T]], size: int = 0) -> T:
        """What the remote answers, within the time that one try may take."""
        seconds = self._limits.try_timeout + size / self._limits.slowest
        answer: Deferred[T] = maybeDeferred(call)
        try:
            return await answer.addTimeout(seconds, self._kit.means.clock)
        except TimeoutError:
            raise Transient(f"no answer within {seconds:.0f} s") from None

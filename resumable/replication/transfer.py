"""A transfer: one stretch of work on one replica.

Invariants: a remote gets committed bytes only, learns the length before the last of them, and is asked to finalise
only an upload that is finished and confirmed to the last byte. It is asked for its progress only where that isn't
known: an upload of one part costs one request to the store; any other costs one for each part, and those that initiate
and finalise it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from attrs import define, evolve, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError, maybeDeferred
from twisted.logger import Logger

from resumable.model.replica import TransferProgress
from resumable.model.telemetry import REQUEST
from resumable.model.upload import ReplicaState, Upload
from resumable.protocol import digests
from resumable.remotes.interfaces import (
    IDeletable,
    IKeyed,
    Intent,
    IPartRemote,
    IPlanned,
    IWholeRemote,
    NotThere,
    OutOfStep,
    Part,
    Permanent,
    Plan,
    RegionLost,
    Stored,
    Transient,
)
from resumable.remotes.plan import Step
from resumable.remotes.regions import BodyMemory, BytesRegion, RegionWindow
from resumable.replication.context import Remote, RemoteCounts, ReplicationContext, SpoolSource
from resumable.replication.parallel_parts import ParallelParts
from resumable.replication.progress import ReplicaProgress

T = TypeVar("T")
_log = Logger()

SMALL = 64 * 1024
"""Bytes of an upload that may go in one piece, held in memory meanwhile."""
TRANSFER_PARTS = 8
"""Parts after which a transfer makes room for another upload, and after which the progress is recorded."""
MISSTEPS = 3
"""How often in one transfer the remote may turn out to have other bytes than it was thought to have."""


def intended(remote: Remote, upload: Upload, key: str | None) -> Intent | None:
    """The intent of a new upload that the remote will get in one piece. ``key``: the object's, if it was chosen.

    None: it goes step by step, as one that isn't small, or whose length isn't known.
    """
    whole = remote.journal is not None and IWholeRemote.providedBy(remote.backend)
    if not whole or upload.length is None or upload.length > SMALL:
        return None
    try:
        pairs = object_metadata(upload)
        return IWholeRemote(remote.backend).intend(upload.id, upload.length, pairs, key)
    except Exception:  # the upload is made all the same, and its transfer will fail visibly
        _log.failure("no intent could be made", upload=upload.id, remote=remote.name)
        return None


def object_metadata(upload: Upload) -> Mapping[str, bytes]:
    """The metadata of its objects. What was announced is compared before any object is made of an unfinished one."""
    known = upload.digest or (None if upload.finished else upload.announced)
    return digests.object_metadata(upload.metadata, known)


class TransferOutcome(enum.Enum):
    """RESTS: nothing more can be done now, or another upload's time has come. COMPLETE: stored, as the last of the
    required replicas; STORED: any other. REMOVED: nothing is left of it. OVERTAKEN: the catalog's row has changed."""

    RESTS = "rests"
    STORED = "stored"
    COMPLETE = "complete"
    REMOVED = "removed"
    OVERTAKEN = "overtaken"


class Overtaken(Exception):
    """The replica's row in the catalog is no longer in the state that this transfer began with."""


@frozen
class TransferContext:
    """Common to all transfers of one remote. ``slots``: parts that may be on their way to it. ``memory``: for small
    uploads that are read.

    ``worked`` is called when the remote has done something, ``confirmed`` with the number of bytes that it has
    confirmed since the last call (negative: that it turned out to lack).
    """

    remote: Remote
    shared: ReplicationContext
    slots: DeferredSemaphore
    memory: BodyMemory
    worked: Callable[[], None]
    confirmed: Callable[[int], None]
    counts: RemoteCounts


class Transfer:
    """One at a time for a replica. ``crowded`` tells whether other uploads wait."""

    def __init__(self, context: TransferContext, progress: ReplicaProgress, crowded: Callable[[], bool]) -> None:
        self._context = context
        self._backend = context.remote.backend
        self._replicas = context.shared.replicas
        self._limits = context.shared.limits
        self._run = context.shared.run
        self._progress = progress
        self._crowded = crowded
        self._id = progress.replica.upload_id
        self._many = IPartRemote.providedBy(self._backend)
        self._source: SpoolSource | None = None
        self._parts: ParallelParts | None = None
        self._cursor = 0
        self._taken = self._written = 0

    @property
    def sent_and_confirmed(self) -> TransferProgress:
        """How far it is at this moment."""
        progress = self._progress
        ahead = sum(end - start for start, end in progress.ahead.items())
        under_way = self._parts.size if self._parts else 0
        return TransferProgress(progress.confirmed + ahead + under_way, progress.confirmed)

    def fill(self) -> None:
        """The upload has more bytes: begin the parts that may begin now."""
        if self._parts:
            self._parts.fill()

    async def run(self) -> TransferOutcome:
        """Do all that can be done now. Raises any error of the remote, the spool or the catalog."""
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
        context, replica = self._context, self._progress.replica
        await self._ask(lambda: self._backend.abort_upload(self._id))
        upload = self._progress.upload
        whole = upload is None or upload.finished  # else there is no object, and the store needn't be asked for it
        if replica.delete and whole and IDeletable.providedBy(self._backend):
            await self._ask(lambda: IDeletable(self._backend).delete_object(self._id))
        context.worked()
        await self._replicas.ended(replica)
        context.counts.removed += 1
        return TransferOutcome.REMOVED

    async def _forward(self) -> TransferOutcome:
        context, progress = self._context, self._progress
        if self._upload.dropped_at is not None:
            raise Permanent("its local data was given up")
        if self._limits.whole_only and self._progress.intent is None:
            self._source = await self._context.shared.open(self._id)  # before the remote learns of it
        for _ in range(MISSTEPS):
            try:
                if progress.intent is not None and self._upload.finished:
                    return await self._write_whole(progress.intent)
                await self._write()
                return await self._finish()
            except NotThere:
                context.confirmed(progress.start_over(self._run))
            except OutOfStep:
                progress.distrust()
        raise Transient("what the remote has is again and again something else than it said")

    @property
    def _upload(self) -> Upload:
        assert self._progress.upload is not None
        return self._progress.upload

    # -- before the first byte

    async def _prepare(self) -> None:
        """Initiate the upload in the remote, and find out which bytes it has, where that isn't done yet."""
        context, progress = self._context, self._progress
        if progress.needs_initiating:
            upload = self._upload
            pairs = object_metadata(upload)
            key = await self._ask(lambda: self._initiate(upload, pairs))
            progress.plan = await self._plan()
            progress.whole_parts = IPlanned.providedBy(self._backend)
            progress.initiated, progress.initiated_length = True, upload.length
            progress.replica = evolve(progress.replica, key=key)
        if progress.replica.run != self._run:
            context.confirmed(await self._learn())

    def _initiate(self, upload: Upload, pairs: Mapping[str, bytes]) -> Deferred[str]:
        """Under the key that was chosen for it, or that it has already."""
        key = self._progress.replica.key
        if key is not None and IKeyed.providedBy(self._backend):
            return IKeyed(self._backend).initiate_upload(self._id, upload.length, pairs, key)
        return self._backend.initiate_upload(self._id, upload.length, pairs)

    async def _plan(self) -> Plan:
        if IPlanned.providedBy(self._backend):
            return await self._ask(lambda: IPlanned(self._backend).part_plan(self._id))
        return Plan((Step(self._limits.part_size, 1 << 40),))

    async def _learn(self) -> int:
        """Ask the remote which bytes it has. Answers how many more that is than was known (or fewer)."""
        progress = self._progress
        if IPartRemote.providedBy(self._backend):
            return progress.set_confirmed_parts(
                await self._ask(lambda: IPartRemote(self._backend).confirmed_parts(self._id)), self._run
            )
        size = await self._ask(lambda: self._backend.get_upload_progress(self._id))
        return progress.set_confirmed(min(size, self._upload.offset), self._run)

    # -- parts

    async def _write(self) -> None:
        """Write all that may be written; after `TRANSFER_PARTS` parts only while no other upload waits."""
        progress = self._progress
        while True:
            await self._prepare()
            self._cursor = progress.confirmed
            if self._tired or progress.part_from(self._cursor) is None:
                return
            if self._source is None:
                self._source = await self._context.shared.open(self._id)
            self._parts = ParallelParts(self._limits.per_upload if self._many else 1, self._take, self._one)
            try:
                await self._parts.run()
            finally:
                self._parts = None

    @property
    def _tired(self) -> bool:
        return self._taken >= TRANSFER_PARTS and self._crowded()

    def _take(self) -> Part | None:
        """The next part to write; None while there is none, or the remote has to learn of the length first."""
        if self._tired or self._progress.needs_initiating:
            return None
        part = self._progress.part_from(max(self._cursor, self._progress.confirmed))
        if part is not None:
            self._cursor = part.end
            self._taken += 1
        return part

    async def _one(self, part: Part) -> None:
        REQUEST.set(self._progress.request)  # the part that made room for this one may belong to another upload
        context = self._context
        await context.slots.acquire()
        try:
            assert self._parts is not None and self._source is not None
            if self._parts.failed:
                return
            reached = self._source.reach(part.end)
            if reached is not None:
                await reached
            data = RegionWindow(self._source, part.offset, part.size)
            await self._ask(lambda: self._backend.write_chunk(self._id, part.offset, data, part.size), part.size)
        finally:
            context.slots.release()
        context.counts.parts += 1
        context.counts.bytes += part.size
        context.confirmed(self._progress.confirm(part))
        context.worked()
        self._written += 1
        if self._written % TRANSFER_PARTS == 0:
            await self.save()

    # -- after the last

    async def _finish(self) -> TransferOutcome:
        progress, upload = self._progress, self._upload
        if not upload.finished or progress.confirmed != upload.length:
            await self.save()
            return TransferOutcome.RESTS
        return await self._stored(await self._ask(lambda: self._backend.finalize_upload(self._id)))

    async def _stored(self, stored: Stored, record: Mapping[str, Any] | None = None) -> TransferOutcome:
        """Record that the object is there. ``record``: for the backend's journal."""
        context, replica = self._context, self._progress.replica
        context.worked()
        landed, complete = await self._replicas.store(replica, stored.to_json(), context.shared.wall(), record)
        if not landed:
            return TransferOutcome.OVERTAKEN
        context.counts.stored += 1
        return TransferOutcome.COMPLETE if complete else TransferOutcome.STORED

    # -- all at once

    async def _write_whole(self, intent: Intent) -> TransferOutcome:
        """Of a small upload: a job that reads it, one request, and one change of the catalog.

        It is read before its turn comes, together with others, so that no slot is idle meanwhile.
        """
        context, size, journal = self._context, self._upload.offset, self._context.remote.journal
        assert journal is not None
        await context.memory.acquire(size)
        try:
            data = await context.shared.read((self._id, size)) if size else b""
            if len(data) != size:
                raise RegionLost(f"{size} bytes were committed, {len(data)} are there")
            await context.slots.acquire()
            try:
                region, whole = BytesRegion(data), IWholeRemote(self._backend)
                stored, record = await self._ask(lambda: whole.write_whole(self._id, intent, region), size)
            finally:
                context.slots.release()
        finally:
            context.memory.release(size)
        context.counts.parts += size > 0
        context.counts.bytes += size
        try:
            return await self._stored(stored, record)
        finally:
            journal.forget(self._id)

    async def save(self) -> None:
        """Record the replica in the catalog if it has changed. Raises Overtaken, CatalogUnavailable."""
        progress = self._progress
        replica = progress.for_catalog()
        if replica != progress.saved:
            if not await self._replicas.advance(replica):
                raise Overtaken
            progress.saved = replica

    async def _ask(self, call: Callable[[], Deferred[T]], size: int = 0) -> T:
        """The remote's answer to a call with ``size`` bytes. Raises Transient when it takes too long."""
        seconds = self._limits.try_timeout + size / self._limits.slowest
        answer: Deferred[T] = maybeDeferred(call)
        try:
            return await answer.addTimeout(seconds, self._context.shared.clock)
        except TimeoutError:
            raise Transient(f"no answer within {seconds:.0f} s") from None


@define(eq=False)
class Job:
    """An upload's place among those that are worked on, from before its replica is read to after its transfer.

    ``trial``: it tests whether a remote that is down works again. ``upload``: news that came before the replica was
    read. ``rested``: the transfer did all that it could. ``unwanted``: it was cut off.
    ``early``: the upload's bytes can't be read before it is whole. ``news``: of more bytes, since the job began.
    """

    upload_id: str
    trial: bool
    upload: Upload | None = None
    progress: ReplicaProgress | None = None
    transfer: Transfer | None = None
    done: Deferred[None] | None = None
    rested: bool = False
    early: bool = False
    news: bool = False
    unwanted: bool = False

    def cancel(self) -> None:
        """Cut it off."""
        self.unwanted = True
        if self.done is not None:
            self.done.cancel()

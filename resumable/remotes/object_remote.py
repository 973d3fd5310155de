"""Shared by the remotes of S3, Azure and Google: a replica as an object in a bucket or container.

Invariant: the journal knows of everything that may be in the store, before it is there. An object is ours if it carries
the upload's id and has its size; that is looked up before anything is done again whose answer was lost, and no object
of others is replaced unless that was asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.model import keys
from resumable.remotes.errors import Conflict, OutOfStep, Permanent, RemoteError
from resumable.remotes.interfaces import (
    IClosable,
    IDeletable,
    Intent,
    IPartRemote,
    IPlanned,
    IProbe,
    IRegion,
    ISweeper,
    IWholeRemote,
    Part,
    Plan,
    Stored,
    Unfinished,
)
from resumable.remotes.journals import ReplicaRecords, Stage, agreed_size
from resumable.remotes.metadata import taken
from resumable.remotes.plan import PART_SIZE, ObjectTooLarge, PartLimits, plan_for
from resumable.remotes.reading import IObjectStream, IReadable, ISigning, Presented, not_ours
from resumable.remotes.regions import BytesRegion, check_chunk


@frozen(kw_only=True)
class ObjectRecord:
    """One upload's replica. PLACING: the request that finishes the object may have been done.

    Key and plan never change while a replica is open; the next request to the store is here before it is
    sent.
    """

    key: str
    plan: Plan
    state: Stage = Stage.OPEN
    size: int | None = None
    stored: Stored | None = None

    @property
    def begun(self) -> bool:
        """Whether something unfinished may be in the store."""
        raise NotImplementedError

    @property
    def has_parts(self) -> bool:
        """Whether the store may have confirmed parts."""
        return self.begun

    def sized(self, size: int | None) -> Self:
        """With the size that was given now. See `agreed_size`."""
        return evolve(self, size=agreed_size(self.size, size))

    def plainer(self) -> Self | None:
        """See `resumable.remotes.metadata.MetadataHolder`."""
        raise NotImplementedError

    def over(self) -> Self:
        """The record of an upload that is aborted, before its unfinished parts are removed."""
        return evolve(self, state=Stage.OVER)

    def finished(self, stored: Stored) -> Self:
        """The record once the object is there."""
        return evolve(self, state=Stage.STORED, stored=stored)


R = TypeVar("R", bound=ObjectRecord)
T = TypeVar("T")
Q = TypeVar("Q", bound=ObjectRecord, contravariant=True)


class ObjectStore(Protocol[Q]):
    """A bucket or container, in terms of replicas."""

    async def put(self, upload_id: str, record: Q, data: IRegion) -> Stored:
        """Make the object in one go. Raises Conflict for another's object."""

    async def find_ours(self, upload_id: str, record: Q) -> Stored | None:
        """The object, if it carries the upload's id and has its size."""

    async def delete_ours(self, upload_id: str, record: Q) -> bool:
        """Delete the object if it carries the upload's id; whether it was there."""


class ObjectReading(Protocol[Q]):
    """How objects are read back."""

    async def open(self, upload_id: str, record: Q, start: int, size: int) -> IObjectStream:
        """See IReadable.read_object."""

    async def url(self, upload_id: str, record: Q, presented: Presented) -> str | None:
        """See ISigning.signed_url."""


def another_object(key: str, *, status: int | None = None, code: str | None = "PreconditionFailed") -> Conflict:
    """The key is taken by an object that isn't the upload's."""
    advice = "remove it, choose another key, or allow to replace it"
    return Conflict(f'there is another object under "{key}"', status=status, code=code, advice=advice)


async def found_ours(store: ObjectStore[R], upload_id: str, record: R) -> Stored:
    """The upload's object. Raises NotThere."""
    found = await store.find_ours(upload_id, record)
    if found is None:
        raise not_ours()
    return found


@implementer(IWholeRemote, IPlanned, IDeletable, IProbe, IReadable, ISigning, IClosable)
class ObjectRemote(ABC, Generic[R]):
    """One bucket and prefix. ``now``: seconds since the epoch. ``closing`` is called at the end.

    ``may_be_metadata``: whether a failure may be about the metadata, where the store hasn't said so.
    """

    def __init__(
        self,
        records: ReplicaRecords[R],
        store: ObjectStore[R],
        reading: ObjectReading[R],
        now: Callable[[], float],
        may_be_metadata: Callable[[RemoteError], bool],
        *,
        template: keys.KeyTemplate | None = None,
        part_size: int = PART_SIZE,
        closing: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        self._records = records
        self._objects = store
        self._reading = reading
        self._now = now
        self._may_be_metadata = may_be_metadata
        self._template = template or keys.parse()
        self._part_size = part_size
        self._closing = closing

    @deferred
    async def initiate_upload(
        self, upload_id: str, size: int | None, metadata: Mapping[str, bytes], key: str | None = None
    ) -> str:
        """See IKeyed. Asks the store nothing."""
        record = await self._records.load(upload_id)
        if record and record.state is Stage.OVER and record.begun:
            await self._end(upload_id, record, again=True)  # it was being aborted
        known = record if record and record.state is not Stage.OVER else None
        try:
            limits = self._limits(size)
            if known is None:
                known = self._new(upload_id, size, metadata, record.key if record else key, limits)
            sized = known.sized(size)
            if size is not None and size > min(sized.plan.capacity, limits.largest_object):
                raise ObjectTooLarge(f"the store takes no objects of {size} bytes, or not when begun without a length")
        except ObjectTooLarge as error:
            raise Permanent(str(error)) from None
        if sized != record:
            await self._records.save(upload_id, sized)
        return sized.key

    def intend(self, upload_id: str, size: int, metadata: Mapping[str, bytes], key: str | None = None) -> Intent | None:
        """See IWholeRemote."""
        try:
            record = self._new(upload_id, size, metadata, key, self._limits(size))
        except ObjectTooLarge:
            return None
        return Intent(record.key, self._records.value(record), record) if record.plan.is_single(size) else None

    @deferred
    async def write_whole(self, upload_id: str, intent: Intent, data: IRegion) -> tuple[Stored, Mapping[str, Any]]:
        """See IWholeRemote."""
        record, made = await self._put(upload_id, intent.own, data)
        return made, self._records.value(record.finished(made))

    @deferred
    async def write_chunk(self, upload_id: str, offset: int, data: IRegion, size: int) -> None:
        """See IRemoteStorage."""
        record = await self._records.started(upload_id)
        check_chunk(offset, data, size, record.size)
        if record.stored:
            return
        part = record.plan.part_at(offset, record.size)
        if (part.offset, part.size) != (offset, size):
            raise ValueError(f"{size} bytes at {offset} are no part of the plan, but {part}")
        if not record.begun and record.plan.is_single(record.size):
            await self._keep(upload_id, *await self._put(upload_id, record, data))
        else:
            await self._write_part(upload_id, record, part, data)

    @deferred
    async def finalize_upload(self, upload_id: str) -> Stored:
        """See IRemoteStorage."""
        record = await self._records.started(upload_id)
        if record.stored:
            return record.stored
        if record.size is None:
            raise OutOfStep("the size of the upload was never given")
        if not record.has_parts:
            if record.size:
                raise OutOfStep("nothing was written", 0)
            return await self._keep(upload_id, *await self._put(upload_id, record, BytesRegion(b"")))
        if record.state is Stage.PLACING:
            there = await self._objects.find_ours(upload_id, record)
            if there:
                return await self._keep(upload_id, record, there)
        return await self._finish(upload_id, record, record.size)

    @deferred
    async def abort_upload(self, upload_id: str) -> None:
        """See IRemoteStorage."""
        record = await self._records.load(upload_id)
        if record is None or record.state is Stage.STORED:
            return
        again = record.state is Stage.OVER
        if not again:
            record = await self._records.save(upload_id, record.over())
        await self._end(upload_id, record, again)

    @abstractmethod
    def get_upload_progress(self, upload_id: str) -> Deferred[int]:
        """See IRemoteStorage."""

    @deferred
    async def part_plan(self, upload_id: str) -> Plan:
        """See IPlanned."""
        return (await self._records.started(upload_id)).plan

    @deferred
    async def delete_object(self, upload_id: str) -> bool:
        """See IDeletable."""
        record = await self._records.load(upload_id)
        if record is None:
            return False
        deleted = await self._objects.delete_ours(upload_id, record)
        if record.state is Stage.STORED:
            await self._records.save(upload_id, evolve(record, state=Stage.OVER, stored=None))
        return deleted

    @deferred
    async def read_object(self, upload_id: str, start: int, size: int) -> IObjectStream:
        """See IReadable."""
        return await self._reading.open(upload_id, await self._records.started(upload_id), start, size)

    @deferred
    async def signed_url(self, upload_id: str, presented: Presented) -> str | None:
        """See ISigning."""
        return await self._reading.url(upload_id, await self._records.started(upload_id), presented)

    @abstractmethod
    def probe(self) -> Deferred[None]:
        """See IProbe."""

    def close(self) -> Deferred[None]:
        """See IClosable."""
        return self._closing() if self._closing else succeed(None)

    # -- the stores' differences

    @abstractmethod
    def _limits(self, size: int | None) -> PartLimits:
        """The limits that an upload of that size (None: not known yet) is planned for."""

    @abstractmethod
    def _record(self, upload_id: str, key: str, plan: Plan, size: int | None, metadata: Mapping[str, bytes]) -> R:
        """The record of a replica that begins."""

    @abstractmethod
    async def _write_part(self, upload_id: str, record: R, part: Part, data: IRegion) -> None:
        """Write one of several parts."""

    @abstractmethod
    async def _finish(self, upload_id: str, record: R, size: int) -> Stored:
        """Make the object of its parts. It isn't there yet, as far as the store tells."""

    @abstractmethod
    async def _end(self, upload_id: str, record: R, again: bool) -> None:
        """Remove the unfinished rest of an upload that is over. ``again``: also what came late, after it was over."""

    # -- shared

    def _new(
        self, upload_id: str, size: int | None, metadata: Mapping[str, bytes], key: str | None, limits: PartLimits
    ) -> R:
        """The record of a replica that begins, with a key of the template's unless there is one."""
        key = key or self._template.render(upload_id, self._now(), metadata)
        return self._record(upload_id, key, plan_for(size, self._part_size, limits), size, metadata)

    async def _put(self, upload_id: str, record: R, data: IRegion) -> tuple[R, Stored]:
        """Make the object in one go; answers it and the record that was taken."""
        return await self._taken(upload_id, record, lambda given: self._objects.put(upload_id, given, data))

    async def _taken(self, upload_id: str, record: R, make: Callable[[R], Awaitable[T]]) -> tuple[R, T]:
        """See `resumable.remotes.metadata.taken`."""
        return await taken(self._records, upload_id, record, make, self._may_be_metadata)

    async def _keep(self, upload_id: str, record: R, stored: Stored) -> Stored:
        """Remember that the object is there."""
        await self._records.save(upload_id, record.finished(stored))
        return stored

    async def _found(self, upload_id: str, record: R) -> Stored | None:
        """The object, if it is there; it is looked for where only the answer may have been lost."""
        may_have_been_put = not record.begun and record.plan.is_single(record.size)
        if record.stored or not (may_have_been_put or record.state is Stage.PLACING):
            return record.stored
        there = await self._objects.find_ours(upload_id, record)
        return await self._keep(upload_id, record, there) if there else None


@implementer(IPartRemote, ISweeper)
class ObjectPartsRemote(ObjectRemote[R]):
    """A remote whose store takes parts in any order, and lists unfinished uploads."""

    @deferred
    async def get_upload_progress(self, upload_id: str) -> int:
        """See IRemoteStorage."""
        end = 0
        for part in await self.confirmed_parts(upload_id):
            if part.offset != end:
                break
            end = part.end
        return end

    @deferred
    async def confirmed_parts(self, upload_id: str) -> Sequence[Part]:
        """See IPartRemote."""
        record = await self._records.started(upload_id)
        stored = await self._found(upload_id, record)
        if stored is not None:
            return list(record.plan.parts(stored.size))
        return await self._listed(upload_id, record) if record.has_parts else []

    @abstractmethod
    def list_unfinished(self, limit: int, after: Unfinished | None) -> Deferred[Sequence[Unfinished]]:
        """See ISweeper."""

    @deferred
    async def discard(self, found: Unfinished, upload_id: str, dry_run: bool) -> bool:
        """See ISweeper."""

        async def once() -> bool:
            record = await self._records.load(upload_id)
            if record and record.state in (Stage.OPEN, Stage.PLACING) and self._works_with(record, found):
                return False
            if not dry_run:
                await self._drop(found)
            return True

        return await self._records.alone(upload_id, once)

    @abstractmethod
    async def _listed(self, upload_id: str, record: R) -> Sequence[Part]:
        """The parts that the store lists, and that are those of the plan."""

    @abstractmethod
    def _works_with(self, record: R, found: Unfinished) -> bool:
        """Whether an upload is being written into this."""

    @abstractmethod
    async def _drop(self, found: Unfinished) -> None:
        """Remove it; fine if it isn't there."""

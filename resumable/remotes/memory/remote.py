"""A store in this process, for tests: its objects, the faults that a test puts into it, and a remote that writes to it.

Invariants: only a remote or a test changes the `MemoryBucket`. It outlives remotes that are made over it, as a store
outlives our process; a remote keeps nothing but its journal. A fault strikes exactly the calls that it was meant for,
so a test that is run again sees the same.

`MemoryRemote` takes chunks in order; `resumable.remotes.memory.parts.MemoryPartRemote` takes parts in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from resumable.model import keys
from resumable.remotes import plan
from resumable.remotes.interfaces import (
    Conflict,
    IDeletable,
    IJournal,
    IKeyed,
    IProbe,
    IRegion,
    ISweeper,
    NotThere,
    OutOfStep,
    Permanent,
    Stored,
    Unfinished,
)
from resumable.remotes.journals import ReplicaRecord, ReplicaRecords, Stage
from resumable.remotes.reading import BytesStream, IObjectStream, IReadable, check_span, finalised, not_ours
from resumable.remotes.regions import check_chunk, copy

R = TypeVar("R")


@frozen
class MemoryObject:
    """An object under a key; ``upload_id`` is its metadata (None: somebody else's)."""

    data: bytes
    upload_id: str | None = None


@define
class OpenObject:
    """Something unfinished. ``head`` bytes are confirmed, or the parts with these numbers."""

    key: str
    upload_id: str
    started_at: float
    content: bytearray = field(factory=bytearray)
    head: int = 0
    parts: set[int] = field(factory=set)

    def put(self, offset: int, data: bytes) -> None:
        """Write, which confirms nothing."""
        if len(self.content) < offset:
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset : offset + len(data)] = data


@define
class MemoryBucket:
    """``objects`` by key, ``unfinished`` by handle; both are a test's to read and change."""

    objects: dict[str, MemoryObject] = field(factory=dict)
    unfinished: dict[str, OpenObject] = field(factory=dict)
    handles: int = 0

    def next_handle(self) -> str:
        """A name that was never used."""
        self.handles += 1
        return f"{self.handles:08}"


@frozen
class Fault:
    """A fault in a call of ``operation`` (a method's name; ``*``: any), of ``upload_id`` (None: any).

    ``skip`` calls go well before ``times`` calls don't (None: for ever). The call waits ``delay`` seconds of the
    clock, then fails with ``error`` (None: it goes well). ``lost``: it is done nevertheless, and only its answer is
    lost. ``keep``: of a chunk, that many bytes are written before it fails. ``silent``: it never answers, but to a
    cancel.
    """

    operation: str
    error: Exception | None = None
    upload_id: str | None = None
    skip: int = 0
    times: int | None = 1
    delay: float = 0.0
    lost: bool = False
    keep: int | None = None
    silent: bool = False


class Faults:
    """The faults that are still to come, and ``struck``, how many calls they met."""

    def __init__(self) -> None:
        self.struck = 0
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """From now on; of several that fit a call the oldest strikes."""
        self._waiting.append(fault)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._waiting.clear()

    def take(self, operation: str, upload_id: str) -> Fault | None:
        """The fault of this call, if any."""
        for index, fault in enumerate(self._waiting):
            if fault.operation not in ("*", operation) or fault.upload_id not in (None, upload_id):
                continue
            if fault.skip:
                self._waiting[index] = evolve(fault, skip=fault.skip - 1)
                continue
            if fault.times == 1:
                del self._waiting[index]
            elif fault.times is not None:
                self._waiting[index] = evolve(fault, times=fault.times - 1)
            self.struck += 1
            return fault
        return None


@implementer(IKeyed, IDeletable, IProbe, IReadable, ISweeper)
class MemoryRemote:
    """``calls`` are the operations so far, with their upload ids. ``latency``: seconds of the clock that each takes."""

    def __init__(
        self,
        store: MemoryBucket,
        journal: IJournal,
        clock: IReactorTime,
        *,
        template: keys.KeyTemplate | None = None,
        replace: bool = False,
        latency: float = 0.0,
        largest: int | None = None,
    ) -> None:
        self.store = store
        self.faults = Faults()
        self.latency = latency
        self.calls: list[tuple[str, str]] = []
        self._records = ReplicaRecords(ReplicaRecord, journal)
        self._clock = clock
        self._template = template or keys.parse()
        self._replace = replace
        self._largest = largest

    # -- the five operations

    def initiate_upload(
        self, upload_id: str, size: int | None, metadata: Mapping[str, bytes], key: str | None = None
    ) -> Deferred[str]:
        """See IKeyed."""
        return self._do("initiate_upload", upload_id, lambda fault: self._initiate(upload_id, size, metadata, key))

    def write_chunk(self, upload_id: str, offset: int, data: IRegion, size: int) -> Deferred[None]:
        """See IRemoteStorage."""
        return self._do("write_chunk", upload_id, lambda fault: self._write(upload_id, offset, data, size, fault))

    def finalize_upload(self, upload_id: str) -> Deferred[Stored]:
        """See IRemoteStorage."""
        return self._do("finalize_upload", upload_id, lambda fault: self._finalize(upload_id))

    def abort_upload(self, upload_id: str) -> Deferred[None]:
        """See IRemoteStorage."""
        return self._do("abort_upload", upload_id, lambda fault: self._abort(upload_id))

    def get_upload_progress(self, upload_id: str) -> Deferred[int]:
        """See IRemoteStorage."""
        return self._do("get_upload_progress", upload_id, lambda fault: self._progress(upload_id))

    # -- and the others

    def delete_object(self, upload_id: str) -> Deferred[bool]:
        """See IDeletable."""
        return self._do("delete_object", upload_id, lambda fault: self._delete(upload_id))

    def read_object(self, upload_id: str, start: int, size: int) -> Deferred[IObjectStream]:
        """See IReadable."""
        return self._do("read_object", upload_id, lambda fault: self._read(upload_id, start, size))

    def probe(self) -> Deferred[None]:
        """See IProbe."""
        return self._do("probe", "", lambda fault: succeed(None))

    def list_unfinished(self, limit: int, after: Unfinished | None) -> Deferred[Sequence[Unfinished]]:
        """See ISweeper."""
        return self._do("list_unfinished", "", lambda fault: self._list(limit, after))

    def discard(self, found: Unfinished, upload_id: str, dry_run: bool) -> Deferred[bool]:
        """See ISweeper."""
        return self._do("discard", upload_id, lambda fault: self._discard(found, upload_id, dry_run))

    # -- how

    def _do(self, operation: str, upload_id: str, work: Callable[[Fault | None], Awaitable[R]]) -> Deferred[R]:
        return Deferred.fromCoroutine(self._strike(operation, upload_id, work))

    async def _strike(self, operation: str, upload_id: str, work: Callable[[Fault | None], Awaitable[R]]) -> R:
        """Do the work, and let happen the fault that is due."""
        self.calls.append((operation, upload_id))
        fault = self.faults.take(operation, upload_id)
        await deferLater(self._clock, self.latency + (fault.delay if fault else 0.0))
        if fault and not fault.lost and fault.keep is None:
            await _fail(fault)
        result = await work(fault)
        if fault and (fault.lost or fault.keep is not None):
            await _fail(fault)
        return result

    async def _initiate(self, upload_id: str, size: int | None, metadata: Mapping[str, bytes], key: str | None) -> str:
        if size is not None and self._largest is not None and size > self._largest:
            raise Permanent(f"the store takes {self._largest} bytes at most")
        record = await self._records.load(upload_id)
        if record is None:
            key = key or self._template.render(upload_id, self._clock.seconds(), metadata)
            record = ReplicaRecord(key, Stage.OVER)
        if record.state is Stage.OVER:
            record = ReplicaRecord(record.key, handle=self.store.next_handle(), plan=self._plan(size))
        record = record.sized(size)
        await self._records.save(upload_id, record)
        if record.state is Stage.OPEN and not self._is_ours(upload_id, record):
            self.store.unfinished.setdefault(record.handle, OpenObject(record.key, upload_id, self._clock.seconds()))
        return record.key

    async def _write(self, upload_id: str, offset: int, data: IRegion, size: int, fault: Fault | None) -> None:
        record = await self._records.started(upload_id)
        check_chunk(offset, data, size, record.size)
        if record.stored is None and not self._is_ours(upload_id, record):
            await self._write_into(self._open(record), record, offset, data, fault.keep if fault else None)

    async def _finalize(self, upload_id: str) -> Stored:
        record = await self._records.started(upload_id)
        if record.stored:
            return record.stored
        size = record.known_size()
        there = self.store.objects.get(record.key)
        if not self._is_ours(upload_id, record):
            unfinished = self._open(record)
            confirmed = self._confirmed(unfinished, record)
            if confirmed != size:
                raise OutOfStep(f"{confirmed} bytes of {size} are there", confirmed)
            if there and there.upload_id != upload_id and not self._replace:
                raise Conflict(f'there is another object under "{record.key}"')
            self.store.objects[record.key] = MemoryObject(bytes(unfinished.content), upload_id)
        self.store.unfinished.pop(record.handle, None)
        stored = self._stored(record.key, self.store.objects[record.key])
        await self._records.save(upload_id, evolve(record, state=Stage.STORED, stored=stored))
        return stored

    def _stored(self, key: str, made: MemoryObject) -> Stored:
        digest = hashlib.sha256(made.data).hexdigest()
        return Stored(f"memory://{key}", key, len(made.data), digest, checksum=f"sha256:{digest}")

    async def _abort(self, upload_id: str) -> None:
        record = await self._records.load(upload_id)
        if record and record.state is not Stage.STORED:
            self.store.unfinished.pop(record.handle, None)
            await self._records.save(upload_id, evolve(record, state=Stage.OVER))

    async def _progress(self, upload_id: str) -> int:
        record = await self._records.started(upload_id)
        if record.stored:
            return record.stored.size
        if self._is_ours(upload_id, record):
            return record.known_size()
        return self._confirmed(self._open(record), record)

    async def _delete(self, upload_id: str) -> bool:
        record = await self._records.load(upload_id)
        if record is None:
            return False
        there = self.store.objects.get(record.key)
        ours = there is not None and there.upload_id == upload_id
        if ours:
            del self.store.objects[record.key]
        if record.state is Stage.STORED:
            await self._records.save(upload_id, evolve(record, state=Stage.OVER, stored=None))
        return ours

    async def _read(self, upload_id: str, start: int, size: int) -> IObjectStream:
        record = await self._records.started(upload_id)
        check_span(start, size, finalised(record.stored))
        there = self.store.objects.get(record.key)
        if there is None or there.upload_id != upload_id or len(there.data) != record.size:
            raise not_ours()
        return BytesStream(there.data[start : start + size])

    async def _list(self, limit: int, after: Unfinished | None) -> Sequence[Unfinished]:
        found = sorted((part.key, handle, part.started_at) for handle, part in self.store.unfinished.items())
        last = (after.key, after.handle) if after else ("", "")
        return [Unfinished(*one) for one in found if one[:2] > last][:limit]

    async def _discard(self, found: Unfinished, upload_id: str, dry_run: bool) -> bool:
        record = await self._records.load(upload_id)
        if record and record.handle == found.handle and record.state is Stage.OPEN:
            return False
        if not dry_run:
            self.store.unfinished.pop(found.handle, None)
        return True

    def _is_ours(self, upload_id: str, record: ReplicaRecord) -> bool:
        """Whether the object is there, for an upload that isn't known to be stored: an answer was lost."""
        there = self.store.objects.get(record.key)
        return (
            record.handle not in self.store.unfinished
            and there is not None
            and (there.upload_id, len(there.data)) == (upload_id, record.size)
        )

    def _open(self, record: ReplicaRecord) -> OpenObject:
        try:
            return self.store.unfinished[record.handle]
        except KeyError:
            raise NotThere("the store has lost the unfinished upload") from None

    # -- parts

    def _plan(self, size: int | None) -> plan.Plan | None:
        return None

    def _confirmed(self, unfinished: OpenObject, record: ReplicaRecord) -> int:
        return unfinished.head

    async def _write_into(
        self, unfinished: OpenObject, record: ReplicaRecord, offset: int, data: IRegion, keep: int | None
    ) -> None:
        if offset > unfinished.head:
            raise OutOfStep(f"{unfinished.head} bytes are there, the chunk begins at {offset}", unfinished.head)

        async def write(start: int, piece: bytes) -> None:
            kept = piece if keep is None else piece[: max(0, keep - start)]
            unfinished.put(offset + start, kept)
            unfinished.head = max(unfinished.head, offset + start + len(kept))

        await copy(data, write)


async def _fail(fault: Fault) -> None:
    if fault.silent:
        await Deferred()
    if fault.error is not None:
        raise fault.error

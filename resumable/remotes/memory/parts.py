"""``memory://``, and stores in memory that take parts in any order, or small objects in one go.

Invariant: a part is there as a whole or not at all, and it is one of the plan that was fixed when the upload was
initiated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from resumable.model import keys
from resumable.remotes import plan
from resumable.remotes.interfaces import Conflict, IJournal, Intent, IPartRemote, IRegion, IWholeRemote, Part, Stored
from resumable.remotes.journals import ReplicaRecord, Stage
from resumable.remotes.memory.remote import MemoryBucket, MemoryObject, MemoryRemote, OpenObject
from resumable.remotes.regions import copy
from resumable.remotes.urls import BackendServices, RemoteSpec, Scheme, flag


@implementer(IPartRemote)
class MemoryPartRemote(MemoryRemote):
    """A store that takes parts in any order. ``limits`` are the store's; a test may make them tiny."""

    def __init__(
        self,
        store: MemoryBucket,
        journal: IJournal,
        clock: IReactorTime,
        *,
        part_size: int = plan.PART_SIZE,
        limits: plan.PartLimits = plan.S3,
        template: keys.KeyTemplate | None = None,
        replace: bool = False,
        latency: float = 0.0,
    ) -> None:
        super().__init__(
            store,
            journal,
            clock,
            template=template,
            replace=replace,
            latency=latency,
            largest=limits.largest_object,
        )
        self._part_size = part_size
        self._limits = limits

    def part_plan(self, upload_id: str) -> Deferred[plan.Plan]:
        """See IPlanned."""
        return Deferred.fromCoroutine(self._plan_of(upload_id))

    def confirmed_parts(self, upload_id: str) -> Deferred[Sequence[Part]]:
        """See IPartRemote."""
        return self._do("confirmed_parts", upload_id, lambda fault: self._parts(upload_id))

    async def _plan_of(self, upload_id: str) -> plan.Plan:
        return _planned(await self._records.started(upload_id))

    async def _parts(self, upload_id: str) -> Sequence[Part]:
        record = await self._records.started(upload_id)
        if record.stored or self._is_ours(upload_id, record):
            return list(_planned(record).parts(record.known_size()))
        return [_part(record, number) for number in sorted(self._open(record).parts)]

    def _plan(self, size: int | None) -> plan.Plan | None:
        return plan.plan_for(size, self._part_size, self._limits)

    def _confirmed(self, unfinished: OpenObject, record: ReplicaRecord) -> int:
        end = 0
        for number in range(1, len(unfinished.parts) + 1):
            if number not in unfinished.parts:
                break
            end = _part(record, number).end
        return end

    async def _write_into(
        self, unfinished: OpenObject, record: ReplicaRecord, offset: int, data: IRegion, keep: int | None
    ) -> None:
        part = _planned(record).part_at(offset, record.size)
        if (part.offset, part.size) != (offset, data.size):
            raise ValueError(f"{data.size} bytes at {offset} are no part of the plan, but {part}")

        async def write(start: int, piece: bytes) -> None:
            unfinished.put(offset + start, piece)

        await copy(data, write)
        if keep is None:
            unfinished.parts.add(part.number)


@implementer(IWholeRemote)
class MemoryWholeRemote(MemoryPartRemote):
    """A store that also makes an object of one part with one request."""

    def intend(self, upload_id: str, size: int, metadata: Mapping[str, bytes], key: str | None = None) -> Intent | None:
        """See IWholeRemote."""
        plan = self._plan(size)
        if plan is None or not plan.is_single(size):
            return None
        key = key or self._template.render(upload_id, self._clock.seconds(), metadata)
        record = ReplicaRecord(key, size=size, handle=f"whole-{upload_id}", plan=plan)
        return Intent(key, self._records.value(record), record)

    def write_whole(self, upload_id: str, intent: Intent, data: IRegion) -> Deferred[tuple[Stored, Mapping[str, Any]]]:
        """See IWholeRemote."""
        return self._do("write_whole", upload_id, lambda fault: self._make(upload_id, intent.own, data))

    async def _make(self, upload_id: str, record: ReplicaRecord, data: IRegion) -> tuple[Stored, Mapping[str, Any]]:
        if not self._is_ours(upload_id, record):
            there = self.store.objects.get(record.key)
            if there and there.upload_id != upload_id and not self._replace:
                raise Conflict(f'there is another object under "{record.key}"')
            self.store.objects[record.key] = MemoryObject(await data.read(0, data.size), upload_id)
        stored = self._stored(record.key, self.store.objects[record.key])
        return stored, self._records.value(evolve(record, state=Stage.STORED, stored=stored))


def _planned(record: ReplicaRecord) -> plan.Plan:
    assert record.plan is not None
    return record.plan


def _part(record: ReplicaRecord, number: int) -> Part:
    return _planned(record).part_numbered(number, record.size)


def _make(spec: RemoteSpec, services: BackendServices) -> MemoryRemote:
    kind = MemoryPartRemote if flag(spec.options, "parts", False) else MemoryRemote
    return kind(MemoryBucket(), services.journal, services.reactor, template=spec.template, replace=spec.replace)


def _check(spec: RemoteSpec) -> None:
    flag(spec.options, "parts", False)


SCHEME = Scheme(
    "memory",
    _make,
    "nothing",
    {"parts": "`yes`: parts in any order and several at the same time (default `no`)"},
    _check,
)

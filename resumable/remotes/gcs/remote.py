"""``gs://``: a replica as an object in a bucket of Google Cloud Storage.

One reason to change: which operation does what, and how a replica begins and ends.

Invariant: the journal knows of everything that may be in the store. An object is ours if it carries the upload's id and
has its size; that is looked up before anything is done again whose answer was lost, and no object of others is
replaced unless that was asked for. Requests: one for a single part, else one for each part and one. Sessions can't be
listed, so there is nothing to sweep: they end by themselves a week after their beginning.
Source: https://docs.cloud.google.com/storage/docs/resumable-uploads
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resumable.model import keys
from resumable.remotes.gcs.finishing import Finishing
from resumable.remotes.gcs.objects import ObjectOptions
from resumable.remotes.gcs.reading import Reading
from resumable.remotes.gcs.records import Record, Records
from resumable.remotes.gcs.requests import Requests
from resumable.remotes.gcs.sessions import QUANTUM
from resumable.remotes.gcs.store import Store
from resumable.remotes.gcs.writing import Writing
from resumable.remotes.interfaces import (
    IClosable,
    IDeletable,
    IJournal,
    IKeyed,
    IPlanned,
    IProbe,
    IRegion,
    OutOfStep,
    Permanent,
    Plan,
    Stored,
)
from resumable.remotes.plan import PART_SIZE, TIB, Limits, TooLarge, plan_for
from resumable.remotes.reading import IObjectStream, IReadable, ISigning, Presented
from resumable.remotes.records import State
from resumable.remotes.regions import check_chunk

LIMITS = Limits(
    smallest_part=QUANTUM, largest_part=5 * TIB, parts=1 << 24, largest_object=5 * TIB, multiple_of=QUANTUM
)  # fmt: skip
"""A session takes any number of chunks. https://docs.cloud.google.com/storage/quotas"""


@implementer(IKeyed, IPlanned, IDeletable, IProbe, IReadable, ISigning, IClosable)
class GcsRemote:
    """One bucket and prefix. ``now``: seconds since the epoch. ``closing`` is called at the end."""

    def __init__(
        self,
        requests: Requests,
        journal: IJournal,
        now: Callable[[], float],
        rng: Random,
        *,
        template: keys.KeyTemplate | None = None,
        options: ObjectOptions | None = None,
        part_size: int = PART_SIZE,
        replace: bool = False,
        closing: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        self._template = template or keys.parse()
        self._records = Records(journal)
        self._options = options or ObjectOptions()
        self._store = Store(requests, self._options, self._template, replace, rng)
        self._writing = Writing(self._records, self._store)
        self._finishing = Finishing(self._records, self._store, self._writing, requests.place.bucket)
        self._reading = Reading(requests, self._store, requests.tokens, now)
        self._part_size = part_size
        self._now = now
        self._closing = closing

    def initiate_upload(
        self, upload_id: str, size: int | None, metadata: Mapping[str, bytes], key: str | None = None
    ) -> Deferred[str]:
        """See IKeyed. Asks the store nothing."""
        return Deferred.fromCoroutine(self._initiate(upload_id, size, metadata, key))

    def write_chunk(self, upload_id: str, offset: int, data: IRegion, size: int) -> Deferred[None]:
        """See IRemoteStorage."""
        return Deferred.fromCoroutine(self._write(upload_id, offset, data, size))

    def finalize_upload(self, upload_id: str) -> Deferred[Stored]:
        """See IRemoteStorage."""
        return Deferred.fromCoroutine(self._finishing.finalize(upload_id))

    def abort_upload(self, upload_id: str) -> Deferred[None]:
        """See IRemoteStorage."""
        return Deferred.fromCoroutine(self._abort(upload_id))

    def get_upload_progress(self, upload_id: str) -> Deferred[int]:
        """See IRemoteStorage."""
        return Deferred.fromCoroutine(self._writing.progress(upload_id))

    def part_plan(self, upload_id: str) -> Deferred[Plan]:
        """See IPlanned."""
        started: Deferred[Record] = Deferred.fromCoroutine(self._records.started(upload_id))
        return started.addCallback(lambda record: record.plan)

    def delete_object(self, upload_id: str) -> Deferred[bool]:
        """See IDeletable."""
        return Deferred.fromCoroutine(self._delete(upload_id))

    def read_object(self, upload_id: str, start: int, size: int) -> Deferred[IObjectStream]:
        """See IReadable."""

        async def read() -> IObjectStream:
            return await self._reading.open(upload_id, await self._records.started(upload_id), start, size)

        return Deferred.fromCoroutine(read())

    def signed_url(self, upload_id: str, presented: Presented) -> Deferred[str | None]:
        """See ISigning."""

        async def sign() -> str | None:
            return await self._reading.url(upload_id, await self._records.started(upload_id), presented)

        return Deferred.fromCoroutine(sign())

    def probe(self) -> Deferred[None]:
        """See IProbe."""
        return Deferred.fromCoroutine(self._store.probe())

    def close(self) -> Deferred[None]:
        """See IClosable."""
        return self._closing() if self._closing else succeed(None)

    async def _initiate(self, upload_id: str, size: int | None, metadata: Mapping[str, bytes], key: str | None) -> str:
        record = await self._records.load(upload_id)
        if record and record.state is State.OVER and record.session:
            record = await self._end(upload_id, record)  # it was being aborted
        known = record if record and record.state is not State.OVER else None
        try:
            if known is None:
                known = self._begun(upload_id, record.key if record else key, size, metadata)
            sized = known.sized(size)
            if size is not None and size > min(sized.plan.capacity, LIMITS.largest_object):
                raise TooLarge(f"the store takes no objects of {size} bytes")
        except TooLarge as error:
            raise Permanent(str(error)) from None
        if sized is not record:
            await self._records.save(upload_id, sized)
        return sized.key

    def _begun(self, upload_id: str, key: str | None, size: int | None, metadata: Mapping[str, bytes]) -> Record:
        return Record(
            key=key or self._template.render(upload_id, self._now(), metadata),
            plan=plan_for(size, self._part_size, LIMITS),
            resource=self._options.resource_for(upload_id, metadata),
            size=size,
        )

    async def _write(self, upload_id: str, offset: int, data: IRegion, size: int) -> None:
        record = await self._records.started(upload_id)
        check_chunk(offset, data, size, record.size)
        if record.stored:
            return
        part = record.plan.part_at(offset, record.size)
        if (part.offset, part.size) != (offset, size):
            raise ValueError(f"{size} bytes at {offset} are no part of the plan, but {part}")
        if record.session is None and record.plan.is_single(record.size):
            await self._writing.put(upload_id, record, data)
            return
        if part.end <= record.confirmed:
            return
        if offset > record.confirmed:
            raise OutOfStep(f"chunks come in order; {record.confirmed} bytes are there", record.confirmed)
        if part.end == record.size:
            await self._finishing.write_last(upload_id, record, data)
        else:
            await self._writing.write(upload_id, record, data)

    async def _abort(self, upload_id: str) -> None:
        record = await self._records.load(upload_id)
        if record is None or record.state is State.STORED:
            return
        if record.state is not State.OVER:
            record = await self._records.save(upload_id, evolve(record, state=State.OVER))
        await self._end(upload_id, record)

    async def _end(self, upload_id: str, record: Record) -> Record:
        """Remove what is left of an upload that is over."""
        self._writing.forget(upload_id)
        if record.session is not None:
            await self._store.sessions.cancel(record.session)
            record = await self._records.save(upload_id, evolve(record, session=None))
        return record

    async def _delete(self, upload_id: str) -> bool:
        record = await self._records.load(upload_id)
        if record is None:
            return False
        deleted = await self._store.delete_ours(upload_id, record)
        if record.state is State.STORED:
            await self._records.save(upload_id, evolve(record, state=State.OVER, stored=None))
        return deleted

"""``az://``: a replica as a block blob in a container.

One reason to change: what is done, in which order, so that a blob is there whole and once.

Invariant: the journal knows of everything that may be in the store, before it is there. A blob is ours if it carries
the upload's id and has its size; that is looked up before anything is done again whose answer was lost. Requests: one
for a single part, else one for each part and one.
Source: https://learn.microsoft.com/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from zope.interface import implementer

from resumable.model import keys
from resumable.remotes.azure.blocks import LIMITS, UNKNOWN_LENGTH
from resumable.remotes.azure.calls import Calls
from resumable.remotes.azure.finishing import Finishing
from resumable.remotes.azure.properties import properties_for
from resumable.remotes.azure.reading import Reading
from resumable.remotes.azure.records import Blocks, Record, Records
from resumable.remotes.azure.store import Store
from resumable.remotes.azure.sweeping import Sweeping
from resumable.remotes.interfaces import (
    IClosable,
    IDeletable,
    IJournal,
    IKeyed,
    IPartRemote,
    IProbe,
    IRegion,
    ISweeper,
    Part,
    Permanent,
    Plan,
    Stored,
    Unfinished,
)
from resumable.remotes.plan import PART_SIZE, TooLarge, plan_for
from resumable.remotes.reading import IObjectStream, IReadable, ISigning, Presented
from resumable.remotes.records import State
from resumable.remotes.regions import check_chunk


@implementer(IKeyed, IPartRemote, IDeletable, IProbe, IReadable, ISigning, ISweeper, IClosable)
class AzureRemote:
    """One container and prefix. ``now``: seconds since the epoch. ``calls`` are closed with it."""

    def __init__(
        self,
        store: Store,
        calls: Calls,
        journal: IJournal,
        now: Callable[[], float],
        reading: Reading,
        *,
        template: keys.KeyTemplate | None = None,
        client_metadata: bool = True,
        part_size: int = PART_SIZE,
    ) -> None:
        self._store = store
        self._calls = calls
        self._records = Records(journal)
        self._now = now
        self._reading = reading
        self._template = template or keys.parse()
        self._client_metadata = client_metadata
        self._part_size = part_size
        self._finishing = Finishing(self._records, store)
        self._sweeping = Sweeping(self._records, store, self._template.prefix)

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
        """See IRemoteStorage. What can't be removed, and when: docs/azure.md."""
        return Deferred.fromCoroutine(self._abort(upload_id))

    def get_upload_progress(self, upload_id: str) -> Deferred[int]:
        """See IRemoteStorage."""
        return Deferred.fromCoroutine(self._finishing.progress(upload_id))

    def part_plan(self, upload_id: str) -> Deferred[Plan]:
        """See IPlanned."""
        started: Deferred[Record] = Deferred.fromCoroutine(self._records.started(upload_id))
        return started.addCallback(lambda record: record.plan)

    def confirmed_parts(self, upload_id: str) -> Deferred[Sequence[Part]]:
        """See IPartRemote."""
        return Deferred.fromCoroutine(self._finishing.confirmed(upload_id))

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
        return Deferred.fromCoroutine(self._store.probe(self._template.prefix))

    def list_unfinished(self, limit: int, after: Unfinished | None) -> Deferred[Sequence[Unfinished]]:
        """See ISweeper."""
        return Deferred.fromCoroutine(self._sweeping.list(limit, after))

    def discard(self, found: Unfinished, upload_id: str, dry_run: bool) -> Deferred[bool]:
        """See ISweeper."""
        return Deferred.fromCoroutine(self._sweeping.discard(found, upload_id, dry_run))

    def close(self) -> Deferred[None]:
        """See IClosable. Fires when all threads have ended, which takes up to the time-out of a request."""
        closing = [Deferred.fromCoroutine(each.close()) for each in (self._reading, self._calls)]
        return gatherResults(closing).addCallback(lambda _: None)

    async def _initiate(self, upload_id: str, size: int | None, metadata: Mapping[str, bytes], key: str | None) -> str:
        record = await self._records.load(upload_id)
        if record and record.state is State.OVER and record.blocks is not Blocks.NONE:
            await self._end(upload_id, record)  # it was being aborted
        known = record if record and record.state is not State.OVER else None
        try:
            if known is None:
                known = self._begun(upload_id, record.key if record else key, size, metadata)
            sized = known.sized(size)
            if size is not None and size > min(sized.plan.capacity, LIMITS.largest_object):
                raise TooLarge(f"the store takes no blobs of {size} bytes, or not when begun without a length")
        except TooLarge as error:
            raise Permanent(str(error)) from None
        if sized is not record:
            await self._records.save(upload_id, sized)
        return sized.key

    def _begun(self, upload_id: str, key: str | None, size: int | None, metadata: Mapping[str, bytes]) -> Record:
        limits = evolve(LIMITS, largest_object=UNKNOWN_LENGTH) if size is None else LIMITS
        return Record(
            key=key or self._template.render(upload_id, self._now(), metadata),
            plan=plan_for(size, self._part_size, limits),
            properties=properties_for(upload_id, metadata, self._client_metadata),
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
        if record.blocks is Blocks.NONE and record.plan.is_single(record.size):
            await self._finishing.put(upload_id, record, data)
            return
        await self._mark(upload_id, record, Blocks.NONE, Blocks.ASKED)
        await self._store.stage(upload_id, record, part, data)
        await self._mark(upload_id, record, Blocks.ASKED, Blocks.THERE)

    async def _mark(self, upload_id: str, known: Record, before: Blocks, after: Blocks) -> None:
        """Note what was asked for or confirmed, if the first to do so."""

        async def once() -> None:
            record = await self._records.started(upload_id)
            if record.blocks is before and not record.stored:
                await self._records.save(upload_id, evolve(record, blocks=after))

        if known.blocks is not Blocks.THERE:
            await self._records.alone(upload_id, once)

    async def _abort(self, upload_id: str) -> None:
        record = await self._records.load(upload_id)
        if record is None or record.state is State.STORED:
            return
        if record.state is not State.OVER:
            record = await self._records.save(upload_id, evolve(record, state=State.OVER))
        await self._end(upload_id, record)

    async def _end(self, upload_id: str, record: Record) -> None:
        """Remove what is left of an upload that is over."""
        if record.blocks is not Blocks.NONE:
            await self._store.clear(record.key, upload_id)
            await self._records.save(upload_id, evolve(record, blocks=Blocks.NONE))

    async def _delete(self, upload_id: str) -> bool:
        record = await self._records.load(upload_id)
        if record is None:
            return False
        deleted = await self._store.delete_ours(upload_id, record)
        if record.state is State.STORED:
            await self._records.save(upload_id, evolve(record, state=State.OVER, stored=None))
        return deleted

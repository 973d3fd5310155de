"""``az://``: a replica as a block blob in a container.

Invariant: the store's list of blocks is the truth: it took none whose MD5 was wrong, and a block's name says whose it
is, where it goes and how long it is. Requests: one for a single part, else one for each part and one.
Source: https://learn.microsoft.com/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from resumable.aio.deferreds import deferred
from resumable.model import keys
from resumable.remotes.azure.calls import Calls
from resumable.remotes.azure.errors import may_be_metadata
from resumable.remotes.azure.records import (
    LIMITS,
    UNKNOWN_LENGTH,
    AzureRecord,
    Blocks,
    parts_among,
    properties_for,
)
from resumable.remotes.azure.store import PAGE, AzureReading, AzureStore, unfinished_among
from resumable.remotes.interfaces import (
    IJournal,
    IRegion,
    NotThere,
    OutOfStep,
    Part,
    Plan,
    RemoteError,
    Stored,
    Unfinished,
)
from resumable.remotes.journals import ReplicaRecords, Stage
from resumable.remotes.object_remote import ObjectPartsRemote, another_object
from resumable.remotes.plan import PART_SIZE, PartLimits


class AzureRemote(ObjectPartsRemote[AzureRecord]):
    """One container and prefix. ``now``: seconds since the epoch. ``calls`` and ``reading`` are closed with it.

    docs/azure.md says which blocks of an aborted upload can't be removed, and when.
    """

    def __init__(
        self,
        store: AzureStore,
        calls: Calls,
        journal: IJournal,
        now: Callable[[], float],
        reading: AzureReading,
        *,
        template: keys.KeyTemplate | None = None,
        client_metadata: bool = True,
        part_size: int = PART_SIZE,
    ) -> None:
        def close() -> Deferred[None]:
            # takes up to the time-out of a request: until all threads have ended
            closing = [Deferred.fromCoroutine(each.close()) for each in (reading, calls)]
            return gatherResults(closing).addCallback(lambda _: None)

        super().__init__(
            ReplicaRecords(AzureRecord, journal),
            store,
            reading,
            now,
            may_be_metadata,
            template=template,
            part_size=part_size,
            closing=close,
        )
        self._store = store
        self._client_metadata = client_metadata
        # only a cache, of where the last page began: Azure's pages can't be asked for by a name
        self._page: tuple[str, str | None] = ("", None)

    def probe(self) -> Deferred[None]:
        """See IProbe."""
        return Deferred.fromCoroutine(self._store.probe(self._template.prefix))

    @deferred
    async def list_unfinished(self, limit: int, after: Unfinished | None) -> Sequence[Unfinished]:
        """See ISweeper. Goes through all blobs under the prefix; none where blocks can't be dropped."""
        if not self._store.drops:
            return []
        last, marker = self._page
        key = after.key if after else ""
        marker = marker if key and key == last else None
        found: list[Unfinished] = []
        while True:
            page, following = await self._store.list_page(self._template.prefix, marker, PAGE)
            found += [each for each in unfinished_among(page) if each.key > key]
            if len(found) >= limit:
                found = found[:limit]
                self._page = found[-1].key, marker
                return found
            if following is None:
                return found
            marker = following

    def _limits(self, size: int | None) -> PartLimits:
        return evolve(LIMITS, largest_object=UNKNOWN_LENGTH) if size is None else LIMITS

    def _record(
        self, upload_id: str, key: str, plan: Plan, size: int | None, metadata: Mapping[str, bytes]
    ) -> AzureRecord:
        properties = properties_for(upload_id, metadata, self._client_metadata)
        return AzureRecord(key=key, plan=plan, properties=properties, size=size)

    async def _write_part(self, upload_id: str, record: AzureRecord, part: Part, data: IRegion) -> None:
        await self._mark(upload_id, record, Blocks.NONE, Blocks.ASKED)
        await self._store.stage(upload_id, record, part, data)
        await self._mark(upload_id, record, Blocks.ASKED, Blocks.THERE)

    async def _mark(self, upload_id: str, known: AzureRecord, before: Blocks, after: Blocks) -> None:
        """Note that a block was asked for or confirmed, the first time."""

        async def once() -> None:
            record = await self._records.started(upload_id)
            if record.blocks is before and not record.stored:
                await self._records.save(upload_id, evolve(record, blocks=after))

        if known.blocks is not Blocks.THERE:
            await self._records.alone(upload_id, once)

    async def _finish(self, upload_id: str, record: AzureRecord, size: int) -> Stored:
        if record.state is not Stage.PLACING:
            record = await self._records.save(upload_id, evolve(record, state=Stage.PLACING))
        parts = list(record.plan.parts(size))
        try:
            record, made = await self._taken(
                upload_id, record, lambda given: self._store.commit(upload_id, given, parts)
            )
        except RemoteError as error:
            if error.code != "InvalidBlockList":
                raise
            made = await self._without_all_blocks(upload_id, record)
        return await self._keep(upload_id, record, made)

    async def _without_all_blocks(self, upload_id: str, record: AzureRecord) -> Stored:
        """The store lacks a block: somebody has finished before us, or some have to be written."""
        there = await self._store.find_ours(upload_id, record)
        if there:
            return there
        if await self._store.is_taken(record):
            raise another_object(record.key, code="BlobAlreadyExists")
        progress = await self.get_upload_progress(upload_id)
        raise OutOfStep("not all parts were confirmed", progress, code="InvalidBlockList")

    async def _listed(self, upload_id: str, record: AzureRecord) -> Sequence[Part]:
        found = parts_among(await self._store.names(record.key), upload_id, record.plan, record.size)
        if not found and record.blocks is Blocks.THERE:
            await self._begin_anew(upload_id)
            raise NotThere("the store has none of the blocks that it confirmed")
        return found

    async def _begin_anew(self, upload_id: str) -> None:
        """As before the first block."""

        async def once() -> None:
            now = await self._records.started(upload_id)
            if now.blocks is Blocks.THERE and not now.stored:
                await self._records.save(upload_id, evolve(now, blocks=Blocks.ASKED, state=Stage.OPEN))

        await self._records.alone(upload_id, once)

    async def _end(self, upload_id: str, record: AzureRecord, again: bool) -> None:
        if record.begun:
            await self._store.clear(record.key, upload_id)
            await self._records.save(upload_id, evolve(record, blocks=Blocks.NONE))

    def _works_with(self, record: AzureRecord, found: Unfinished) -> bool:
        # of one key there is at most one unfinished blob, so that is this upload's
        return record.begun and record.key == found.key

    async def _drop(self, found: Unfinished) -> None:
        await self._store.drop(found.key, None)

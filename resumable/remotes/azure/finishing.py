"""From confirmed blocks to a blob, and what the store has confirmed.

One reason to change: how it is found out what is in the store, and how a blob is finished.

Invariant: what an answer was lost for is looked up before it is asked for again. The store's list of blocks is the
truth: it took none whose MD5 was wrong, and a block's name says whose it is, where it goes and how long it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from resumable.remotes.azure.blocks import parts_among
from resumable.remotes.azure.errors import may_be_metadata
from resumable.remotes.azure.records import Blocks, Record, Records
from resumable.remotes.azure.store import Store
from resumable.remotes.interfaces import Conflict, IRegion, NotThere, OutOfStep, Part, RemoteError, Stored
from resumable.remotes.plainer import taken
from resumable.remotes.records import State
from resumable.remotes.regions import BytesRegion


class Finishing:
    """Keeps nothing: all is in the journal and in the store."""

    def __init__(self, records: Records, store: Store) -> None:
        self._records = records
        self._store = store

    async def finalize(self, upload_id: str) -> Stored:
        """See IRemoteStorage.finalize_upload."""
        record = await self._records.started(upload_id)
        size = record.size
        if record.stored:
            return record.stored
        if size is None:
            raise OutOfStep("the size of the upload was never given")
        if record.blocks is Blocks.NONE:
            if size:
                raise OutOfStep("nothing was written", 0)
            return await self.put(upload_id, record, BytesRegion(b""))
        if record.state is State.PLACING:
            there = await self._store.find_ours(upload_id, record)
            if there:
                return await self.keep(upload_id, record, there)
        else:
            record = await self._records.save(upload_id, evolve(record, state=State.PLACING))
        parts = list(record.plan.parts(size))
        try:
            record, made = await taken(
                self._records,
                upload_id,
                record,
                lambda given: self._store.commit(upload_id, given, parts),
                may_be_metadata,
            )
        except RemoteError as error:
            if error.code != "InvalidBlockList":
                raise
            made = await self._without_all_blocks(upload_id, record)
        return await self.keep(upload_id, record, made)

    async def put(self, upload_id: str, record: Record, data: IRegion) -> Stored:
        """Make the blob in one go."""
        record, made = await taken(
            self._records, upload_id, record, lambda given: self._store.put(upload_id, given, data), may_be_metadata
        )
        return await self.keep(upload_id, record, made)

    async def _without_all_blocks(self, upload_id: str, record: Record) -> Stored:
        """The store lacks a block: somebody has finished before us, or some have to be written."""
        there = await self._store.find_ours(upload_id, record)
        if there:
            return there
        if await self._store.is_taken(record):
            raise Conflict(f'there is another blob under "{record.key}"', code="BlobAlreadyExists",
                           advice="remove it, choose another key, or allow to replace it")  # fmt: skip
        raise OutOfStep("not all parts were confirmed", await self.progress(upload_id), code="InvalidBlockList")

    async def progress(self, upload_id: str) -> int:
        """See IRemoteStorage.get_upload_progress."""
        end = 0
        for part in await self.confirmed(upload_id):
            if part.offset != end:
                break
            end = part.end
        return end

    async def confirmed(self, upload_id: str) -> Sequence[Part]:
        """See IPartRemote.confirmed_parts."""
        record = await self._records.started(upload_id)
        stored = record.stored
        may_have_been_put = record.blocks is Blocks.NONE and record.plan.is_single(record.size)
        if stored is None and (may_have_been_put or record.state is State.PLACING):
            there = await self._store.find_ours(upload_id, record)
            stored = await self.keep(upload_id, record, there) if there else None
        if stored is not None:
            return list(record.plan.parts(stored.size))
        if record.blocks is Blocks.NONE:
            return []
        found = parts_among(await self._store.names(record.key), upload_id, record.plan, record.size)
        if not found and record.blocks is Blocks.THERE:
            await self._begin_anew(upload_id, record)
            raise NotThere("the store has none of the blocks that it confirmed")
        return found

    async def _begin_anew(self, upload_id: str, record: Record) -> None:
        """As before the first block."""

        async def once() -> None:
            now = await self._records.started(upload_id)
            if now.blocks is Blocks.THERE and not now.stored:
                await self._records.save(upload_id, evolve(now, blocks=Blocks.ASKED, state=State.OPEN))

        await self._records.alone(upload_id, once)

    async def keep(self, upload_id: str, record: Record, stored: Stored) -> Stored:
        """Remember that the blob is there."""
        await self._records.save(upload_id, evolve(record, state=State.STORED, blocks=Blocks.NONE, stored=stored))
        return stored

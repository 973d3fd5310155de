"""From confirmed parts to an object, and what the store has confirmed.

One reason to change: how it is found out what is in the store, and how an object is finished.

Invariant: what an answer was lost for is looked up before it is asked for again. What the store lists counts only
where it is what UploadPart had confirmed: AWS advises against completing from ListParts.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from resumable.aio.threads import IPool
from resumable.remotes.interfaces import Conflict, IRegion, NotThere, OutOfStep, Part, RemoteError, Stored
from resumable.remotes.plainer import taken
from resumable.remotes.records import State
from resumable.remotes.regions import BytesRegion
from resumable.remotes.s3.answers import ListedPart
from resumable.remotes.s3.checksums import of_whole
from resumable.remotes.s3.errors import may_be_metadata
from resumable.remotes.s3.records import Record, Records
from resumable.remotes.s3.store import Store

BEGIN_ANEW = {"ConditionalRequestConflict", "BadDigest"}
"""The object cannot be made of this multipart any more."""


class Finishing:
    """Keeps nothing: all is in the journal and in the store."""

    def __init__(self, records: Records, store: Store, pool: IPool) -> None:
        self._records = records
        self._store = store
        self._pool = pool

    async def finalize(self, upload_id: str) -> Stored:
        """See IRemoteStorage.finalize_upload."""
        record = await self._records.started(upload_id)
        if record.stored:
            return record.stored
        if record.size is None:
            raise OutOfStep("the size of the upload was never given")
        if not record.multipart:
            if record.size:
                raise OutOfStep("nothing was written", 0)
            return await self.put(upload_id, record, BytesRegion(b""))
        if record.state is State.PLACING:
            there = await self._store.find_ours(upload_id, record)
            if there:
                return await self.keep(upload_id, record, there)
        parts = await self._all_parts(upload_id, record, record.size)
        if record.state is not State.PLACING:
            record = await self._records.save(upload_id, evolve(record, state=State.PLACING))
        return await self._complete(upload_id, record, parts)

    async def put(self, upload_id: str, record: Record, data: IRegion) -> Stored:
        """Make the object in one go."""
        record, stored = await taken(
            self._records, upload_id, record, lambda given: self._store.put(upload_id, given, data), may_be_metadata
        )
        return await self.keep(upload_id, record, stored)

    async def _complete(self, upload_id: str, record: Record, parts: Sequence[ListedPart]) -> Stored:
        whole = None
        algorithm = self._store.algorithm(record)
        if algorithm and algorithm.polynomial and record.full_object:
            values = [(part.checksum or "", part.size) for part in parts]
            whole = await self._pool.run(of_whole, algorithm, values)
        try:
            return await self.keep(upload_id, record, await self._store.complete(upload_id, record, parts, whole))
        except NotThere as error:
            there = await self.lost(upload_id, record)
            if there is None:
                raise NotThere(error.reason, status=error.status, code=error.code) from None
            return there
        except Conflict:
            raise
        except RemoteError as error:
            code = error.code
            if code in BEGIN_ANEW:
                await self._store.abort(record.key, record.multipart or "")
                if (there := await self.lost(upload_id, record)) is not None:
                    return there
                raise NotThere(f"{error}; its parts have to be written again", code=code) from None
            if code in ("InvalidPart", "InvalidPartOrder"):
                raise OutOfStep(f"{error}", await self.progress(upload_id), code=code) from None
            raise

    async def _all_parts(self, upload_id: str, record: Record, size: int) -> Sequence[ListedPart]:
        """What the journal has of each part of the plan. Raises OutOfStep."""
        known = await self._records.parts(upload_id, record)
        found = []
        for part in record.plan.parts(size):
            one = known.get(part.number)
            if one is None or one.size != part.size:
                raise OutOfStep(f"part {part.number} was not confirmed", await self.progress(upload_id))
            found.append(one)
        return found

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
        may_have_been_put = record.multipart is None and record.plan.is_single(record.size)
        if stored is None and (may_have_been_put or record.state is State.PLACING):
            there = await self._store.find_ours(upload_id, record)
            stored = await self.keep(upload_id, record, there) if there else None
        if stored is not None:
            return list(record.plan.parts(stored.size))
        if not record.multipart:
            return []
        try:
            listed = await self._store.list_parts(record)
        except NotThere as error:
            there = await self.lost(upload_id, record)
            if there is None:
                raise NotThere(error.reason, status=error.status, code=error.code) from None
            return list(record.plan.parts(there.size))
        known = await self._records.parts(upload_id, record)
        return [part for part in map(lambda one: _trusted(record, one, known.get(one.number)), listed) if part]

    async def lost(self, upload_id: str, record: Record) -> Stored | None:
        """The store doesn't know the multipart: the object is there and ours, or all begins anew."""

        async def once() -> Stored | None:
            now = await self._records.started(upload_id)
            if now.stored or now.multipart != record.multipart:
                return now.stored  # somebody beside us has found out
            there = await self._store.find_ours(upload_id, now)
            if there:
                return await self.keep(upload_id, now, there)
            await self._records.save(upload_id, now.without_multipart())
            await self._records.drop_parts(upload_id)
            return None

        return await self._records.alone(upload_id, once)

    async def keep(self, upload_id: str, record: Record, stored: Stored) -> Stored:
        """Remember that the object is there."""
        done = evolve(record, state=State.STORED, stored=stored, parts={})
        await self._records.save(upload_id, done)
        if record.multipart is not None:
            await self._records.drop_parts(upload_id)
        return stored


def _trusted(record: Record, listed: ListedPart, known: ListedPart | None) -> Part | None:
    """The part, if what the store lists is what it confirmed; all others are written again."""
    try:
        part = record.plan.part_numbered(listed.number, record.size)
    except ValueError:
        return None
    if known is None or listed.size != part.size or known.etag.strip('"') != listed.etag.strip('"'):
        return None
    return part

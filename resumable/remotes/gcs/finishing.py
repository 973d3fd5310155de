"""From what the store has kept to an object.

One reason to change: how an object is finished, and how it is found out that it was.

Invariant: what an answer was lost for is looked up before it is asked for again. The object counts only when its size
and its checksum are those of what was written.
"""

from __future__ import annotations

from attrs import evolve

from resumable.remotes.errors import Conflict, NotThere, OutOfStep, RemoteError, Transient
from resumable.remotes.gcs.bodies import Stretch, crc_of
from resumable.remotes.gcs.errors import BAD_DIGEST
from resumable.remotes.gcs.objects import Object, encoded
from resumable.remotes.gcs.records import Record, Records
from resumable.remotes.gcs.store import Store
from resumable.remotes.gcs.writing import Writing
from resumable.remotes.interfaces import IContent, IRegion, Stored
from resumable.remotes.records import State
from resumable.remotes.regions import BytesRegion


class Finishing:
    """Keeps nothing. ``bucket``: its name."""

    def __init__(self, records: Records, store: Store, writing: Writing, bucket: str) -> None:
        self._records = records
        self._store = store
        self._writing = writing
        self._bucket = bucket

    async def finalize(self, upload_id: str) -> Stored:
        """See IRemoteStorage.finalize_upload."""
        record = await self._records.started(upload_id)
        if record.stored:
            return record.stored
        size, session = record.size, record.session
        if size is None:
            raise OutOfStep("the size of the upload was never given")
        if session is None and size == 0:
            return await self._writing.put(upload_id, record, BytesRegion(b""))
        if record.state is State.PLACING:
            there = await self._store.find_ours(upload_id, record)
            if there:
                return await self._writing.keep(upload_id, record, there)
        if session is None or record.confirmed < size:
            raise OutOfStep("not all was written", record.confirmed)
        return await self._finish(upload_id, record, BytesRegion(b""), record.crc)

    async def write_last(self, upload_id: str, record: Record, data: IRegion) -> None:
        """Write the part that follows what is confirmed and is the last, and finish the object with it."""
        record, have = await self._writing.ready(upload_id, record, data.size)
        if not record.stored:
            crc = await crc_of(data, data.size, record.crc)
            await self._finish(upload_id, record, Stretch(data, have, data.size - have), crc)

    async def _finish(self, upload_id: str, record: Record, rest: IContent, crc: int) -> Stored:
        """Send the ``rest`` and have the object made. ``crc``: of all."""
        size, lost = record.size or 0, self._writing.lost
        if record.state is not State.PLACING:
            record = await self._records.save(upload_id, evolve(record, state=State.PLACING))
        try:
            made = await self._store.sessions.finish(record.session or "", size, rest, crc)
        except Conflict:
            return await self._writing.keep(upload_id, record, await self._store.ours_or_conflict(upload_id, record))
        except NotThere as error:
            return await lost(upload_id, record, error.reason, error)
        except RemoteError as error:
            if error.code != BAD_DIGEST:
                raise
            return await lost(upload_id, record, f"{error.reason}; all has to be written again", error)
        if not isinstance(made, Object):
            if made < record.confirmed:
                return await lost(upload_id, record, f"the store has only {made} of {record.confirmed} bytes")
            if made < size:
                raise OutOfStep(f"the store has kept {made} of {size} bytes", record.confirmed)
            raise Transient("the store did not finish the object")
        return await self._checked(upload_id, record, made, crc)

    async def _checked(self, upload_id: str, record: Record, made: Object, crc: int) -> Stored:
        if made.size == record.size and made.crc32c in (None, encoded(crc)):
            return await self._writing.keep(upload_id, record, made.stored(self._bucket))
        await self._store.delete(record.key, made.generation)
        return await self._writing.lost(upload_id, record, "the store has other bytes than were written")

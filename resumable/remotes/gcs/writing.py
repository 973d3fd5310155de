"""From chunks to bytes that the store keeps, and how many it has kept.

One reason to change: how chunks get into a session, and how it is found out what is there.

Invariant: a part counts when the store has kept all of it and the journal knows the checksum of all bytes up to its
end. Before the first chunk that this process sends, and after each that failed, the store is asked what it has.
"""

from __future__ import annotations

from attrs import evolve

from resumable.remotes.errors import NotThere, OutOfStep, RemoteError, Transient
from resumable.remotes.gcs.bodies import Stretch, crc_of
from resumable.remotes.gcs.errors import may_be_metadata
from resumable.remotes.gcs.objects import Object
from resumable.remotes.gcs.records import Record, Records
from resumable.remotes.gcs.store import Store
from resumable.remotes.interfaces import IContent, IRegion, Stored
from resumable.remotes.plainer import taken
from resumable.remotes.records import State


class Writing:
    """All is in the journal and in the store, but for ``kept``: what needs not be asked for, of uploads under way."""

    def __init__(self, records: Records, store: Store) -> None:
        self._records = records
        self._store = store
        self._kept: dict[str, int] = {}

    def forget(self, upload_id: str) -> None:
        """The upload is over."""
        self._kept.pop(upload_id, None)

    async def write(self, upload_id: str, record: Record, data: IRegion) -> None:
        """Write the part that follows what is confirmed, and isn't the last."""
        record, have = await self.ready(upload_id, record, data.size)
        if record.stored:
            return
        crc, end = await crc_of(data, have, record.crc), record.confirmed + data.size
        if have < data.size:
            sent = Stretch(data, have, data.size - have, crc)
            if await self._send(upload_id, record, record.confirmed + have, sent):
                return
            crc = sent.crc
        await self._records.save(upload_id, evolve(record, confirmed=end, crc=crc))
        self._kept[upload_id] = end

    async def progress(self, upload_id: str) -> int:
        """See IRemoteStorage.get_upload_progress. The end of a part: the checksum of no other prefix is known."""
        record = await self._records.started(upload_id)
        if record.stored:
            return record.stored.size
        may_be_there = record.session is None and record.plan.is_single(record.size)
        if may_be_there or record.state is State.PLACING:
            there = await self._store.find_ours(upload_id, record)
            if there:
                return (await self.keep(upload_id, record, there)).size
        if record.session is None:
            return 0
        record, kept = await self._asked(upload_id, record, record.session)
        self._kept[upload_id] = kept
        return record.stored.size if record.stored else record.confirmed

    async def put(self, upload_id: str, record: Record, data: IRegion) -> Stored:
        """Make the object in one go."""
        record, stored = await taken(
            self._records, upload_id, record, lambda given: self._store.put(upload_id, given, data), may_be_metadata
        )
        return await self.keep(upload_id, record, stored)

    async def keep(self, upload_id: str, record: Record, stored: Stored) -> Stored:
        """Remember that the object is there."""
        await self._records.save(upload_id, evolve(record, state=State.STORED, stored=stored, session=None))
        self.forget(upload_id)
        return stored

    async def lost(self, upload_id: str, record: Record, why: str, cause: RemoteError | None = None) -> Stored:
        """The session is of no more use: the object is there and ours, or all begins anew, with NotThere."""
        self.forget(upload_id)
        there = await self._store.find_ours(upload_id, record)
        if there:
            return await self.keep(upload_id, record, there)
        if record.session is not None:
            await self._store.sessions.cancel(record.session)
        await self._records.save(upload_id, record.anew())
        raise NotThere(why, status=cause.status if cause else None, code=cause.code if cause else None) from None

    async def ready(self, upload_id: str, record: Record, size: int) -> tuple[Record, int]:
        """A record with a session, and how many of the next ``size`` bytes that has already; or one that is stored."""
        record, kept = await self._begun(upload_id, record)
        return record, min(max(kept - record.confirmed, 0), size)

    async def _begun(self, upload_id: str, record: Record) -> tuple[Record, int]:
        kept = self._kept.pop(upload_id, None)
        if record.session is None:
            record, session = await taken(self._records, upload_id, record, self._store.start, may_be_metadata)
            return await self._records.save(upload_id, evolve(record, session=session)), 0
        if kept is not None and kept == record.confirmed:
            return record, kept
        return await self._asked(upload_id, record, record.session)

    async def _asked(self, upload_id: str, record: Record, session: str) -> tuple[Record, int]:
        try:
            kept = await self._store.sessions.ask(session)
        except NotThere as error:
            stored = await self.lost(upload_id, record, error.reason, error)
            return evolve(record, stored=stored), 0
        return await self._judged(upload_id, record, kept, record.confirmed)

    async def _judged(self, upload_id: str, record: Record, kept: int | Object, least: int) -> tuple[Record, int]:
        if isinstance(kept, Object):
            if kept.is_of(upload_id, None) and kept.size != record.size:
                await self._store.delete(record.key, kept.generation)  # nobody asked for it
            stored = await self.lost(upload_id, record, "the session made an object that isn't the upload's")
            return evolve(record, stored=stored), 0
        if kept < least:
            stored = await self.lost(upload_id, record, f"the store has only {kept} of {least} confirmed bytes")
            return evolve(record, stored=stored), 0
        return record, kept

    async def _send(self, upload_id: str, record: Record, offset: int, data: IContent) -> bool:
        """Whether the object turned out to be there already.

        Raises OutOfStep when the store has kept less: what it has is asked for before the rest is sent.
        """
        end = offset + data.size
        try:
            answer = await self._store.sessions.send(record.session or "", offset, data)
        except NotThere as error:
            await self.lost(upload_id, record, error.reason, error)
            return True
        record, kept = await self._judged(upload_id, record, answer, offset)
        if record.stored or kept == end:
            return record.stored is not None
        reason = f"the store has kept {kept} of {end} bytes"
        raise Transient(reason) if kept <= offset or kept > end else OutOfStep(reason, record.confirmed)

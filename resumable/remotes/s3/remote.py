"""``s3://``: a replica as an object in a bucket.

One reason to change: what is done, in which order, so that an object is there whole and once.

Invariant: the journal knows of everything that may be in the store, before it is there. An object is ours if it
carries the upload's id and has its size; that is looked up before anything is done again whose answer was lost, and
no object of others is replaced unless that was asked for. Requests: one for a single part, else one for each part
and two.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.remotes import keys
from resumable.remotes.interfaces import (
    Conflict,
    IClosable,
    IDeletable,
    IJournal,
    IPartRemote,
    IProbe,
    IRegion,
    IRemoteStorage,
    ISweeper,
    NotThere,
    OutOfStep,
    Part,
    Permanent,
    Plan,
    Stored,
    Unfinished,
)
from resumable.remotes.plan import PART_SIZE, TooLarge, plan_for
from resumable.remotes.records import State
from resumable.remotes.regions import BytesRegion, check_chunk
from resumable.remotes.s3.answers import ListedPart
from resumable.remotes.s3.checksums import of_whole
from resumable.remotes.s3.client import S3Client
from resumable.remotes.s3.dialects import AWS, Dialect
from resumable.remotes.s3.objects import ObjectOptions
from resumable.remotes.s3.records import Record, Records
from resumable.remotes.s3.store import Store
from resumable.threads import IPool


@implementer(IRemoteStorage, IPartRemote, IDeletable, IProbe, ISweeper, IClosable)
class S3Remote:
    """One bucket and prefix. ``now``: seconds since the epoch. ``closing`` is called at the end."""

    def __init__(
        self,
        client: S3Client,
        journal: IJournal,
        pool: IPool,
        now: Callable[[], float],
        *,
        dialect: Dialect = AWS,
        template: keys.KeyTemplate | None = None,
        options: ObjectOptions | None = None,
        part_size: int = PART_SIZE,
        replace: bool = False,
        closing: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        self._template = template or keys.parse()
        self._records = Records(journal)
        self._options = options or ObjectOptions()
        self._store = Store(client, dialect, self._options, self._template, replace)
        self._dialect = dialect
        self._part_size = part_size
        self._pool = pool
        self._now = now
        self._closing = closing

    def initiate_upload(self, upload_id: str, size: int | None, metadata: Mapping[str, bytes]) -> Deferred[str]:
        """See IRemoteStorage. Asks the store nothing."""
        return Deferred.fromCoroutine(self._initiate(upload_id, size, metadata))

    def write_chunk(self, upload_id: str, offset: int, data: IRegion, size: int) -> Deferred[None]:
        """See IRemoteStorage."""
        return Deferred.fromCoroutine(self._write(upload_id, offset, data, size))

    def finalize_upload(self, upload_id: str) -> Deferred[Stored]:
        """See IRemoteStorage."""
        return Deferred.fromCoroutine(self._finalize(upload_id))

    def abort_upload(self, upload_id: str) -> Deferred[None]:
        """See IRemoteStorage."""
        return Deferred.fromCoroutine(self._abort(upload_id))

    def get_upload_progress(self, upload_id: str) -> Deferred[int]:
        """See IRemoteStorage."""
        return Deferred.fromCoroutine(self._progress(upload_id))

    def part_plan(self, upload_id: str) -> Deferred[Plan]:
        """See IPlanned."""
        started: Deferred[Record] = Deferred.fromCoroutine(self._records.started(upload_id))
        return started.addCallback(lambda record: record.plan)

    def confirmed_parts(self, upload_id: str) -> Deferred[Sequence[Part]]:
        """See IPartRemote."""
        return Deferred.fromCoroutine(self._confirmed(upload_id))

    def delete_object(self, upload_id: str) -> Deferred[bool]:
        """See IDeletable."""
        return Deferred.fromCoroutine(self._delete(upload_id))

    def probe(self) -> Deferred[None]:
        """See IProbe."""
        return Deferred.fromCoroutine(self._store.probe())

    def list_unfinished(self, limit: int, after: Unfinished | None) -> Deferred[Sequence[Unfinished]]:
        """See ISweeper."""
        return Deferred.fromCoroutine(self._store.list_unfinished(limit, after))

    def discard(self, found: Unfinished, upload_id: str, dry_run: bool) -> Deferred[bool]:
        """See ISweeper."""

        async def once() -> bool:
            record = await self._records.load(upload_id)
            if record and record.state in (State.OPEN, State.PLACING) and record.multipart == found.handle:
                return False
            if not dry_run:
                await self._store.abort(found.key, found.handle)
            return True

        return Deferred.fromCoroutine(self._records.alone(upload_id, once))

    def close(self) -> Deferred[None]:
        """See IClosable."""
        return self._closing() if self._closing else Deferred.fromCoroutine(_nothing())

    async def _initiate(self, upload_id: str, size: int | None, metadata: Mapping[str, bytes]) -> str:
        record = await self._records.load(upload_id)
        known = record if record and record.state is not State.OVER else None
        try:
            if known is None:
                known = self._begun(upload_id, record.key if record else None, size, metadata)
            sized = known.sized(size)
            if size is not None and size > min(sized.plan.capacity, self._dialect.limits.largest_object):
                raise TooLarge(f"the store takes no objects of {size} bytes")
        except TooLarge as error:
            raise Permanent(str(error)) from None
        if sized is not record:
            await self._records.save(upload_id, sized)
        return sized.key

    def _begun(self, upload_id: str, key: str | None, size: int | None, metadata: Mapping[str, bytes]) -> Record:
        return Record(
            key=key or self._template.render(upload_id, self._now(), metadata),
            plan=plan_for(size, self._part_size, self._dialect.limits),
            headers=self._options.headers_for(upload_id, metadata),
            checksum=self._dialect.checksum,
            full_object=self._dialect.full_object,
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
        if record.multipart is None and record.plan.is_single(record.size):
            await self._stored(upload_id, record, await self._store.put(upload_id, record, data))
            return
        record = await self._records.alone(upload_id, lambda: self._with_multipart(upload_id))
        if record.stored:
            return
        try:
            written = await self._store.upload_part(record, part.number, data)
        except NotThere as error:
            if await self._lost(upload_id, record) is None:
                raise NotThere(error.reason, status=error.status, code=error.code) from None
            return
        saved = ListedPart(part.number, part.size, written.etag, written.checksum)
        await self._records.save_part(upload_id, record.multipart or "", saved)

    async def _with_multipart(self, upload_id: str) -> Record:
        """The record, once the store has given an upload id."""
        record = await self._records.started(upload_id)
        if record.multipart or record.stored:
            return record
        if record.multipart is None:
            record = await self._records.save(upload_id, evolve(record, multipart=""))
        else:
            await self._store.abort_strays(record)
        begun = evolve(record, multipart=await self._store.create(upload_id, record))
        return await self._records.save(upload_id, begun)

    async def _finalize(self, upload_id: str) -> Stored:
        record = await self._records.started(upload_id)
        if record.stored:
            return record.stored
        if record.size is None:
            raise OutOfStep("the size of the upload was never given")
        if not record.multipart:
            if record.size:
                raise OutOfStep("nothing was written", 0)
            put = await self._store.put(upload_id, record, BytesRegion(b""))
            return await self._stored(upload_id, record, put)
        if record.state is State.PLACING:
            there = await self._store.find_ours(upload_id, record)
            if there:
                return await self._stored(upload_id, record, there)
        parts = await self._all_parts(upload_id, record, record.size)
        if record.state is not State.PLACING:
            record = await self._records.save(upload_id, evolve(record, state=State.PLACING))
        return await self._complete(upload_id, record, parts)

    async def _complete(self, upload_id: str, record: Record, parts: Sequence[ListedPart]) -> Stored:
        whole = None
        algorithm = self._store.algorithm(record)
        if algorithm and algorithm.polynomial and record.full_object:
            values = [(part.checksum or "", part.size) for part in parts]
            whole = await self._pool.run(of_whole, algorithm, values)
        try:
            return await self._stored(upload_id, record, await self._store.complete(upload_id, record, parts, whole))
        except NotThere as error:
            there = await self._lost(upload_id, record)
            if there is None:
                raise NotThere(error.reason, status=error.status, code=error.code) from None
            return there
        except Conflict:
            raise
        except Exception as error:
            code = getattr(error, "code", None)
            if code in ("ConditionalRequestConflict", "BadDigest"):
                await self._store.abort(record.key, record.multipart or "")
                if (there := await self._lost(upload_id, record)) is not None:
                    return there
                raise NotThere(f"{error}; its parts have to be written again", code=code) from None
            if code in ("InvalidPart", "InvalidPartOrder"):
                raise OutOfStep(f"{error}", await self._progress(upload_id), code=code) from None
            raise

    async def _all_parts(self, upload_id: str, record: Record, size: int) -> Sequence[ListedPart]:
        """What the journal has of each part of the plan. Raises OutOfStep."""
        known = await self._records.parts(upload_id, record)
        found = []
        for part in record.plan.parts(size):
            one = known.get(part.number)
            if one is None or one.size != part.size:
                raise OutOfStep(f"part {part.number} was not confirmed", await self._progress(upload_id))
            found.append(one)
        return found

    async def _progress(self, upload_id: str) -> int:
        end = 0
        for part in await self._confirmed(upload_id):
            if part.offset != end:
                break
            end = part.end
        return end

    async def _confirmed(self, upload_id: str) -> Sequence[Part]:
        record = await self._records.started(upload_id)
        stored = record.stored
        may_be_there = record.state is State.PLACING or (record.multipart is None and record.plan.is_single(record.size))
        if stored is None and may_be_there:
            there = await self._store.find_ours(upload_id, record)
            stored = await self._stored(upload_id, record, there) if there else None
        if stored is not None:
            return list(record.plan.parts(stored.size))
        if not record.multipart:
            return []
        try:
            listed = await self._store.list_parts(record)
        except NotThere as error:
            there = await self._lost(upload_id, record)
            if there is None:
                raise NotThere(error.reason, status=error.status, code=error.code) from None
            return list(record.plan.parts(there.size))
        known = await self._records.parts(upload_id, record)
        return [part for part in map(lambda one: _trusted(record, one, known.get(one.number)), listed) if part]

    async def _lost(self, upload_id: str, record: Record) -> Stored | None:
        """The store doesn't know the multipart: the object is there and ours, or all begins anew."""

        async def once() -> Stored | None:
            now = await self._records.started(upload_id)
            if now.stored or now.multipart != record.multipart:
                return now.stored  # somebody beside us has found out
            there = await self._store.find_ours(upload_id, now)
            if there:
                return await self._stored(upload_id, now, there)
            await self._records.save(upload_id, now.without_multipart())
            await self._records.drop_parts(upload_id)
            return None

        return await self._records.alone(upload_id, once)

    async def _stored(self, upload_id: str, record: Record, stored: Stored) -> Stored:
        done = evolve(record, state=State.STORED, stored=stored, parts={})
        await self._records.save(upload_id, done)
        if record.multipart is not None:
            await self._records.drop_parts(upload_id)
        return stored

    async def _abort(self, upload_id: str) -> None:
        record = await self._records.load(upload_id)
        if record is None or record.state in (State.STORED, State.OVER):
            return
        if record.multipart:
            await self._store.abort(record.key, record.multipart)
        elif record.multipart is not None:
            await self._store.abort_strays(record)
        await self._records.save(upload_id, evolve(record, state=State.OVER, multipart=None, parts={}))
        await self._records.drop_parts(upload_id)

    async def _delete(self, upload_id: str) -> bool:
        record = await self._records.load(upload_id)
        if record is None:
            return False
        deleted = await self._store.delete_ours(upload_id, record)
        if record.state is State.STORED:
            await self._records.save(upload_id, evolve(record, state=State.OVER, stored=None))
        return deleted


def _trusted(record: Record, listed: ListedPart, known: ListedPart | None) -> Part | None:
    """The part, if what the store lists is what it confirmed; all others are written again."""
    try:
        part = record.plan.part_numbered(listed.number, record.size)
    except ValueError:
        return None
    if known is None or listed.size != part.size or known.etag.strip('"') != listed.etag.strip('"'):
        return None
    return part


async def _nothing() -> None:
    return None

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

from resumable.aio.threads import IPool
from resumable.model import keys
from resumable.remotes.interfaces import (
    IClosable,
    IDeletable,
    IJournal,
    IKeyed,
    IPartRemote,
    IProbe,
    IRegion,
    ISweeper,
    NotThere,
    Part,
    Permanent,
    Plan,
    Stored,
    Unfinished,
)
from resumable.remotes.plainer import taken
from resumable.remotes.plan import PART_SIZE, TooLarge, plan_for
from resumable.remotes.reading import IObjectStream, IReadable, ISigning, Presented
from resumable.remotes.records import State
from resumable.remotes.regions import check_chunk
from resumable.remotes.s3.answers import ListedPart
from resumable.remotes.s3.client import S3Client
from resumable.remotes.s3.dialects import AWS, Dialect
from resumable.remotes.s3.errors import may_be_metadata
from resumable.remotes.s3.finishing import Finishing
from resumable.remotes.s3.objects import ObjectOptions
from resumable.remotes.s3.reading import Reading
from resumable.remotes.s3.records import Record, Records
from resumable.remotes.s3.store import Store


@implementer(IKeyed, IPartRemote, IDeletable, IProbe, IReadable, ISigning, ISweeper, IClosable)
class S3Remote:
    """One bucket and prefix. ``now``: seconds since the epoch. ``closing`` is called at the end.

    ``look_first``: where the store knows no conditions, look for another's object before making ours, with a request
    more; None: if keys may meet.
    """

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
        look_first: bool | None = None,
        closing: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        self._template = template or keys.parse()
        self._records = Records(journal)
        self._options = options or ObjectOptions()
        self._store = Store(client, dialect, self._options, self._template, replace, look_first)
        self._reading = Reading(client.requests, self._store, self._options)
        self._dialect = dialect
        self._part_size = part_size
        self._finishing = Finishing(self._records, self._store, pool)
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
        return Deferred.fromCoroutine(self._store.probe(self._now()))

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

    async def _initiate(self, upload_id: str, size: int | None, metadata: Mapping[str, bytes], key: str | None) -> str:
        record = await self._records.load(upload_id)
        if record and record.state is State.OVER and record.multipart is not None:
            await self._end(upload_id, record)  # it was being aborted
        known = record if record and record.state is not State.OVER else None
        try:
            if known is None:
                known = self._begun(upload_id, record.key if record else key, size, metadata)
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
            headers=self._options.headers_for(upload_id, metadata, self._dialect.metadata),
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
            await self._finishing.put(upload_id, record, data)
            return
        record = await self._records.alone(upload_id, lambda: self._with_multipart(upload_id))
        if record.stored:
            return
        try:
            written = await self._store.upload_part(record, part.number, data)
        except NotThere as error:
            if await self._finishing.lost(upload_id, record) is None:
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
            await self._store.abort_strays(upload_id, record)
        record, multipart = await taken(
            self._records, upload_id, record, lambda given: self._store.create(upload_id, given), may_be_metadata
        )
        return await self._records.save(upload_id, evolve(record, multipart=multipart))

    async def _abort(self, upload_id: str) -> None:
        record = await self._records.load(upload_id)
        if record is None or record.state is State.STORED or (record.state is State.OVER and record.multipart is None):
            return
        if record.state is not State.OVER:
            record = await self._records.save(upload_id, evolve(record, state=State.OVER, parts={}))
        await self._end(upload_id, record)

    async def _end(self, upload_id: str, record: Record) -> None:
        """Remove what is left of an upload that is over."""
        if record.multipart:
            await self._store.abort(record.key, record.multipart)
        elif record.multipart is not None:
            await self._store.abort_strays(upload_id, record)
        await self._records.drop_parts(upload_id)
        if record.multipart is not None:
            await self._records.save(upload_id, evolve(record, multipart=None))

    async def _delete(self, upload_id: str) -> bool:
        record = await self._records.load(upload_id)
        if record is None:
            return False
        deleted = await self._store.delete_ours(upload_id, record)
        if record.state is State.STORED:
            await self._records.save(upload_id, evolve(record, state=State.OVER, stored=None))
        return deleted


async def _nothing() -> None:
    return None

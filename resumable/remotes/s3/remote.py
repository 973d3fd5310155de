"""``s3://``: a replica as an object in a bucket.

Invariant: the store's list of parts counts only where it agrees with the journal. Requests: one for a single part, else
one for each part and two.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred

from resumable.aio.threads import IPool
from resumable.model import keys
from resumable.remotes.interfaces import (
    Conflict,
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
from resumable.remotes.journals import Stage
from resumable.remotes.object_remote import ObjectPartsRemote
from resumable.remotes.plan import PART_SIZE, PartLimits
from resumable.remotes.s3.answers import ListedPart, may_be_metadata
from resumable.remotes.s3.checksums import of_whole
from resumable.remotes.s3.client import S3Client
from resumable.remotes.s3.endpoint import AWS, Dialect
from resumable.remotes.s3.records import S3ObjectOptions, S3Record, S3Records
from resumable.remotes.s3.store import S3Reading, S3Store

BEGIN_ANEW = {"ConditionalRequestConflict", "BadDigest"}
"""The object cannot be made of this multipart any more."""


class S3Remote(ObjectPartsRemote[S3Record]):
    """One bucket and prefix. ``now``: seconds since the epoch. ``closing`` is called at the end.

    ``look_first``: where the store knows no conditions, look for another's object before making ours, with a request
    more; None: if keys may meet.
    """

    _records: S3Records

    def __init__(
        self,
        client: S3Client,
        journal: IJournal,
        pool: IPool,
        now: Callable[[], float],
        *,
        dialect: Dialect = AWS,
        template: keys.KeyTemplate | None = None,
        options: S3ObjectOptions | None = None,
        part_size: int = PART_SIZE,
        replace: bool = False,
        look_first: bool | None = None,
        closing: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        template, options = template or keys.parse(), options or S3ObjectOptions()
        store = S3Store(client, dialect, options, template, replace, look_first)
        super().__init__(
            S3Records(journal),
            store,
            S3Reading(client.requests, store, options),
            now,
            may_be_metadata,
            template=template,
            part_size=part_size,
            closing=closing,
        )
        self._store = store
        self._options = options
        self._dialect = dialect
        self._pool = pool

    def probe(self) -> Deferred[None]:
        """See IProbe."""
        return Deferred.fromCoroutine(self._store.probe(self._now()))

    def list_unfinished(self, limit: int, after: Unfinished | None) -> Deferred[Sequence[Unfinished]]:
        """See ISweeper."""
        return Deferred.fromCoroutine(self._store.list_unfinished(limit, after))

    def _limits(self, size: int | None) -> PartLimits:
        return self._dialect.limits

    def _record(
        self, upload_id: str, key: str, plan: Plan, size: int | None, metadata: Mapping[str, bytes]
    ) -> S3Record:
        return S3Record(
            key=key,
            plan=plan,
            headers=self._options.headers_for(upload_id, metadata, self._dialect.metadata),
            checksum=self._dialect.checksum,
            full_object=self._dialect.full_object,
            size=size,
        )

    async def _write_part(self, upload_id: str, record: S3Record, part: Part, data: IRegion) -> None:
        record = await self._records.alone(upload_id, lambda: self._with_multipart(upload_id))
        if record.stored:
            return
        try:
            written = await self._store.upload_part(record, part.number, data)
        except NotThere as error:
            await self._there(upload_id, record, error)
            return
        saved = ListedPart(part.number, part.size, written.etag, written.checksum)
        await self._records.save_part(upload_id, record.multipart or "", saved)

    async def _with_multipart(self, upload_id: str) -> S3Record:
        """The record, once the store has given an upload id."""
        record = await self._records.started(upload_id)
        if record.multipart or record.stored:
            return record
        if record.multipart is None:
            record = await self._records.save(upload_id, evolve(record, multipart=""))
        else:
            await self._store.abort_strays(upload_id, record)
        record, multipart = await self._taken(upload_id, record, lambda given: self._store.create(upload_id, given))
        return await self._records.save(upload_id, evolve(record, multipart=multipart))

    async def _finish(self, upload_id: str, record: S3Record, size: int) -> Stored:
        parts = await self._all_parts(upload_id, record, size)
        if record.state is not Stage.PLACING:
            record = await self._records.save(upload_id, evolve(record, state=Stage.PLACING))
        whole = None
        algorithm = self._store.algorithm(record)
        if algorithm and algorithm.polynomial and record.full_object:
            values = [(part.checksum or "", part.size) for part in parts]
            whole = await self._pool.run(of_whole, algorithm, values)
        try:
            return await self._keep(upload_id, record, await self._store.complete(upload_id, record, parts, whole))
        except NotThere as error:
            return await self._there(upload_id, record, error)
        except Conflict:
            raise
        except RemoteError as error:
            return await self._not_completed(upload_id, record, error)

    async def _not_completed(self, upload_id: str, record: S3Record, error: RemoteError) -> Stored:
        code = error.code
        if code in BEGIN_ANEW:
            await self._store.abort(record.key, record.multipart or "")
            anew = NotThere(f"{error}; its parts have to be written again", code=code)
            return await self._there(upload_id, record, anew)
        if code in ("InvalidPart", "InvalidPartOrder"):
            raise OutOfStep(f"{error}", await self.get_upload_progress(upload_id), code=code) from None
        raise error

    async def _all_parts(self, upload_id: str, record: S3Record, size: int) -> Sequence[ListedPart]:
        """The journal's record of each part of the plan. Raises OutOfStep."""
        known = await self._records.parts(upload_id, record)
        found = []
        for part in record.plan.parts(size):
            one = known.get(part.number)
            if one is None or one.size != part.size:
                raise OutOfStep(f"part {part.number} was not confirmed", await self.get_upload_progress(upload_id))
            found.append(one)
        return found

    async def _listed(self, upload_id: str, record: S3Record) -> Sequence[Part]:
        try:
            listed = await self._store.list_parts(record)
        except NotThere as error:
            there = await self._there(upload_id, record, error)
            return list(record.plan.parts(there.size))
        known = await self._records.parts(upload_id, record)
        return [part for part in map(lambda one: _trusted(record, one, known.get(one.number)), listed) if part]

    async def _there(self, upload_id: str, record: S3Record, error: NotThere) -> Stored:
        """The store doesn't know the multipart: the object is there and ours, or all begins anew, with NotThere."""

        async def once() -> Stored | None:
            now = await self._records.started(upload_id)
            if now.stored or now.multipart != record.multipart:
                return now.stored  # somebody beside us has found out
            there = await self._store.find_ours(upload_id, now)
            if there:
                return await self._keep(upload_id, now, there)
            await self._records.save(upload_id, now.without_multipart())
            await self._records.drop_parts(upload_id)
            return None

        there = await self._records.alone(upload_id, once)
        if there is None:
            raise NotThere(error.reason, status=error.status, code=error.code) from None
        return there

    async def _keep(self, upload_id: str, record: S3Record, stored: Stored) -> Stored:
        await super()._keep(upload_id, record, stored)
        if record.begun:
            await self._records.drop_parts(upload_id)
        return stored

    async def _end(self, upload_id: str, record: S3Record, again: bool) -> None:
        if record.multipart:
            await self._store.abort(record.key, record.multipart)
        if record.multipart == "" or (again and not record.plan.is_single(record.size)):
            await self._store.abort_strays(upload_id, record)
        await self._records.drop_parts(upload_id)
        if record.begun:
            await self._records.save(upload_id, evolve(record, multipart=None))

    def _works_with(self, record: S3Record, found: Unfinished) -> bool:
        return record.multipart == found.handle

    async def _drop(self, found: Unfinished) -> None:
        await self._store.abort(found.key, found.handle)


def _trusted(record: S3Record, listed: ListedPart, known: ListedPart | None) -> Part | None:
    """The part, if the store lists it as it confirmed it; all others are written again."""
    try:
        part = record.plan.part_numbered(listed.number, record.size)
    except ValueError:
        return None
    if known is None or listed.size != part.size or known.etag.strip('"') != listed.etag.strip('"'):
        return None
    return part

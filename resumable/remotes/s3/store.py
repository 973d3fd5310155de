"""A bucket's operations in terms of replicas, and how its objects are read back.

Invariant: whatever creates an object names the upload in its metadata, and refuses to replace another's object where
that was asked for and the store can. Only multiparts and objects that are known to be ours are removed. An object is
read, or a URL to it given out, only if it carries the upload's id and has its size.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from resumable.model import keys
from resumable.remotes.errors import AuthFailed, Conflict, NotThere, RemoteError, Unusable
from resumable.remotes.interfaces import IRegion, Stored, Unfinished
from resumable.remotes.metadata import ID_METADATA
from resumable.remotes.object_remote import another_object, found_ours
from resumable.remotes.reading import (
    IObjectStream,
    ObjectStream,
    Presented,
    check_answered,
    check_span,
    finalised,
    missing,
    not_ours,
    range_headers,
)
from resumable.remotes.s3.answers import ListedPart, ObjectHead, Written
from resumable.remotes.s3.checksums import Algorithm, algorithm
from resumable.remotes.s3.client import S3Client
from resumable.remotes.s3.endpoint import Dialect
from resumable.remotes.s3.records import S3ObjectOptions, S3Record
from resumable.remotes.s3.requests import S3Requests

PROBE = ".resumable-probe"
PROBE_DIED = 86400.0
"""Seconds after which a probe that is still unfinished has died; another server may be probing beside us."""
ABSENT = {"If-None-Match": "*"}
MAY_NOT_LOOK = "allow s3:GetObject on the objects and s3:ListBucket on the bucket: without them nobody can tell a \
missing object from a hidden one"


class S3Store:
    """A bucket. Keeps nothing."""

    def __init__(
        self,
        client: S3Client,
        dialect: Dialect,
        options: S3ObjectOptions,
        template: keys.KeyTemplate,
        replace: bool,
        look_first: bool | None = None,
    ) -> None:
        algorithm(dialect.checksum)  # raises now rather than at the first request
        self._client = client
        self._dialect = dialect
        self._options = options
        self._template = template
        self._replace = replace
        self._look_first = look_first

    def algorithm(self, record: S3Record) -> Algorithm | None:
        """The checksum that was chosen when the replica was begun."""
        return algorithm(record.checksum)

    async def put(self, upload_id: str, record: S3Record, data: IRegion) -> Stored:
        """Make the object in one go. Raises Conflict for another's object."""
        headers = {**self._options.creation_headers(), **record.headers}
        await self._check_absent(upload_id, record, headers, self._dialect.put_if_absent)
        try:
            written = await self._client.put_object(record.key, data, headers, self.algorithm(record))
        except Conflict:
            return await self._ours_or_conflict(upload_id, record)
        return self._stored(record, data.size, written)

    async def create(self, upload_id: str, record: S3Record) -> str:
        """Begin a multipart; answers its id."""
        headers = {**self._options.creation_headers(), **record.headers}
        headers |= checksum_headers(self.algorithm(record), record.full_object)
        return await self._client.init_multipart_upload(record.key, headers)

    async def upload_part(self, record: S3Record, number: int, data: IRegion) -> Written:
        """Write one part."""
        headers = self._options.access_headers()
        multipart = record.multipart or ""
        return await self._client.upload_part(record.key, multipart, number, data, headers, self.algorithm(record))

    async def list_parts(self, record: S3Record) -> Sequence[ListedPart]:
        """All parts that are there."""
        return await self._client.list_all_parts(
            record.key, record.multipart or "", self._options.access_headers(), self.algorithm(record)
        )

    async def complete(
        self, upload_id: str, record: S3Record, parts: Sequence[ListedPart], whole: str | None
    ) -> Stored:
        """Make the object of its parts; ``whole`` is the checksum of all. Raises Conflict for another's object."""
        chosen, size = self.algorithm(record), sum(part.size for part in parts)
        headers = {**self._options.access_headers(), **whole_headers(self._dialect, chosen, whole, size)}
        await self._check_absent(upload_id, record, headers, self._dialect.complete_if_absent)
        try:
            written = await self._client.complete_multipart_upload(
                record.key, record.multipart or "", parts, headers, chosen
            )
        except Conflict:
            return await self._ours_or_conflict(upload_id, record)
        return self._stored(record, size, written)

    async def find_ours(self, upload_id: str, record: S3Record) -> Stored | None:
        """The object, if it carries the upload's id and has its size."""
        head = await self.head(record.key)
        if head is None or head.metadata.get(ID_METADATA) != upload_id or head.size != record.size:
            return None
        return self._stored(record, head.size, Written(head.etag, None, head.version))

    async def delete_ours(self, upload_id: str, record: S3Record) -> bool:
        """Delete the object if it carries the upload's id; whether it was there."""
        head = await self.head(record.key)
        if head is None or head.metadata.get(ID_METADATA) != upload_id:
            return False
        await self._client.delete_object(record.key)
        return True

    async def abort(self, key: str, multipart: str) -> None:
        """Remove an unfinished multipart; fine if it isn't there."""
        with contextlib.suppress(NotThere):
            await self._client.abort_multipart_upload(key, multipart)

    async def abort_strays(self, upload_id: str, record: S3Record) -> None:
        """Remove a multipart whose id we were never told.

        Where the key may be another upload's too it can't be told whose it is; the sweeper finds it by its age.
        """
        if not self._is_own(upload_id, record):
            return
        markers: tuple[str, str] | None = ("", "")
        while markers is not None:
            page = await self._client.list_multipart_uploads(record.key, *markers)
            for found in page.uploads:
                if found.key == record.key:
                    await self.abort(found.key, found.upload_id)
            markers = page.markers

    async def list_unfinished(self, limit: int, after: Unfinished | None) -> Sequence[Unfinished]:
        """See ISweeper. Some stores don't heed markers, or refuse one whose upload is gone by now.

        Probes see to their own.
        """
        markers: tuple[str, str] | None = (after.key, after.handle) if after else ("", "")
        found: list[Unfinished] = []
        while markers is not None and len(found) < limit:
            try:
                page = await self._client.list_multipart_uploads(self._template.prefix, *markers)
            except Unusable as error:
                if error.code != "InvalidArgument" or not markers[0] or after is None:
                    raise
                page = await self._client.list_multipart_uploads(self._template.prefix)
            found.extend(Unfinished(each.key, each.upload_id, each.initiated) for each in page.uploads)
            found = _following([each for each in found if self._is_upload(each.key)], after)
            markers = page.markers
        return found[:limit]

    def _is_upload(self, key: str) -> bool:
        return key.startswith(self._template.prefix) and key != f"{self._template.prefix}{PROBE}"

    async def probe(self, now: float) -> None:
        """See IProbe. Begins a multipart, looks for its parts and for the object, and gives it up; those of probes
        that died too."""
        key = f"{self._template.prefix}{PROBE}"
        multipart = await self._client.init_multipart_upload(key, self._options.creation_headers())
        try:
            await self._client.list_parts(key, multipart, headers=self._options.access_headers())
            await self.head(key)
            begun = await self._client.list_multipart_uploads(key)
        finally:
            await self.abort(key, multipart)
        for each in begun.uploads:
            if each.key == key and each.initiated is not None and now - each.initiated > PROBE_DIED:
                await self.abort(key, each.upload_id)

    async def _check_absent(self, upload_id: str, record: S3Record, headers: dict[str, str], conditional: bool) -> None:
        """See to it that no other object is replaced, if that is wanted: by a condition, else by looking first."""
        if self._replace:
            return
        if conditional:
            headers.update(ABSENT)
        elif self._looks_first(upload_id, record):
            head = await self.head(record.key)
            if head is not None and head.metadata.get(ID_METADATA) != upload_id:
                raise another_object(record.key)

    def _is_own(self, upload_id: str, record: S3Record) -> bool:
        """Whether no other upload can have this key; one that was given may be anything."""
        return self._template.is_unique and upload_id in record.key

    def _looks_first(self, upload_id: str, record: S3Record) -> bool:
        return not self._is_own(upload_id, record) if self._look_first is None else self._look_first

    async def _ours_or_conflict(self, upload_id: str, record: S3Record) -> Stored:
        ours = await self.find_ours(upload_id, record)
        if ours is None:
            raise another_object(record.key)
        return ours

    async def head(self, key: str) -> ObjectHead | None:
        """What is under the key, whoever's it is."""
        try:
            return await self._client.head_object(key, self._options.access_headers())
        except NotThere:
            return None
        except AuthFailed as error:
            raise AuthFailed(error.reason, status=error.status, code=error.code, advice=MAY_NOT_LOOK) from None

    def _stored(self, record: S3Record, size: int, written: Written) -> Stored:
        chosen = self.algorithm(record)
        checksum = f"{record.checksum}:{written.checksum}" if chosen and written.checksum else None
        location = f"s3://{self._client.endpoint.bucket}/{record.key}"
        return Stored(location, record.key, size, written.etag, written.version, checksum)


def checksum_headers(chosen: Algorithm | None, full_object: bool) -> dict[str, str]:
    """What a multipart is begun with, whose parts have this checksum."""
    if chosen is None or not chosen.label:
        return {}
    kind = {"x-amz-checksum-type": "FULL_OBJECT"} if full_object else {}
    return {"x-amz-checksum-algorithm": chosen.label, **kind}


def whole_headers(dialect: Dialect, chosen: Algorithm | None, whole: str | None, size: int) -> dict[str, str]:
    """What a multipart is completed with; ``whole`` is the checksum of all bytes."""
    headers = {chosen.header: whole, "x-amz-checksum-type": "FULL_OBJECT"} if chosen and whole else {}
    return {**headers, **({"x-amz-mp-object-size": str(size)} if dialect.size_at_complete else {})}


def presented_query(presented: Presented) -> Sequence[tuple[str, str]]:
    """The query of a URL that presents an object so."""
    return [
        ("response-content-type", presented.content_type),
        ("response-content-disposition", presented.disposition),
        ("response-cache-control", "private, no-store"),
    ]


def _following(found: list[Unfinished], after: Unfinished | None) -> list[Unfinished]:
    """The entries behind ``after``, of a list that is in order of the keys."""
    if after is None:
        return found
    for index, each in enumerate(found):
        if (each.key, each.handle) == (after.key, after.handle):
            return found[index + 1 :]
    return [each for each in found if each.key >= after.key]


class S3Reading:
    """Objects of one bucket, read back: one request for a stream, one for a signed URL. Keeps nothing."""

    def __init__(self, requests: S3Requests, store: S3Store, options: S3ObjectOptions) -> None:
        self._requests = requests
        self._store = store
        self._options = options

    async def open(self, upload_id: str, record: S3Record, start: int, size: int) -> IObjectStream:
        """See IReadable.read_object."""
        total = finalised(record.stored)
        check_span(start, size, total)
        headers = {**self._options.access_headers(), **range_headers(start, size, total)}
        try:
            opened = await self._requests.stream("GetObject", record.key, headers)
        except RemoteError as error:
            raise missing(error) from None
        try:
            if opened.headers.get(f"x-amz-meta-{ID_METADATA}") != upload_id:
                raise not_ours()
            check_answered(opened.status, opened.headers, start, size, total)
        except RemoteError:
            opened.stream.close()
            raise
        return ObjectStream(opened.stream)

    async def url(self, upload_id: str, record: S3Record, presented: Presented) -> str | None:
        """See ISigning.signed_url. With SSE-C a reader would need the key."""
        finalised(record.stored)
        if self._options.access_headers():
            return None
        await found_ours(self._store, upload_id, record)
        return await self._requests.presigned(record.key, presented_query(presented), presented.lifetime)

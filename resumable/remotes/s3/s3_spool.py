"""``--spool s3://``: a bucket that has the acknowledged bytes.

Invariant: each call asks the store once, without memory of earlier ones; the one thing that is remembered is that the
store knows no DeleteObjects. A multipart's handle has all that its end needs, so that any process can complete it with
the same words, whatever its own options are by then.
Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html, .../API_UploadPartCopy.html
and .../API_DeleteObjects.html
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, gatherResults, succeed
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.aio.threads import IPool
from resumable.model import keys
from resumable.remotes.errors import CannotCopy, Conflict, Permanent, RemoteError, Transient
from resumable.remotes.interfaces import IRegion, Unfinished
from resumable.remotes.metadata import ID_METADATA, PLAIN, TOKEN_METADATA, Unkept, stripped, taken
from resumable.remotes.object_remote import another_object
from resumable.remotes.object_store import IObjectStore, Listed, Made, ObjectProperties, SentPart
from resumable.remotes.plan import PART_SIZE
from resumable.remotes.reading import IObjectStream, Presented, missing, ranged
from resumable.remotes.s3.answers import ListedPart, Written, may_be_metadata
from resumable.remotes.s3.bucket_rules import BucketRules, ITellsRules, read_rules
from resumable.remotes.s3.checksums import Algorithm, algorithm, of_whole
from resumable.remotes.s3.client import S3Client
from resumable.remotes.s3.endpoint import AWS, Dialect
from resumable.remotes.s3.records import CUSTOM, S3ObjectOptions
from resumable.remotes.s3.store import ABSENT, S3Store, checksum_headers, presented_query, whole_headers

T = TypeVar("T")
DELETES = 8
"""DELETE requests at a time, where the store can't remove many objects with one."""
UNKNOWN_REQUEST = {"NotImplemented", "XNotImplemented", "MethodNotAllowed", "MalformedXML", "UnsupportedOperation"}
NO_COPY = UNKNOWN_REQUEST | {"InvalidRequest", "InvalidArgument", "EntityTooSmall", "EntityTooLarge"}
OTHER_PARTS = {"InvalidPart", "InvalidPartOrder"}


@frozen
class _Handle:
    """A multipart: the store's id, the token of its object, and the checksum that was chosen when it was begun."""

    id: str
    token: str
    checksum: str
    full_object: bool

    @property
    def algorithm(self) -> Algorithm | None:
        return algorithm(self.checksum)

    def dumped(self) -> str:
        return json.dumps([self.id, self.token, self.checksum, self.full_object], separators=(",", ":"))


def _handle(text: str) -> _Handle:
    return _Handle(*json.loads(text))


@frozen
class _Given:
    """An object's headers: ``ours`` go with it whatever the store minds of the client's."""

    key: str
    ours: Mapping[str, str]
    clients: Mapping[str, str]

    def plainer(self) -> _Given | None:
        """See `resumable.remotes.metadata.MetadataHolder`."""
        left = stripped(self.clients, CUSTOM, "", {"Content-Type": PLAIN})
        return None if left is None else evolve(self, clients=left)


@implementer(IObjectStore, ITellsRules)
class S3SpoolStore:
    """One bucket and prefix. ``now``: seconds since the epoch. ``closing`` is called at the end."""

    numbered = True
    part_objects = False
    copies_ranges = True
    lifetime: float | None = None

    def __init__(
        self,
        client: S3Client,
        pool: IPool,
        now: Callable[[], float],
        *,
        template: keys.KeyTemplate | None = None,
        dialect: Dialect = AWS,
        options: S3ObjectOptions | None = None,
        part_size: int = PART_SIZE,
        closing: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        template, self._options = template or keys.parse(), options or S3ObjectOptions()
        self.prefix = template.prefix
        self.limits = dialect.limits
        self.part_size = part_size
        self.conditional = dialect.put_if_absent
        self._client = client
        self._pool = pool
        self._now = now
        self._dialect = dialect
        self._store = S3Store(client, dialect, self._options, template, False)
        self._closing = closing
        self._removes_many = True

    @deferred
    async def put(self, key: str, data: IRegion, properties: ObjectProperties, only_new: bool) -> Made:
        """See IObjectStore."""
        chosen = algorithm(self._dialect.checksum)
        condition = await self._condition(key, only_new, self._dialect.put_if_absent)

        async def make(headers: Mapping[str, str]) -> Written:
            return await self._client.put_object(key, data, {**headers, **condition}, chosen)

        try:
            written = await self._taken(key, properties, make)
        except Conflict:
            raise another_object(key) from None
        return self._made(key, data.size, properties, written, self._dialect.checksum)

    @deferred
    async def begin(self, key: str, properties: ObjectProperties) -> str:
        """See IObjectStore."""
        name, full_object = self._dialect.checksum, self._dialect.full_object

        async def make(headers: Mapping[str, str]) -> str:
            return await self._client.init_multipart_upload(
                key, {**headers, **checksum_headers(algorithm(name), full_object)}
            )

        multipart = await self._taken(key, properties, make)
        return _Handle(multipart, properties.token, name, full_object).dumped()

    @deferred
    async def write_part(self, key: str, handle: str, number: int, name: str, data: IRegion) -> str:
        """See IObjectStore."""
        begun, headers = _handle(handle), self._options.access_headers()
        return _receipt(await self._client.upload_part(key, begun.id, number, data, headers, begun.algorithm))

    @deferred
    async def copy_part(self, key: str, handle: str, number: int, name: str, source: str, start: int, size: int) -> str:
        """See IObjectStore."""
        begun = _handle(handle)
        headers = {**self._options.access_headers(), **self._options.source_headers()}
        try:
            written = await self._client.upload_part_copy(
                key, begun.id, number, (source, start, size), headers, begun.algorithm
            )
        except RemoteError as error:
            if error.code in NO_COPY:
                raise CannotCopy(error.reason, status=error.status, code=error.code) from None
            raise
        return _receipt(written)

    @deferred
    async def complete(
        self, key: str, handle: str, properties: ObjectProperties, parts: Sequence[SentPart], only_new: bool
    ) -> Made:
        """See IObjectStore."""
        begun, sent = _handle(handle), [_part(each) for each in parts]
        condition = await self._condition(key, only_new, self._dialect.complete_if_absent)
        headers = {**await self._completing(begun, sent), **condition}
        try:
            try:
                written = await self._complete(key, begun, sent, headers)
            except RemoteError as error:
                if error.code not in OTHER_PARTS:
                    raise
                written = await self._complete(key, begun, await self._found(key, begun, sent, error), headers)
        except Conflict:
            raise another_object(key) from None
        size, made = sum(part.size for part in parts), evolve(properties, token=begun.token)
        return self._made(key, size, made, written, begun.checksum)

    def token_of(self, handle: str) -> str:
        """See IObjectStore."""
        return _handle(handle).token

    @deferred
    async def abandon(self, key: str, handle: str, names: Sequence[str]) -> None:
        """See IObjectStore."""
        await self._store.abort(key, _handle(handle).id)

    @deferred
    async def find(self, key: str) -> Made | None:
        """See IObjectStore."""
        head = await self._store.head(key)
        if head is None:
            return None
        token, upload_id = (head.metadata.get(name, "") for name in (TOKEN_METADATA, ID_METADATA))
        return Made(key, head.size, token, upload_id, head.etag or None, head.version)

    @deferred
    async def write(self, name: str, data: IRegion) -> None:
        """See IObjectStore."""
        headers = evolve(self._options, storage_class=None).creation_headers()  # it is needed again soon
        await self._client.put_object(name, data, headers, algorithm(self._dialect.checksum))

    @deferred
    async def open(self, key: str, start: int, size: int) -> IObjectStream:
        """See IObjectStore."""
        headers = {**self._options.access_headers(), "Range": f"bytes={start}-{start + size - 1}"}
        try:
            opened = await self._client.requests.stream("GetObject", key, headers)
        except RemoteError as error:
            raise missing(error) from None
        return ranged(opened, start, size)

    @deferred
    async def remove(self, keys: Sequence[str]) -> None:
        """See IObjectStore."""
        if len(keys) > 1 and self._removes_many:
            try:
                await self._client.delete_objects(keys)
                return
            except RemoteError as error:
                if error.code not in UNKNOWN_REQUEST and error.status not in (405, 501):
                    raise
                self._removes_many = False
        for at in range(0, len(keys), DELETES):
            asked = [Deferred.fromCoroutine(self._client.delete_object(key)) for key in keys[at : at + DELETES]]
            await _all(asked)

    @deferred
    async def signed_url(self, key: str, presented: Presented) -> str | None:
        """See IObjectStore. With SSE-C a reader would need the key."""
        if self._options.access_headers():
            return None
        return await self._client.requests.presigned(key, presented_query(presented), presented.lifetime)

    @deferred
    async def list(self, prefix: str, after: str, limit: int) -> Sequence[Listed]:
        """See IObjectStore."""
        found, more = await self._client.list_objects(prefix, after, limit)
        behind = [each for each in found if each.key > after]
        if more and not behind:
            raise Transient("ListObjectsV2: the pages don't end")  # it doesn't heed start-after
        return behind

    @deferred
    async def list_unfinished(self, limit: int, after: Unfinished | None) -> Sequence[Unfinished]:
        """See IObjectStore."""
        return await self._store.list_unfinished(limit, after)

    def works_with(self, handle: str, found: Unfinished) -> bool:
        """See IObjectStore."""
        return _handle(handle).id == found.handle

    @deferred
    async def drop(self, found: Unfinished) -> None:
        """See IObjectStore."""
        await self._store.abort(found.key, found.handle)

    @deferred
    async def probe(self) -> None:
        """See IProbe."""
        await self._store.probe(self._now())
        await self._client.list_objects(self.prefix, "", 1)

    @deferred
    async def rules(self) -> BucketRules:
        """See ITellsRules."""
        return await read_rules(self._client)

    def close(self) -> Deferred[None]:
        """See IObjectStore."""
        return self._closing() if self._closing is not None else succeed(None)

    async def _condition(self, key: str, only_new: bool, conditional: bool) -> Mapping[str, str]:
        """The headers that keep another's object; where the store heeds none, a look. Raises Conflict."""
        if only_new and not conditional and await self._store.head(key) is not None:
            raise another_object(key)
        return ABSENT if only_new and conditional else {}

    async def _taken(
        self, key: str, properties: ObjectProperties, make: Callable[[Mapping[str, str]], Awaitable[T]]
    ) -> T:
        """The answer of ``make``, which gets the object's headers: without the client's where the store minds them."""
        upload_id, room = properties.upload_id, self._dialect.metadata
        headers = self._options.headers_for(upload_id, properties.metadata, room, properties.token)
        own = {f"{CUSTOM}{ID_METADATA}", f"{CUSTOM}{TOKEN_METADATA}"}
        ours = {name: value for name, value in headers.items() if name in own}
        clients = {name: value for name, value in headers.items() if name not in own}
        always = self._options.creation_headers()

        async def made(given: _Given) -> T:
            return await make({**always, **given.clients, **given.ours})

        _, answer = await taken(Unkept(), upload_id, _Given(key, ours, clients), made, may_be_metadata)
        return answer

    async def _completing(self, begun: _Handle, parts: Sequence[ListedPart]) -> Mapping[str, str]:
        """With the checksum of all bytes, where the store reckons that too, and each part has one."""
        chosen, whole = begun.algorithm, None
        if chosen and chosen.polynomial and begun.full_object and all(part.checksum for part in parts):
            values = [(part.checksum or "", part.size) for part in parts]
            whole = await self._pool.run(of_whole, chosen, values)
        size = sum(part.size for part in parts)
        return {**self._options.access_headers(), **whole_headers(self._dialect, chosen, whole, size)}

    async def _complete(
        self, key: str, begun: _Handle, parts: Sequence[ListedPart], headers: Mapping[str, str]
    ) -> Written:
        return await self._client.complete_multipart_upload(key, begun.id, parts, headers, begun.algorithm)

    async def _found(
        self, key: str, begun: _Handle, parts: Sequence[ListedPart], error: RemoteError
    ) -> Sequence[ListedPart]:
        """The parts with the ETags that the store has for them now, if they are the same bytes. Raises Permanent."""
        headers = self._options.access_headers()
        listed = await self._client.list_all_parts(key, begun.id, headers, begun.algorithm)
        there = {each.number: each for each in listed}
        found = []
        for part in parts:
            now = there.get(part.number)
            if now is None or not _same(part, now):
                reason = f"{error.reason}; part {part.number} isn't the one that was confirmed"
                raise Permanent(reason, status=error.status, code=error.code)
            found.append(evolve(part, etag=now.etag))
        return found

    def _made(self, key: str, size: int, properties: ObjectProperties, written: Written, checksum: str) -> Made:
        confirmed = f"{checksum}:{written.checksum}" if written.checksum else None
        return Made(key, size, properties.token, properties.upload_id, written.etag, written.version, confirmed)


def _receipt(written: Written) -> str:
    return json.dumps([written.etag, written.checksum], separators=(",", ":"))


def _part(sent: SentPart) -> ListedPart:
    etag, checksum = json.loads(sent.receipt)
    return ListedPart(sent.number, sent.size, etag, checksum)


def _same(part: ListedPart, listed: ListedPart) -> bool:
    """Whether the part that is there has the bytes that were confirmed: by its ETag, its checksum, or the MD5 that most
    stores have as the ETag."""
    if part.size != listed.size:
        return False
    if _plain(part.etag) == _plain(listed.etag):
        return True
    if part.checksum is None:
        return False
    return part.checksum == listed.checksum or b64decode(part.checksum).hex() == _plain(listed.etag)


def _plain(etag: str) -> str:
    return etag.strip('"').lower()


async def _all(asked: Sequence[Deferred[None]]) -> None:
    """Fails as the first that does, when all have ended."""
    results = await gatherResults([each.addBoth(lambda result: [result]) for each in asked])
    for (result,) in results:
        if result is not None:
            result.raiseException()

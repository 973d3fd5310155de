"""A container as the spool: an upload's parts are staged blocks, and Put Block List makes its blob of them.

Invariants: a block's name holds bits of its handle and a digest of the part's own name, so that nobody else writes it;
all names have the length of those that `records.block_name` makes. No block is ever dropped: that takes a commit, which
takes all blocks under the key along, and Azure can't be asked whose they are in the same step; a process that froze
between the two would take acknowledged bytes of another handle along. So nothing is listed as unfinished, and what is
given up is Azure's to remove after a week.
Sources: https://learn.microsoft.com/rest/api/storageservices/put-block-list, .../put-block-from-url and .../blob-batch
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from random import Random
from typing import Any, Final, TypeVar

from attrs import evolve, frozen
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContainerClient
from twisted.internet.defer import Deferred, gatherResults, succeed
from zope.interface import implementer

from resumable.aio.deferreds import deferred, side_by_side
from resumable.remotes.azure.access import AzureAccess
from resumable.remotes.azure.calls import Calls
from resumable.remotes.azure.errors import may_be_metadata
from resumable.remotes.azure.records import (
    CUSTOM,
    ID_METADATA,
    LIMITS,
    TOKEN_METADATA,
    WIDTH,
    properties_for,
)
from resumable.remotes.azure.store import PAGE, READ, AzureStore, md5_of
from resumable.remotes.errors import CannotCopy, NotThere, RemoteError, Throttled
from resumable.remotes.interfaces import IRegion, Unfinished
from resumable.remotes.metadata import PLAIN, Unkept, stripped, taken
from resumable.remotes.object_store import IObjectStore, Listed, Made, ObjectProperties, SentPart
from resumable.remotes.reading import IObjectStream, Pieces, Presented, missing, not_ours
from resumable.remotes.regions import BytesRegion

T = TypeVar("T")
BITS: Final = 16
"""Characters of a block's name that tell its handle."""
AT_ONCE: Final = 4
"""Threads that one call takes at most."""
BATCH: Final = 256
"""Blobs that one request deletes at most."""
LIFETIME: Final = 7 * 86400.0
OURS: Final = tuple(f"{CUSTOM}{name}" for name in (ID_METADATA, TOKEN_METADATA))


@frozen
class Blob:
    """What a blob is made with; see `properties_for`."""

    key: str
    properties: Mapping[str, str]

    def plainer(self) -> Blob | None:
        """See `resumable.remotes.metadata.MetadataHolder`. The id and the token stay."""
        theirs = {name: value for name, value in self.properties.items() if name not in OURS}
        left = stripped(theirs, CUSTOM, "", {"Content-Type": PLAIN})
        return None if left is None else evolve(self, properties={**left, **_ours(self.properties)})


@implementer(IObjectStore)
class AzureSpoolStore:
    """One container and prefix. ``calls`` and ``readers`` are closed with it. ``now``: seconds since the epoch."""

    limits = LIMITS
    #: Put Blob throws away the blocks that were staged for the blob. Source:
    #: https://learn.microsoft.com/rest/api/storageservices/put-block#remarks
    conditional = False
    numbered = False
    part_objects = False
    copies_ranges = True
    lifetime = LIFETIME

    def __init__(
        self,
        store: AzureStore,
        calls: Calls,
        readers: Calls,
        access: AzureAccess,
        now: Callable[[], float],
        rng: Random,
        *,
        prefix: str,
        client_metadata: bool,
        part_size: int,
    ) -> None:
        self.prefix = prefix
        self.part_size = part_size
        self._store = store
        self._calls = calls
        self._readers = readers
        self._access = access
        self._now = now
        self._rng = rng
        self._client_metadata = client_metadata
        # only a cache, of where to go on behind the last answer: Azure's pages can't be asked for by a name
        self._page: tuple[str, str, str | None] = ("", "", None)

    @deferred
    async def put(self, key: str, data: IRegion, properties: ObjectProperties, only_new: bool) -> Made:
        """See IObjectStore."""

        async def put(blob: Blob) -> tuple[Any, str]:
            return await self._store.put_blob(key, blob.properties, data, only_new)

        written, md5 = await self._taken(key, properties, put)
        return _made(key, data.size, properties, written, md5)

    def begin(self, key: str, properties: ObjectProperties) -> Deferred[str]:
        """See IObjectStore."""
        random = f"{properties.token} {self._rng.getrandbits(128):x}"
        bits = blake2b(random.encode(), digest_size=BITS // 2).hexdigest()
        return succeed(json.dumps({"token": properties.token, "bits": bits}))

    @deferred
    async def write_part(self, key: str, handle: str, number: int, name: str, data: IRegion) -> str:
        """See IObjectStore."""
        return f"md5:{await self._store.stage_block(key, block_id(handle, name), data)}"

    @deferred
    async def copy_part(self, key: str, handle: str, number: int, name: str, source: str, start: int, size: int) -> str:
        """See IObjectStore. CannotCopy: Azure may not read the source with our credentials (or it is Azurite)."""
        block, scope = block_id(handle, name), self._store.scope()

        def copy(client: ContainerClient) -> Any:
            url, authorization = self._access.source(source, self._now())
            more: dict[str, Any] = {**scope, **({"source_authorization": authorization} if authorization else {})}
            return client.get_blob_client(key).stage_block_from_url(block, url, start, size, **more)

        try:
            answer = await self._calls.ask("Put Block From URL", copy)
        except RemoteError as error:
            raise _not_copied(error) from None
        md5 = answer.get("content_md5")
        return f"md5:{b64encode(md5).decode()}" if md5 else "copied"

    @deferred
    async def complete(
        self, key: str, handle: str, properties: ObjectProperties, parts: Sequence[SentPart], only_new: bool
    ) -> Made:
        """See IObjectStore. NotThere also where the week has passed."""
        given = evolve(properties, token=self.token_of(handle))
        names = [block_id(handle, part.name) for part in parts]

        async def commit(blob: Blob) -> Any:
            return await self._store.commit_blocks(key, blob.properties, names, only_new)

        try:
            written = await self._taken(key, given, commit)
        except RemoteError as error:
            if error.code == "InvalidBlockList":
                raise NotThere(error.reason, status=error.status, code=error.code) from None
            raise
        return _made(key, sum(part.size for part in parts), given, written, None)

    def token_of(self, handle: str) -> str:
        """See IObjectStore."""
        return str(json.loads(handle)["token"])

    def abandon(self, key: str, handle: str, names: Sequence[str]) -> Deferred[None]:
        """See IObjectStore. Nobody completes it any more; its blocks are Azure's to remove: see this module."""
        return succeed(None)

    @deferred
    async def find(self, key: str) -> Made | None:
        """See IObjectStore."""
        blob = await self._store.look(key)
        if blob is None:
            return None
        had, md5 = blob.metadata or {}, md5_of(blob)
        token, upload_id = had.get(TOKEN_METADATA, ""), had.get(ID_METADATA, "")
        checksum = f"md5:{md5}" if md5 else None
        return Made(key, blob.size, token, upload_id, blob.etag, blob.version_id, checksum)

    @deferred
    async def write(self, name: str, data: IRegion) -> None:
        """See IObjectStore."""
        await self._store.put_blob(name, {"Content-Type": PLAIN}, data, only_new=False, plain=True)

    @deferred
    async def open(self, key: str, start: int, size: int) -> IObjectStream:
        """See IObjectStore. All is of the state that the first piece was of."""
        first, etag = await self._get(key, start, min(size, READ), None)
        if len(first) != min(size, READ):
            raise not_ours()
        ready = [first]  # so that it took no look at the blob

        async def ask(offset: int, size: int) -> bytes:
            return ready.pop() if ready else (await self._get(key, offset, size, etag))[0]

        return Pieces(ask, start, size, READ)

    @deferred
    async def remove(self, keys: Sequence[str]) -> None:
        """See IObjectStore."""
        groups = [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]
        await side_by_side([partial(self._remove, group) for group in groups], AT_ONCE)

    def signed_url(self, key: str, presented: Presented) -> Deferred[str | None]:
        """See IObjectStore."""
        sign = self._readers.ask(
            "Get User Delegation Key", lambda _: self._access.signed_url(key, presented, self._now())
        )
        return Deferred.fromCoroutine(sign)

    @deferred
    async def list(self, prefix: str, after: str, limit: int) -> Sequence[Listed]:
        """See IObjectStore."""
        marker = self._page[2] if after and self._page[:2] == (prefix, after) else None
        found: list[Listed] = []
        while True:
            page, following = await self._store.list_page(prefix, marker, min(limit, PAGE), uncommitted=False)
            found += [
                Listed(str(blob.name), blob.size, blob.last_modified.timestamp())
                for blob in page
                if str(blob.name) > after
            ]
            if len(found) >= limit:
                self._page = prefix, found[limit - 1].key, following if following and len(found) == limit else marker
                return found[:limit]
            if following is None:
                return found
            marker = following

    def list_unfinished(self, limit: int, after: Unfinished | None) -> Deferred[Sequence[Unfinished]]:
        """See IObjectStore. None: see this module."""
        return succeed([])

    def works_with(self, handle: str, found: Unfinished) -> bool:
        """See IObjectStore. Nothing is listed, and of what would be nobody could tell."""
        return True

    def drop(self, found: Unfinished) -> Deferred[None]:
        """See IObjectStore. Nothing is listed."""
        return succeed(None)

    @deferred
    async def probe(self) -> None:
        """See IProbe. Makes a small blob, lists, reads and deletes it; stages no block, since that could stay."""
        key = f"{self.prefix}.tails/.probe/{self._rng.getrandbits(64):016x}"
        await self.write(key, BytesRegion(b"?"))
        try:
            await self._store.list_page(self.prefix, None, 1)
            await self._get(key, 0, 1, None)
        finally:
            await self.remove([key])

    def close(self) -> Deferred[None]:
        """See IObjectStore. Takes up to the time-out of a request: until all threads have ended."""
        closing = [Deferred.fromCoroutine(each.close()) for each in (self._readers, self._calls)]
        return gatherResults(closing).addCallback(lambda _: None)

    async def _taken(self, key: str, properties: ObjectProperties, make: Callable[[Blob], Awaitable[T]]) -> T:
        """The answer of ``make``, with as much of the client's metadata as the store takes."""
        wanted = properties_for(properties.upload_id, properties.metadata, self._client_metadata)
        wanted[f"{CUSTOM}{TOKEN_METADATA}"] = properties.token
        _, made = await taken(Unkept[Blob](), properties.upload_id, Blob(key, wanted), make, may_be_metadata)
        return made

    async def _get(self, key: str, offset: int, size: int, etag: str | None) -> tuple[bytes, str]:
        condition: dict[str, Any] = {"etag": etag, "match_condition": MatchConditions.IfNotModified} if etag else {}

        def get(client: ContainerClient) -> tuple[bytes, str]:
            opened = client.get_blob_client(key).download_blob(offset, size, **condition)
            return opened.readall(), str(opened.properties.etag)

        try:
            return await self._readers.ask("Get Blob", get)
        except RemoteError as error:
            raise missing(error) from None

    async def _remove(self, keys: Sequence[str]) -> None:
        """Some, by one request; one by one where the store doesn't do that, or not with our credentials: to a batch
        with a SAS Azurite answers 500."""
        if len(keys) > 1:
            try:
                return await self._calls.ask("Blob Batch", lambda client: _delete_all(keys, client))
            except RemoteError as error:
                if error.status is None or isinstance(error, Throttled):
                    raise
        await side_by_side([partial(self._remove_one, key) for key in keys], AT_ONCE)

    async def _remove_one(self, key: str) -> None:
        with suppress(NotThere):
            await self._calls.ask("Delete Blob", lambda client: client.get_blob_client(key).delete_blob())


def block_id(handle: str, name: str) -> str:
    """The name of the block for the part of that name; see this module."""
    return f"{_bits(handle)}.{blake2b(name.encode(), digest_size=(WIDTH - BITS - 1) // 2).hexdigest()}"


def _bits(handle: str) -> str:
    return str(json.loads(handle)["bits"])


def _ours(properties: Mapping[str, str]) -> dict[str, str]:
    return {name: properties[name] for name in OURS if name in properties}


def _made(key: str, size: int, given: ObjectProperties, written: Any, md5: str | None) -> Made:
    checksum = f"md5:{md5}" if md5 else None
    return Made(key, size, given.token, given.upload_id, written["etag"], written["version_id"], checksum)


def _not_copied(error: RemoteError) -> RemoteError:
    """The error for a copy that failed: of the source, or of what the store can."""
    if error.status in (404, 416) and error.code != "ContainerNotFound":
        return NotThere(error.reason, status=error.status, code=error.code)
    if error.code == "CannotVerifyCopySource" or error.status in (401, 403, 501):
        return CannotCopy(error.reason, status=error.status, code=error.code, advice=error.advice)
    return error


def _delete_all(keys: Sequence[str], client: ContainerClient) -> None:
    for answer in client.delete_blobs(*keys, raise_on_any_failure=False):
        if answer.status_code not in (202, 404):
            raise HttpResponseError(response=answer)

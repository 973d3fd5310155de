"""A container's operations in terms of replicas, and how its blobs are read back.

Invariant: whatever makes a blob names the upload in its metadata and, unless replacing was asked for, makes it only
where there is none: two daemons can't finish over each other. Only blobs that are known to be ours are deleted, and
only as they were when that was looked up. A blob is read, or a URL to it given out, only if it carries the upload's id
and has its size.
Source: https://learn.microsoft.com/rest/api/storageservices/put-blob, .../put-block-list, .../get-block-list and
.../specifying-conditional-headers-for-blob-service-operations
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from azure.core import MatchConditions
from azure.storage.blob import (
    BlobBlock,
    BlobProperties,
    ContainerClient,
    ContentSettings,
    StandardBlobTier,
)

from resumable.remotes.azure.access import AzureAccess
from resumable.remotes.azure.calls import BlobBody, Calls
from resumable.remotes.azure.records import (
    DROPPED_METADATA,
    ID_METADATA,
    AzureRecord,
    BlobOptions,
    block_name,
    is_of,
    metadata_of,
)
from resumable.remotes.errors import Conflict, NotThere, RemoteError, Transient, Unusable
from resumable.remotes.interfaces import IRegion, Part, Stored, Unfinished
from resumable.remotes.object_remote import another_object, found_ours
from resumable.remotes.reading import IObjectStream, Pieces, Presented, check_span, finalised, missing

PAGE = 5000
PROBE = ".resumable-probe"
READ = 1 << 20
"""Bytes that one request for a download answers: the SDK reads an answer into memory. Less makes more requests, more
takes more memory for each download."""
OVERTAKEN = {"BlobAlreadyExists", "ConditionNotMet", "UnauthorizedBlobOverwrite"}


class AzureStore:
    """A container. Keeps nothing. ``drops``: whether blocks are dropped at once, or left to expire."""

    def __init__(self, calls: Calls, container: str, options: BlobOptions, replace: bool, drops: bool) -> None:
        self._calls = calls
        self._container = container
        self._options = options
        self._replace = replace
        self.drops = drops

    async def put(self, upload_id: str, record: AzureRecord, data: IRegion) -> Stored:
        """Make the blob in one go. Raises Conflict for another's blob."""
        try:
            written, md5 = await self.put_blob(record.key, record.properties, data, not self._replace)
        except Conflict as error:
            return await self._ours_or_conflict(upload_id, record, error)
        return self._stored(record, data.size, written["etag"], written["version_id"], md5)

    async def put_blob(
        self, key: str, properties: Mapping[str, str], data: IRegion, only_new: bool, plain: bool = False
    ) -> tuple[Any, str]:
        """Put Blob: its answer, and the MD5 of the bytes. ``plain``: without the tier that the operator wants."""

        def put(client: ContainerClient, body: BlobBody) -> tuple[Any, str]:
            md5 = body.md5()

            # the SDK reads a body that it gets into memory; so only the request gets it
            def attach(request: Any) -> None:
                request.http_request.set_streamed_data_body(body)
                request.http_request.headers.update({"Content-Length": str(len(body)), "Content-MD5": md5})

            more = {**self._creation(properties, plain), **({"raw_request_hook": attach} if len(body) else {})}
            return client.get_blob_client(key).upload_blob(b"", overwrite=not only_new, **more), md5

        return await self._calls.send("Put Blob", put, data)

    async def stage(self, upload_id: str, record: AzureRecord, part: Part, data: IRegion) -> None:
        """Write one block."""
        await self.stage_block(record.key, block_name(upload_id, part), data)

    async def stage_block(self, key: str, name: str, data: IRegion) -> str:
        """Put Block: the MD5 of its bytes, which the store has compared."""
        scope = self.scope()

        def stage(client: ContainerClient, body: BlobBody) -> str:
            md5 = body.md5()
            headers = {"Content-MD5": md5}
            client.get_blob_client(key).stage_block(name, body, len(body), headers=headers, **scope)  # type: ignore[arg-type]
            return md5

        return await self._calls.send("Put Block", stage, data)

    async def names(self, key: str) -> Sequence[str]:
        """Of all uncommitted blocks under the key, whoever wrote them."""

        def listed(client: ContainerClient) -> list[str]:
            _, uncommitted = client.get_blob_client(key).get_block_list("uncommitted")
            return [block.id for block in uncommitted if block.id]

        try:
            return await self._calls.ask("Get Block List", listed)
        except NotThere:
            return []

    async def commit(self, upload_id: str, record: AzureRecord, parts: Sequence[Part]) -> Stored:
        """Make the blob of its blocks. Raises Conflict for another's blob."""
        names = [block_name(upload_id, part) for part in parts]
        try:
            written = await self.commit_blocks(record.key, record.properties, names, not self._replace)
        except Conflict as error:
            return await self._ours_or_conflict(upload_id, record, error)
        return self._stored(record, sum(part.size for part in parts), written["etag"], written["version_id"], None)

    async def commit_blocks(self, key: str, properties: Mapping[str, str], names: Sequence[str], only_new: bool) -> Any:
        """Put Block List: its answer."""
        condition = {"match_condition": MatchConditions.IfMissing} if only_new else {}

        def commit(client: ContainerClient) -> Any:
            more = {**self._creation(properties), **condition}
            return client.get_blob_client(key).commit_block_list([BlobBlock(name) for name in names], **more)

        return await self._calls.ask("Put Block List", commit)

    async def look(self, key: str) -> BlobProperties | None:
        """The blob that everybody sees under the key."""
        try:
            return await self._calls.ask(
                "Get Blob Properties", lambda client: client.get_blob_client(key).get_blob_properties()
            )
        except NotThere:
            return None

    async def find_ours(self, upload_id: str, record: AzureRecord) -> Stored | None:
        """The blob, if it carries the upload's id and has its size."""
        blob = await self.look(record.key)
        if blob is None or (blob.metadata or {}).get(ID_METADATA) != upload_id or blob.size != record.size:
            return None
        return self._stored(record, blob.size, blob.etag, blob.version_id, md5_of(blob))

    async def is_taken(self, record: AzureRecord) -> bool:
        """Whether there is another's blob that may not be replaced."""
        return not self._replace and await self.look(record.key) is not None

    async def delete_ours(self, upload_id: str, record: AzureRecord) -> bool:
        """Delete the blob if it carries the upload's id; whether it was there."""
        blob = await self.look(record.key)
        if blob is None or (blob.metadata or {}).get(ID_METADATA) != upload_id:
            return False
        return await self._delete(record.key, blob.etag)

    async def drop(self, key: str, upload_id: str | None) -> None:
        """Get rid of all uncommitted blocks under the key; with an id: if they are all that upload's.

        Azure has no call for it. A blob of no blocks, made only where there is none, takes them along, and is
        deleted at once. Blocks over another's blob stay, unseen, for the week that Azure keeps them.
        """
        names = await self.names(key)
        etag = None
        if names and (upload_id is None or all(is_of(name, upload_id) for name in names)):
            try:
                etag = await self._calls.ask("Put Block List", partial(_empty, key))
            except Conflict as error:
                if error.code not in OVERTAKEN:
                    raise
        etag = etag or await self._dropped(key)
        if etag is not None:
            await self._delete(key, etag)

    async def clear(self, key: str, upload_id: str) -> None:
        """`drop` the blocks of an upload, if that is wanted."""
        if self.drops:
            await self.drop(key, upload_id)

    async def probe(self, prefix: str) -> None:
        """Try the requests of an upload and of the sweeper, and leave nothing. Where blocks can't be dropped, none is
        written."""
        key = f"{prefix}{PROBE}"
        if not self.drops:
            await self.look(key)
            return
        await self._calls.ask("Put Block", lambda client: client.get_blob_client(key).stage_block("probe", b"?"))
        try:
            await self.names(key)
            await self.list_page(prefix, None, 1)
        finally:
            await self.drop(key, None)

    async def list_page(
        self, prefix: str, marker: str | None, size: int, uncommitted: bool = True
    ) -> tuple[list[BlobProperties], str | None]:
        """Some blobs, those of ``uncommitted`` blocks too, and where the next begin, if there are any."""
        include = ["uncommittedblobs"] if uncommitted else None

        def listed(client: ContainerClient) -> tuple[list[BlobProperties], str | None]:
            found = client.list_blobs(prefix or None, include=include, results_per_page=size)
            pages = found.by_page(marker)
            page = list(next(pages, ()))
            return page, pages.continuation_token or None  # type: ignore[attr-defined]

        return await self._calls.ask("List Blobs", listed)

    async def _dropped(self, key: str) -> str | None:
        """The ETag of the empty blob of a `drop` that was interrupted."""
        blob = await self.look(key)
        return blob.etag if blob is not None and DROPPED_METADATA in (blob.metadata or {}) and not blob.size else None

    async def _delete(self, key: str, etag: str | None) -> bool:
        def delete(client: ContainerClient) -> None:
            client.get_blob_client(key).delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)

        try:
            await self._calls.ask("Delete Blob", delete)
        except NotThere:
            return False
        except Conflict as error:
            if error.code in OVERTAKEN:
                raise Transient(f"{error.reason}: it was changed meanwhile", code=error.code) from None
            raise Unusable(error.reason, status=error.status, code=error.code, advice=error.advice) from None
        return True

    async def _ours_or_conflict(self, upload_id: str, record: AzureRecord, error: RemoteError) -> Stored:
        ours = await self.find_ours(upload_id, record)
        if ours is None and error.code in OVERTAKEN:
            raise another_object(record.key, status=error.status, code=error.code)
        if ours is None:
            raise error
        return ours

    def _creation(self, properties: Mapping[str, str], plain: bool = False) -> dict[str, Any]:
        """The arguments of Put Blob and Put Block List."""
        kind, disposition = properties["Content-Type"], properties.get("Content-Disposition")
        tier = None if plain else self._options.tier
        return {
            "content_settings": ContentSettings(content_type=kind, content_disposition=disposition),
            "metadata": metadata_of(properties),
            **({"standard_blob_tier": StandardBlobTier(tier)} if tier else {}),
            **self.scope(),
        }

    def scope(self) -> dict[str, str]:
        """The encryption scope, as an argument of what writes."""
        scope = self._options.encryption_scope
        return {"encryption_scope": scope} if scope else {}

    def _stored(self, record: AzureRecord, size: int, etag: str | None, version: str | None, md5: str | None) -> Stored:
        location = f"az://{self._container}/{record.key}"
        return Stored(location, record.key, size, etag, version, f"md5:{md5}" if md5 else None)


def md5_of(blob: BlobProperties) -> str | None:
    """In Base64, where the store has one."""
    found = blob.content_settings.content_md5
    return b64encode(bytes(found)).decode() if found else None


def _empty(key: str, client: ContainerClient) -> str:
    """Make the empty blob; its ETag."""
    made = client.get_blob_client(key).commit_block_list(
        [], metadata={DROPPED_METADATA: "yes"}, match_condition=MatchConditions.IfMissing
    )
    return str(made["etag"])


def unfinished_among(blobs: Iterable[BlobProperties]) -> Iterator[Unfinished]:
    """Those that have only uncommitted blocks.

    Of these Azure lists no content type (Azurite an ETag and a date, which Azure doesn't).
    Source: https://learn.microsoft.com/rest/api/storageservices/list-blobs (uncommitted blobs in the response)
    """
    for blob in blobs:
        if not blob.size and not blob.content_settings.content_type:
            made = blob.creation_time or blob.last_modified
            yield Unfinished(str(blob.name), "uncommitted", made.timestamp() if made else None)


class AzureReading:
    """Blobs, read back: a request for a look, and one for each `READ`, in threads of their own.

    ``calls`` are its own to close; ``store`` asks by them. ``now``: seconds since the epoch.
    All that is read of a blob is of the state that was looked at.
    Source: https://learn.microsoft.com/rest/api/storageservices/get-blob
    """

    def __init__(self, store: AzureStore, calls: Calls, access: AzureAccess, now: Callable[[], float]) -> None:
        self._store = store
        self._calls = calls
        self._access = access
        self._now = now

    async def open(self, upload_id: str, record: AzureRecord, start: int, size: int) -> IObjectStream:
        """See IReadable.read_object."""
        check_span(start, size, finalised(record.stored))
        etag = (await found_ours(self._store, upload_id, record)).etag

        async def ask(offset: int, size: int) -> bytes:
            def get(client: ContainerClient) -> bytes:
                blob = client.get_blob_client(record.key)
                unchanged = MatchConditions.IfNotModified
                return blob.download_blob(offset, size, etag=etag, match_condition=unchanged).readall()

            try:
                return await self._calls.ask("Get Blob", get)
            except RemoteError as error:
                raise missing(error) from None

        return Pieces(ask, start, size, READ)

    async def url(self, upload_id: str, record: AzureRecord, presented: Presented) -> str | None:
        """See ISigning.signed_url."""
        finalised(record.stored)
        await found_ours(self._store, upload_id, record)
        return await self._calls.ask(
            "Get User Delegation Key", lambda _: self._access.signed_url(record.key, presented, self._now())
        )

    async def close(self) -> None:
        """No thread is left when this returns."""
        await self._calls.close()

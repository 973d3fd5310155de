"""Blobs of a container, read back.

One reason to change: what is asked of the container for a download. One request for a look, and one for each `PIECE`:
the SDK reads what it gets into memory, so it is asked for little at a time. They have threads of their own.

Invariant: a blob is read, or a URL to it given out, only if it carries the upload's id and has its size; all that is
read of it is of the state that was looked at.
Source: https://learn.microsoft.com/rest/api/storageservices/get-blob
"""

from __future__ import annotations

from collections.abc import Callable

from azure.core import MatchConditions
from azure.storage.blob import ContainerClient

from resumable.remotes.azure.access import Access
from resumable.remotes.azure.calls import Calls
from resumable.remotes.azure.records import Record
from resumable.remotes.azure.store import Store
from resumable.remotes.errors import RemoteError
from resumable.remotes.interfaces import Stored
from resumable.remotes.reading import IObjectStream, Pieces, Presented, check_span, finalised, missing, not_ours

PIECE = 1 << 20
"""Bytes that one request answers. Less makes more requests, more takes more memory for each download."""


class Reading:
    """``calls`` are its own to close; ``store`` asks by them. ``now``: seconds since the epoch."""

    def __init__(self, store: Store, calls: Calls, access: Access, now: Callable[[], float]) -> None:
        self._store = store
        self._calls = calls
        self._access = access
        self._now = now

    async def open(self, upload_id: str, record: Record, start: int, size: int) -> IObjectStream:
        """See IReadable.read_object."""
        check_span(start, size, finalised(record.stored))
        etag = (await self._ours(upload_id, record)).etag

        async def ask(offset: int, size: int) -> bytes:
            def get(client: ContainerClient) -> bytes:
                blob = client.get_blob_client(record.key)
                unchanged = MatchConditions.IfNotModified
                return blob.download_blob(offset, size, etag=etag, match_condition=unchanged).readall()

            try:
                return await self._calls.ask("Get Blob", get)
            except RemoteError as error:
                raise missing(error) from None

        return Pieces(ask, start, size, PIECE)

    async def url(self, upload_id: str, record: Record, presented: Presented) -> str | None:
        """See ISigning.signed_url."""
        finalised(record.stored)
        await self._ours(upload_id, record)
        return await self._calls.ask(
            "Get User Delegation Key", lambda _: self._access.signed_url(record.key, presented, self._now())
        )

    async def close(self) -> None:
        """No thread is left when this returns."""
        await self._calls.close()

    async def _ours(self, upload_id: str, record: Record) -> Stored:
        found = await self._store.find_ours(upload_id, record)
        if found is None:
            raise not_ours()
        return found

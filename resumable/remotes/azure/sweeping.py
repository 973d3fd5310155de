"""Blocks that nobody works with.

One reason to change: how they are found among the blobs of a container.

Invariant: only a cache is kept, of where the last page began: Azure's pages can't be asked for by a name.
Source: https://learn.microsoft.com/rest/api/storageservices/list-blobs (uncommitted blobs in the response)
"""

from __future__ import annotations

from collections.abc import Sequence

from azure.storage.blob import BlobProperties

from resumable.remotes.azure.records import Blocks, Records
from resumable.remotes.azure.store import PAGE, Store
from resumable.remotes.interfaces import Unfinished
from resumable.remotes.records import State


class Sweeping:
    """Under one prefix."""

    def __init__(self, records: Records, store: Store, prefix: str) -> None:
        self._records = records
        self._store = store
        self._prefix = prefix
        self._page: tuple[str, str | None] = ("", None)

    async def list(self, limit: int, after: Unfinished | None) -> Sequence[Unfinished]:
        """See ISweeper. Goes through all blobs under the prefix; none where blocks can't be dropped."""
        if not self._store.drops:
            return []
        last, marker = self._page
        key = after.key if after else ""
        marker = marker if key and key == last else None
        found: list[Unfinished] = []
        while True:
            page, following = await self._store.list_page(self._prefix, marker, PAGE)
            found += [_unfinished(blob) for blob in page if _is_uncommitted(blob) and str(blob.name) > key]
            if len(found) >= limit:
                found = found[:limit]
                self._page = found[-1].key, marker
                return found
            if following is None:
                return found
            marker = following

    async def discard(self, found: Unfinished, upload_id: str, dry_run: bool) -> bool:
        """See ISweeper. Of one key there is at most one unfinished blob, so that is what the upload works with."""

        async def once() -> bool:
            record = await self._records.load(upload_id)
            works = record is not None and record.state in (State.OPEN, State.PLACING)
            if record and works and record.blocks is not Blocks.NONE and record.key == found.key:
                return False
            if not dry_run:
                await self._store.drop(found.key, None)
            return True

        return await self._records.alone(upload_id, once)


def _is_uncommitted(blob: BlobProperties) -> bool:
    """Of these Azure lists no content type (Azurite an ETag and a date, which Azure doesn't)."""
    return not blob.size and not blob.content_settings.content_type


def _unfinished(blob: BlobProperties) -> Unfinished:
    made = blob.creation_time or blob.last_modified
    return Unfinished(str(blob.name), "uncommitted", made.timestamp() if made else None)

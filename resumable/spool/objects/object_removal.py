"""Removes what gone and dropped uploads have in the object store.

Nothing that is acknowledged goes. Whose data is removed is the catalog's to say (`ICatalog.removable`): an upload that
is gone, which no final needs, or that was dropped; neither ever comes back, and `REMOVED_AFTER` seconds later nobody
reads it any more. Of the store only that is removed which is this upload's alone: objects whose names are in its rows,
its multipart, and what is under its key with its id in the metadata, whoever made it. The multipart goes first: no
object can be made of it after the look.

What a frozen worker or a late request makes after that is found by `ObjectSweeper`, a day later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults

from resumable.aio.deferreds import deferred
from resumable.model.stored import IStored, StoredLayout
from resumable.remotes.errors import RemoteError
from resumable.remotes.object_store import IObjectStore
from resumable.spool.objects.errors import StoreFailed, store_failed
from resumable.spool.objects.object_names import ObjectNames

TOGETHER: Final = 16
"""Uploads whose data is removed at once: each has two requests to the store, or more."""
MOST: Final = 1000
"""Objects that one request removes."""


async def remove_object(store: IObjectStore, key: str, upload_id: str) -> bool:
    """Remove what is under the key, if it is this upload's; whether it was. Raises RemoteError."""
    found = await store.find(key)
    if found is None or found.upload_id != upload_id:
        return False
    await store.remove([key])
    return True


class ObjectRemoval:
    """What `ISpool.remove` does where bytes are in an object store."""

    def __init__(self, store: IObjectStore, stored: IStored, names: ObjectNames) -> None:
        self._store = store
        self._stored = stored
        self._names = names

    @deferred
    async def remove(self, upload_ids: Sequence[str]) -> Mapping[str, OSError]:
        """See `ISpool.remove`. Fails with CatalogUnavailable, ValueError."""
        for upload_id in upload_ids:
            self._names.key(upload_id, False)
        layouts = await self._stored.of_many(upload_ids)
        turns = DeferredSemaphore(TOGETHER)
        errors: Sequence[StoreFailed | None] = await gatherResults(
            [turns.run(self._remove, upload_id, layouts.get(upload_id)) for upload_id in upload_ids]
        )
        return {upload_id: error for upload_id, error in zip(upload_ids, errors, strict=True) if error is not None}

    def _remove(self, upload_id: str, layout: StoredLayout | None) -> Deferred[StoreFailed | None]:
        return Deferred.fromCoroutine(self._remove_one(upload_id, layout))

    async def _remove_one(self, upload_id: str, layout: StoredLayout | None) -> StoreFailed | None:
        """Why it can't be removed now."""
        try:
            if layout is None:  # of a dropped one it isn't told what it was
                for is_partial in (False, True):
                    await remove_object(self._store, self._names.key(upload_id, is_partial), upload_id)
                return None
            key = self._names.key(upload_id, layout.is_partial)
            if layout.multipart is not None:
                parts = [self._names.called(each.name) for each in layout.parts]
                await self._store.abandon(key, layout.multipart, parts)
            await remove_object(self._store, key, upload_id)
            named = [*(each.name for each in layout.parts), *(each.name for each in layout.pieces)]
            objects = [self._names.object(name) for name in named if name.startswith(".")]
            for first in range(0, len(objects), MOST):
                await self._store.remove(objects[first : first + MOST])
        except RemoteError as error:
            return store_failed(error)
        return None

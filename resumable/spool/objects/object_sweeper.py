"""Removes from the object store what no row names: replaced pieces and parts, and what crashes and late requests left.

Invariants: the catalog is asked about each name after the list that has it was answered, so a stale list does no harm,
and a name that somebody could still record is younger than `OLD`: by then its worker has lost its row, or has recorded
it. An object under an upload's key goes only if the catalog knows the upload, and knows that its data was removed: it
is gone or dropped, which is for ever. An id that the catalog doesn't know, or that no server has drawn, may be of
another catalog, an older backup, or an operator's: it is told of once, and stays. So nothing acknowledged is removed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from resumable.model.stored import IStored
from resumable.model.upload import GoneReason, Upload
from resumable.remotes.errors import RemoteError
from resumable.remotes.interfaces import Unfinished
from resumable.remotes.object_store import IObjectStore
from resumable.spool.files import DRAWN_ID
from resumable.spool.objects.errors import store_failed
from resumable.spool.objects.object_names import PARTIALS, TAILS, ObjectNames
from resumable.spool.objects.object_removal import remove_object

T = TypeVar("T")

OLD: Final = 86_400.0
"""Seconds. A worker that wasn't heard of for that long has lost its row, and records nothing."""
PAGE: Final = 1000
"""Names that are looked at together."""
PAGES: Final = 100
"""Pages of uploads' objects that one `sweep_objects` looks at: a bucket may have millions."""
TOLD: Final = 1000
"""Keys of others' multiparts and objects that are told of, at most."""


class ObjectSweeper:
    """By one worker at a time. Each sweep raises CatalogUnavailable and StoreFailed; the next one goes on.

    ``get_many``: ICatalog's. ``wall``: the time of day by the catalog's clock.
    """

    _log = Logger()

    def __init__(
        self,
        store: IObjectStore,
        stored: IStored,
        names: ObjectNames,
        get_many: Callable[[Sequence[str]], Deferred[Mapping[str, Upload]]],
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._stored = stored
        self._names = names
        self._get_many = get_many
        self._wall = wall
        #: Objects and multiparts removed since the start.
        self.removed = 0
        self._stopping = False
        self._told: set[str] = set()
        self._left: list[tuple[str, str]] = []
        self._next_round = 0.0

    def stop(self) -> None:
        """End a sweep that is under way after its next step."""
        self._stopping = True

    async def sweep_discarded(self) -> None:
        """Remove the objects of pieces and parts that a commit has replaced, or whose upload has become one object."""
        while not self._stopping and (names := await self._stored.discarded(PAGE)):
            if await self._remove([self._names.object(name) for name in names if name.startswith(TAILS)]):
                await self._stored.removed(names)

    async def sweep_unknown(self) -> None:
        """Remove old objects of pieces and parts that no row names."""
        prefix = self._names.object(TAILS)
        after = prefix
        while not self._stopping and (page := await _asked(self._store.list(prefix, after, PAGE))):
            after, before = page[-1].key, self._wall() - OLD
            names = [each.key.removeprefix(self._names.prefix) for each in page if each.changed_at < before]
            unknown = await self._stored.unknown(names) if names else ()
            await self._remove([self._names.object(name) for name in unknown])

    async def sweep_unfinished(self) -> None:
        """Remove old multiparts that no row has."""
        last: Unfinished | None = None
        while not self._stopping and (found := await _asked(self._store.list_unfinished(PAGE, last))):
            last = found[-1]
            before = self._wall() - OLD
            await self._drop([each for each in found if each.started_at is not None and each.started_at < before])

    async def sweep_objects(self) -> None:
        """Go on with the look for objects that were made when their uploads' data had been removed; a round a day."""
        if not self._left and self._wall() >= self._next_round:
            self._next_round = self._wall() + OLD
            behind_tails = f"{self._names.object(TAILS)[:-1]}0"  # "0" follows the slash
            partials = self._names.object(PARTIALS)
            self._left = [(partials, partials), (self._names.prefix, behind_tails)]
        for _ in range(PAGES):
            if self._stopping or not self._left:
                return
            prefix, after = self._left[0]
            page = await _asked(self._store.list(prefix, after, PAGE))
            if not page:
                del self._left[0]
                continue
            await self._remove_late([each.key for each in page])
            self._left[0] = (prefix, page[-1].key)

    # -- steps

    async def _remove(self, keys: Sequence[str]) -> bool:
        """Whether they are gone; not where the sweep ends before that."""
        if self._stopping:
            return False
        if keys:
            await _asked(self._store.remove(keys))
            self.removed += len(keys)
        return True

    async def _remove_late(self, keys: Sequence[str]) -> None:
        """Remove those of the uploads' objects whose data was removed."""
        ids = {key: upload_id for key in keys if (upload_id := self._id_of(key)) is not None}
        removed = await self._removed(tuple(ids.values())) if ids else {}
        for key, upload_id in ids.items():
            if upload_id not in removed:
                self._tell(key, "the store has the object {key}, of an upload that isn't known; it stays")
            elif removed[upload_id] and not self._stopping:
                self.removed += await _asked(remove_object(self._store, key, upload_id))

    async def _drop(self, found: Sequence[Unfinished]) -> None:
        """Remove those of the multiparts that no row has, nor will have."""
        ids = {each: upload_id for each in found if (upload_id := self._id_of(each.key)) is not None}
        removed = await self._removed(tuple(ids.values())) if ids else {}
        rows = await self._stored.tails_of(tuple(ids.values())) if ids else {}
        for each in found:
            upload_id = ids.get(each, "")
            row = rows.get(upload_id)
            if upload_id not in removed:
                self._tell(each.key, "the store has a multipart of {key}, which isn't known; it stays")
            elif self._stopping or (row is None and not removed[upload_id]):
                continue
            elif row is None or row.whole or row.multipart is None or not self._store.works_with(row.multipart, each):
                await _asked(self._store.drop(each))
                self.removed += 1

    async def _removed(self, upload_ids: Sequence[str]) -> Mapping[str, bool]:
        """Of those that the catalog knows: whether their data was removed, for good."""
        uploads = await self._get_many(upload_ids)
        rows = await self._stored.tails_of(upload_ids)  # after that: what is gone doesn't come back
        before = self._wall() - OLD
        return {
            each: each not in rows and upload.gone is not GoneReason.LOST and _is_over(upload, before)
            for each, upload in uploads.items()
        }

    def _id_of(self, key: str) -> str | None:
        """The upload whose key it is; None: no server has drawn such an id."""
        upload_id = key.removeprefix(self._names.prefix).removeprefix(PARTIALS)
        return upload_id if DRAWN_ID.fullmatch(upload_id) else None

    def _tell(self, key: str, words: str) -> None:
        if key not in self._told and len(self._told) < TOLD:
            self._told.add(key)
            self._log.warn(words, key=key)


def _is_over(upload: Upload, before: float) -> bool:
    """Gone, or dropped before that time."""
    return upload.gone is not None or (upload.dropped_at is not None and upload.dropped_at < before)


async def _asked(answer: Awaitable[T]) -> T:
    """The store's answer. Raises StoreFailed."""
    try:
        return await answer
    except RemoteError as error:
        raise store_failed(error) from error

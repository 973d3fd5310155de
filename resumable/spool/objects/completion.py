"""From a finished upload's parts and tail to its object.

Invariants: each step may be repeated, be cut off, and be done by two at once, as a claim can be lost. A step goes by
the row as it was read last, and the row is read again after it. Whoever completes a multipart says what the row says,
so that two say the same. A PUT never replaces a byte: where something of this upload is under the key that this hasn't
made (an append's attempt, whose bytes may be others), the object is made of parts, and completing them alone may
replace it. An object with another upload's id is never touched. What was made for an upload that is gone goes again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from attrs import evolve

from resumable.aio.threads import IPool, Stopped
from resumable.model.stored import IStored, StoredLayout
from resumable.model.upload import Fact, Piece, StoreChange, StoredPart
from resumable.remotes.errors import Conflict, NotThere, Permanent, RemoteError, Transient
from resumable.remotes.object_store import IObjectStore, Made, ObjectProperties, SentPart
from resumable.remotes.regions import BodyMemory, BytesRegion, RegionWindow
from resumable.spool.disk import IDisk
from resumable.spool.files import DRAWN_ID
from resumable.spool.objects.errors import store_failed
from resumable.spool.objects.object_names import ObjectNames
from resumable.spool.objects.object_removal import remove_object
from resumable.spool.reader import Reader

STEPS: Final = 8
"""Steps of one attempt: three, and more where others change the row meanwhile."""
ROWS: Final = 16
"""Pieces whose rows are read at once: some MiB."""


class Stuck(Exception):
    """The upload doesn't become an object until somebody does something; one line for the operator."""


class PartsLost(Stuck):
    """The store doesn't have what the row says: acknowledged bytes are missing."""


class Completion:
    """``open_scratch``: a new file without a name, its descriptor; called in a thread of ``pool``. ``room``: the bytes
    that all such files may have together; a part that is larger waits until it is the only one."""

    def __init__(
        self,
        store: IObjectStore,
        stored: IStored,
        names: ObjectNames,
        *,
        disk: IDisk,
        pool: IPool,
        open_scratch: Callable[[], int],
        room: BodyMemory,
    ) -> None:
        self._store = store
        self._stored = stored
        self._names = names
        self._disk = disk
        self._pool = pool
        self._open_scratch = open_scratch
        self._room = room
        self._stopping = False

    def stop(self) -> None:
        """End what is under way after its next step."""
        self._stopping = True

    async def complete(
        self, layout: StoredLayout, metadata: Mapping[str, bytes], at: float, facts: Sequence[Fact] = ()
    ) -> bool:
        """Make the object, and record it with ``facts``. True: this has recorded it; False: there is nothing to do.

        ``metadata``: the upload's, keys and decoded values. Raises Stuck, StoreFailed, CatalogUnavailable, OSError,
        Stopped: what was begun goes on with the next call, by whomever.
        """
        try:
            return await self._complete(layout, metadata, at, facts)
        except Permanent as error:
            raise Stuck(error.reason) from error
        except RemoteError as error:
            raise store_failed(error) from error

    async def _complete(
        self, layout: StoredLayout, metadata: Mapping[str, bytes], at: float, facts: Sequence[Fact]
    ) -> bool:
        row: StoredLayout | None = layout
        for _ in range(STEPS):
            if row is None or row.whole or (row.gone and not row.is_partial) or not row.finished:
                return False
            if self._stopping:
                raise Stopped("the next start completes it")
            made = await self._step(row, metadata)
            if made is not None:
                return await self._record(row, made, at, facts)
            row = await self._stored.of(layout.upload_id)
        raise Transient("the upload's row has changed too often meanwhile")

    async def _step(self, row: StoredLayout, metadata: Mapping[str, bytes]) -> Made | None:
        """The next step; the object, if that was the last."""
        key = self._names.key(row.upload_id, row.is_partial)
        properties = ObjectProperties(row.upload_id, self._names.token(), metadata)
        if row.offset == 0:
            return await self._put_nothing(key, properties)
        if row.multipart is None:
            if self._fits(row):
                return await self._put(key, row, properties)
            await self._begin(key, row, properties)
            return None
        if row.parts_end < row.offset:
            await self._add_tail(key, row, row.multipart)
            return None
        return await self._finish(key, row, row.multipart, properties)

    async def _record(self, row: StoredLayout, made: Made, at: float, facts: Sequence[Fact]) -> bool:
        if made.size != row.offset:
            raise Stuck(f"the object {made.key} has {made.size} bytes, and the upload {row.offset}")
        if await self._stored.completed(row.upload_id, made.to_json(), at, facts):
            return True
        now = await self._stored.tail_of(row.upload_id)
        # What was whole may still be read, and a partial that is gone be a final's: these go with the row's data.
        if now is None or (now.gone and not now.whole and not now.is_partial):
            await remove_object(self._store, made.key, row.upload_id)
        return False

    # -- one PUT

    async def _put_nothing(self, key: str, properties: ObjectProperties) -> Made:
        """It may replace what is this upload's: whoever makes it makes it of nothing, and so does a late one."""
        found = await self._found(key, properties.upload_id)
        if found is not None and found.size == 0:
            return found
        return await self._store.put(key, BytesRegion(b""), properties, only_new=found is None)

    def _fits(self, row: StoredLayout) -> bool:
        return self._store.conditional and not row.parts and len(self._sizes(row)) == 1

    async def _put(self, key: str, row: StoredLayout, properties: ObjectProperties) -> Made | None:
        try:
            async with self._bytes(row, 0, row.offset) as data:
                return await self._store.put(key, data, properties, only_new=True)
        except NotThere:
            await self._missing(row)
            return None
        except (Conflict, Transient) as error:
            found = await self._found(key, row.upload_id)
            if found is not None and found.token == properties.token:
                return found  # the answer was lost
            if isinstance(error, Transient):
                raise
            if found is not None:
                await self._begin(key, row, properties)
            return None

    async def _found(self, key: str, upload_id: str) -> Made | None:
        """What this upload has under its key. Raises Stuck: it is another's."""
        found = await self._store.find(key)
        if found is not None and found.upload_id != upload_id:
            raise Stuck(f"another object is under the key {key}; remove it, and the upload takes its place")
        return found

    # -- a multipart

    async def _begin(self, key: str, row: StoredLayout, properties: ObjectProperties) -> None:
        handle = await self._store.begin(key, properties)
        if not await self._stored.keep_multipart(row.upload_id, row.epoch, handle):
            await self._store.abandon(key, handle, ())

    async def _add_tail(self, key: str, row: StoredLayout, handle: str) -> None:
        """Make the last part of the tail; more than one where it was gathered for larger parts than today's."""
        sizes = self._sizes(row)
        number = row.reserved
        if not self._store.numbered:
            number = row.parts[-1].number if row.parts else 0
        elif not await self._stored.reserve(row.upload_id, row.epoch, number + len(sizes)):
            return
        parts: list[StoredPart] = []
        start = row.parts_end
        for size in sizes:
            number += 1
            name = self._names.new(row.upload_id) if self._store.part_objects else self._names.label()
            try:
                async with self._bytes(row, start, size) as data:
                    receipt = await self._store.write_part(key, handle, number, self._names.called(name), data)
            except NotThere:
                return await self._missing(row)
            parts.append(StoredPart(start, size, number, name, receipt))
            start += size
        change = StoreChange(number if self._store.numbered else row.reserved, parts)
        if not await self._stored.add_last(row.upload_id, row.epoch, change) and self._store.part_objects:
            await self._stored.discard([part.name for part in parts])

    async def _finish(self, key: str, row: StoredLayout, handle: str, properties: ObjectProperties) -> Made | None:
        token = self._store.token_of(handle)
        # No condition goes with it: after a conflict S3 takes the parts for given up, and they are all there is. Only
        # under an id that nobody has drawn can there be another's object.
        if DRAWN_ID.fullmatch(row.upload_id) is None:
            found = await self._found(key, row.upload_id)
            if found is not None and found.token == token:
                return found
        parts = [SentPart(each.number, self._names.called(each.name), each.size, each.receipt) for each in row.parts]
        try:
            return await self._store.complete(key, handle, evolve(properties, token=token), parts, only_new=False)
        except (NotThere, Transient) as error:
            found = await self._store.find(key)
            if found is not None and found.token == token:
                return found  # an answer was lost, or another has been here
            if isinstance(error, Transient):
                raise
            await self._missing(row)
            return None

    async def _missing(self, row: StoredLayout) -> None:
        """The store doesn't have what the row said: another may have changed it. Raises PartsLost: nobody has."""
        now = await self._stored.of(row.upload_id)
        if now is not None and evolve(now, reserved=row.reserved) == row:
            raise PartsLost("the store has lost parts of the upload")

    def _sizes(self, row: StoredLayout) -> list[int]:
        """Of the parts that the tail becomes. Raises Stuck: there are no numbers left for them."""
        store, limits, tail = self._store, self._store.limits, row.offset - row.parts_end
        left = limits.parts - (row.reserved if store.numbered else len(row.parts))
        if limits.equal and row.parts:
            size = row.parts[0].size
        else:
            size = max(store.part_size, limits.smallest_part, 0 if left < 1 else -(-tail // left))
            size = -(-size // limits.multiple_of) * limits.multiple_of
        whole, rest = divmod(tail, size)
        sizes = [size] * whole + [rest] * bool(rest)
        if len(sizes) > left:
            raise Stuck("the store takes no more parts of this upload")
        return sizes

    # -- the tail's bytes

    @asynccontextmanager
    async def _bytes(self, row: StoredLayout, start: int, size: int) -> AsyncIterator[RegionWindow]:
        """So many bytes of the tail, in a file. Raises NotThere: a piece isn't there."""
        room = min(size, self._room.limit)
        await self._room.acquire(room)
        try:
            fd = await self._pool.run(self._open_scratch)
            reader = Reader(self._disk, self._pool, fd, size)
            try:
                await self._fetch(row, start, start + size, fd)
                yield RegionWindow(reader, 0, size)
            finally:
                await reader.close()
        finally:
            self._room.release(room)

    async def _fetch(self, row: StoredLayout, start: int, end: int, fd: int) -> None:
        """Write the bytes from ``start`` to ``end`` into the file."""
        wanted = [each for each in row.pieces if each.start < end and each.start + each.size > start]
        at = start
        for first in range(0, len(wanted), ROWS):
            pieces = wanted[first : first + ROWS]
            in_rows = [each.name for each in pieces if each.in_row]
            rows = await self._stored.data_of(row.upload_id, in_rows) if in_rows else {}
            for piece in pieces:
                skipped, stop = at - piece.start, min(end, piece.start + piece.size) - piece.start
                if skipped < 0:
                    break
                async for data in self._data(piece, rows, skipped, stop - skipped):
                    await self._pool.run(self._disk.writev, fd, [data], at - start)
                    at += len(data)
        if at != end:
            raise NotThere("the tail has a gap")

    async def _data(self, piece: Piece, rows: Mapping[str, bytes], skipped: int, size: int) -> AsyncIterator[bytes]:
        """``size`` bytes of a piece, behind the ``skipped`` ones."""
        if piece.in_row:
            yield rows.get(piece.name, b"")[skipped : skipped + size]
            return
        stream = await self._store.open(self._names.object(piece.name), skipped, size)
        try:
            while data := await stream.read():
                yield data
        finally:
            stream.close()

"""The local tier where acknowledged bytes are in an object store: what `ISpool` is then.

Invariants: when a sink's `sync` or a writer's `gathered` fires, its bytes are confirmed by the store, or go with the
commit. Nothing of an upload is on this node's disk but scratch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed

from resumable.aio.deferreds import deferred
from resumable.aio.threads import IPool
from resumable.model.upload import Piece, Through, Upload
from resumable.remotes.errors import NotThere, RemoteError
from resumable.spool.budget import Budget
from resumable.spool.datafile import NotReadable, RunningDigest
from resumable.spool.objects.append_parts import StoreContext
from resumable.spool.objects.errors import store_failed
from resumable.spool.objects.object_assembly import AssemblyTools, ObjectAssembly
from resumable.spool.objects.object_removal import ObjectRemoval
from resumable.spool.objects.object_sink import ObjectSink
from resumable.spool.placing import PlaceDirectory, Rules
from resumable.spool.reader import Reader
from resumable.spool.sink import Sink

UNBOUNDED: Final = 1 << 62
"""Bytes that a store still takes, as nobody knows of a bound."""


class ObjectSpool:
    """See `ISpool`. ``url``: of the store, without options, for people. ``tools``: for reading whole uploads, and for
    making finals of them."""

    def __init__(self, context: StoreContext, tools: AssemblyTools, *, pool: IPool, budget: Budget, url: str) -> None:
        self.context = context
        self._names = context.names
        self._store = context.store
        self._stored = context.stored
        self._pool = pool
        self._budget = budget
        self._url = url
        self._tools = tools
        self._removal = ObjectRemoval(context.store, context.stored, context.names)

    def start(self) -> None:
        """Make the scratch directory. Blocks; raises StartupError, OSError."""
        self.context.scratch.start()

    def stop(self) -> Deferred[None]:
        """See `ISpool.stop`."""
        return succeed(None)

    # -- appending

    def path(self, upload_id: str) -> str:
        """See `ISpool.path`."""
        return f"{self._url}/{self._names.key(upload_id, is_partial=False).removeprefix(self._names.prefix)}"

    def through(
        self, upload_id: str, offset: int, chunks: Sequence[bytes], segment: Any = None, is_new: bool = False
    ) -> Through | None:
        """See `ISpool.through`."""
        return None

    def sink(self, upload_id: str, offset: int, *, ceiling: int | None, digest: RunningDigest | None = None) -> Sink:
        """See `ISpool.sink`."""
        return ObjectSink(
            self.context, upload_id, offset, ceiling=ceiling, digest=digest, pool=self._pool, budget=self._budget
        )

    def assembly(self, final_id: str, sources: Sequence[tuple[str, int]]) -> ObjectAssembly:
        """See `ISpool.assembly`."""
        return ObjectAssembly(self._tools, final_id, sources)

    def free(self) -> Deferred[int]:
        """See `ISpool.free`."""
        return succeed(UNBOUNDED)

    def discard(self, upload_id: str) -> Deferred[None]:
        """See `ISpool.discard`. Its commit may still land, so its bytes stay; else they are swept."""
        return succeed(None)

    def remove(self, upload_ids: Sequence[str]) -> Deferred[Mapping[str, OSError]]:
        """See `ISpool.remove`."""
        return self._removal.remove(upload_ids)

    # -- reading

    @deferred
    async def reader(self, upload_id: str) -> Reader:
        """See `ISpool.reader`. Fails with NotWhole for an upload whose object isn't there yet."""
        return await self._tools.objects.reader(upload_id)

    def read_start(self, start: tuple[str, int]) -> Deferred[bytes]:
        """See `WholeObjects.read_start`."""
        return self._tools.objects.read_start(start)

    def check(self, upload: Upload) -> Deferred[None]:
        """See `ISpool.check`. A store isn't asked for it."""
        return succeed(None)

    @deferred
    async def read(self, upload_id: str, offset: int, size: int) -> bytes:
        """See `ISpool.read`: of a whole upload, or of the tail. Fails with NotReadable for bytes in a part."""
        layout = await self._stored.tail_of(upload_id)
        if layout is None:
            raise NotReadable(upload_id, "it has no bytes")
        size = min(size, layout.offset - offset)
        if size <= 0:
            return b""
        key = self._names.key(upload_id, layout.is_partial)
        try:
            if layout.whole:
                return await self._read_object(key, offset, size)
            found = b"".join([await self._read_piece(upload_id, each, offset, size) for each in layout.pieces])
        except RemoteError as error:
            if layout.whole and isinstance(error, NotThere):
                await self.context.lost.missed(upload_id, key)
            raise store_failed(error) from error
        if len(found) < size:
            raise NotReadable(upload_id, "its bytes aren't in the tail (any more)")
        return found

    async def _read_object(self, key: str, offset: int, size: int) -> bytes:
        stream = await self._store.open(key, offset, size)
        try:
            found = b""
            while len(found) < size and (data := await stream.read()):
                found += data
            return found
        finally:
            stream.close()

    async def _read_piece(self, upload_id: str, piece: Piece, offset: int, size: int) -> bytes:
        """What this piece has of the bytes from ``offset`` on."""
        start, end = max(offset, piece.start), min(offset + size, piece.start + piece.size)
        if start >= end:
            return b""
        if not piece.in_row:
            return await self._read_object(self._names.object(piece.name), start - piece.start, end - start)
        data = await self._stored.data_of(upload_id, [piece.name])
        return data.get(piece.name, b"")[start - piece.start : end - piece.start]

    @deferred
    async def whole(self, upload_ids: Sequence[str]) -> Collection[str]:
        """See `ISpool.whole`."""
        layouts = await self._stored.tails_of(upload_ids) if upload_ids else {}
        return {upload_id for upload_id, layout in layouts.items() if layout.whole}

    def places(self, root: str, rules: Rules) -> PlaceDirectory:
        """There are none: `--place` is refused with a spool in a store."""
        raise ValueError("finished files have no places where they are in an object store")

    def opened(self, fd: int, size: int) -> Reader:
        """See `ISpool.opened`."""
        return Reader(self.context.scratch.disk, self._pool, fd, size)

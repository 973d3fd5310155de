"""The local tier where several processes share the upload directory: segments, and one file of each finished upload.

Invariants: when a Deferred of `put` or of a sink's `sync` fires, its bytes and names are durable. Nothing here takes
an upload for damaged: what can't be read is "not yet". A file is removed only where the catalog says that no row names
it, or where the catalog was never asked to record it. Which file is whose: see `segment_directory`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from resumable.aio.deferreds import deferred
from resumable.aio.threads import IBatcher, IPool
from resumable.model.segments import ISegments, Layout
from resumable.model.upload import WHOLE, Segment, Through, Upload
from resumable.spool.assembly import STEP, Assembly
from resumable.spool.budget import Budget
from resumable.spool.datafile import NotReadable, RunningDigest
from resumable.spool.disk import IDisk, raise_first, unlink_each
from resumable.spool.file_syncs import FileSyncs
from resumable.spool.files import Put, Record, recorded
from resumable.spool.placing import PlaceDirectory, Rules
from resumable.spool.reader import Reader
from resumable.spool.segments.segment_copies import SegmentCopy, Sources
from resumable.spool.segments.segment_directory import SegmentDirectory
from resumable.spool.segments.segment_file import OwnSegments, SegmentFile, continued
from resumable.spool.segments.segment_reader import (
    ATTEMPTS,
    ClampedReader,
    PiecesReader,
    SegmentsMoved,
    open_piece,
    read_pieces,
)
from resumable.spool.sink import Sink

T = TypeVar("T")

UNMARKED: Final = "the upload directory doesn't show its marker: mount it, or restore .resumable/marker in it"


@frozen
class SegmentPut(Put):
    """``segment``: where its bytes go, up to its end; None: there are none. ``is_new``: see `ISpool.put`."""

    segment: Segment | None = None
    is_new: bool = False


SegmentBatcher = Callable[[Callable[[list[SegmentPut]], Sequence[Any]]], IBatcher[SegmentPut, Any]]


class SegmentSpool:
    """See `ISpool`, and `Spool` for what ``batcher``, ``pool`` and ``record`` are.

    ``may_mark``: whether the directory may be a new one: the catalog has never used any. ``agree``: see
    `SegmentDirectory.agree`.
    """

    def __init__(
        self,
        names: SegmentDirectory,
        segments: ISegments,
        *,
        batcher: SegmentBatcher,
        pool: IPool,
        budget: Budget,
        record: Record = list,
        may_mark: bool = True,
        agree: Callable[[str], str] = str,
        assembly_step: int = STEP,
    ) -> None:
        self.names = names
        self._disk: IDisk = names.disk
        self._segments = segments
        self._pool = pool
        self._budget = budget
        self._record = record
        self._may_mark = may_mark
        self._agree = agree
        self._assembly_step = assembly_step
        self._own = OwnSegments()
        self._syncs = FileSyncs(self._disk)
        self._puts = batcher(self._put_all)
        self._starts: list[tuple[str, int, Deferred[bytes]]] = []
        self._reading_starts = False

    # -- start and stop

    def start(self) -> None:
        """Make the directories that are missing and begin to work. Blocks; raises StartupError for a directory that is
        another catalog's, or isn't mounted; OSError."""
        self.names.make(self._may_mark)
        self.names.agree(self._agree)
        self._puts.start()

    def stop(self) -> Deferred[None]:
        """See `ISpool.stop`."""
        return self._puts.stop().addCallback(lambda _: self._syncs.stop())

    def is_ours(self) -> Deferred[bool]:
        """Whether the directory is there, and this catalog's. Fails with OSError."""
        return self._pool.run(self.names.is_ours)

    # -- appending

    def path(self, upload_id: str) -> str:
        """See `ISpool.path`."""
        return self.names.upload_path(upload_id)

    def put(
        self,
        upload_id: str,
        offset: int,
        chunks: Sequence[bytes],
        change: Any = None,
        segment: Segment | None = None,
        is_new: bool = False,
    ) -> Deferred[Any]:
        """See `ISpool.put`."""
        self.path(upload_id)
        return self._puts.submit(SegmentPut(upload_id, offset, chunks, change, segment, is_new))

    def through(
        self, upload_id: str, offset: int, chunks: Sequence[bytes], segment: Any = None, is_new: bool = False
    ) -> Through:
        """See `ISpool.through`."""
        return partial(self.put, upload_id, offset, chunks, segment=segment, is_new=is_new)

    def sink(self, upload_id: str, offset: int, *, ceiling: int | None, digest: RunningDigest | None = None) -> Sink:
        """See `ISpool.sink`."""
        self.path(upload_id)
        file = SegmentFile(self.names, self._own, upload_id, offset, digest)
        sink = Sink(upload_id, offset, file, ceiling=ceiling, pool=self._pool, budget=self._budget)
        sink.segments = file
        return sink

    def _put_all(self, puts: list[SegmentPut]) -> Sequence[Any]:
        """In the batcher's thread: make the files durable, then record the changes that follow them."""
        return recorded(puts, self._write_all(puts), self._record, self._refused)

    def _refused(self, put: SegmentPut) -> None:
        """The catalog has refused the change for good, so no row will ever name the new file. By the name of the upload
        it may be another's by now, unless that was drawn for this."""
        segment = put.segment
        if segment is not None and segment.name == WHOLE and put.is_new:
            with suppress(OSError):
                self._disk.unlink(self.path(put.upload_id))
        else:
            self._give_up(segment)

    def _write_all(self, puts: list[SegmentPut]) -> list[Failure | None]:
        """Write all, sync all, then each directory that has a new name."""
        wholes = [at for at, put in enumerate(puts) if put.segment is not None and put.segment.name == WHOLE]
        results: list[Failure | None] = [None] * len(puts)
        if wholes and (unmounted := self._not_there()) is not None:
            for at in wholes:
                results[at] = unmounted
        files: list[tuple[int, int]] = []
        for at, put in enumerate(puts):
            if put.segment is None or results[at] is not None:
                continue
            try:
                files.append((at, self._write_one(put, put.segment)))
            except OSError:
                results[at] = Failure()
        created: dict[str, list[int]] = {}
        for (at, fd), error in zip(files, self._syncs.sync([fd for _, fd in files]), strict=True):
            try:
                self._disk.close(fd)
            except OSError as failed:
                error = error or failed
            if error is not None:
                results[at] = Failure(error)
            elif (segment := puts[at].segment) is not None and not segment.known:
                created.setdefault(self._folder(segment), []).append(at)
        for folder, those in created.items():
            try:
                self._disk.sync_directory(folder)
                unmounted = self._not_there() if folder == self.names.root else None
            except OSError:
                unmounted = Failure()
            if unmounted is not None:
                for at in those:
                    results[at] = unmounted
        for at, _ in files:
            if results[at] is not None:
                self._give_up(puts[at].segment)
        return results

    def _not_there(self) -> Failure | None:
        """Why no file can be made in the upload directory itself: while that is unmounted, what is below its mount
        point takes new files, too, and nobody else ever sees them. Asked before and after such files are made."""
        try:
            if self.names.shows():
                return None
            raise FileNotFoundError(errno.ENOENT, UNMARKED)
        except OSError:
            return Failure()

    def _folder(self, segment: Segment) -> str:
        return self.names.root if segment.name == WHOLE else self.names.folder_of(segment.name)

    def _write_one(self, put: SegmentPut, segment: Segment) -> int:
        """A descriptor of its file, with the bytes. Raises FileExistsError when it isn't as it should be; OSError."""
        if segment.name == WHOLE:
            fd = self._disk.create_new(self.names.upload_path(put.upload_id))
        elif segment.known:
            found = continued(self.names, Segment(segment.start, segment.known, segment.name, segment.known))
            if found is None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), segment.name)
            fd = found
        else:
            fd = self._disk.create_new(self.names.segment_path(segment.name))
        try:
            if put.chunks:
                self._disk.writev(fd, put.chunks, put.offset - segment.start)
        except Exception:
            if segment.name == WHOLE:  # by its name it may be another's by now
                with suppress(OSError):
                    self._disk.truncate(fd, 0)
            self._disk.close(fd)
            self._give_up(segment)
            raise
        return fd

    def _give_up(self, segment: Segment | None) -> None:
        """Remove a new file that the catalog wasn't asked to record."""
        if segment is not None and segment.name != WHOLE and not segment.known:
            with suppress(OSError):
                self._disk.unlink(self.names.segment_path(segment.name))

    # -- reading

    def check(self, upload: Upload) -> Deferred[None]:
        """See `ISpool.check`. Bytes that can't be read here may be there for others."""
        return succeed(None)

    @deferred
    async def read(self, upload_id: str, offset: int, size: int) -> bytes:
        """See `ISpool.read`."""
        return await self._located(upload_id, lambda layout: read_pieces(self.names, layout, offset, size))

    @deferred
    async def reader(self, upload_id: str) -> Reader:
        """See `ISpool.reader`. Fails with NotReadable for bytes that can't be read here yet."""
        layout, fd = await self._located(upload_id, self._open)
        if fd is None:
            return PiecesReader(self.names, self._disk, self._pool, layout, self._segments.of)
        return ClampedReader(self.names, self._disk, self._pool, fd, layout, self._segments.of)

    def read_start(self, start: tuple[str, int]) -> Deferred[bytes]:
        """Up to so many bytes from an upload's start on; those that are asked for meanwhile are read together. Fails
        with OSError."""
        answer: Deferred[bytes] = Deferred()
        self._starts.append((*start, answer))
        if not self._reading_starts:
            self._reading_starts = True
            Deferred.fromCoroutine(self._read_starts())
        return answer

    def free(self) -> Deferred[int]:
        """See `ISpool.free`."""
        return self._pool.run(self._disk.free, self.names.root)

    def opened(self, fd: int, size: int) -> Reader:
        """See `ISpool.opened`."""
        return Reader(self._disk, self._pool, fd, size)

    async def _located(self, upload_id: str, work: Callable[[Layout], T]) -> T:
        """What ``work`` answers in a thread, with the upload's layout. Raises NotReadable, FileNotFoundError."""
        reason = ""
        for _ in range(ATTEMPTS):
            layout = await self._segments.of(upload_id)
            if layout is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path(upload_id))
            try:
                return await self._pool.run(work, layout)
            except SegmentsMoved as moved:
                reason = str(moved)
        raise NotReadable(upload_id, reason)

    def _open(self, layout: Layout) -> tuple[Layout, int | None]:
        """In a thread: the file that has all bytes; None: there are several."""
        if layout.whole:
            return layout, open_piece(self.names, self.names.upload_path(layout.upload_id), layout.offset)
        if len(layout.segments) == 1:
            segment = layout.segments[0]
            return layout, open_piece(self.names, self.names.segment_path(segment.name), layout.offset)
        return layout, None

    async def _read_starts(self) -> None:
        while self._starts:
            starts, self._starts = self._starts, []
            try:
                layouts = await self._segments.of_many([upload_id for upload_id, _, _ in starts])
                found = await self._pool.run(self._read_many, starts, layouts)
            except Exception:
                for _, _, answer in starts:
                    answer.errback(Failure())
                continue
            for (upload_id, size, answer), data in zip(starts, found, strict=True):
                if isinstance(data, bytes):
                    answer.callback(data)
                else:  # it moved, or isn't there: by itself, with another look
                    self.read(upload_id, 0, size).chainDeferred(answer)
        self._reading_starts = False

    def _read_many(
        self, starts: Sequence[tuple[str, int, Deferred[bytes]]], layouts: Mapping[str, Layout]
    ) -> list[bytes | None]:
        """In a thread."""
        return [self._read_one(layouts.get(upload_id), size) for upload_id, size, _ in starts]

    def _read_one(self, layout: Layout | None, size: int) -> bytes | None:
        try:
            return None if layout is None else read_pieces(self.names, layout, 0, size)
        except (OSError, SegmentsMoved):
            return None

    # -- removing

    @deferred
    async def remove(self, upload_ids: Sequence[str]) -> Mapping[str, OSError]:
        """See `ISpool.remove`. Fails with OSError while the directory doesn't show its marker."""
        for upload_id in upload_ids:
            self.path(upload_id)
        layouts = await self._segments.of_many(upload_ids)
        segments = [(layout.upload_id, segment.name) for layout in layouts.values() for segment in layout.segments]
        return await self._pool.run(self._remove, upload_ids, segments)

    def discard(self, upload_id: str) -> Deferred[None]:
        """See `ISpool.discard`. Its commit may still land, so its bytes stay; else they are swept."""
        return succeed(None)

    def _remove(self, upload_ids: Sequence[str], segments: Sequence[tuple[str, str]]) -> Mapping[str, OSError]:
        """``segments``: for each the upload's id and its name."""
        files = [(upload_id, self.names.segment_path(name)) for upload_id, name in segments]
        files += [(upload_id, self.path(upload_id)) for upload_id in upload_ids]
        self._see_marker()
        stuck = unlink_each(self._disk, files)
        for folder in dict.fromkeys(path.rpartition("/")[0] for _, path in files):
            self._disk.sync_directory(folder)
        self._see_marker()
        return stuck

    def _see_marker(self) -> None:
        """Without it files are missing that are there. Raises OSError."""
        if not self.names.is_ours():
            raise FileNotFoundError(errno.ENOENT, UNMARKED)

    # -- copies

    @deferred
    async def whole(self, upload_ids: Sequence[str]) -> Collection[str]:
        """See `ISpool.whole`."""
        layouts = await self._segments.of_many(upload_ids) if upload_ids else {}
        return {upload_id for upload_id, layout in layouts.items() if layout.whole}

    def assembly(self, final_id: str, sources: Sequence[tuple[str, int]]) -> Assembly:
        """See `ISpool.assembly`."""
        length = sum(size for _, size in sources)

        @deferred
        async def locate() -> Sources:
            layouts = await self._segments.of_many(list(dict.fromkeys(upload_id for upload_id, _ in sources)))
            return [
                piece for upload_id, size in sources for piece in self._pieces(layouts.get(upload_id), upload_id, size)
            ]

        return self._copy(final_id, length, locate)

    def joining(self, layout: Layout) -> SegmentCopy:
        """Copying of a finished upload's segments into the file under its id."""
        return self._copy(
            layout.upload_id, layout.offset, lambda: succeed(self._pieces(layout, layout.upload_id, layout.offset))
        )

    def gathering(self, upload_id: str, segments: Sequence[Segment]) -> SegmentCopy:
        """Copying of segments that follow each other into a new one, its ``segment``."""
        start, length = segments[0].start, sum(each.size for each in segments)
        joined = Segment(start, length, self.names.new_segment(upload_id, start))
        path = self.names.segment_path(joined.name)
        sources = [(self.names.segment_path(each.name), upload_id, each.size) for each in segments]
        return SegmentCopy(
            self._disk, self._pool, path, path, length, lambda: succeed(sources), joined, self._assembly_step
        )

    def link(self, layout: Layout) -> Deferred[bool]:
        """Give a finished upload's only segment the name of the id, if nobody can still write to it and nothing
        uncommitted is in it. False: it has to be copied. Fails with OSError."""
        if len(layout.segments) != 1 or self._own.take(layout.upload_id, layout.offset) is None:
            return succeed(False)
        return self._pool.run(self._link, layout.upload_id, layout.segments[0])

    def unlink(self, upload_id: str) -> Deferred[None]:
        """Remove the file under the id of an upload that has no data any more. Fails with OSError."""
        return self._pool.run(self._remove, [upload_id], []).addCallback(raise_first)

    def places(self, root: str, rules: Rules) -> PlaceDirectory:
        """See `ISpool.places`."""
        return PlaceDirectory(self._disk, root, self.path, self.names.placing, rules)

    def _link(self, upload_id: str, segment: Segment) -> bool:
        source, working = self.names.segment_path(segment.name), self.names.new_final(upload_id)
        if self._disk.file_size(source) != segment.size:
            return False
        self._disk.link(source, working)
        self._disk.rename(working, self.path(upload_id))
        self._disk.unlink(working)  # a rename to another name of the same file does nothing
        self._disk.sync_directory(self.names.root)
        return True

    def _copy(self, upload_id: str, length: int, locate: Callable[[], Deferred[Sources]]) -> SegmentCopy:
        working, path = self.names.new_final(upload_id), self.path(upload_id)
        segment = Segment(0, length, WHOLE)
        return SegmentCopy(self._disk, self._pool, working, path, length, locate, segment, self._assembly_step)

    def _pieces(self, layout: Layout | None, upload_id: str, size: int) -> Sources:
        """The files that have an upload's bytes. Raises NotReadable."""
        if layout is not None and layout.whole and layout.offset >= size:
            return [(self.path(upload_id), upload_id, size)]
        if layout is None or sum(each.size for each in layout.segments) != size:
            raise NotReadable(upload_id, "its segments aren't what they were")
        return [(self.names.segment_path(each.name), upload_id, each.size) for each in layout.segments]

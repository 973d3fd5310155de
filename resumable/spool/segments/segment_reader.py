"""Reading an upload's committed bytes from its segments.

Invariant: no byte past the committed offset of the layout is read, and none that isn't the upload's: a missing or short
file is a reason to ask the catalog again, and then for an error, never for fewer bytes or for zeros.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar, cast

from twisted.internet.defer import Deferred, fail

from resumable.aio.deferreds import deferred
from resumable.aio.threads import IPool
from resumable.model.segments import Layout
from resumable.model.upload import Segment
from resumable.spool.datafile import NotReadable
from resumable.spool.disk import IDisk
from resumable.spool.reader import PIECE, Loan, Reader
from resumable.spool.segments.segment_directory import SegmentDirectory

T = TypeVar("T")
LayoutOf = Callable[[str], Deferred[Layout | None]]

ATTEMPTS: Final = 3
"""Looks at the layout before a read fails. The files of one move at most when it is joined and finished: twice."""
GONE: Final = frozenset({errno.ENOENT, errno.ESTALE})


class SegmentsMoved(Exception):
    """A file of the layout is missing or short: there may be another layout by now."""


def open_piece(names: SegmentDirectory, path: str, size: int) -> int:
    """A descriptor of a file that has at least ``size`` bytes. Raises SegmentsMoved, OSError."""
    try:
        fd = names.disk.open(path, read_only=True)
        try:
            found = names.disk.size(fd)
        except BaseException:
            names.disk.close(fd)
            raise
    except OSError as error:
        if error.errno in GONE:
            raise SegmentsMoved(f"{path} is missing") from None
        raise
    if found < size:
        names.disk.close(fd)
        raise SegmentsMoved(f"{path} has {found} bytes, not {size}")
    return fd


def stretches(layout: Layout, start: int, end: int) -> Iterator[tuple[Segment, int, int]]:
    """The pieces of an upload from ``start`` to ``end``: each a segment, the offset in its file, and a size.

    Raises SegmentsMoved for a layout that lacks some of them.
    """
    at = max(0, bisect_right(layout.segments, start, key=lambda segment: segment.start) - 1)
    for segment in layout.segments[at:]:
        if start >= end:
            return
        if not segment.start <= start < segment.start + segment.size:
            break
        size = min(end, segment.start + segment.size) - start
        yield segment, start - segment.start, size
        start += size
    if start < end:
        raise SegmentsMoved("the layout lacks bytes")


def read_pieces(names: SegmentDirectory, layout: Layout, start: int, size: int) -> bytes:
    """The committed bytes from ``start`` on, fewer only at the end of them. Blocks. Raises SegmentsMoved, OSError."""
    end = min(start + size, layout.offset)
    if start >= end:
        return b""
    if layout.whole:
        return _read_file(names, names.upload_path(layout.upload_id), start, end - start, layout.offset)
    pieces = [
        _read_file(names, names.segment_path(segment.name), offset, count, segment.size)
        for segment, offset, count in stretches(layout, start, end)
    ]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_file(names: SegmentDirectory, path: str, offset: int, size: int, least: int) -> bytes:
    fd = open_piece(names, path, least)
    try:
        data = names.disk.read(fd, size, offset)
    except OSError as error:
        if error.errno in GONE:
            raise SegmentsMoved(f"{path} is gone") from None
        raise
    finally:
        names.disk.close(fd)
    if len(data) < size:
        raise SegmentsMoved(f"{path} is short")
    return data


class _ShortWhenGone:
    """A disk for a `Reader`: of a file that is gone there are no bytes to be read."""

    def __init__(self, disk: IDisk) -> None:
        self.close: Any = disk.close
        self.descriptor: Any = disk.descriptor
        self._disk = disk

    def read(self, fd: int, size: int, offset: int) -> bytes:
        try:
            return self._disk.read(fd, size, offset)
        except OSError as error:
            if error.errno in GONE:
                return b""
            raise


class ClampedLoan(Loan):
    """One file that has bytes up to ``end``, in the hands of another thread."""

    def __init__(self, disk: IDisk, fd: int, upload_id: str, end: int, returned: Callable[[], object]) -> None:
        super().__init__(disk, fd, returned)
        self._upload_id = upload_id
        self._end = end

    def read(self, offset: int, size: int) -> bytes:
        """See `Loan.read`. Raises NotReadable for committed bytes that aren't to be seen here yet."""
        data = super().read(offset, size)
        if len(data) < min(size, self._end - offset):
            raise NotReadable(self._upload_id, "its file is shorter here")
        return data


class ClampedReader(Reader):
    """One file that has all committed bytes, and maybe others behind them, which are nobody's yet. ``layout_of``: see
    PiecesReader, which takes over once there is another segment, or where a network file system still shows the open
    file as short as it was, or shows it no more: another machine has removed it."""

    def __init__(
        self, names: SegmentDirectory, disk: IDisk, pool: IPool, fd: int, layout: Layout, layout_of: LayoutOf
    ) -> None:
        super().__init__(cast(IDisk, _ShortWhenGone(disk)), pool, fd, layout.offset)
        self._names = names
        self._layout = layout
        self._layout_of = layout_of
        self._pieces: PiecesReader | None = None

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See `Reader.read`."""
        if self._pieces is not None:
            return self._pieces.read(offset, size)
        size = max(0, min(size, self.size - offset))

        def see(data: bytes) -> bytes | Deferred[bytes]:
            return data if len(data) == size else self._in_pieces().read(offset, size)

        return super().read(offset, size).addCallback(see)

    def scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> Deferred[int]:
        """See `Reader.scan`."""
        if self._pieces is not None:
            return self._pieces.scan(offset, size, feed)
        size = max(0, min(size, self.size - offset))

        def see(fed: int) -> int | Deferred[int]:
            if fed == size:
                return fed
            return self._in_pieces().scan(offset + fed, size - fed, feed).addCallback(lambda more: fed + more)

        return super().scan(offset, size, feed).addCallback(see)

    def lend(self) -> Loan:
        """See `Reader.lend`."""
        if self._pieces is not None:
            return self._pieces.lend()
        if self._closing is not None:
            raise ValueError("the reader is closed")
        self._reading += 1
        return ClampedLoan(self._disk, self._fd, self._layout.upload_id, self.size, lambda: self._one_read(None))

    def _in_pieces(self) -> PiecesReader:
        """Opens the files anew for each read."""
        if self._pieces is None:
            self._pieces = PiecesReader(self._names, self._disk, self._pool, self._layout, self._layout_of)
        return self._pieces

    def reach(self, end: int) -> Deferred[None] | None:
        """See `Reader.reach`."""
        if self._pieces is not None:
            return self._pieces.reach(end)
        return None if end <= self.size else self._reach(end)

    @deferred
    async def _reach(self, end: int) -> None:
        if self._pieces is not None:  # since it was asked for
            pieces = self._pieces.reach(end)
            if pieces is not None:
                await pieces
            return
        layout = await reaching(self._layout.upload_id, end, self._layout_of)
        if [each.name for each in layout.segments] == [each.name for each in self._layout.segments]:
            self._layout, self.size = layout, layout.offset
        elif self._pieces is None:
            self._layout, self.size = layout, layout.offset
            self._in_pieces()

    def close(self) -> Deferred[None]:
        """See `Reader.close`."""
        closed = super().close()
        return closed if self._pieces is None else closed.addCallback(lambda _: self._close_pieces())

    def _close_pieces(self) -> Deferred[None] | None:
        return None if self._pieces is None else self._pieces.close()


async def reaching(upload_id: str, end: int, layout_of: LayoutOf) -> Layout:
    """The layout that has the bytes up to ``end``, which are committed. Raises NotReadable."""
    layout = await layout_of(upload_id)
    if layout is None or layout.offset < end:
        raise NotReadable(upload_id, "its data was removed")
    return layout


class PiecesLoan(Loan):
    """Several segments in the hands of another thread."""

    def __init__(self, names: SegmentDirectory, layout: Layout, returned: Callable[[], object]) -> None:
        self.descriptor = None
        self._names = names
        self._layout = layout
        self._returned = returned

    def read(self, offset: int, size: int) -> bytes:
        """See `Loan.read`. Raises NotReadable too."""
        try:
            return read_pieces(self._names, self._layout, offset, size)
        except SegmentsMoved as moved:
            raise NotReadable(self._layout.upload_id, str(moved)) from None


class PiecesReader(Reader):
    """Several segments, each opened for each read. ``layout_of``: asks the catalog again, see `ISegments.of`.

    ``size``: the committed offset when it was made. Fails with NotReadable, too.
    """

    def __init__(
        self,
        names: SegmentDirectory,
        disk: IDisk,
        pool: IPool,
        layout: Layout,
        layout_of: LayoutOf,
    ) -> None:
        super().__init__(disk, pool, -1, layout.offset)
        self._names = names
        self._layout = layout
        self._layout_of = layout_of

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See `Reader.read`."""
        return self._reads(self._pieces(offset, size))

    def scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> Deferred[int]:
        """See `Reader.scan`."""
        return self._reads(self._scan_all(offset, size, feed))

    def reach(self, end: int) -> Deferred[None] | None:
        """See `Reader.reach`."""
        return None if end <= self.size else self._reach(end)

    @deferred
    async def _reach(self, end: int) -> None:
        layout = await reaching(self._layout.upload_id, end, self._layout_of)
        if layout.offset > self.size:
            self._layout, self.size = layout, layout.offset

    def lend(self) -> Loan:
        """See `Reader.lend`."""
        if self._closing is not None:
            raise ValueError("the reader is closed")
        self._reading += 1
        return PiecesLoan(self._names, self._layout, lambda: self._one_read(None))

    def _reads(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        if self._closing is not None:
            work.close()
            return fail(ValueError("the reader is closed"))
        self._reading += 1
        return Deferred.fromCoroutine(work).addBoth(self._one_read)

    async def _pieces(self, offset: int, size: int) -> bytes:
        size = max(0, min(size, self.size - offset))
        for attempt in range(ATTEMPTS):
            try:
                return await self._pool.run(read_pieces, self._names, self._layout, offset, size)
            except SegmentsMoved as moved:
                if attempt == ATTEMPTS - 1:
                    raise NotReadable(self._layout.upload_id, str(moved)) from None
                layout = await self._layout_of(self._layout.upload_id)
                if layout is None or layout.offset < self.size:
                    raise NotReadable(self._layout.upload_id, "its data was removed") from None
                self._layout = layout
        raise AssertionError("the last attempt answers or raises")

    async def _scan_all(self, offset: int, size: int, feed: Callable[[bytes], object]) -> int:
        fed = 0
        while fed < size and (piece := await self._pieces(offset + fed, min(PIECE, size - fed))):
            await self._pool.run(feed, piece)
            fed += len(piece)
        return fed

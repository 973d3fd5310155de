"""The file that one append writes, in a directory that several processes share.

Invariants: a segment's file is written by one append at a time, and never truncated; a later append of this process
goes on with it only if nothing uncommitted is behind what the catalog counts; a file that the catalog was ever asked to
record, and may have recorded, is not removed here.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Final

from twisted.internet.defer import Deferred, succeed

from resumable.model.segments import IAppendSide
from resumable.model.upload import WHOLE, Segment, Upload
from resumable.spool.datafile import DataFile, NotReadable, RunningDigest
from resumable.spool.files import DRAWN_ID
from resumable.spool.segments.segment_directory import SegmentDirectory

REMEMBERED: Final = 16_384
"""Uploads whose last segment may be gone on with. More take memory; with fewer, clients that take turns at more uploads
than that leave more segments."""


class OwnSegments:
    """Last segments of uploads, written by this process in this run, of which the catalog counts every byte. For any
    thread."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._lock = Lock()
        self._last: OrderedDict[str, Segment] = OrderedDict()

    def add(self, upload_id: str, segment: Segment) -> None:
        """Nobody writes to it, and it ends where the catalog says."""
        with self._lock:
            self._last.pop(upload_id, None)
            self._last[upload_id] = Segment(segment.start, segment.size, segment.name, segment.size)
            if len(self._last) > self._limit:
                self._last.popitem(last=False)

    def take(self, upload_id: str, offset: int) -> Segment | None:
        """The one that ends at this offset: whoever gets it is the only one. Another one is forgotten."""
        with self._lock:
            segment = self._last.pop(upload_id, None)
        return segment if segment is not None and segment.start + segment.size == offset else None


class SegmentFile(DataFile):
    """A `DataFile` in the hands of a sink, and the `ISegmentWriter` beside it. Offsets are the upload's."""

    __slots__ = ("_asked", "_current", "_is_drawn", "_is_new", "_landed", "_names", "_opened", "_own", "_was_taken")

    def __init__(
        self,
        names: SegmentDirectory,
        own: OwnSegments,
        upload_id: str,
        offset: int,
        digest: RunningDigest | None,
    ) -> None:
        super().__init__(names.disk, "", "", upload_id, offset, digest)
        self._names, self._own = names, own
        #: What commits go to, with the size that the catalog has of it.
        self._current: Segment | None = None
        #: The name of the open file.
        self._opened: str | None = None
        self._is_new = self._was_taken = False
        self._is_drawn = DRAWN_ID.fullmatch(upload_id) is not None
        #: How often the catalog was asked to record a file.
        self._asked: dict[str, int] = {}
        self._landed: Segment | None = None

    # -- the file, in threads

    def open(self) -> None:
        """Open the last segment of this upload, if it may be gone on with, or a new one. Raises OSError."""
        segment = self._own.take(self._upload_id, self._position)
        fd = None if segment is None else continued(self._names, segment)
        if segment is None or fd is None:
            segment = Segment(self._position, 0, self._names.new_segment(self._upload_id, self._position))
            fd = self._disk.create_new(self._names.segment_path(segment.name))
            self._is_new = self._unsynced_name = True
            self._directory = self._names.folder_of(segment.name)
        self._current, self._opened, self._begins, self._fd = segment, segment.name, segment.start, fd

    def close(self, truncate_to: int | None) -> None:
        """Close it; nothing is cut. A file of which the catalog can't have recorded anything is removed."""
        fd, self._fd = self._fd, -1
        try:
            landed = self._landed
            if landed is not None and landed.name == self._opened and self._disk.size(fd) == landed.size:
                self._own.add(self._upload_id, landed)
        finally:
            self._disk.close(fd)
        if self._is_new and self._opened is not None and self._opened not in self._asked:
            self._disk.unlink(self._names.segment_path(self._opened))

    def _missing(self, start: int, end: int) -> Exception:
        return NotReadable(self._upload_id, "bytes that were just written are missing")

    # -- the catalog's side, in the reactor

    @property
    def small(self) -> int | None:
        """See `ISegmentWriter`."""
        return None

    def attach(self, upload: Upload, length: int | None, is_new: bool, append: IAppendSide) -> None:
        """See `ISegmentWriter`."""

    def detach(self) -> None:
        """See `ISegmentWriter`."""

    def takes_first(self, offset: int) -> Deferred[bool]:
        """See `ISegmentWriter`."""
        return succeed(False)

    def gathered(self, chunks: Sequence[bytes], start: int, finishes: bool) -> Deferred[None]:
        """See `ISegmentWriter`."""
        return succeed(None)

    def to(self, start: int, offset: int, alone: bool, last: bool) -> Segment | None:
        """See `ISegmentWriter`. Nothing is written under an id that a hook has given: what a crash leaves there could
        not be told from other files, and not be swept."""
        if alone and start == 0 and self._opened is None and not self._was_taken and self._is_drawn:
            return Segment(0, offset, WHOLE)
        if offset == start:
            return None
        current = self._current
        if current is None:
            current = self._own.take(self._upload_id, start)
            if current is None:
                current = Segment(start, 0, self._names.new_segment(self._upload_id, start))
            self._current = current
        self._asked[current.name] = self._asked.get(current.name, 0) + 1
        return Segment(current.start, offset - current.start, current.name, current.size)

    def landed(self, segment: Segment) -> None:
        """See `ISegmentWriter`."""
        if segment.name == WHOLE:
            return
        self._current = self._landed = Segment(segment.start, segment.size, segment.name, segment.size)
        if self._fd < 0:  # a put has written it, and has closed it
            self._own.add(self._upload_id, segment)

    def taken(self) -> None:
        """See `ISegmentWriter`."""
        self._was_taken = True
        if self._current is not None:
            self._asked.pop(self._current.name, None)  # the catalog wasn't asked: nothing was written
            self._current = None

    def refused(self, segment: Segment) -> None:
        """See `ISegmentWriter`. What an earlier commit of the same file came to need not be known."""
        if not segment.known and self._asked.get(segment.name) == 1:
            del self._asked[segment.name]


def continued(names: SegmentDirectory, segment: Segment) -> int | None:
    """A descriptor of a segment that has just the bytes that the catalog counts; None: it hasn't. Raises OSError."""
    try:
        fd = names.disk.open(names.segment_path(segment.name))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
    try:
        if names.disk.size(fd) == segment.known:
            return fd
    except BaseException:
        names.disk.close(fd)
        raise
    names.disk.close(fd)
    return None

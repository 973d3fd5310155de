"""The files of an upload directory whose records move from SQLite to PostgreSQL or back, and the marker meanwhile.

The marker, beside an installation's id alone (see `segment_directory`), is one of

    moving <new id> <id>         to the installation that is <id> now; it is <new id> as soon as it has the records
    returning <id>               from the installation <id>

Invariants: no committed byte has fewer names on the disk than it needs, whichever catalog turns out to have the
records; every step may be repeated; a file of committed bytes gets its name when all of it is durable. Everything here
blocks, and raises OSError.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from attrs import frozen

from resumable.model.segments import Layout
from resumable.spool.datafile import SpoolDamaged
from resumable.spool.disk import COPY_BUFFER, IDisk
from resumable.spool.files import OWN
from resumable.spool.segments.segment_directory import FOLDERS, MOVING, RETURNING, SegmentDirectory

NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
WORKER: Final = "moved"
"""In names of files, in the place of a worker's id."""


@frozen
class Marker:
    """``state``: ``moving``, ``returning`` or empty. ``installation``: its id, or what it becomes; ``before``: what it
    was until then."""

    state: str
    installation: str
    before: str = ""

    @property
    def text(self) -> str:
        """As it is in the file."""
        return " ".join(filter(None, (self.state, self.installation, self.before)))


def read_marker(disk: IDisk, root: str) -> Marker | None:
    """The marker of the upload directory ``root``; None: there is none."""
    try:
        fd = disk.open(f"{root}/{OWN}/marker", read_only=True)
    except FileNotFoundError:
        return None
    try:
        words = disk.read(fd, 1024, 0).decode("ascii", "replace").split()
    finally:
        disk.close(fd)
    if words and words[0] in (MOVING, RETURNING):
        return Marker(words[0], *words[1:3])
    return Marker("", " ".join(words))


def write_marker(disk: IDisk, root: str, marker: Marker) -> None:
    """Replace it."""
    own = f"{root}/{OWN}"
    working = f"{own}/marker-{WORKER}"
    disk.unlink(working)
    fd = disk.create_new(working)
    try:
        disk.writev(fd, [f"{marker.text}\n".encode("ascii")], 0)
        disk.fsync(fd)
    finally:
        disk.close(fd)
    disk.rename(working, f"{own}/marker")
    disk.sync_directory(own)


def remove_marker(disk: IDisk, root: str) -> None:
    """There is none from then on."""
    disk.unlink(f"{root}/{OWN}/marker")
    disk.sync_directory(f"{root}/{OWN}")


class MovedFiles:
    """The files in the directory ``root``. ``installation``: of the catalog in PostgreSQL, now or later."""

    def __init__(self, disk: IDisk, root: str, installation: str) -> None:
        self._disk = disk
        # the same at each attempt, and never again
        self._names = SegmentDirectory(
            disk, root, installation=installation, worker_id=WORKER, new_name=lambda: installation
        )

    def lacks(self, upload_id: str, size: int) -> bool:
        """Whether the file under the id doesn't have so many bytes."""
        found = self._disk.file_size(self._names.upload_path(upload_id))
        return found is None or found < size

    # -- to segments

    def make_folders(self) -> None:
        """Make the directories of segments."""
        self._names.make_folders()

    def segment_of(self, upload_id: str) -> str:
        """The name of the segment that an upload's file becomes."""
        return self._names.new_segment(upload_id, 0)

    def give_segment(self, upload_id: str, size: int) -> None:
        """Give the file under the id, cut to ``size``, the name of its segment, too."""
        path = self._names.upload_path(upload_id)
        target = self._names.segment_path(self.segment_of(upload_id))
        found = self._disk.look(path)
        if found is None or found.size < size:
            raise SpoolDamaged(upload_id, size, None if found is None else found.size)
        if found.size > size:
            self._cut(path, size)
        there = self._disk.look(target)
        if there is not None and there.inode == found.inode:
            return
        self._disk.unlink(target)
        try:
            self._disk.link(path, target)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self._copy([(path, size)], target, upload_id)

    def sync_segments(self) -> None:
        """The names of segments are durable then."""
        for folder in FOLDERS:
            self._disk.sync_directory(f"{self._names.segments}/{folder}")

    def forget(self, upload_ids: Iterator[str]) -> None:
        """Remove the files under these ids, whose bytes are in segments, and halves of finals."""
        for upload_id in upload_ids:
            self._disk.unlink(self._names.upload_path(upload_id))
        self._disk.sync_directory(self._names.root)
        self._empty(self._names.finals)

    # -- to one file for each upload

    def missing(self, layout: Layout) -> str | None:
        """The file of the layout that isn't there, or is short; None: all are as they should be."""
        if layout.whole:
            path = self._names.upload_path(layout.upload_id)
            return path if self.lacks(layout.upload_id, layout.offset) else None
        at = 0
        for segment in layout.segments:
            path = self._names.segment_path(segment.name)
            size = self._disk.file_size(path)
            if segment.start != at or size is None or size < segment.size:
                return path
            at += segment.size
        return None if at == layout.offset else f"a segment from {at} on"

    def bytes_to_copy(self, layout: Layout) -> int:
        """Of its segments."""
        return 0 if layout.whole or self._only(layout) is not None else layout.offset

    def free(self) -> int:
        """Bytes that may still be written."""
        return self._disk.free(self._names.root)

    def give_file(self, layout: Layout) -> None:
        """Put the committed bytes, and no other, into the file under the id. Its name isn't durable yet."""
        if layout.whole:
            return
        path = self._names.upload_path(layout.upload_id)
        only = self._only(layout)
        if only is not None:
            facts = self._disk.look(path)
            found = self._disk.look(only)
            if facts is not None and found is not None and facts.inode == found.inode:
                return
            working = self._names.new_final(layout.upload_id)
            self._disk.unlink(working)
            try:
                self._disk.link(only, working)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
            else:
                self._disk.rename(working, path)
                return
        sources = [(self._names.segment_path(each.name), each.size) for each in layout.segments]
        self._copy(sources, path, layout.upload_id)

    def remove_file(self, upload_id: str) -> None:
        """What is under the id isn't the upload's."""
        self._disk.unlink(self._names.upload_path(upload_id))

    def sync_files(self) -> None:
        """The names of files are durable then."""
        self._disk.sync_directory(self._names.root)

    def remove_segments(self) -> None:
        """Remove all segments, and what belongs to them."""
        names = self._names
        for folder in FOLDERS:
            self._remove(f"{names.segments}/{folder}")
        self._remove(names.segments)
        self._empty(names.finals)
        own = os.path.dirname(names.segments)
        self._disk.unlink(f"{own}/marker-{WORKER}")
        self._disk.sync_directory(own)

    # -- one file

    def _only(self, layout: Layout) -> str | None:
        """The one file that has just these bytes; None: there is no such file."""
        if len(layout.segments) != 1:
            return None
        path = self._names.segment_path(layout.segments[0].name)
        return path if self._disk.file_size(path) == layout.offset else None

    def _cut(self, path: str, size: int) -> None:
        fd = self._disk.open(path)
        try:
            self._disk.truncate(fd, size)
            self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)

    def _copy(self, sources: Sequence[tuple[str, int]], target: str, upload_id: str) -> None:
        """Copy so many bytes of each file, one behind the other."""
        working = self._names.new_final(upload_id)
        self._disk.unlink(working)
        fd = self._disk.create_new(working)
        try:
            at = 0
            for path, size in sources:
                at = self._append(fd, at, path, size, upload_id)
            facts = self._disk.look(sources[0][0]) if sources else None
            if facts is not None:
                self._disk.set_mode(fd, facts.mode)
            self._disk.fsync(fd)
        except BaseException:
            with suppress(OSError):
                self._disk.unlink(working)
            raise
        finally:
            self._disk.close(fd)
        self._disk.rename(working, target)

    def _append(self, target: int, at: int, path: str, size: int, upload_id: str) -> int:
        source = self._disk.open(path, read_only=True)
        try:
            done = 0
            while done < size:
                copied = self._disk.copy_range(source, target, done, at, min(size - done, 64 * COPY_BUFFER))
                if not copied:
                    raise SpoolDamaged(upload_id, size, done)
                done += copied
                at += copied
        finally:
            self._disk.close(source)
        return at

    def _remove(self, path: str) -> None:
        """A directory of files, and all that are in it."""
        if self._disk.look(path) is not None:
            self._empty(path)
            self._disk.remove_directory(path)

    def _empty(self, path: str) -> None:
        if self._disk.look(path) is None:
            return
        for name in list(self._disk.names(path)):
            facts = self._disk.look(f"{path}/{name}")
            if facts is not None and facts.is_file:
                self._disk.unlink(f"{path}/{name}")
        self._disk.sync_directory(path)

"""A directory as a store: the blocking steps, for threads.

Invariant: under its own name an object is whole and synced, or not there; a step that was interrupted, by a crash or a
loss of power, can be repeated. POSIX: rename(2), fsync(2).

Unfinished files lie in `PARTS` in the root of the remote, named by their upload's id, so that they are on the same file
system as the objects and easy to list. Nothing tells our files from others' but the record that we placed them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Protocol

from attrs import frozen

from resumable.protocol.names import valid_id
from resumable.remotes.errors import AuthFailed, Conflict, NotThere, Permanent, RemoteError, Transient, Unusable

PARTS = ".resumable-parts"
PRIVATE = 0o700
"""Its permissions: unfinished files are for the server's user alone."""

_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NEVER = frozenset({errno.EFBIG, errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EILSEQ})
# some network file systems sync no directories
_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EACCES})


class FileSystem(Protocol):
    """The operations of a file system that are needed; `resumable.spool.Disk` is one. All block and raise OSError."""

    def open(self, path: str, create: bool = False, read_only: bool = False, *, mode: int | None = None) -> int:
        """The descriptor of the file; ``mode``: permissions of one that is made."""

    def writev(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        """Write all buffers at the offset."""

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """So many bytes at most at the offset; fewer at the end only."""

    def size(self, fd: int) -> int:
        """Bytes of the open file."""

    def fdatasync(self, fd: int) -> None:
        """Make the file's bytes durable."""

    def truncate(self, fd: int, size: int) -> None:
        """Cut or lengthen it."""

    def close(self, fd: int) -> None:
        """Close it."""

    def file_size(self, path: str) -> int | None:
        """Bytes of the file; None if it is not there."""

    def rename(self, source: str, target: str) -> None:
        """Give it another name, in place of a file of that name."""

    def unlink(self, path: str) -> bool:
        """Remove it; whether it was there."""

    def sync_directory(self, path: str) -> None:
        """Make the names in the directory durable."""

    def make_directory(self, path: str, mode: int | None = None) -> bool:
        """Make it; whether it was not there before."""

    def names(self, path: str) -> Iterator[str]:
        """The names in the directory."""


class PartFile:
    """An unfinished file while a chunk is written to it.

    Each method may run in another thread; `close` waits for the one under way and makes all later ones fail, so that
    no descriptor is used after it was closed, or leaks when whoever opened it has gone.
    """

    def __init__(self, disk: FileSystem, path: str) -> None:
        self._disk = disk
        self._path = path
        self._lock = Lock()
        self._fd = -1
        self._closed = False

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``."""
        with self._lock:
            self._disk.writev(self._open(), [data], offset)

    def sync(self) -> None:
        """Make the written bytes durable."""
        with self._lock:
            self._disk.fdatasync(self._open())

    def close(self) -> None:
        """May be repeated."""
        with self._lock:
            self._closed = True
            fd, self._fd = self._fd, -1
            if fd >= 0:
                self._disk.close(fd)

    def _open(self) -> int:
        if self._closed:
            raise OSError(errno.EBADF, "the write was given up")
        if self._fd < 0:
            try:
                self._fd = self._disk.open(self._path)
            except FileNotFoundError:
                raise NotThere("the unfinished file is gone") from None
        return self._fd


@frozen
class FileModes:
    """Permissions of objects, and of the directories that are made for them; None: those that the disk gives."""

    file: int | None = None
    directory: int | None = None


class RemoteDirectory:
    """The root of a remote. ``marker``: a file that must be there, or else the root isn't mounted."""

    def __init__(self, disk: FileSystem, root: str, marker: str = "", modes: FileModes | None = None) -> None:
        self.root = root
        self._modes = modes or FileModes()
        self._disk = disk
        self._marker = marker
        self._parts = f"{root}/{PARTS}"
        self._parts_synced = False
        self._placing = Lock()

    def part_file(self, upload_id: str) -> PartFile:
        """The upload's unfinished file; it is opened by its first use."""
        return PartFile(self._disk, self._part(upload_id))

    def check(self) -> None:
        """Raise Unusable when the directory isn't there. It is never made: the mount may be missing."""
        try:
            for _ in self._disk.names(self.root):
                break
        except FileNotFoundError:
            raise Unusable(f"{self.root} is not there", advice="mount it, or make the directory") from None
        self._check_marker()

    def _check_marker(self) -> None:
        """Cheap enough for every call."""
        if self._marker and self._disk.file_size(f"{self.root}/{self._marker}") is None:
            raise Unusable(
                f"{self.root}/{self._marker} is not there", advice="mount the right directory, or make that file in it"
            )

    def create(self, upload_id: str) -> None:
        """An empty unfinished file, in place of an older one. `sync_created` makes its name durable."""
        self.check()
        self._make_parts()
        self._disk.close(self._disk.open(self._part(upload_id), create=True, mode=self._modes.file))

    def sync_created(self) -> None:
        """Make the names of unfinished files durable, and that of their directory."""
        self._make_parts()
        self._sync_names(self._parts)

    def sizes(self, upload_id: str, key: str) -> tuple[int | None, int | None]:
        """The sizes of the unfinished file and of the object; None: not there."""
        self._check_marker()
        sizes = self._disk.file_size(self._part(upload_id)), self._disk.file_size(self._target(key))
        if sizes == (None, None):
            self.check()
        return sizes

    def place(self, upload_id: str, key: str, size: int, replace: bool) -> None:
        """Give the unfinished file, which has ``size`` synced bytes, its name. Raises Conflict."""
        source, target = self._part(upload_id), self._target(key)
        self._make_parents(target)
        with self._placing:  # of two of ours with one key, the second has to see the first
            if self._disk.file_size(source) is None:
                # by a call that was given up, and came to its end in its thread nevertheless
                raise Transient("the file was placed meanwhile")
            if not replace and self._disk.file_size(target) is not None:
                raise Conflict(f'there is another file "{key}"')
            self._disk.rename(source, target)
        self.sync_placed(key)

    def sync_placed(self, key: str) -> None:
        """Make it durable that the file left one directory for the other."""
        self._sync_names(self._target(key).rpartition("/")[0])
        self._sync_names(self._parts)

    def cut(self, upload_id: str, size: int) -> None:
        """Cut off the bytes of the unfinished file that were never confirmed."""
        fd = self._disk.open(self._part(upload_id))
        try:
            self._disk.truncate(fd, size)
            self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)

    def remove_part(self, upload_id: str) -> None:
        """The unfinished file is gone for good."""
        self._check_marker()
        self._disk.unlink(self._part(upload_id))
        # also where it was gone: the crash may have come before the sync
        self._sync_names(self._parts)

    def remove_object(self, key: str) -> None:
        """The object is gone for good."""
        target = self._target(key)
        self._disk.unlink(target)
        self._sync_names(target.rpartition("/")[0])

    def read_object(self, key: str, total: int, offset: int, size: int) -> bytes:
        """These bytes of the object, which has ``total``; none where none are asked for. NotThere: it is another."""
        self._check_marker()
        try:
            fd = self._disk.open(self._target(key), read_only=True)
        except FileNotFoundError:
            self.check()
            raise NotThere("the object is gone") from None
        try:
            if self._disk.size(fd) != total:
                raise NotThere("what is under the key is another object than the upload's")
            return self._disk.read(fd, size, offset) if size else b""
        finally:
            self._disk.close(fd)

    def unfinished(self) -> list[str]:
        """The ids that have an unfinished file."""
        self.check()
        try:
            return sorted(filter(valid_id, self._disk.names(self._parts)))
        except FileNotFoundError:
            return []

    def probe(self) -> None:
        """Write, sync and remove a file."""
        self.check()
        self._make_parts()
        path = f"{self._parts}/.probe"
        fd = self._disk.open(path, create=True)
        try:
            self._disk.writev(fd, [b"resumable"], 0)
            self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)
            self._disk.unlink(path)

    def _make_parts(self) -> None:
        if self._disk.make_directory(self._parts, PRIVATE) or not self._parts_synced:
            # once in each process also where it was there: the crash may have come before the sync
            self._sync_names(self.root)
            self._parts_synced = True

    def _part(self, upload_id: str) -> str:
        if not valid_id(upload_id):
            raise ValueError("not an upload id")
        return f"{self._parts}/{upload_id}"

    def _target(self, key: str) -> str:
        segments = key.split("/")
        if {"", ".", ".."} & set(segments) or segments[0] in (PARTS, self._marker):
            raise Permanent("the key is no name for a file here")
        return f"{self.root}/{key}"

    def _make_parents(self, target: str) -> None:
        """All directories between the root and ``target``, durably."""
        parent = self.root
        for segment in target.removeprefix(f"{self.root}/").split("/")[:-1]:
            # also where it was there: the crash may have come before the sync
            self._disk.make_directory(f"{parent}/{segment}", self._modes.directory)
            self._sync_names(parent)
            parent = f"{parent}/{segment}"

    def _sync_names(self, path: str) -> None:
        try:
            self._disk.sync_directory(path)
        except OSError as error:
            # a directory that isn't there holds no name
            if error.errno not in _NO_DIRECTORY_SYNC | {errno.ENOENT}:
                raise


def sorted_out(error: OSError, root: str) -> RemoteError:
    """The RemoteError for an error of the file system."""
    reason = f"{root}: {os.strerror(error.errno) if error.errno else 'failed'}"
    code = errno.errorcode.get(error.errno or 0)
    if error.errno in _NO_RIGHT:
        return AuthFailed(reason, code=code, advice="let the daemon's user write there")
    if error.errno in _NEVER:
        return Permanent(reason, code=code)
    return Transient(reason, code=code)

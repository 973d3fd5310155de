"""The system calls of the spool, and nothing else.

Every method blocks, so all are for threads (and for start-up); all raise OSError.
POSIX: open(2), pwritev(2), fdatasync(2), link(2), copy_file_range(2), statvfs(3).

Invariant: `writev` and `copy_range` never write less than they say; written bytes are durable only after
`fdatasync` of their file, and a name only after `sync_directory` of its directory. Where ``within`` is given, the
descriptor of a directory, a path is one name in it, and no symbolic link is followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import frozen
from zope.interface import Interface, implementer

from resumable.aio.system import claim, copy_file_range, sync_data, sync_file
from resumable.spool.splice import Splicer

IOV_MAX = 1024
COPY_BUFFER = 1 << 20
NO_EMPTY_DIRECTORY = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EBUSY})
NO_COPY_RANGE = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})


@frozen
class FileFacts:
    """A file or directory. ``modified``: when its content last changed, in nanoseconds; ``links``: how many names it
    has; ``mode``: its permissions."""

    inode: int
    size: int
    modified: int
    links: int
    is_file: bool = True
    mode: int = 0o600


@frozen
class Modes:
    """Permissions of files and directories that are made: for the server's own user only, unless set otherwise."""

    file: int = 0o600
    directory: int = 0o700


class IDisk(Interface):
    """A file system, as far as the spool needs one. Sizes and offsets are bytes."""

    def open(
        path: str, create: bool = False, read_only: bool = False, within: int | None = None, mode: int | None = None
    ) -> int:
        """A descriptor of a regular file. ``create``: of an empty one, made if missing, emptied if not, with these
        permissions (``mode``; None: those that this disk gives)."""

    def create_new(path: str) -> int:
        """A descriptor of a new, empty file. Raises FileExistsError when there is something by that name."""

    def writev(fd: int, buffers: Sequence[bytes], offset: int) -> None:
        """Write all of the buffers, one after the other, from ``offset`` on."""

    def read(fd: int, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""

    def descriptor(fd: int) -> int | None:
        """The kernel's own number of the file, for sendfile(2); None where it is none of the kernel's."""

    def fdatasync(fd: int) -> None:
        """Make the content and size durable. After a failure, bytes written since the last one may be lost."""

    def truncate(fd: int, size: int) -> None:
        """Cut or extend to ``size``."""

    def size(fd: int) -> int:
        """The file's size."""

    def close(fd: int) -> None:
        """Give the descriptor back, also when this raises."""

    def file_size(path: str) -> int | None:
        """The file's size; None without a file."""

    def rename(source: str, target: str, within: int | None = None) -> None:
        """Replaces ``target`` atomically; ``within`` is about that."""

    def unlink(path: str, within: int | None = None) -> bool:
        """Remove a name; False when it was not there."""

    def sync_directory(path: str) -> None:
        """Make the names in a directory durable."""

    def make_directory(path: str, mode: int | None = None, within: int | None = None) -> bool:
        """Make one directory with these permissions, None: those that this disk gives; False when there was
        something, which stays as it is."""

    def open_directory(path: str, within: int | None = None) -> int:
        """A descriptor to be ``within``, for `fsync`, `set_mode` and `close`."""

    def remove_directory(path: str, within: int | None = None) -> bool:
        """Remove an empty one; False when it isn't empty, or isn't one."""

    def link(source: str, target: str, within: int | None = None) -> bool:
        """Give the file ``source`` another name, ``target`` (``within`` is about that); False, and nothing
        done, when there is something by that name."""

    def look(what: str | int, within: int | None = None) -> FileFacts | None:
        """The facts about the file of that name, or the open file; None when there is none."""

    def set_mode(fd: int, mode: int) -> None:
        """Set the permissions."""

    def fsync(fd: int) -> None:
        """Make content, size, times and permissions durable; of a directory, its names."""

    def names(path: str) -> Iterator[str]:
        """The names in a directory, in no order, without ``.`` and ``..``."""

    def copy_range(source: int, target: int, source_offset: int, target_offset: int, count: int) -> int:
        """Copy up to ``count`` bytes between two files; answers how many, 0 only at the end of the source."""

    def take(source: int, count: int, patience: float) -> int | None:
        """Take up to ``count`` bytes that have arrived on a socket, which is non-blocking, for this thread's `put`.

        Answers how many; 0 when its client has ended or reset the connection; None when nothing came for ``patience``
        seconds. Raises CannotSplice where it can't be done. What was taken before and not put is thrown away.
        """

    def put(fd: int, offset: int) -> None:
        """Write all that this thread has taken. Raises OSError of the file."""

    def free(path: str) -> int:
        """Bytes that an unprivileged process may still write to the file system of ``path``."""

    def allocate(fd: int, size: int) -> None:
        """Claim the blocks of a file of ``size`` bytes."""


@implementer(IDisk)
class Disk:
    """The real one. ``modes`` hold whatever the umask is: it may take from the user's own rights only."""

    def __init__(self, modes: Modes | None = None) -> None:
        self._modes = modes or Modes()
        self._splicer = Splicer()

    def open(
        self,
        path: str,
        create: bool = False,
        read_only: bool = False,
        within: int | None = None,
        mode: int | None = None,
    ) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_RDONLY if read_only else os.O_RDWR)
        if within is not None:
            flags |= os.O_NONBLOCK  # others may put a pipe there, and that would wait for a writer
        if not create:
            return os.open(path, flags, dir_fd=within)
        mode = self._modes.file if mode is None else mode
        fd = os.open(path, flags | os.O_CREAT | os.O_TRUNC, mode, dir_fd=within)
        self._widen(fd, mode & ~0o600)
        return fd

    def create_new(self, path: str) -> int:
        fd = os.open(path, os.O_CLOEXEC | os.O_NOFOLLOW | os.O_RDWR | os.O_CREAT | os.O_EXCL, self._modes.file)
        self._widen(fd, self._modes.file & ~0o600)
        return fd

    @staticmethod
    def _widen(fd: int, further: int) -> None:
        """``further``: rights that the umask may have taken."""
        if not further:
            return
        try:
            os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | further)
        except BaseException:
            os.close(fd)
            raise

    def writev(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        for start in range(0, len(buffers), IOV_MAX):
            left: list[bytes | memoryview] = list(buffers[start : start + IOV_MAX])
            size = sum(map(len, left))
            while size:
                written = os.pwritev(fd, left, offset)
                offset += written
                size -= written
                if size:
                    left = _after(left, written)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        data = os.pread(fd, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]
        read = len(data)
        while read < size and (data := os.pread(fd, size - read, offset + read)):
            pieces.append(data)
            read += len(data)
        return b"".join(pieces)

    def descriptor(self, fd: int) -> int | None:
        return fd

    def fdatasync(self, fd: int) -> None:
        sync_data(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def close(self, fd: int) -> None:
        os.close(fd)

    def file_size(self, path: str) -> int | None:
        try:
            return os.stat(path, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def rename(self, source: str, target: str, within: int | None = None) -> None:
        os.rename(source, target, dst_dir_fd=within)

    def unlink(self, path: str, within: int | None = None) -> bool:
        try:
            os.unlink(path, dir_fd=within)
        except FileNotFoundError:
            return False
        return True

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_file(fd)
        finally:
            os.close(fd)

    def make_directory(self, path: str, mode: int | None = None, within: int | None = None) -> bool:
        mode = self._modes.directory if mode is None else mode
        try:
            os.mkdir(path, mode, dir_fd=within)
        except FileExistsError:
            return False
        if further := mode & ~0o700:
            fd = self.open_directory(path, within)
            self._widen(fd, further)
            os.close(fd)
        return True

    def open_directory(self, path: str, within: int | None = None) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return os.open(path, flags if within is None else flags | os.O_NOFOLLOW, dir_fd=within)

    def remove_directory(self, path: str, within: int | None = None) -> bool:
        try:
            os.rmdir(path, dir_fd=within)
        except OSError as error:
            if error.errno not in NO_EMPTY_DIRECTORY:
                raise
            return False
        return True

    def link(self, source: str, target: str, within: int | None = None) -> bool:
        try:
            os.link(source, target, dst_dir_fd=within, follow_symlinks=False)
        except FileExistsError:
            return False
        return True

    def look(self, what: str | int, within: int | None = None) -> FileFacts | None:
        try:
            found = os.fstat(what) if isinstance(what, int) else os.stat(what, dir_fd=within, follow_symlinks=False)
        except FileNotFoundError:
            return None
        is_file, mode = stat.S_ISREG(found.st_mode), stat.S_IMODE(found.st_mode)
        return FileFacts(found.st_ino, found.st_size, found.st_mtime_ns, found.st_nlink, is_file, mode)

    def set_mode(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def fsync(self, fd: int) -> None:
        sync_file(fd)

    def names(self, path: str) -> Iterator[str]:
        with os.scandir(path) as entries:
            for entry in entries:
                yield entry.name

    def copy_range(self, source: int, target: int, source_offset: int, target_offset: int, count: int) -> int:
        try:
            copied = copy_file_range(source, target, count, source_offset, target_offset)
            if copied:
                return copied
            # some file systems answer 0 where they can't: the read below tells whether it is the end
        except OSError as error:
            if error.errno not in NO_COPY_RANGE:
                raise
        data = os.pread(source, min(count, COPY_BUFFER), source_offset)
        self.writev(target, [data], target_offset)
        return len(data)

    def take(self, source: int, count: int, patience: float) -> int | None:
        return self._splicer.take(source, count, patience)

    def put(self, fd: int, offset: int) -> None:
        self._splicer.put(fd, offset)

    def free(self, path: str) -> int:
        stats = os.statvfs(path)
        return stats.f_bavail * stats.f_frsize

    def allocate(self, fd: int, size: int) -> None:
        claim(fd, 0, size)


def unlink_each(disk: IDisk, files: Iterable[tuple[str, str]]) -> dict[str, OSError]:
    """Remove files: for each an upload's id and a path. One that can't be removed keeps no other; the errors, by id."""
    stuck: dict[str, OSError] = {}
    for upload_id, path in files:
        try:
            disk.unlink(path)
        except OSError as error:
            stuck[upload_id] = error
    return stuck


def raise_first(stuck: Mapping[str, OSError]) -> None:
    """Raise one of these errors, if there are any."""
    for error in stuck.values():
        raise error


def _after(buffers: Sequence[bytes | memoryview], written: int) -> list[bytes | memoryview]:
    """The rest of the buffers after their first ``written`` bytes."""
    for index, buffer in enumerate(buffers):
        if written < len(buffer):
            return [memoryview(buffer)[written:], *buffers[index + 1 :]]
        written -= len(buffer)
    return []

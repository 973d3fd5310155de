"""Directories in which files are placed, opened one below the other.

Invariant: no step leaves the root or follows a symbolic link below it, whatever the path is and whatever others do
meanwhile: each directory is opened within the one above.
POSIX: openat(2), mkdirat(2) with O_NOFOLLOW.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType

from resumable.spool.disk import IDisk

#: Errors of opening a directory or a file where there is none of ours.
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL})


class Folders:
    """Directories below ``root``, each opened once, for a ``with`` statement. ``mode``: of those that are
    made, None: the disk's."""

    def __init__(self, disk: IDisk, root: str, mode: int | None = None) -> None:
        self._disk = disk
        self._root = root
        self._mode = mode
        self._open: dict[str, int] = {}

    def __enter__(self) -> Folders:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for fd in self._open.values():
            self._disk.close(fd)

    def make(self, head: str) -> int:
        """The directory, made if it is missing. Raises OSError."""
        return self._walk(head, make=True)

    def find(self, path: str) -> tuple[int | None, str, str]:
        """The directory of a file, its path, and the file's name; None where there is none. Raises OSError."""
        head = name = ""
        try:
            head, name = parted(path)
            return self._walk(head, make=False), head, name
        except OSError as error:
            if error.errno in NOT_THERE:
                return None, head, name
            raise

    def sync(self) -> None:
        """All of them, so that a name is durable with those of the directories that lead to it."""
        for fd in self._open.values():
            self._disk.fsync(fd)

    def prune(self, head: str) -> None:
        """Remove it and those above it, as far as they are empty."""
        while head:
            above, _, name = head.rpartition("/")
            if not self._disk.remove_directory(name, self._open[above]):
                break
            head = above

    def _walk(self, head: str, make: bool) -> int:
        fd = self._open.get("")
        if fd is None:
            fd = self._open[""] = self._disk.open_directory(self._root)
        path = ""
        for name in head.split("/") if head else ():
            path = joined(path, name)
            if path not in self._open:
                self._open[path] = self._step(name, fd, make)
            fd = self._open[path]
        return fd

    def _step(self, name: str, above: int, make: bool) -> int:
        if make:
            self._disk.make_directory(name, self._mode, above)
        return self._disk.open_directory(name, above)


def joined(head: str, name: str) -> str:
    """The path of what is in ``head``, which may be empty."""
    return f"{head}/{name}" if head else name


def parted(path: str) -> tuple[str, str]:
    """The directory and the name. Raises OSError for a path that leaves the root: a damaged catalog may have one."""
    if "\0" in path or any(name in ("", ".", "..") for name in path.split("/")):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    head, _, name = path.rpartition("/")
    return head, name

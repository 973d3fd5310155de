"""The lock on the upload directory, and whether the directory is one that may be used at all.

Invariant: one daemon per directory. The lock is the kernel's (flock): it goes with the process, whatever kills it.
"""

from __future__ import annotations

import fcntl
import os

from resumable.spool.mounts import mount_of


class DirectoryInUse(Exception):
    """Another daemon has the upload directory."""


class DirectoryLock:
    """An exclusive lock, held through one open file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take it at once. Raises DirectoryInUse, OSError."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise DirectoryInUse from None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Give it back; nothing if it isn't held."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def file_system(path: str, mountinfo: str = "/proc/self/mountinfo") -> str | None:
    """The type of the file system that ``path`` lies on; None where it can't be told."""
    mount = mount_of(path, mountinfo)
    return None if mount is None else mount.kind

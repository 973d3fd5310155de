"""The lock on the upload directory, and whether the directory is one that may be used at all.

Invariant: one daemon per directory. The lock is the kernel's (flock): it goes with the process, whatever kills it.
"""

from __future__ import annotations

import fcntl
import os

#: File systems on which neither locks nor syncs can be relied upon.
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone"})


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
    """The type of the file system that ``path`` lies on (proc(5), mountinfo); None where it can't be told."""
    path = os.path.realpath(path)
    best, kind = "", None
    try:
        with open(mountinfo, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields, _, rest = line.partition(" - ")
                point = fields.split(" ")[4].encode().decode("unicode_escape")
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, rest.split(" ")[0]
    except (OSError, IndexError):
        return None
    return kind

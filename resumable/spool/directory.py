"""The upload directory: its lock, and the file system that it lies on.

Invariant: one daemon for a directory. The lock is the kernel's (flock): it ends with the process, however that ends.
Source: flock(2), proc(5), /proc/PID/mountinfo.
"""

from __future__ import annotations

import fcntl
import os
import re

from attrs import frozen

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone"})
"""File systems on which neither locks nor syncs can be relied upon."""
_ESCAPED = re.compile(rb"\\([0-7]{3})")


@frozen
class Mount:
    """A mounted file system. ``kind``: its type. ``source``: the kernel's name of the mounted device. ``device``:
    ``MAJOR:MINOR``. ``options``: those of the mount and those of the file system."""

    point: str
    kind: str
    source: str = ""
    device: str = ""
    options: frozenset[str] = frozenset()


def mount_of(path: str, mountinfo: str = "/proc/self/mountinfo") -> Mount | None:
    """The mount that ``path`` lies on; None where it can't be told."""
    path = os.path.realpath(path)
    found: Mount | None = None
    try:
        with open(mountinfo, "rb") as lines:
            for line in lines:
                mount = _read(line)
                inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
                if inside and (found is None or len(mount.point) >= len(found.point)):
                    found = mount
    except (OSError, IndexError):
        return None
    return found


def _read(line: bytes) -> Mount:
    fields, _, rest = line.rstrip(b"\n").partition(b" - ")
    first, last = fields.split(b" "), rest.split(b" ")
    options = _text(first[5]).split(",") + _text(last[2]).split(",")
    return Mount(_text(first[4]), _text(last[0]), _text(last[1]), _text(first[2]), frozenset(options))


def _text(word: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), word))


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
        """Release it, if it is held."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def file_system(path: str, mountinfo: str = "/proc/self/mountinfo") -> str | None:
    """The type of the file system that ``path`` lies on; None where it can't be told."""
    mount = mount_of(path, mountinfo)
    return None if mount is None else mount.kind

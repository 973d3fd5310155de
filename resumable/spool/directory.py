"""Directories: the lock of the upload directory, its file system, and folders in which files are placed.

Invariants: one daemon for a directory. The lock is the kernel's (flock): it ends with the process, however that ends.
No step leaves the root of `Folders` or follows a symbolic link below it, whatever the path is and whatever others do
meanwhile: each directory is opened within the one above.
Source: flock(2), proc(5), /proc/PID/mountinfo; POSIX: openat(2), mkdirat(2) with O_NOFOLLOW.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from types import TracebackType

from attrs import frozen

from resumable.spool.disk import IDisk

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


def unfit_to_share(mount: Mount | None) -> str | None:
    """What keeps several machines from sharing a directory on this mount; None: nothing that is known.

    A local file system is fit for the processes of one machine. NFS: a commit of one machine has to be seen by the next
    (close-to-open, and names that are looked up anew), and no write may be given up. Source: nfs(5).
    """
    if mount is None or mount.kind not in NETWORK:
        return None
    if mount.kind not in ("nfs", "nfs4"):
        return f"it is on {mount.kind}, and only NFS 4.1 or later is known to keep what was synced"
    version = next((each[5:] for each in mount.options if each.startswith("vers=")), "")
    if version not in ("4.1", "4.2"):
        return f"it is on NFS {version or 'of an unknown version'}: mount it with vers=4.1 or later"
    if "hard" not in mount.options:
        return "it is mounted soft, and loses writes when the server is slow: mount it with hard"
    if not {"lookupcache=pos", "lookupcache=positive", "lookupcache=none"} & mount.options:
        return "names that another machine has made are not seen at once: mount it with lookupcache=positive"
    return None


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

"""Scratch: files without a name in the run directory, for bytes on their way to the object store.

Invariant: nothing in it is ever acknowledged by being there. What all files have together stays near the bound: a sink
takes no more while it is reached, and is asked to give back what the store has.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from collections.abc import Sequence
from typing import Final, Protocol

from resumable.model.errors import StartupError
from resumable.spool.disk import Disk, IDisk

_PUNCH: Final = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE of linux/falloc.h."""
LOW: Final = 7 / 8
"""Once the files are below this part of the bound, sinks may go on. From there on none has room that it doesn't use."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def punch(fd: int, start: int, size: int) -> None:
    """Give back the blocks of these bytes, which read as zeros from then on. Raises OSError where it can't be done."""
    if not hasattr(_libc, "fallocate"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    arguments = (ctypes.c_int(fd), ctypes.c_int(_PUNCH), ctypes.c_int64(start), ctypes.c_int64(size))
    if _libc.fallocate(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class ScratchDisk(Disk):
    """The run directory's: where it is full, the error says what to change."""

    def writev(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        """See `IDisk`."""
        try:
            super().writev(fd, buffers, offset)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            words = "the scratch's disk is full: name a larger place with --run-dir, or lower --scratch-size"
            raise OSError(error.errno, words) from error


class IScratchUser(Protocol):
    """A sink whose bytes are in scratch."""

    def scratch_full(self, full: bool) -> None:
        """Take no more bytes, or go on."""

    def trim(self) -> None:
        """Give back the room that is only kept for what follows."""

    def relieve(self) -> None:
        """Have what is here stored as a piece, so that it can be given back."""


class Scratch:
    """``size``: bytes that all files may have together. ``directory`` is made at the start; nobody else uses it."""

    def __init__(self, directory: str, size: int, disk: IDisk) -> None:
        self.directory = directory
        self.size = size
        self.disk = disk
        #: Bytes in all files, and whether no more may come.
        self.used = 0
        self.full = False
        self._users: dict[IScratchUser, int] = {}

    def start(self) -> None:
        """Make the directory, and see that room can be given back. Blocks. Raises StartupError, OSError."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        fd = self.open()
        try:
            os.pwrite(fd, b"\0" * 4096, 0)
            punch(fd, 0, 4096)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            if error.errno == errno.ENOSYS:
                raise StartupError(
                    "An object store as the spool needs Linux, which gives back parts of files: leave out --spool."
                ) from None
            raise StartupError(
                f"The run directory {self.directory} is on a file system that gives back no parts of files: set"
                " --run-dir to one that does, as tmpfs, ext4, xfs or btrfs."
            ) from None
        finally:
            os.close(fd)

    def open(self) -> int:
        """The descriptor of a new file, which is gone when that is closed. Blocks. Raises OSError."""
        try:
            if not hasattr(os, "O_TMPFILE"):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return os.open(self.directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_EXCL, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
                raise
        fd, path = tempfile.mkstemp(dir=self.directory)
        os.unlink(path)
        return fd

    @property
    def room(self) -> int:
        """Bytes that may still be taken."""
        return max(0, self.size - self.used)

    def take(self, user: IScratchUser, size: int) -> None:
        """``size`` bytes more are this user's."""
        self.used += size
        self._users[user] = self._users.get(user, 0) + size
        if self.used - size < self.size * LOW <= self.used:
            for each in tuple(self._users):
                each.trim()  # before anybody waits, or fails, for that
        if self.full:
            user.scratch_full(True)
            user.relieve()
        elif self.used >= self.size:
            self.full = True
            for each in tuple(self._users):
                each.scratch_full(True)
            for each in sorted(self._users, key=lambda each: -self._users[each]):
                each.relieve()

    def give_back(self, user: IScratchUser, size: int) -> None:
        """``size`` bytes less. A user that has none left is forgotten."""
        self.used -= size
        left = self._users.get(user, 0) - size
        if left > 0:
            self._users[user] = left
        elif self._users.pop(user, None) is not None and self.full:
            user.scratch_full(False)  # it may begin anew; its next bytes stop it again
        if self.full and self.used <= self.size * LOW:
            self.full = False
            for each in tuple(self._users):
                each.scratch_full(False)

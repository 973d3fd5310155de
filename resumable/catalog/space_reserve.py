"""A file that holds space back, so that uploads can be removed on a full disk.

SQLite needs space to forget a row, as it does to keep one. Invariant: the file is never made where it would fill the
disk.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

SIZE: Final = 4 << 20
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class SpaceReserve:
    """``size`` bytes at ``path``. Everything here blocks, for microseconds to a few milliseconds."""

    def __init__(self, path: str, size: int = SIZE) -> None:
        self.path = path
        self.size = size

    def release(self) -> bool:
        """Give the space back; False when there was none to give."""
        try:
            os.unlink(self.path)
        except OSError:
            return False
        return True

    def restore(self) -> bool:
        """Hold the space back again, if twice as much is free; True when it is held."""
        with suppress(OSError):
            if os.stat(self.path).st_size == self.size:
                return True
        try:
            space = os.statvfs(os.path.dirname(self.path) or ".")
            if space.f_bavail * space.f_frsize < 2 * self.size:
                return False
            handle = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            _fill(handle, self.size)
        except OSError:
            self.release()
            return False
        finally:
            os.close(handle)
        return True


def disk_is_full(directory: str) -> bool:
    """Whether a few pages can't be written there; SQLite hides EDQUOT behind a plain I/O error."""
    probe = os.path.join(directory, "space-probe")
    try:
        handle = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            _fill(handle, 64 << 10)
        finally:
            os.close(handle)
    except OSError as error:
        return error.errno in NO_SPACE
    finally:
        with suppress(OSError):
            os.unlink(probe)
    return False


def _fill(handle: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    left = size
    while left > 0:
        left -= os.write(handle, os.urandom(min(left, 1 << 20)))

"""Calls of Linux that other systems lack, and what does the same there; macOS is meant, for development.

The choice is made once, when this is imported: on Linux each name is the system's own function. Invariant: what has
returned from `sync_data` or `sync_file` survives a loss of power. On macOS fsync(2) leaves it in the drive's cache:
"Note that while fsync() will flush all data from the host to the drive [...], the drive itself may not physically write
the data to the platters for quite some time", and F_FULLFSYNC is for that.
Source: fsync(2) and fcntl(2) of macOS, unix(4) of macOS; Go's os.File.Sync and SQLite's full_fsync do the same.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Final

_FULL_SYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)
HAS_FULL_SYNC: Final = _FULL_SYNC is not None
"""Whether fsync(2) alone isn't enough here."""
# so the volume isn't one of Apple's file systems: network mounts and foreign disks have only fsync
_NO_FULL_SYNC: Final = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENODEV})

LONGEST_SOCKET_PATH: Final = 107 if sys.platform == "linux" else 103
"""Bytes of a path that fit into sockaddr_un with the zero at their end."""
OPEN_MAX: Final = 10240
"""Open files that macOS grants, also where it says that there is no limit (OPEN_MAX in sys/syslimits.h)."""


def _full_sync(fd: int) -> None:
    try:
        fcntl.fcntl(fd, _FULL_SYNC or 0)
    except OSError as error:
        if error.errno not in _NO_FULL_SYNC:
            raise
        os.fsync(fd)


sync_file: Final[Callable[[int], None]] = os.fsync if _FULL_SYNC is None else _full_sync
"""Make an open file durable, or the names in an open directory. Raises OSError."""
sync_data: Final[Callable[[int], None]] = getattr(os, "fdatasync", sync_file) if _FULL_SYNC is None else _full_sync
"""Make the content and size of an open file durable. Raises OSError."""


def _no_copy_range(*_: Any) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


copy_file_range: Final[Callable[[int, int, int, int, int], int]] = getattr(os, "copy_file_range", _no_copy_range)
"""See copy_file_range(2). Raises OSError: ENOSYS where there is none."""


def _fill(fd: int, offset: int, size: int) -> None:
    at = max(offset, os.fstat(fd).st_size)
    while at < offset + size:
        at += os.pwrite(fd, bytes(min(1 << 20, offset + size - at)), at)


claim: Final[Callable[[int, int, int], None]] = getattr(os, "posix_fallocate", _fill)
"""Claim the blocks of these bytes, of offset and size, at the end of a file. Raises OSError."""


def shared_memory(name: str) -> int:
    """The descriptor of an empty file that has no name for others, to be mapped by several processes."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    descriptor, path = tempfile.mkstemp(prefix=name)
    os.unlink(path)
    return descriptor


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_files() -> int:
    """How many files this process may have open, once the limit is raised."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        return hard
    return sys.maxsize if sys.platform == "linux" else OPEN_MAX


def raise_file_limit() -> None:
    """Grant this process `most_files`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if sys.platform == "linux" else most_files()
    if soft not in (hard, resource.RLIM_INFINITY) and (wanted == resource.RLIM_INFINITY or soft < wanted):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

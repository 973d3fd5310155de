"""Where checks of the upload directory work, and whether a daemon runs there.

Changes when a check needs to know something else of the directory. Invariant: nothing that is made here stays, and
nothing here is ever in a daemon's way: the lock is looked at, never made.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen

from resumable.spool.files import OWN

_FLOCK = re.compile(r"\d+: FLOCK +\S+ +WRITE (\d+) [0-9a-f]+:[0-9a-f]+:(\d+) ")


@frozen
class Place:
    """``directory``: the upload directory; ``nearest``: it, or the directory above it that exists.

    ``held``: whether a daemon has it, None where the lock can't be read; ``holder``: its process, if that can be told.
    """

    directory: str
    nearest: str
    held: bool | None = False
    holder: int | None = None

    @property
    def own(self) -> str:
        return os.path.join(self.directory, OWN)

    @property
    def lock(self) -> str:
        return os.path.join(self.own, "lock")

    @property
    def catalog(self) -> str:
        return os.path.join(self.own, "catalog.sqlite3")

    @property
    def exists(self) -> bool:
        return self.nearest == self.directory

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A directory on the same file system, for as long as this lasts. Raises OSError."""
        where = self.own if os.path.isdir(self.own) else self.nearest
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=where) as path:
            yield path


def place_of(directory: str) -> Place:
    """What is the case there now."""
    nearest = directory
    while not os.path.isdir(nearest) and os.path.dirname(nearest) != nearest:
        nearest = os.path.dirname(nearest)
    place = Place(directory, nearest)
    held = is_held(place.lock)
    return Place(directory, nearest, held, holder(place.lock) if held else None)


def is_held(path: str) -> bool | None:
    """Whether somebody has the lock in that file; None where it can't be opened. It is taken for a moment if not."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


def holder(path: str, locks: str = "/proc/locks") -> int | None:
    """The process that has the lock (proc(5), /proc/locks); None where it isn't shown, as in another container."""
    try:
        inode = os.stat(path).st_ino
        with open(locks, encoding="ascii") as lines:
            found = [match for line in lines if (match := _FLOCK.match(line)) and int(match[2]) == inode]
    except OSError:
        return None
    pids = [int(match[1]) for match in found if int(match[1]) > 0]
    return pids[0] if len(pids) == 1 else None

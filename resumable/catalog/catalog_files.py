"""The files of a catalog: their names, a new catalog and how it gets its name, and a file that holds space back.

Invariants: a catalog only gets its name once it is whole and synced, so a file by that name without the tables is
damage, and no file is no catalog. SQLite needs space to forget a row, as it does to keep one: `SpaceReserve` holds it
back, so that uploads can be removed on a full disk, and is never made where it would fill the disk.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Final

from attrs import frozen

from resumable.aio.system import sync_file
from resumable.catalog.schema import PAGE_SIZE, migrate

#: The suffixes of the catalog's files: the database, its log, the log's index.
COMPANIONS: Final = ("", "-wal", "-shm")
RESERVED: Final = 4 << 20  # bytes that are held back on the disk
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@frozen
class OpenedCatalog:
    """The catalog as it was found at the start. ``created``: this catalog was made now, so there may be data files
    that it doesn't know.

    ``recovered``: how many records of a damaged catalog were saved in it, None when there was no damage; the
    damaged one is kept at ``set_aside``.
    """

    created: bool
    recovered: int | None = None
    set_aside: str | None = None


def beside(path: str, name: str) -> str:
    """The path of that name in the directory of ``path``."""
    return os.path.join(os.path.dirname(os.path.abspath(path)), name)


def note_of(path: str) -> str:
    """The file that is there while a recovery is under way; it names the file that the damaged catalog becomes."""
    return f"{path}.recovery"


def fresh_catalog(path: str) -> str:
    """Make an empty catalog beside ``path`` and return its path; replace what an interrupted attempt left there."""
    fresh = f"{path}.new"
    for companion in (*COMPANIONS, "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(fresh + companion)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("PRAGMA synchronous = OFF")  # synced as a whole before it gets its name
        migrate(connection)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    return fresh


def put_in_place(fresh: str, path: str, at: float) -> None:
    """Sync the catalog at ``fresh`` and give it its name."""
    handle = os.open(fresh, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file(handle)
    finally:
        os.close(handle)
    for companion in ("-wal", "-shm"):  # those of a catalog that was taken away by hand: not this one's
        if os.path.exists(path + companion):
            os.rename(path + companion, f"{free_name(path, at)}{companion}")
    os.rename(fresh, path)
    sync_directory(path)


def free_name(path: str, at: float) -> str:
    """A path beside it, with the time in its name, that no file of a catalog has."""
    stem = f"{path}.damaged-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}"
    names = [stem, *(f"{stem}-{count}" for count in range(1, 1000))]
    return next(name for name in names if not any(os.path.exists(name + companion) for companion in COMPANIONS))


def sync_directory(path: str) -> None:
    """Sync the directory that ``path`` is in."""
    handle = os.open(beside(path, ""), os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file(handle)
    finally:
        os.close(handle)


class SpaceReserve:
    """``size`` bytes at ``path``. Everything here blocks, for microseconds to a few milliseconds."""

    def __init__(self, path: str, size: int = RESERVED) -> None:
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

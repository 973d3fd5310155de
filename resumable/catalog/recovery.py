"""A catalog that can be opened: a new one, the sound one that is there, or what could be saved of a damaged one.

Changes when damage is found or handled otherwise. Invariants: a damaged catalog is never changed nor deleted, only
renamed; a crash at any step of this leaves the next start able to go on with it; a catalog only gets its name
once it is whole and synced, so a file by that name without the tables is damage, and no file is no catalog.

The file formats are https://www.sqlite.org/fileformat2.html and https://www.sqlite.org/walformat.html.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections import deque
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Final

from attrs import frozen
from twisted.logger import Logger

from resumable.catalog.batches import connect, unavailable
from resumable.catalog.salvage import salvage
from resumable.catalog.schema import (
    APPLICATION_ID,
    MIGRATIONS,
    PAGE_SIZE,
    REPLICA_CHECK,
    UPLOAD_CHECKS,
    migrate,
    version,
)
from resumable.catalog.space_reserve import NO_SPACE
from resumable.model.errors import CatalogUnavailable

DAMAGE: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_DATA")
COMPANIONS: Final = ("", "-wal", "-shm")
TEXTS: Final = (  # one for each version that brought some
    "SELECT id, metadata, concat, partials, boot_id FROM uploads",
    "SELECT upload_id, remote, key, run, error, stored, journal, NULL FROM replicas"
    " UNION ALL SELECT *, NULL, NULL, NULL, NULL FROM replica_parts",
    "SELECT deliverer, upload_id, kind, data, error, state FROM outbox"
    " UNION ALL SELECT owner, NULL, NULL, NULL, NULL, NULL FROM uploads",
    "SELECT placed FROM uploads",
    "SELECT key, id, said FROM finals UNION ALL SELECT asked, NULL, NULL FROM uploads",
)
#: SQLite leaves the CHECKs out of quick_check when the connection is read-only, so they are asked for outright.
IMPOSSIBLE: Final = (
    f"SELECT 1 FROM uploads WHERE NOT ({' AND '.join(f'({each})' for each in UPLOAD_CHECKS)})",
    f"SELECT 1 FROM replicas WHERE NOT ({REPLICA_CHECK})",
)

_log = Logger()


@frozen
class Opened:
    """What was found. ``created``: this catalog was made now, so data files may be there that it doesn't know.

    ``recovered``: how many records of a damaged catalog were saved in it, None when there was no damage; the
    damaged one is kept at ``set_aside``.
    """

    created: bool
    recovered: int | None = None
    set_aside: str | None = None


def beside(path: str, name: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(path)), name)


def ready(path: str, at: float) -> Opened:
    """See that a sound catalog is at ``path``; ``at`` is the time. Blocks for as long as it takes to read it.

    Raises CatalogUnavailable when it is in use, of a newer release, or there is no right or space to go on.
    """
    try:
        return _ready(path, at)
    except sqlite3.Error as error:
        raise unavailable(error, path) from error
    except OSError as error:
        raise CatalogUnavailable(str(error.strerror), no_space=error.errno in NO_SPACE) from error


def _ready(path: str, at: float) -> Opened:
    note = f"{path}.recovery"
    if not os.path.exists(note):
        if not os.path.exists(path):
            _put_in_place(_fresh(path), path, at)
            return Opened(created=True)
        reason = damage(path)
        if reason is None:
            return Opened(created=False)
        _log.critical("the catalog is damaged: {reason}", reason=reason)
        _write_note(note, _free_name(path, at))
    with open(note, encoding="utf-8") as file:
        aside = beside(path, os.path.basename(file.read().strip()))
    recovered = _recover(path, aside, at)
    os.unlink(note)
    _sync_directory(path)
    _log.critical(
        "{recovered} records were recovered; the damaged catalog is {aside}", recovered=recovered, aside=aside
    )
    return Opened(created=True, recovered=recovered, set_aside=aside)


def _recover(path: str, aside: str, at: float) -> int:
    """Set it aside and build the new one; every step may have been done before a crash."""
    if os.path.exists(aside) and os.path.exists(path):  # the new one was in place already
        with closing(connect(path)) as connection:
            return int(connection.execute("SELECT count(*) FROM uploads").fetchone()[0])
    for companion in COMPANIONS:
        if os.path.exists(path + companion) and not os.path.exists(aside + companion):
            os.rename(path + companion, aside + companion)
    _sync_directory(path)
    fresh = _fresh(path)
    saved = salvage(aside, fresh, at)
    _put_in_place(fresh, path, at)
    return saved


def damage(path: str) -> str | None:
    """What is wrong with the catalog at ``path``, or None. Changes nothing there, not even the log.

    A read-only connection does not write the log back when it closes, as the last one otherwise would.
    """
    if os.path.getsize(path) == 0:
        return "the file is empty"
    if (reason := _damaged_log(path)) is not None:
        return reason
    try:
        with closing(connect(path, "ro")) as connection:
            return _damaged_pages(connection) or _torn_log(path)
    except UnicodeDecodeError:  # what SQLite complains of, such as a name in the schema, is in the complaint
        return "the schema is not UTF-8"
    except sqlite3.Error as error:
        if str(getattr(error, "sqlite_errorname", "")).startswith(DAMAGE):
            return str(error)
        raise


def _damaged_pages(connection: sqlite3.Connection) -> str | None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return "the file is not a catalog"
    if version(connection) > len(MIGRATIONS):
        raise CatalogUnavailable("the catalog was made by a newer release")
    verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if verdict != "ok":
        return verdict
    if any(connection.execute(query).fetchone() for query in IMPOSSIBLE[: version(connection)]):
        return "a record is not a possible one"
    return _unreadable_text(connection)


def _unreadable_text(connection: sqlite3.Connection) -> str | None:
    """SQLite does not look into text; a record that can't be decoded would fail every query that meets it."""
    try:
        for query in TEXTS[: version(connection)]:
            deque(connection.execute(query), maxlen=0)
    except sqlite3.OperationalError as error:
        if hasattr(error, "sqlite_errorcode"):
            raise
        return "a record has text that is not UTF-8"
    return None


def _damaged_log(path: str) -> str | None:
    """A log whose header is wrong; SQLite would take it for an empty one and silently lose what it held."""
    try:
        with open(f"{path}-wal", "rb") as file:
            header = file.read(32)
    except FileNotFoundError:
        return None
    if not header or header == bytes(len(header)):
        return None
    if len(header) < 32:
        return "the header of the log is cut off"
    magic, _, page_size = struct.unpack(">III", header[:12])
    order = ">" if magic == 0x377F0683 else "<"
    if magic not in (0x377F0682, 0x377F0683) or page_size != PAGE_SIZE:
        return "the header of the log is not one"
    first = second = 0
    words = struct.unpack(f"{order}6I", header[:24])
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return None if (first, second) == struct.unpack(">II", header[24:]) else "the header of the log is damaged"


def _torn_log(path: str) -> str | None:
    """Committed frames behind the end that SQLite sees in the log, while a connection has it open.

    Each commit is synced before the next is written, so power loss spoils the last one alone: two or more commits
    behind the end mean that a frame before them was damaged later.
    """
    try:
        with open(f"{path}-wal", "rb") as log, open(f"{path}-shm", "rb") as index:
            salts = log.read(32)[16:24]
            (frames,) = struct.unpack("=I", index.read(20)[16:])
            commits = 0
            place = 32 + frames * (24 + PAGE_SIZE)
            while len(frame := os.pread(log.fileno(), 24, place)) == 24:
                commits += frame[8:16] == salts and frame[4:8] != b"\0\0\0\0"
                place += 24 + PAGE_SIZE
    except FileNotFoundError:
        return None
    return "the log is damaged before its end" if commits > 1 else None


def _fresh(path: str) -> str:
    """An empty catalog beside it; what an interrupted attempt left there is ours to drop."""
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


def _put_in_place(fresh: str, path: str, at: float) -> None:
    handle = os.open(fresh, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    for companion in ("-wal", "-shm"):  # those of a catalog that was taken away by hand: not this one's
        if os.path.exists(path + companion):
            os.rename(path + companion, f"{_free_name(path, at)}{companion}")
    os.rename(fresh, path)
    _sync_directory(path)


def _write_note(note: str, aside: str) -> None:
    with open(f"{note}.new", "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(os.path.basename(aside))
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{note}.new", note)
    _sync_directory(note)


def _free_name(path: str, at: float) -> str:
    stem = f"{path}.damaged-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}"
    names = [stem, *(f"{stem}-{count}" for count in range(1, 1000))]
    return next(name for name in names if not any(os.path.exists(name + companion) for companion in COMPANIONS))


def _sync_directory(path: str) -> None:
    handle = os.open(beside(path, ""), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

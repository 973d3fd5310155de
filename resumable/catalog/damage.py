"""Looks for damage in a catalog. Invariant: nothing is changed, neither the database nor its log.

The file formats are https://www.sqlite.org/fileformat2.html and https://www.sqlite.org/walformat.html.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections import deque
from contextlib import closing
from typing import Final

from resumable.catalog.batches import connect
from resumable.catalog.schema import APPLICATION_ID, MIGRATIONS, PAGE_SIZE, REPLICA_CHECK, UPLOAD_CHECKS, version
from resumable.model.errors import CatalogUnavailable

DAMAGE: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_DATA")
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


def damage(path: str) -> str | None:
    """The damage of the catalog at ``path``, in words; None: it is sound. Raises sqlite3.Error, OSError, and
    CatalogUnavailable for one of a newer release.

    A read-only connection does not write the log back when it closes, as the last one otherwise would.
    """
    if os.path.getsize(path) == 0:
        return "the file is empty"
    if (reason := _damaged_log(path)) is not None:
        return reason
    try:
        with closing(connect(path, "ro")) as connection:
            return _damaged_pages(connection) or _torn_log(path)
    except UnicodeDecodeError:  # a complaint repeats bytes of the file, such as a name in the schema
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

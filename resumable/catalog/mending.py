"""A copy of a damaged catalog, mended until SQLite will open it.

Changes when another kind of damage at the file's edges can be mended. Invariant: only the copy is written to. See
https://www.sqlite.org/fileformat2.html for the header's fields.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from resumable.catalog.batches import uri
from resumable.catalog.schema import MIGRATIONS, PAGE_SIZE, version


def open_copy(copy: str, fresh: str, trial: str, values: tuple[int, ...]) -> sqlite3.Connection | None:
    """A connection to the copy on which the statement ``trial`` works, or None where nothing helps.

    The copy as it is or, where that has no tables to show, with the first page of ``fresh``, an empty catalog.
    """
    _pad(copy)
    source = _open(copy, trial, values)
    if source is None:
        _graft(copy, fresh)
        source = _open(copy, trial, values)
    return source


def _open(copy: str, trial: str, values: tuple[int, ...]) -> sqlite3.Connection | None:
    source = sqlite3.connect(uri(copy, "rw"), uri=True, isolation_level=None)
    try:
        source.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        source.execute("PRAGMA writable_schema = ON")
        source.execute("SELECT 1 FROM sqlite_schema WHERE name = 'uploads'").fetchall()[0]
        _catch_up(source)
        source.execute(trial, values).fetchall()
    except (sqlite3.Error, UnicodeDecodeError, IndexError):
        source.close()
        return None
    return source


def _catch_up(source: sqlite3.Connection) -> None:
    """Give an older release's tables the columns, and their company, that they lack; making indexes would read all."""
    for statements in MIGRATIONS[version(source) :]:
        for statement in statements:
            if statement.startswith(("ALTER", "CREATE TABLE")):
                source.execute(statement)


def _graft(copy: str, fresh: str) -> None:
    """Give the copy the first page of an empty catalog: every catalog's tables begin on the same pages."""
    with open(fresh, "rb") as file:
        page = bytearray(file.read(PAGE_SIZE))
    pages = max(1, os.path.getsize(copy) // PAGE_SIZE)
    page[28:32] = struct.pack(">I", pages)  # valid as long as both change counters agree, as they do here
    page[32:40] = bytes(8)
    with open(copy, "r+b") as file:
        file.write(page)


def _pad(copy: str) -> None:
    """Make up for a cut-off end with empty pages: SQLite refuses a file that is shorter than it says."""
    with open(copy, "r+b") as file:
        size = os.path.getsize(copy)
        header = file.read(32)
        says = struct.unpack(">I", header[28:32])[0] * PAGE_SIZE if header[:16] == b"SQLite format 3\0" else 0
        if says > 4 * size + (1 << 30):
            says = 0  # nonsense
        file.truncate(max(says, -(-size // PAGE_SIZE) * PAGE_SIZE))


def copy_files(damaged: str, copy: str) -> None:
    """Copy the database and its log; zeros stand for what the disk can't read. Raises OSError."""
    for companion in ("", "-wal"):
        with suppress(FileNotFoundError), open(damaged + companion, "rb") as source, _private(copy + companion) as to:
            size = os.fstat(source.fileno()).st_size
            for place in range(0, size, 1 << 20):
                for block in _blocks(source.fileno(), place, min(1 << 20, size - place)):
                    to.write(block)


def _private(path: str) -> BinaryIO:
    """For us alone: what a catalog holds lets others write to stores."""
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))


def _blocks(handle: int, place: int, size: int) -> Iterator[bytes]:
    """The bytes there; zeros for a page that the disk can't read."""
    try:
        yield os.pread(handle, size, place)
    except OSError:
        for start in range(place, place + size, PAGE_SIZE):
            length = min(PAGE_SIZE, place + size - start)
            try:
                yield os.pread(handle, length, start)
            except OSError:
                yield bytes(length)

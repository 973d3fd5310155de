"""Reads a damaged catalog: a copy of it is repaired until SQLite opens it, and its rows are read round bad pages.

Invariants: only the copy is written to; a row is given as SQLite reads it or not at all; the number of errors that are
borne is bounded. See https://www.sqlite.org/fileformat2.html for the header's fields.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from heapq import heappop, heappush
from typing import Any, BinaryIO, Final

from resumable.catalog.batches import uri
from resumable.catalog.schema import LIMIT, MIGRATIONS, PAGE_SIZE, version

ERRORS: Final = 20_000  # at most, for one table: about a second's worth of trying
IDS: Final = 1 << 128  # ids as the number that their first 16 bytes make


def copy_files(damaged: str, copy: str) -> None:
    """Copy the database and its log; zeros stand for pages that the disk can't read. Raises OSError."""
    for companion in ("", "-wal"):
        with suppress(FileNotFoundError), open(damaged + companion, "rb") as source, _private(copy + companion) as to:
            size = os.fstat(source.fileno()).st_size
            for place in range(0, size, 1 << 20):
                for block in _blocks(source.fileno(), place, min(1 << 20, size - place)):
                    to.write(block)


def _private(path: str) -> BinaryIO:
    """For us alone: the records in a catalog let others write to stores."""
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


def by_number(source: sqlite3.Connection, query: str, highest: int) -> Iterator[tuple[Any, ...]]:
    """The rows of a query that has two parameters, the bounds of the number that is its first column.

    ``highest``: no number above is looked for singly. The query ends with the ORDER BY of that number.
    """

    def read(low: int, high: int, order: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
        for row in source.execute(f"{query} {order}", (low, high)):
            yield row[0], row

    return _between(read, 0, LIMIT, highest, _patience(source))


def by_id(source: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """The same by the upload's id, a text: from the first parameter on, up to the second, both in bytes."""

    def read(low: int, high: int, order: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
        past = (high + 1).to_bytes(16, "big") if high + 1 < IDS else b"\xff" * 17
        for row in source.execute(f"{query} {order}", (low.to_bytes(16, "big"), past)):
            yield int.from_bytes(row[0].encode()[:16].ljust(16, b"\0"), "big"), row

    return _between(read, 0, IDS - 1, IDS - 1, _patience(source))


def _between(
    read: Callable[[int, int, str], Iterator[tuple[int, tuple[Any, ...]]]],
    low: int,
    high: int,
    last: int,
    patience: int,
) -> Iterator[tuple[Any, ...]]:
    """Every row that can be read in a range of keys; some twice if the table is tangled.

    The table is read from both ends; the range between two errors is halved until it can be read or is known not to
    be. ``last``: no key above is looked for singly. Ranges where a row was found are searched first.
    """
    ranges = [(0, low, high)]
    while ranges and patience > 0:
        fruitless, low, high = heappop(ranges)
        width = high - low
        try:
            for key, row in read(low, high, "ASC"):
                low = max(low, min(key + 1, high + 1))
                yield row
            continue
        except (sqlite3.Error, UnicodeDecodeError):
            patience -= 1
        try:
            for key, row in read(low, high, "DESC"):
                high = min(high, max(key - 1, low - 1))
                yield row
            continue
        except (sqlite3.Error, UnicodeDecodeError):
            patience -= 1
        fruitless = 0 if high - low < width else fruitless + 1
        high = min(high, last)
        if low < high:
            middle = (low + high) // 2
            heappush(ranges, (fruitless, low, middle))
            heappush(ranges, (fruitless, middle + 1, high))


def last_number(source: sqlite3.Connection) -> int:
    """As many rows as there could be: a bound for tables whose end can't be read."""
    (pages,) = source.execute("SELECT page_count FROM pragma_page_count").fetchone()
    return int(pages) * 100


def _patience(source: sqlite3.Connection) -> int:
    """How many errors to bear: enough to walk round some bad pages in ten."""
    (pages,) = source.execute("SELECT page_count FROM pragma_page_count").fetchone()
    return min(ERRORS, 1000 + 8 * int(pages))

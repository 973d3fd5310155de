"""Copies out of a damaged catalog what SQLite can still read.

Changes when more can be saved. Invariants: the damaged files are only read (all is done on a copy of them); a
record is saved whole or becomes a tombstone, which answers 410: one that can't be read is never made up.

A bad page costs the records on it: the tables are read by ranges of their keys from both ends, and what lies
between two errors is halved until it can be read or is known not to be. The index on ids names the records of
a table that can't be. See https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any, Final
from urllib.parse import quote

from resumable.catalog.changes import record_lost
from resumable.catalog.schema import FIELDS, LIMIT, PAGE_SIZE, PIN, WAITING_FINAL

ERRORS_PER_TABLE: Final = 20_000  # a fraction of a second's worth of trying
IDS: Final = 1 << 128  # ids as the number that their first 16 bytes make
COLUMNS: Final = f"{FIELDS}, on_disk"

_ROWS = f"SELECT seq, {COLUMNS} FROM uploads NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq"
_INDEX = """SELECT id FROM uploads INDEXED BY uploads_by_id
    WHERE id >= CAST(? AS TEXT) AND id < CAST(? AS TEXT) ORDER BY id"""
_FACTS = (
    "SELECT seq, deliverer, upload_id, kind, at, data FROM outbox NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq"
)
_SAVE = f"""INSERT INTO uploads ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET ({COLUMNS}) = ({", ".join(f"excluded.{name}" for name in COLUMNS.split(", "))})
    WHERE (excluded.epoch, excluded.offset) > (uploads.epoch, uploads.offset)"""
_TEXT, _REAL, _INT = (str,), (float,), (int,)
_NONE = type(None)
_TYPES: Final[tuple[tuple[type, ...], ...]] = (
    *(_TEXT, _REAL, _REAL, (int, _NONE), _INT, (str, _NONE), (str, _NONE), (str, _NONE)),
    *((float, _NONE), (str, _NONE), (float, _NONE), _INT, (str, _NONE), _INT, _INT),
)


def salvage(damaged: str, fresh: str, at: float) -> int:
    """Copy the readable records of ``damaged`` into the empty catalog ``fresh``; answers how many.

    ``at``: the time that tombstones get. Raises sqlite3.Error or OSError when ``fresh`` can't be written.
    """
    copy = f"{fresh}.salvage"
    try:
        _copy(damaged, copy)
        with closing(sqlite3.connect(fresh, isolation_level=None)) as target:
            target.execute("PRAGMA journal_mode = MEMORY").fetchall()
            target.execute("PRAGMA synchronous = OFF")
            target.execute("BEGIN")
            saved = 0
            if (source := _readable(copy, fresh)) is not None:
                with closing(source):
                    saved = _save(source, target, at)
            target.execute("COMMIT")
            target.execute("PRAGMA journal_mode = WAL").fetchall()
    finally:
        for companion in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(copy + companion)
    return saved


def _save(source: sqlite3.Connection, target: sqlite3.Connection, at: float) -> int:
    lost: set[str] = set()
    for row in _by_number(source, _ROWS):
        try:
            if not all(isinstance(value, types) for value, types in zip(row[1:], _TYPES, strict=True)):
                raise sqlite3.IntegrityError("a value of another type")
            target.execute(_SAVE, row[1:])
        except sqlite3.IntegrityError:
            lost.update(row[1:2])
    saved = int(target.execute("SELECT count(*) FROM uploads").fetchone()[0])
    lost.update(row[0] for row in _by_id(source, _INDEX))
    record_lost(target, [one for one in lost if isinstance(one, str) and one], at)
    for final, partials in target.execute(f"SELECT id, partials FROM uploads WHERE {WAITING_FINAL}").fetchall():
        target.executemany(PIN, [(partial, final) for partial in partials.split(" ")])
    with suppress(sqlite3.IntegrityError):
        for fact in _by_number(source, _FACTS):
            target.execute("INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, ?, ?, ?)", fact)
    _keep_counting(source, target, at)
    return saved


def _keep_counting(source: sqlite3.Connection, target: sqlite3.Connection, at: float) -> None:
    """Facts never share a number: go on from the last, or from far beyond it when that is unknown."""
    try:
        row = source.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        last = int(row[0]) if row else 0
    except (sqlite3.Error, TypeError, ValueError):
        last = int(at * 1000)
    target.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
    target.execute("INSERT INTO sqlite_sequence SELECT 'outbox', MAX(?, IFNULL(MAX(seq), 0)) FROM outbox", (last,))


def _by_number(source: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    def read(low: int, high: int, order: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
        for row in source.execute(f"{query} {order}", (low, high)):
            yield row[0], row

    return _between(read, 0, min(LIMIT, _highest(source)))


def _by_id(source: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    def read(low: int, high: int, order: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
        past = (high + 1).to_bytes(16, "big") if high + 1 < IDS else b"\xff" * 17
        for row in source.execute(f"{query} {order}", (low.to_bytes(16, "big"), past)):
            yield int.from_bytes(row[0].encode()[:16].ljust(16, b"\0"), "big"), row

    return _between(read, 0, IDS - 1)


def _between(
    read: Callable[[int, int, str], Iterator[tuple[int, tuple[Any, ...]]]], first: int, last: int
) -> Iterator[tuple[Any, ...]]:
    """Every row that can be read in a range of keys, the widest gaps first; some twice if the table is tangled."""
    ranges = deque([(first, last)])
    errors = 0
    while ranges and errors < ERRORS_PER_TABLE:
        low, high = ranges.popleft()
        try:
            for key, row in read(low, high, "ASC"):
                low = max(low, min(key + 1, high + 1))
                yield row
            continue
        except sqlite3.Error:
            errors += 1
        try:
            for key, row in read(low, high, "DESC"):
                high = min(high, max(key - 1, low - 1))
                yield row
            continue
        except sqlite3.Error:
            errors += 1
        if low < high:
            middle = (low + high) // 2
            ranges += [(low, middle), (middle + 1, high)]


def _highest(source: sqlite3.Connection) -> int:
    """A number that no key passes: the last one, or as many as could be on all pages if that can't be read."""
    numbers = [1 << 20]
    for query in (
        "SELECT MAX(seq) FROM uploads INDEXED BY uploads_by_id",
        "SELECT MAX(seq) FROM uploads NOT INDEXED",
        "SELECT MAX(seq) FROM outbox NOT INDEXED",
        "SELECT page_count * 100 FROM pragma_page_count",
    ):
        with suppress(sqlite3.Error, TypeError):
            numbers.append(int(source.execute(query).fetchone()[0]))
    return max(numbers)


def _readable(copy: str, fresh: str) -> sqlite3.Connection | None:
    """The copy as it is or, where that has no tables to show, with the first page of an empty catalog."""
    _pad(copy)
    source = _open(copy)
    if source is None:
        _graft(copy, fresh)
        source = _open(copy)
    return source


def _open(copy: str) -> sqlite3.Connection | None:
    source = sqlite3.connect(f"file:{quote(os.path.abspath(copy))}?mode=rw", uri=True, isolation_level=None)
    try:
        source.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        source.execute("PRAGMA writable_schema = ON")
        source.execute("SELECT 1 FROM sqlite_schema WHERE name = 'uploads'").fetchall()[0]
        source.execute(f"EXPLAIN {_ROWS}", (0, 0)).fetchall()
    except (sqlite3.Error, IndexError):
        source.close()
        return None
    return source


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


def _copy(damaged: str, copy: str) -> None:
    for companion in ("", "-wal"):
        with suppress(FileNotFoundError), open(damaged + companion, "rb") as source, open(copy + companion, "wb") as to:
            size = os.fstat(source.fileno()).st_size
            for place in range(0, size, 1 << 20):
                for block in _blocks(source.fileno(), place, min(1 << 20, size - place)):
                    to.write(block)


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

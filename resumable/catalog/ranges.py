"""Reads the tables of a damaged catalog, row by row, round what can't be read.

Changes when a better way round damage is found. Invariant: a row is given as SQLite reads it or not at all; the
number of errors that are borne is bounded. A table is read by ranges of its keys from both ends, and what lies
between two errors is halved until it can be read or is known not to be.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any, Final

from resumable.catalog.schema import LIMIT

ERRORS: Final = 20_000  # at most, for one table: about a second's worth of trying
IDS: Final = 1 << 128  # ids as the number that their first 16 bytes make


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

    ``last``: no key above is looked for singly. What lies where something was found is searched before what lies
    where nothing was.
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

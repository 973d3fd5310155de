"""The rows of a catalog on their way to another one: which tables and columns there are, and how copies are compared.

A row is a tuple of what SQLite has: numbers, texts and NULLs; PostgreSQL's booleans are 0 and 1. Everything here
blocks. Invariants: a table's rows come in the order of its key, which is the same everywhere; a copy counts only when
it was read again, and its digests were those of what had been copied.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final, TypeAlias

from attrs import frozen

from resumable.catalog.batches import connect
from resumable.catalog.catalog_files import fresh_catalog
from resumable.catalog.schema import FIELDS, REPLICA_FIELDS
from resumable.model.errors import CatalogUnavailable

PAGE: Final = 1000
"""Rows that are read at once."""

Row: TypeAlias = tuple[Any, ...]


@frozen
class CopiedTable:
    """A table that both catalogs have. ``key``: the columns that its rows are ordered by; ``flags``: booleans on
    PostgreSQL; ``numbered``: its first column is a number that the database gives."""

    name: str
    columns: Sequence[str]
    key: Sequence[str]
    flags: Sequence[str] = ()
    numbered: bool = False

    def at(self, column: str) -> int:
        """The column's place in a row."""
        return self.columns.index(column)


Watched: TypeAlias = Callable[[Iterable[Row], CopiedTable], Iterable[Row]]
"""The rows of a table, which somebody counts as they are read again."""

UPLOADS: Final = CopiedTable(
    "uploads",
    ("seq", *FIELDS.split(", "), "on_disk", "settled_at"),
    key=("seq",),
    flags=("draft",),
    numbered=True,
)
OUTBOX: Final = CopiedTable(
    "outbox",
    ("seq", "deliverer", "upload_id", "kind", "at", "data", "attempts", "error", "retry_at", "dead_at", "state"),
    key=("seq",),
    numbered=True,
)
TABLES: Final = (
    UPLOADS,
    CopiedTable("pins", ("partial_id", "final_id"), key=("partial_id", "final_id")),
    CopiedTable("finals", ("key", "id", "at", "said"), key=("key",)),
    CopiedTable(
        "replicas",
        ("seq", *REPLICA_FIELDS.removesuffix(", seq").split(", "), "journal"),
        key=("seq",),
        flags=("required", "deletes"),
        numbered=True,
    ),
    CopiedTable("replica_parts", ("upload_id", "remote", "number", "value"), key=("upload_id", "remote", "number")),
    OUTBOX,
)


class RowDigest:
    """The digest of a table's rows in their order. ``count``: of them."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows as they pass by."""
        for row in rows:
            self.add(row)
            yield row

    def add(self, row: Row) -> None:
        """The next row."""
        self.count += 1
        self._hash.update(repr(row).encode("utf-8", "surrogatepass"))
        self._hash.update(b"\n")

    @property
    def value(self) -> tuple[int, str]:
        """To be compared."""
        return self.count, self._hash.hexdigest()


def digest_of(rows: Iterable[Row]) -> tuple[int, str]:
    """Of all of these."""
    digest = RowDigest()
    for row in rows:
        digest.add(row)
    return digest.value


def compare(table: CopiedTable, copied: tuple[int, str], found: tuple[int, str]) -> None:
    """Raises CatalogUnavailable where a copy isn't what was copied."""
    if copied != found:
        raise CatalogUnavailable(
            f"the copy of the table {table.name} was read again, and differs: {copied[0]} rows were copied, and"
            f" {found[0]} are there"
        )


class CatalogFile:
    """A catalog of SQLite, for one reader at a time, which has it to itself. Raises sqlite3.Error."""

    def __init__(self, path: str) -> None:
        self._connection = connect(path)

    def rows(self, table: CopiedTable) -> Iterator[Row]:
        """All of a table."""
        order = ", ".join(table.key)
        cursor = self._connection.execute(f"SELECT {', '.join(table.columns)} FROM {table.name} ORDER BY {order}")
        while page := cursor.fetchmany(PAGE):
            yield from page

    def count(self, table: CopiedTable) -> int:
        """Of its rows."""
        (count,) = self._connection.execute(f"SELECT COUNT(*) FROM {table.name}").fetchone()
        return int(count)

    def last_event(self) -> int:
        """The highest number that an event ever had."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        return 0 if row is None else int(row[0])

    def write(self, tables: Callable[[CopiedTable], Iterable[Row]], last_event: int) -> dict[str, tuple[int, str]]:
        """Write all rows, in one transaction. The digests, by table."""
        digests = {}
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            digest = RowDigest()
            holes = ", ".join("?" * len(table.columns))
            statement = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({holes})"
            connection.executemany(statement, digest.of(tables(table)))
            digests[table.name] = digest.value
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?)", (last_event,))
        connection.execute("COMMIT")
        return digests

    def close(self) -> None:
        """Write the log back into the file, and close it."""
        with closing(self._connection):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def deliverers_in(path: str) -> Sequence[str]:
    """Those that the catalog at ``path`` keeps events for. Raises sqlite3.Error."""
    with closing(connect(path, "ro")) as connection:
        return [name for (name,) in connection.execute("SELECT DISTINCT deliverer FROM outbox ORDER BY 1")]


def written_catalog(
    path: str, tables: Callable[[CopiedTable], Iterable[Row]], last_event: int, watched: Watched
) -> str:
    """Make a catalog of these rows beside ``path``, and return its path; it is read again and compared, and replaces
    what an interrupted attempt left there. It isn't synced. ``watched``: passes on the rows that are read again. Raises
    CatalogUnavailable, sqlite3.Error, OSError."""
    fresh = fresh_catalog(path)
    file = CatalogFile(fresh)
    try:
        digests = file.write(tables, last_event)
    finally:
        file.close()
    file = CatalogFile(fresh)
    try:
        for table in TABLES:
            compare(table, digests[table.name], digest_of(watched(file.rows(table), table)))
    finally:
        file.close()
    return fresh


def unavailable_file(error: sqlite3.Error) -> CatalogUnavailable:
    """The error of the catalog's file, in one line."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    return CatalogUnavailable(f"{name}: {error}", no_space=name == "SQLITE_FULL")

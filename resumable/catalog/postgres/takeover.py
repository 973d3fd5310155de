"""On PostgreSQL: a whole catalog that comes from SQLite or goes there, while no worker runs.

``oldest`` in ``installation`` is `RETURNING` from when records begin to go to SQLite, and `RETURNED` once they are
there: no worker starts from then on, and one that was just starting can't make its row (a trigger). The rows stay,
until another catalog comes into this database. Everything here blocks, and raises CatalogUnavailable.

Invariants: a catalog comes with all rows, compared, and a new installation's id in one transaction, or not at all; no
worker has a row meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from attrs import frozen

from resumable.catalog.postgres.postgres_connection import Connect, take_long, unavailable
from resumable.catalog.postgres.postgres_schema import MIGRATIONS, NOW, RETURNED, RETURNING, check_server, migrate
from resumable.catalog.postgres.usage_table import enforce
from resumable.catalog.row_copies import (
    OUTBOX,
    PAGE,
    TABLES,
    UPLOADS,
    CopiedTable,
    Row,
    RowDigest,
    Watched,
    compare,
    digest_of,
)
from resumable.model.errors import CatalogUnavailable, StartupError
from resumable.model.segments import Layout
from resumable.model.upload import Segment
from resumable.model.usage import Quota
from resumable.model.workers import DEAD_AFTER

PATIENCE: Final = 15
"""Seconds to wait for a transaction of somebody who may just have been killed."""
_SESSION: Final = (
    "SET LOCAL idle_in_transaction_session_timeout = 0",
    f"SET LOCAL lock_timeout = '{PATIENCE}s'",
    "SET LOCAL synchronous_commit = on",
    "SET LOCAL timezone = 'UTC'",
)
_EMPTIED: Final = (
    *("segments", "parts", "pieces", "discarded", "claims", "usage", "workers"),
    *(table.name for table in TABLES),
)
_LOOK: Final = """SELECT id, (SELECT COUNT(*) FROM uploads), oldest, EXISTS (SELECT 1 FROM parts)
    OR EXISTS (SELECT 1 FROM pieces) OR EXISTS (SELECT 1 FROM uploads WHERE COALESCE(made, multipart) IS NOT NULL)
    FROM installation"""
_BAR: Final = (
    """CREATE OR REPLACE FUNCTION resumable_moved() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the records of this database were moved to SQLite';
        END $$""",
    "DROP TRIGGER IF EXISTS moved ON workers",
    "CREATE TRIGGER moved BEFORE INSERT ON workers FOR EACH ROW EXECUTE FUNCTION resumable_moved()",
)


@frozen
class Installation:
    """``id``: the marker of its upload directory has it. ``uploads``: how many there are. ``returning``, ``returned``:
    its records are on their way to SQLite, or are there. ``in_store``: bytes of uploads are in an object store."""

    id: str
    uploads: int
    returning: bool = False
    returned: bool = False
    in_store: bool = False


@frozen
class StoredUpload:
    """One upload that has data. ``finished``, ``gone`` and ``dropped`` as its record says; ``pinned``: an unfinished
    final needs it; ``waits``: it is an unfinished final itself."""

    layout: Layout
    finished: bool
    gone: bool
    dropped: bool
    pinned: bool
    waits: bool


class Takeover:
    """The catalog in one database, as the command that moves it needs it."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    @contextmanager
    def _raw(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            with self._connect() as raw:
                take_long(raw)
                yield raw
        except psycopg.Error as error:
            raise unavailable(error) from error

    @contextmanager
    def _alone(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction in which no worker can begin. Raises StartupError where one runs."""
        with self._raw() as raw, raw.transaction():
            for setting in _SESSION:
                raw.execute(setting)
            self._check_workers(raw)  # before anybody has to wait
            raw.execute("LOCK TABLE installation, workers IN ACCESS EXCLUSIVE MODE")
            self._check_workers(raw)
            yield raw

    @staticmethod
    def _check_workers(raw: psycopg.Connection[Any]) -> None:
        row = raw.execute(f"SELECT COUNT(*) FROM workers WHERE seen_at >= {NOW} - {DEAD_AFTER}").fetchone()
        if row is not None and row[0]:
            raise StartupError(
                f"Workers use that database, or did {DEAD_AFTER:.0f} seconds ago ({row[0]} of them): stop all servers,"
                " and try again."
            )

    def look(self) -> Installation:
        """Make or migrate the tables, and look at them. Waits for a transaction of one that was interrupted."""
        with self._raw() as raw:
            check_server(raw)
            found = raw.execute("SELECT to_regclass('installation') IS NOT NULL").fetchone()
            moved = found is not None and found[0] and self._moved_from(raw)
            if not moved:
                migrate(raw, secrets.token_hex(16))
        with self._raw() as raw, raw.transaction():
            for setting in _SESSION:
                raw.execute(setting)
            raw.execute("LOCK TABLE installation IN ACCESS EXCLUSIVE MODE")
            row = raw.execute(_LOOK).fetchone()
        assert row is not None
        return Installation(row[0], row[1], row[2] == RETURNING, row[2] == RETURNED, row[3])

    @staticmethod
    def _moved_from(raw: psycopg.Connection[Any]) -> bool:
        row = raw.execute("SELECT version, oldest FROM installation").fetchone()
        if row is None or row[1] not in (RETURNING, RETURNED):
            return False
        if row[0] > len(MIGRATIONS):
            raise CatalogUnavailable(f"the database has tables of version {row[0]}, of a newer release: use that one")
        migrate(raw, "", moved=True)
        return True

    def check_unused(self) -> None:
        """Raises StartupError where a worker runs."""
        with self._alone():
            pass

    # -- from SQLite

    def fill(
        self,
        old_id: str,
        new_id: str,
        tables: Callable[[CopiedTable], Iterable[Row]],
        is_whole: Callable[[Row], bool],
        segments: Callable[[], Iterable[tuple[str, Segment]]],
        last_event: int,
        reached: Callable[[str], None],
        watched: Watched,
    ) -> None:
        """Take all rows, and the installation's new id. ``is_whole``: of a row of uploads. ``watched``: see
        `written_catalog`. Raises StartupError where a worker runs or the database is no longer that of ``old_id``, or
        not empty."""
        with self._alone() as raw:
            self._empty(raw, old_id)
            digests = {}
            for table in TABLES:
                digest = RowDigest()
                rows = digest.of(tables(table))
                if table is UPLOADS:
                    _copy(raw, table, ((*row, is_whole(row)) for row in rows), "whole")
                else:
                    _copy(raw, table, rows)
                digests[table.name] = digest.value
                reached(f"copied {table.name}")
            with raw.cursor().copy("COPY segments (upload_id, start, size, name) FROM STDIN") as copy:
                for upload_id, segment in segments():
                    copy.write_row((upload_id, segment.start, segment.size, segment.name))
            for table in TABLES:
                compare(table, digests[table.name], digest_of(watched(_rows(raw, table), table)))
                if table.numbered:
                    _number_on(raw, table.name, last_event if table is OUTBOX else 0)
            raw.execute("UPDATE installation SET id = $1, draining_since = NULL", (new_id,))
            reached("before commit")

    @staticmethod
    def _empty(raw: psycopg.Connection[Any], old_id: str) -> None:
        row = raw.execute("SELECT id, oldest, EXISTS (SELECT 1 FROM uploads) FROM installation").fetchone()
        if row is None or row[0] != old_id or (row[2] and row[1] != RETURNED):
            raise StartupError("That database has records by now: name one that is empty.")
        enforce(raw, Quota(), Quota())  # the next start counts all uploads at once
        raw.execute(f"TRUNCATE {', '.join(_EMPTIED)}")
        raw.execute("DROP TRIGGER IF EXISTS moved ON workers")
        raw.execute("UPDATE installation SET oldest = $1", (MIGRATIONS[-1][0],))

    # -- to SQLite

    def bar(self) -> None:
        """From now on no worker begins. Raises StartupError where one runs."""
        with self._alone() as raw:
            raw.execute("DELETE FROM workers")
            for statement in _BAR:
                raw.execute(statement)
            raw.execute("UPDATE installation SET oldest = $1", (RETURNING,))

    def unbar(self) -> None:
        """Workers may begin again."""
        with self._alone() as raw:
            raw.execute("DROP TRIGGER IF EXISTS moved ON workers")
            raw.execute("UPDATE installation SET oldest = $1", (MIGRATIONS[-1][0],))

    def returned(self) -> None:
        """All records are in SQLite for good."""
        with self._raw() as raw:
            raw.execute("UPDATE installation SET oldest = $1 WHERE oldest = $2", (RETURNED, RETURNING))

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """The rows, as they are at this moment."""
        with self._raw() as raw, raw.transaction():
            raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            for setting in _SESSION:
                raw.execute(setting)
            yield Reading(raw)


class Reading:
    """Of all rows, in one transaction."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self._raw = raw

    def rows(self, table: CopiedTable) -> Iterator[Row]:
        """All of a table, as SQLite has them."""
        return _rows(self._raw, table)

    def last_event(self) -> int:
        """The highest number that an event ever had."""
        row = self._raw.execute("SELECT pg_get_serial_sequence('outbox', 'seq')").fetchone()
        assert row is not None
        row = self._raw.execute(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {row[0]}").fetchone()
        return 0 if row is None else int(row[0])

    def stored(self) -> Iterator[StoredUpload]:
        """All uploads that have data."""
        query = """SELECT id, "offset", whole, finished_at IS NOT NULL, gone IS NOT NULL, dropped_at IS NOT NULL,
            EXISTS (SELECT 1 FROM pins WHERE partial_id = id), partials IS NOT NULL AND finished_at IS NULL,
            (SELECT json_agg(json_build_array(start, size, name) ORDER BY start) FROM segments WHERE upload_id = id
                AND NOT whole)
            FROM uploads WHERE on_disk = 1 ORDER BY seq"""
        for upload_id, offset, whole, finished, gone, dropped, pinned, waits, found in _pages(self._raw, query):
            segments = tuple(Segment(start, size, name, known=size) for start, size, name in found or ())
            yield StoredUpload(Layout(upload_id, offset, whole, segments), finished, gone, dropped, pinned, waits)

    def unfinished(self) -> Iterator[str]:
        """The ids of those whose bytes are in segments, or that have none yet."""
        query = "SELECT id FROM uploads WHERE on_disk = 1 AND NOT whole AND finished_at IS NULL AND gone IS NULL"
        return (upload_id for (upload_id,) in _pages(self._raw, query))


def _number_on(raw: psycopg.Connection[Any], table: str, least: int) -> None:
    """New rows get numbers behind those of all rows, and behind ``least``."""
    raw.execute(
        f"SELECT setval(pg_get_serial_sequence('{table}', 'seq'), GREATEST(last, 1), last > 0)"
        f" FROM (SELECT GREATEST(COALESCE(MAX(seq), 0), $1::bigint) AS last FROM {table}) AS found",
        (least,),
    )


def _quoted(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _copy(raw: psycopg.Connection[Any], table: CopiedTable, rows: Iterable[Row], *own: str) -> None:
    flags = [table.at(column) for column in table.flags]
    with raw.cursor().copy(f"COPY {table.name} ({_quoted([*table.columns, *own])}) FROM STDIN") as copy:
        for row in rows:
            if flags:
                values = list(row)
                for at in flags:
                    values[at] = bool(values[at])
                row = tuple(values)
            copy.write_row(row)


def _rows(raw: psycopg.Connection[Any], table: CopiedTable) -> Iterator[Row]:
    columns = [f'"{column}"::integer' if column in table.flags else f'"{column}"' for column in table.columns]
    # texts in the order of their bytes, which is SQLite's
    key = [column if column in ("seq", "number") else f'{column} COLLATE "C"' for column in table.key]
    return _pages(raw, f"SELECT {', '.join(columns)} FROM {table.name} ORDER BY {', '.join(key)}")


def _pages(raw: psycopg.Connection[Any], query: str) -> Iterator[Row]:
    """The rows of a query, by a cursor of the server's, within a transaction."""
    name = f"rows_{secrets.token_hex(4)}"
    raw.execute(f"DECLARE {name} CURSOR FOR {query}", prepare=False)
    while page := raw.execute(f"FETCH {PAGE} FROM {name}", prepare=False).fetchall():
        yield from page
    raw.execute(f"CLOSE {name}", prepare=False)

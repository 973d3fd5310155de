"""One SQLite connection, and batches of jobs that take effect together or not at all.

Invariant: a result is only handed out once the transaction that it rests on is known to be on the disk.

There is ONE connection in the process, for reads, writes and checkpoints, and it locks the file for itself:
SQLite 3.7.0 to 3.51.2 can corrupt a database in WAL mode when two connections write and checkpoint at the
same moment (https://www.sqlite.org/wal.html, "the WAL-reset bug"). ``locking_mode=EXCLUSIVE`` keeps even a
curious shell from being the second, and keeps the index of the log in memory, so a full disk can't hurt it
(https://www.sqlite.org/wal.html#noshm). No memory map: an I/O error in one is a signal, not an error.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

from attrs import field, frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.system import HAS_FULL_SYNC
from resumable.catalog.catalog_files import SpaceReserve, disk_is_full
from resumable.model.errors import CatalogUnavailable
from resumable.model.telemetry import Tally

_log = Logger()

T_co = TypeVar("T_co", covariant=True)

CHECKPOINT_PAGES: Final = 2000  # 8 MiB of log: rewriting hot pages once per log, a checkpoint of tens of milliseconds
STATEMENTS: Final = 64

_PRAGMAS: Final = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    *(("PRAGMA fullfsync = ON", "PRAGMA checkpoint_fullfsync = ON") if HAS_FULL_SYNC else ()),
    "PRAGMA mmap_size = 0",
    "PRAGMA temp_store = MEMORY",
    f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit = {4 * CHECKPOINT_PAGES * 4096}",
)

# Errors of one job; any other sqlite3.Error is one of the database.
_OWN_ERRORS: Final = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)


_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_JOBS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@frozen
class Timing:
    """Batches with changes that became durable: the seconds that each took, the number of its jobs."""

    seconds: Tally = field(factory=lambda: Tally(_SECONDS))
    jobs: Tally = field(factory=lambda: Tally(_JOBS))


@frozen
class CatalogJob(Generic[T_co]):
    """``run`` is called with the connection, possibly twice (the first time is rolled back then).

    ``writes``: may change something. ``frees``: leads to free space, so it may use the space reserve.
    """

    run: Callable[[Any], T_co]
    writes: bool = field(default=False, kw_only=True)
    frees: bool = field(default=False, kw_only=True)


def uri(path: str, mode: str) -> str:
    """The URI of a file for SQLite, whatever bytes its name is made of. Spec: https://www.sqlite.org/uri.html"""
    return f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode={mode}"


def connect(path: str, mode: str = "rw") -> sqlite3.Connection:
    """A connection to an existing file (``rwc``: make it); raises sqlite3.Error."""
    connection = sqlite3.connect(
        uri(path, mode),
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS,
    )
    try:
        if mode != "ro":
            for pragma in _PRAGMAS:
                connection.execute(pragma).fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def unavailable(error: BaseException, path: str) -> CatalogUnavailable:
    """The CatalogUnavailable for an error of SQLite: with its message, and whether the disk is full."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    full = name == "SQLITE_FULL"
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
        full = disk_is_full(os.path.dirname(os.path.abspath(path)))
    return CatalogUnavailable(f"{name}: {error}", no_space=full)


class Batches:
    """Runs batches over the connection, which it opens anew, lazily, after any error that spoils it."""

    log = Logger()

    def __init__(
        self,
        path: str,
        reserve: SpaceReserve,
        connector: Callable[[str], sqlite3.Connection] = connect,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.path = path
        self.reserve = reserve
        self.timing = Timing()
        self._connect = connector
        self._seconds = seconds
        self._connection: sqlite3.Connection | None = None
        self._number = 0
        self._closed = False

    def open(self) -> sqlite3.Connection:
        """The connection, opened if need be; raises CatalogUnavailable."""
        if self._closed:
            raise CatalogUnavailable("the catalog is closed")
        if self._connection is None:
            try:
                self._connection = self._connect(self.path)
                (self._number,) = self._connection.execute("SELECT number FROM batches").fetchone()
            except (sqlite3.Error, MemoryError, TypeError) as error:
                raise self._spoilt(error) from error
        return self._connection

    def close(self) -> None:
        """Write the log back into the database and close it. Nothing runs after this."""
        self._closed = True
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._drop()

    def run(self, jobs: Sequence[CatalogJob[Any]]) -> list[Any]:
        """A result or a Failure for each job, in order; never raises.

        A job that fails by itself fails alone. Everything else fails all of them with CatalogUnavailable. On a full
        disk the jobs that free space are tried once more, with the space of the reserve.
        """
        try:
            return self._attempt(jobs)
        except CatalogUnavailable as error:
            refused = error
        chosen = [job for job in jobs if job.frees or not job.writes]
        results: list[Any] = []
        if refused.no_space and any(job.frees for job in jobs) and self.reserve.release():
            self.log.warn("the disk is full; the space reserve is released to remove uploads")
            try:
                results = self._attempt(chosen)
            except CatalogUnavailable as error:
                refused = error
        answers = iter(results)
        return [next(answers) if results and (job.frees or not job.writes) else _failure(refused) for job in jobs]

    def _attempt(self, jobs: Sequence[CatalogJob[Any]]) -> list[Any]:
        connection = self.open()
        number = self._number
        try:
            if not any(job.writes for job in jobs):
                return [_alone(job, connection) for job in jobs]
            began, before = self._seconds(), connection.total_changes
            connection.execute("BEGIN IMMEDIATE")
            results = self._together(connection, jobs)
            if connection.total_changes != before:
                number += 1
                connection.execute("UPDATE batches SET number = ?", (number,))
        except (sqlite3.Error, MemoryError) as error:
            raise self._spoilt(error) from error
        try:
            connection.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as error:
            self._prove(number, self._spoilt(error))
        self._number = number
        self.timing.seconds.add(self._seconds() - began)
        self.timing.jobs.add(len(jobs))
        return results

    def _together(self, connection: sqlite3.Connection, jobs: Sequence[CatalogJob[Any]]) -> list[Any]:
        """All in one go; if one fails by itself, all again with a savepoint for each."""
        try:
            return [job.run(connection) for job in jobs]
        except Exception as error:
            if _is_fatal(error):
                raise
        connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        results = []
        for job in jobs:
            connection.execute("SAVEPOINT job")
            result = _alone(job, connection)
            if isinstance(result, Failure):
                connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            results.append(result)
        return results

    def _prove(self, number: int, refused: CatalogUnavailable) -> None:
        """After a failed COMMIT: return if that batch is on the disk all the same, else raise.

        Finding it in the log proves nothing when it was the sync that failed, as the log's pages may never
        reach the disk. A checkpoint copies it to other pages and syncs those.
        """
        connection = self.open()
        if self._number != number:
            raise refused
        try:
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except (sqlite3.Error, MemoryError) as error:
            raise self._spoilt(error) from error
        if busy:
            raise refused

    def _spoilt(self, error: BaseException) -> CatalogUnavailable:
        self._drop()
        told = unavailable(error, self.path)
        self.log.error("the catalog failed: {reason}", reason=str(told), no_space=told.no_space)
        return told

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _alone(job: CatalogJob[Any], connection: sqlite3.Connection) -> Any:
    try:
        return job.run(connection)
    except Exception as error:
        if _is_fatal(error):
            raise
        if isinstance(error, _OWN_ERRORS):
            return _failure(ValueError(f"not a possible record: {error}"))
        if isinstance(error, sqlite3.Error):
            error = CatalogUnavailable(f"a record that can't be read: {error}")
        return of_one_job(error)


def of_one_job(error: Exception) -> Failure:
    """The failure of a job that fails alone. Who asked doesn't tell of a catalog that fails, as the catalog does."""
    if isinstance(error, CatalogUnavailable):
        _log.error("a record of the catalog fails: {reason}", reason=str(error))
    return Failure(error)


def _is_fatal(error: Exception) -> bool:
    """Whether the error is one of the database, not of one job. Text that is not UTF-8 is an error of Python's, without
    a code of SQLite's."""
    if isinstance(error, sqlite3.Error) and not isinstance(error, _OWN_ERRORS):
        return hasattr(error, "sqlite_errorcode")
    return isinstance(error, MemoryError)


def _failure(error: Exception) -> Failure:
    return Failure(error)

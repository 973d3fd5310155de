"""Batches of jobs over one connection to PostgreSQL that take effect together or not at all.

Invariants: a result is only handed out once the transaction that it rests on is known to be on the disk. While it isn't
known whether a COMMIT has landed, nothing else is changed. Whatever changes something first moves ``batch`` in the row
of this worker to a number that is used once, so a worker whose row is gone changes nothing; and a COMMIT is only
disproven by moving ``batch`` further, so that what the server has yet to read can't land later.

`SetJob`s that wait together go to the server in one message, which is one transaction: a process that freezes leaves
none open. Other jobs look at answers in between, and the server ends their transaction if this process freezes
(see postgres_connection.py).

Rows of uploads are locked in the order of their ids, in a statement of its own before those that change them: so two
pieces don't wait for each other, and a statement sees all that was committed before it got its locks. Sets go before
the other jobs that wait with them; changes of one upload (`KeyedJob`) keep their order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Event
from typing import Any, Final, TypeVar

import psycopg
from attrs import field, frozen
from twisted.python.failure import Failure

from resumable.catalog.batches import CatalogJob, Timing, of_one_job
from resumable.catalog.postgres.outage import CatalogOutage
from resumable.catalog.postgres.postgres_connection import BYTES, Call, Connect, Connection, NoAnswer, unavailable
from resumable.catalog.postgres.usage_table import refusal
from resumable.model.errors import CatalogUnavailable

T = TypeVar("T")

#: Times that a transaction is begun anew after a deadlock, or because another was quicker.
REPEATS: Final = 5
#: Seconds between two looks whether a COMMIT has landed.
AGAIN: Final = 0.2
LOOKS: Final = 25
"""Such looks, or as many seconds as they take at least, before what waits for the outcome fails. Less: a restart of the
database fails changes that have landed; more: while it is away, changes that wait behind fail later."""
MOST_DATA: Final = 12 << 20
"""Bytes of pieces that one transaction of sets takes, or one job's. More make fewer transactions; the database holds
each several times."""
DISOWNED: Final = "RS001"
"""SQLSTATE of `resumable_begin` when the worker's row is gone; see postgres_schema.py."""

# Errors of one job; any other psycopg.Error is one of the database.
_OWN_ERRORS: Final = (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError)
# These are ProgrammingErrors, too, but no job's fault.
_OF_THE_DATABASE: Final = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable)
_REPEATED: Final = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)

# In ASCII: text that is no possible text is refused by the server, with its job alone.
_encoder: Final = partial(json.JSONEncoder, separators=(",", ":"))
_encode = _encoder().encode

CONFLICT: Final = "23R02"
"""SQLSTATE of `resumable_conflict`: a change doesn't match, which is only seen when it is half done; see
postgres_schema.py."""
BEGIN: Final = "SELECT resumable_begin(?1 ->> 0, (?1 ->> 1)::bigint)"
LOCK_UPLOADS: Final = """SELECT count(*) FROM (SELECT 1 FROM uploads
    WHERE id = ANY(ARRAY(SELECT json_array_elements_text(?1))) ORDER BY id FOR NO KEY UPDATE) AS locked"""


@frozen
class KeyedJob(CatalogJob[T]):
    """A job on the upload ``key``, done in order with that upload's other jobs."""

    key: str = field(kw_only=True)


@frozen
class SetJob(KeyedJob[T]):
    """A change that one statement does for many rows at once.

    ``statement`` has a parameter for each of ``rows``: JSON, an array of objects, those of all jobs one after the
    other. Bytes in them aren't in the JSON, which has their numbers in the array `BYTES`. The statement returns a row
    for each job that has landed, its ``key`` first. ``answer`` is called with that row, None if there is none; the same
    for one that by itself raises `CONFLICT`. Of jobs with the same ``key``, an upload's id, only one is done in one
    statement, the others after it.
    ``locks``: the row of that upload is locked first.
    """

    statement: str = field(kw_only=True)
    rows: Sequence[Sequence[Mapping[str, Any]]] = field(kw_only=True)
    locks: bool = field(kw_only=True)
    answer: Callable[[tuple[Any, ...] | None], T] = field(kw_only=True)


def set_job(
    statement: str,
    key: str,
    *rows: Sequence[Mapping[str, Any]],
    answer: Callable[[tuple[Any, ...] | None], Any] = lambda row: row is not None,
    writes: bool = True,
    locks: bool = True,
) -> SetJob[Any]:
    """A SetJob. Without ``answer`` its result is whether it has landed. Only a change ``locks``; that of a row which
    isn't there before needs none."""
    locks = locks and writes
    return SetJob(_not_alone, writes=writes, statement=statement, rows=rows, key=key, answer=answer, locks=locks)


def _not_alone(connection: Any) -> Any:
    raise TypeError("a SetJob is done by its statement")


def encoded(rows: Sequence[Mapping[str, Any]]) -> str:
    """The JSON that a SetJob's statement takes, to run it within another job."""
    return _encode(rows)


class Disowned(CatalogUnavailable):
    """This worker was declared dead: it changes nothing more."""


class _Lost(CatalogUnavailable):
    """A connection that had been used before was lost, and nothing has landed: another may do."""


class PostgresBatches:
    """Runs batches over one connection, which it opens anew, lazily, after any error that spoils it.

    ``worker_id``: the worker whose row the changes hold on to; None: nobody's (a tool with the catalog to itself).
    ``on_disowned`` is called once, in whatever thread, when that row is gone. ``outage`` is told whether it works.
    """

    def __init__(
        self,
        connect: Connect,
        worker_id: str | None,
        on_disowned: Callable[[], None] = lambda: None,
        seconds: Callable[[], float] = time.perf_counter,
        outage: CatalogOutage | None = None,
    ) -> None:
        self.timing = Timing()
        self._connect = connect
        self._worker_id = worker_id
        self._on_disowned = on_disowned
        self._seconds = seconds
        self._connection: Connection | None = None
        self._number = 0
        self._unproven: int | None = None
        self._outage = outage or CatalogOutage()
        self._is_disowned = self._closed = False
        self._giving_up = Event()

    def open(self) -> Connection:
        """The connection, opened if need be; raises CatalogUnavailable."""
        if self._closed:
            raise CatalogUnavailable("the catalog is closed")
        if self._connection is not None and self._connection.raw.closed:
            self._drop()
        if self._connection is None:
            try:
                connection = Connection(self._connect())
                if self._worker_id is not None and not self._number:
                    row = connection.raw.execute(
                        "SELECT batch FROM workers WHERE id = $1", (self._worker_id,)
                    ).fetchone()
                    self._number = 0 if row is None else row[0]
                self._connection = connection
            except psycopg.Error as error:
                raise self._spoilt(error) from error
        return self._connection

    def give_up(self) -> None:
        """Wait no longer for the outcome of a COMMIT. For any thread."""
        self._giving_up.set()

    def close(self) -> None:
        """Nothing runs after this."""
        self._closed = True
        self._drop()

    def run(self, jobs: Sequence[CatalogJob[Any]]) -> list[Any]:
        """A result or a Failure for each job, in order; never raises."""
        results = [result for stretch in _stretches(jobs) for result in self._run(stretch)]
        if not all(isinstance(result, Failure) for result in results):
            self._outage.worked(self)
        return results

    def _run(self, jobs: Sequence[CatalogJob[Any]]) -> list[Any]:
        results: list[Any] = [None] * len(jobs)
        done = self._sets(jobs, results)
        rest = [at for at in range(len(jobs)) if at not in done]
        if rest:
            for at, result in zip(rest, self._classic([jobs[at] for at in rest]), strict=True):
                results[at] = result
        return results

    # Sets

    def _sets(self, jobs: Sequence[CatalogJob[Any]], results: list[Any]) -> set[int]:
        """Do the SetJobs, round by round; their places."""
        waiting = [at for at, job in enumerate(jobs) if isinstance(job, SetJob)]
        done = set(waiting)
        while waiting:
            keys: set[str] = set()
            now: list[int] = []
            later: list[int] = []
            data = 0
            for at in waiting:
                job = jobs[at]
                assert isinstance(job, SetJob)
                size = sum(len(row.get("piece_data", b"")) for rows in job.rows for row in rows)
                if job.key in keys or (data and size and data + size > MOST_DATA):
                    later.append(at)
                else:
                    now.append(at)
                    data += size
                keys.add(job.key)
            chosen = [job for job in (jobs[at] for at in now) if isinstance(job, SetJob)]
            for at, result in zip(now, self._together(chosen), strict=True):
                results[at] = result
            waiting = later
        return done

    def _together(self, jobs: Sequence[SetJob[Any]]) -> list[Any]:
        """All at once; if one fails by itself, in two halves, so that in the end it fails alone."""
        try:
            return self._in_one_go(jobs)
        except CatalogUnavailable as error:
            return [Failure(error) for _ in jobs]
        except _OWN_ERRORS as error:
            if len(jobs) == 1:
                if error.sqlstate == CONFLICT:
                    return [jobs[0].answer(None)]
                return [_own_failure(error)]
        half = len(jobs) // 2
        return self._together(jobs[:half]) + self._together(jobs[half:])

    def _in_one_go(self, jobs: Sequence[SetJob[Any]]) -> list[Any]:
        for attempt in range(REPEATS):
            try:
                return self._piece(jobs)
            except _Lost:
                if attempt == REPEATS - 1:
                    raise
            except _REPEATED as error:
                if attempt == REPEATS - 1:
                    raise self._spoilt(error) from error
        raise AssertionError("unreachable")

    def _piece(self, jobs: Sequence[SetJob[Any]]) -> list[Any]:
        """One transaction, or none where nothing is changed. Raises _OWN_ERRORS, _REPEATED, CatalogUnavailable."""
        writes = any(job.writes for job in jobs)
        connection, fresh, number = self._ready(writes)
        began = self._seconds()
        calls: list[Call] = []
        if writes and self._worker_id is not None:
            calls.append((BEGIN, [_encode([self._worker_id, number])]))
        if locked := sorted(job.key for job in jobs if job.locks):
            calls.append((LOCK_UPLOADS, [_encode(locked)]))
        first = len(calls)
        calls += _statements(jobs)
        try:
            found = connection.together(calls)[first:]
        except _OF_THE_DATABASE as error:
            raise self._spoilt(error) from error
        except (*_OWN_ERRORS, *_REPEATED):
            raise
        except (psycopg.Error, MemoryError) as error:
            refused = self._lost(error, connection, fresh)
            if writes and not isinstance(refused, Disowned) and self._has_landed(number, refused):
                raise CatalogUnavailable("it was changed, but the answers are lost") from error
            raise refused from error
        if writes:
            self._count(began, len(jobs))
        return _answers(jobs, [row for rows in found for row in rows])

    # Other jobs

    def _classic(self, jobs: Sequence[CatalogJob[Any]]) -> list[Any]:
        try:
            for attempt in range(REPEATS):
                try:
                    return self._attempt(jobs)
                except _Lost:
                    if attempt == REPEATS - 1:
                        raise
                except _REPEATED as error:
                    self._roll_back()
                    if attempt == REPEATS - 1:
                        raise self._spoilt(error) from error
        except CatalogUnavailable as error:
            return [Failure(error) for _ in jobs]
        raise AssertionError("unreachable")

    def _attempt(self, jobs: Sequence[CatalogJob[Any]]) -> list[Any]:
        writes = any(job.writes for job in jobs)
        connection, fresh, number = self._ready(writes)
        if not writes:
            try:
                return [_alone(job, connection) for job in jobs]
            except (psycopg.Error, MemoryError) as error:
                raise self._lost(error, connection, fresh) from error
        began = self._seconds()
        try:
            results = self._one_by_one(connection, jobs, number)
        except _REPEATED:
            raise
        except (psycopg.Error, MemoryError) as error:
            raise self._lost(error, connection, fresh) from error
        try:
            connection.raw.execute("COMMIT")
        except _REPEATED:
            raise
        except _OWN_ERRORS as error:  # a check at the end has failed: nothing of it has landed
            self._roll_back()
            return [_own_failure(error)] if len(jobs) == 1 else [self._classic([job])[0] for job in jobs]
        except (psycopg.Error, MemoryError) as error:
            refused = self._lost(error, connection, fresh)
            if not self._has_landed(number, refused):
                raise refused from error
        self._count(began, len(jobs))
        return results

    def _one_by_one(self, connection: Connection, jobs: Sequence[CatalogJob[Any]], number: int) -> list[Any]:
        """All in one transaction; if one fails by itself, all again with a savepoint for each."""
        connection.raw.execute("BEGIN")
        self._begin(connection, number)
        try:
            return [job.run(connection) for job in jobs]
        except Exception as error:
            if _is_fatal(error):
                raise
        connection.raw.execute("ROLLBACK")
        connection.raw.execute("BEGIN")
        self._begin(connection, number)
        results = []
        for job in jobs:
            connection.raw.execute("SAVEPOINT job")
            result = _alone(job, connection)
            if isinstance(result, Failure):
                connection.raw.execute("ROLLBACK TO job")
            connection.raw.execute("RELEASE job")
            results.append(result)
        return results

    # The transaction

    def _begin(self, connection: Connection, number: int) -> None:
        if self._worker_id is not None:
            connection.raw.execute("SELECT resumable_begin($1, $2)", (self._worker_id, number))

    def _ready(self, writes: bool) -> tuple[Connection, bool, int]:
        """The connection, whether it is new, and for changes the number of their transaction.

        Raises CatalogUnavailable, also while the outcome of an earlier change isn't known.
        """
        before = self._connection
        connection = self.open()
        if writes and self._unproven is not None:
            self._settle(self._unproven)
            connection = self.open()
        if writes:
            self._number += 1
        return connection, connection is not before, self._number

    def _lost(self, error: BaseException, connection: Connection, fresh: bool) -> CatalogUnavailable:
        """What an error of the database comes to; `_Lost` if it may be tried over another connection."""
        broken = connection.raw.broken and not fresh
        told = self._spoilt(error)
        return _Lost(str(told)) if broken and not isinstance(told, Disowned) else told

    def _roll_back(self) -> None:
        try:
            if self._connection is not None:
                self._connection.raw.execute("ROLLBACK")
        except psycopg.Error:
            self._drop()

    def _count(self, began: float, jobs: int) -> None:
        self.timing.seconds.add(self._seconds() - began)
        self.timing.jobs.add(jobs)

    def _has_landed(self, number: int, refused: CatalogUnavailable) -> bool:
        """After a COMMIT without an answer: whether that batch is on the disk all the same.

        Raises CatalogUnavailable when that can't be known for long; the next change begins with the same question.
        """
        if self._worker_id is None:
            raise CatalogUnavailable(str(refused), no_space=refused.no_space)
        self._unproven = number
        until = time.monotonic() + LOOKS * AGAIN
        for _ in range(LOOKS):
            try:
                return self._settle(number)
            except Disowned:
                raise
            except CatalogUnavailable as error:  # at once, or after a server has said nothing for long
                silent = isinstance(error.__cause__, NoAnswer)  # it has had its time; a process that ends gives it none
                if silent or self._giving_up.wait(AGAIN) or time.monotonic() > until:
                    break
        raise CatalogUnavailable(f"it isn't known whether it was changed: {refused}")

    SETTLE = """UPDATE workers SET batch = CASE WHEN batch = $2 THEN batch ELSE $2 + 1 END WHERE id = $1
        RETURNING batch = $2"""

    def _settle(self, number: int) -> bool:
        """Whether the batch has landed; if not, it never will. Waits for a transaction that is still under way.

        Raises CatalogUnavailable.
        """
        try:
            row = self.open().raw.execute(self.SETTLE, (self._worker_id, number)).fetchone()
        except psycopg.Error as error:
            raise self._spoilt(error) from error
        if row is None:
            raise self._disowned()
        self._unproven = None
        self._number = number + 1
        return bool(row[0])

    def _spoilt(self, error: BaseException) -> CatalogUnavailable:
        self._drop()
        told = unavailable(error)
        if getattr(error, "sqlstate", None) == DISOWNED:
            told = self._disowned()
        self._outage.failed(self, told)
        return told

    def _disowned(self) -> Disowned:
        if not self._is_disowned:
            self._is_disowned = True
            self._on_disowned()
        return Disowned("this worker was taken for dead, and ends")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.raw.close()


def _stretches(jobs: Sequence[CatalogJob[Any]]) -> list[Sequence[CatalogJob[Any]]]:
    """The jobs, cut where a SetJob comes after another kind of job on the same upload: sets go first."""
    found: list[Sequence[CatalogJob[Any]]] = []
    keys: set[str] = set()
    began = 0
    for at, job in enumerate(jobs):
        if isinstance(job, SetJob):
            if job.key in keys:
                found.append(jobs[began:at])
                keys, began = set(), at
        elif isinstance(job, KeyedJob):
            keys.add(job.key)
    return [*found, jobs[began:]]


def _statements(jobs: Sequence[SetJob[Any]]) -> list[Call]:
    """Each statement once, with its values, in the order of the uploads' ids."""
    found: dict[str, list[list[Mapping[str, Any]]]] = {}
    for job in sorted(jobs, key=lambda job: job.key):
        values = found.setdefault(job.statement, [[] for _ in job.rows])
        for value, rows in zip(values, job.rows, strict=True):
            value += rows
    return [(statement, _values(statement, values)) for statement, values in found.items()]


def _values(statement: str, values: Sequence[Sequence[Mapping[str, Any]]]) -> list[str | Sequence[bytes]]:
    """As JSON; bytes beside it, where the statement has a parameter for them."""
    if BYTES not in statement:
        return [_encode(value) for value in values]
    beside: list[bytes] = []

    def number(data: bytes) -> int:
        beside.append(data)
        return len(beside)

    encode = _encoder(default=number).encode
    return [*(encode(value) for value in values), beside]


def _answers(jobs: Sequence[SetJob[Any]], rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    landed = {row[0]: row for row in rows}
    results: list[Any] = []
    for job in jobs:
        try:
            results.append(job.answer(landed.get(job.key)))
        except Exception:
            results.append(Failure())
    return results


def _alone(job: CatalogJob[Any], connection: Connection) -> Any:
    try:
        return job.run(connection)
    except Exception as error:
        if _is_fatal(error):
            raise
        return _own_failure(error) if isinstance(error, _OWN_ERRORS) else of_one_job(error)


def _own_failure(error: psycopg.Error) -> Failure:
    """The failure of one job: a refusal, or a record that can't be."""
    return Failure(refusal(error) or ValueError(f"not a possible record: {error}"))


def _is_fatal(error: Exception) -> bool:
    """Whether the error is one of the database, not of one job."""
    if isinstance(error, psycopg.Error) and not isinstance(error, _OWN_ERRORS):
        return True
    return isinstance(error, (*_OF_THE_DATABASE, MemoryError))

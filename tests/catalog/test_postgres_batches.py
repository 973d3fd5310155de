"""Batches on PostgreSQL: a COMMIT whose answer is lost, connections that break, and a database that is away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from twisted.logger import capturedLogs, globalLogPublisher
from twisted.python.failure import Failure

from resumable.catalog.batches import CatalogJob
from resumable.catalog.postgres import postgres_batches as module
from resumable.catalog.postgres.postgres_batches import PostgresBatches, set_job
from resumable.model.errors import CatalogUnavailable
from tests.catalog.postgres_rig import Database, add, classic, question
from tests.waiting import eventually

pytestmark = pytest.mark.process


class Frail:
    """A connection that is lost at a moment that the test chooses.

    ``moment``: "before" the server has read a COMMIT, "after" it has done it, or "late": the server reads the whole
    piece only when the test says so, from another connection.
    """

    def __init__(self, raw: psycopg.Connection[Any], rig: Rig) -> None:
        self._raw = raw
        self._rig = rig
        self.prepare_threshold = None

    def _break(self) -> None:
        if not self._rig.is_stubborn:
            self._rig.moment = None
        pid = self._raw.info.backend_pid
        self._rig.database.do("SELECT pg_terminate_backend(%s, 5000)", pid)
        self._raw.execute("SELECT 1")

    def execute(self, statement: str | bytes, *values: Any, **options: Any) -> Any:
        failures, moment = self._rig.failures, self._rig.moment
        text = statement.decode() if isinstance(statement, bytes) else statement
        of_set = isinstance(statement, bytes) and not text.startswith("PREPARE")
        if text.startswith("PREPARE"):
            self._rig.prepared.append(text)
        if "finals" in text and failures:
            raise failures.pop()
        if moment == "late" and of_set:
            self._rig.late.append(text)
        if (moment == "late" and of_set) or (moment == "before" and text == "COMMIT"):
            self._break()
        done = self._raw.execute(statement, *values, **options)
        if moment == "after" and (of_set or text == "COMMIT"):
            self._break()
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


class Rig:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.moment: str | None = None
        self.late: list[str] = []
        self.prepared: list[str] = []
        self.is_stubborn = False  # each connection is lost at that moment
        self.failures: list[psycopg.Error] = []
        self.disowned: list[int] = []
        database.do("INSERT INTO workers (id, node, pid) VALUES ('w', 'here', 1)")
        self.batches = self.make()

    def make(self) -> PostgresBatches:
        return PostgresBatches(self.connect, "w", lambda: self.disowned.append(1))

    def connect(self) -> psycopg.Connection[Any]:
        return Frail(self.database.connect(), self)  # type: ignore[return-value]

    def keys(self) -> list[str]:
        return [key for (key,) in self.database.do("SELECT key FROM finals ORDER BY key")]

    def run(self, *jobs: CatalogJob[Any]) -> list[Any]:
        """Results; for a failure its exception."""
        results = self.batches.run(jobs)
        return [result.value if isinstance(result, Failure) else result for result in results]


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(Database())
    yield rig
    rig.batches.close()


# A COMMIT whose answer is lost


def test_a_change_that_has_landed_without_an_answer_counts_as_done(rig: Rig) -> None:
    rig.run(classic("a"))
    rig.moment = "after"
    assert rig.run(classic("b"), classic("c")) == [1, 1]
    assert rig.keys() == ["a", "b", "c"]


def test_a_change_that_has_not_landed_is_done_over_another_connection(rig: Rig) -> None:
    rig.run(classic("a"))
    rig.moment = "before"
    assert rig.run(classic("b")) == [1]
    assert rig.keys() == ["a", "b"]


def test_sets_with_much_data_are_several_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of each upload's changes, and however large one of them is."""
    batches, done = PostgresBatches(lambda: pytest.fail("nobody connects"), None), []
    monkeypatch.setattr(module, "MOST_DATA", 10)

    def together(jobs: Any) -> list[Any]:
        done.append([(job.key, len(job.rows[0][0].get("piece_data", b""))) for job in jobs])
        return [True for _ in jobs]

    monkeypatch.setattr(batches, "_together", together)
    sizes = [("a", 6), ("b", 5), ("b", 0), ("c", 4), ("d", 0), ("e", 30)]
    assert batches.run([set_job("", key, [{"piece_data": bytes(size)} if size else {}]) for key, size in sizes])
    assert done == [[("a", 6), ("c", 4), ("d", 0)], [("b", 5)], [("b", 0), ("e", 30)]]


def test_of_a_set_that_has_landed_the_answers_stay_unknown(rig: Rig) -> None:
    """Whether a compare-and-set has matched can't be asked afterwards: the callers read the rows."""
    rig.run(add("a"))
    rig.moment = "after"
    results = rig.run(add("b"), add("c"))
    assert [type(each) for each in results] == [CatalogUnavailable] * 2
    assert str(results[0]) == "it was changed, but the answers are lost"
    assert rig.keys() == ["a", "b", "c"]
    assert rig.run(add("d"), classic("e")) == [True, 1]


def test_a_set_that_has_not_landed_is_done_over_another_connection(rig: Rig) -> None:
    rig.run(add("a"))
    rig.moment = "late"
    assert rig.run(add("b")) == [True]
    assert rig.keys() == ["a", "b"]


@pytest.mark.parametrize(("make", "moment"), [(add, "late"), (classic, "before")])
def test_what_breaks_each_connection_fails_and_nothing_beside_it(
    rig: Rig, make: Callable[[str], CatalogJob[Any]], moment: str
) -> None:
    """As a server does whose process ends over it."""
    rig.run(add("a"))
    rig.moment, rig.is_stubborn = moment, True
    (refused,) = rig.run(make("b"))
    assert isinstance(refused, CatalogUnavailable), refused
    rig.moment = None
    assert rig.run(make("c")) == [make is classic or True]
    assert rig.keys() == ["a", "c"]


def test_what_was_disproven_never_lands_even_if_the_server_reads_it_later(rig: Rig) -> None:
    rig.moment = "late"
    (refused,) = rig.run(add("a"))
    assert isinstance(refused, CatalogUnavailable), "it is the first over its connection, so it isn't tried again"
    with rig.database.connect() as raw, pytest.raises(psycopg.Error, match="comes too late"):
        raw.execute("; ".join(rig.prepared).encode())
        raw.execute(rig.late[0].encode())
    assert rig.keys() == []
    assert rig.run(add("a")) == [True]


def test_a_transaction_that_is_still_under_way_is_waited_for(rig: Rig) -> None:
    rig.run(classic("a"))
    rig.moment = "late"
    raw = rig.database.connect()
    raw.execute("BEGIN")
    raw.execute("SELECT resumable_begin('w', $1)", (rig.batches._number + 1,))
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(rig.run(add("b"))))
    thread.start()
    eventually(lambda: rig.database.do("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0])
    raw.execute("COMMIT")
    raw.close()
    thread.join()
    assert str(results[0]) == "it was changed, but the answers are lost"


def test_while_nobody_knows_the_outcome_what_waits_behind_fails_soon(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.001)
    rig.run(add("a"))
    rig.moment = "after"
    connect, rig.batches._connect = rig.batches._connect, refuse
    (refused,) = rig.run(add("b"))
    assert str(refused).startswith("it isn't known whether it was changed: PostgreSQL: ")
    assert [type(each) for each in rig.run(add("c"), classic("d"), question())] == [CatalogUnavailable] * 3
    rig.batches._connect = connect
    assert rig.run(add("c")) == [True], "the outcome is asked first"
    assert rig.batches._unproven is None
    assert rig.keys() == ["a", "b", "c"]


def refuse() -> psycopg.Connection[Any]:
    raise psycopg.OperationalError("connection refused")


def test_a_stop_does_not_wait_for_an_outcome_that_nobody_knows(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN", 3600.0)
    rig.run(add("a"))
    rig.moment = "after"
    rig.batches._connect = refuse
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(rig.run(add("b"))))
    thread.start()
    eventually(lambda: rig.batches._unproven)
    rig.batches.give_up()
    thread.join()
    assert isinstance(results[0], CatalogUnavailable)


def test_what_waits_when_it_is_stopped_is_still_done(rig: Rig) -> None:
    rig.batches.give_up()
    assert rig.run(add("a"), classic("b")) == [True, 1]
    rig.batches.close()
    assert [type(each) for each in rig.run(add("c"), question())] == [CatalogUnavailable] * 2


def test_a_worker_without_a_row_learns_of_no_outcome_and_changes_nothing(rig: Rig) -> None:
    rig.run(add("a"))
    rig.database.do("DELETE FROM workers")
    rig.moment = "late"
    assert [type(each) for each in rig.run(add("b"))] == [module.Disowned]
    assert [type(each) for each in rig.run(classic("c"), add("d"))] == [module.Disowned] * 2
    assert (rig.keys(), rig.disowned) == (["a"], [1])


# Connections that break


def test_after_a_restart_of_the_database_nothing_fails(rig: Rig) -> None:
    for jobs in ([add("a")], [classic("b")], [question()], [add("c"), classic("d"), question()]):
        assert not any(isinstance(each, Exception) for each in rig.run(*jobs))
        rig.database.leave()
        rig.database.come_back()
    assert rig.keys() == ["a", "b", "c", "d"]


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for the outcome of a change."""
    monkeypatch.setattr(module, "AGAIN", 0.001)


@pytest.mark.usefixtures("quick_looks")
def test_while_the_database_is_away_changes_and_questions_fail_and_then_work_again(rig: Rig) -> None:
    rig.run(add("a"))
    rig.database.leave()
    for jobs in ([add("b")], [classic("c")], [question()]):
        (refused,) = rig.run(*jobs)
        assert isinstance(refused, CatalogUnavailable) and "\n" not in str(refused)
    rig.database.come_back()
    assert rig.run(question()) == [1]
    assert rig.run(add("b")) == [True]


@pytest.mark.usefixtures("quick_looks")
def test_while_the_database_is_away_the_log_says_so_once(rig: Rig) -> None:
    said: list[Any] = []
    globalLogPublisher.addObserver(said.append)
    try:
        for _ in range(2):
            rig.run(add("a"))
            rig.database.leave()
            for _ in range(5):
                rig.run(add("b"), question())
            rig.database.come_back()
    finally:
        globalLogPublisher.removeObserver(said.append)
    told = [event.get("reason") for event in said if event["log_namespace"].endswith("CatalogOutage")]
    assert [reason is None for reason in told] == [False, True, False]


# Jobs that fail by themselves, and each other


@pytest.mark.parametrize("writes", [False, True])
def test_a_record_that_can_not_be_read_is_told_of(rig: Rig, writes: bool) -> None:
    """Nobody else does: who asks takes it for a failure of the database."""

    def run(connection: Any) -> None:
        raise CatalogUnavailable("event 4 can't be read")

    with capturedLogs() as told:
        (failed,) = rig.run(CatalogJob(run, writes=writes))
    assert isinstance(failed, CatalogUnavailable)
    assert [each["reason"] for each in told] == ["event 4 can't be read"]


def test_a_job_that_fails_by_itself_fails_alone(rig: Rig) -> None:
    results = rig.run(classic("a"), classic("a"), classic("b"), add("c"), add("\x00"), add("d"))
    assert [type(each) for each in results] == [int, ValueError, int, bool, ValueError, bool]
    assert rig.keys() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("make", [add, classic])
def test_after_a_deadlock_it_is_done_again(rig: Rig, make: Callable[[str], CatalogJob[Any]]) -> None:
    rig.failures = [psycopg.errors.DeadlockDetected("a"), psycopg.errors.SerializationFailure("b")]
    assert rig.run(make("a")) == [1]
    assert (rig.failures, rig.keys()) == ([], ["a"])


@pytest.mark.parametrize("make", [add, classic])
def test_what_meets_a_deadlock_each_time_fails(rig: Rig, make: Callable[[str], CatalogJob[Any]]) -> None:
    rig.failures = [psycopg.errors.DeadlockDetected("a") for _ in range(module.REPEATS)]
    assert [type(each) for each in rig.run(make("a"))] == [CatalogUnavailable]
    assert rig.run(make("a")) == [1]


def test_a_process_that_freezes_in_a_transaction_loses_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends it, so that others get on; the process does it again when it goes on."""

    def freeze(connection: Any) -> int:
        connection.execute("INSERT INTO finals (key, id) VALUES ('a', 'x')")
        if frozen:
            pid = frozen.pop()
            eventually(lambda: not rig.database.do("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid))
        return 1

    frozen = [rig.batches.open().raw.info.backend_pid]
    assert rig.run(CatalogJob(freeze, writes=True)) == [1]
    assert rig.keys() == ["a"]


# What an operator has to change


def told(rig: Rig, *jobs: CatalogJob[Any]) -> str:
    (refused,) = {str(each) for each in rig.run(*jobs)}
    assert "\n" not in refused
    return refused


@pytest.mark.parametrize("make", [add, classic])
def test_a_database_that_may_only_be_read_says_so(rig: Rig, make: Callable[[str], CatalogJob[Any]]) -> None:
    rig.batches.open().raw.execute("SET default_transaction_read_only = on")
    assert told(rig, make("a")).endswith("name the primary in --catalog, or take default_transaction_read_only away")


def test_a_full_disk_is_told_apart(rig: Rig) -> None:
    def full(connection: Any) -> None:
        raise psycopg.errors.DiskFull(
            'could not extend file "base/1": No space left on device\nHINT: Check free space.'
        )

    (refused,) = rig.run(CatalogJob(full, writes=True))
    assert isinstance(refused, CatalogUnavailable) and refused.no_space and "\n" not in str(refused)


def test_tables_that_are_missing_or_forbidden_are_no_fault_of_a_record(rig: Rig) -> None:
    gone = CatalogJob(lambda connection: connection.execute("INSERT INTO nothing VALUES (1)"), writes=True)
    (refused,) = rig.run(gone)
    assert isinstance(refused, CatalogUnavailable)

"""A database that says nothing: the server hangs, or the network swallows all that is sent, and nobody is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.catalog.batches import CatalogJob
from resumable.catalog.postgres import postgres_batches
from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.postgres_batches import PostgresBatches
from resumable.catalog.postgres.postgres_connection import AnswerTime, BoundedConnection, NoAnswer, connector, take_long
from resumable.catalog.postgres.usage_table import enforce
from resumable.catalog.postgres.worker_table import PostgresWorkers
from resumable.model.errors import CatalogUnavailable
from resumable.model.usage import Quota
from resumable.model.workers import DEAD_AFTER, HEARTBEAT, Worker
from tests.catalog.doubles import HandBatcher
from tests.catalog.on_postgres import with_tables
from tests.catalog.postgres_rig import add, classic, question
from tests.own_postgres import Lines
from tests.waiting import eventually

pytestmark = pytest.mark.process

LONG = 120.0
"""Seconds that no answer takes."""


class Rig:
    """Batches over lines that the test cuts. While they are cut, they wait for a fifth of a second, else for long."""

    def __init__(self) -> None:
        self.server = with_tables()
        self.lines = Lines(self.server)
        self.answer_time = AnswerTime(LONG)
        self.connect = connector(self.lines.url, self.answer_time)
        self.do("INSERT INTO workers (id, node, pid) VALUES ('w', 'here', 1)")
        self.changes, self.questions = PostgresBatches(self.connect, "w"), PostgresBatches(self.connect, None)

    def cut(self, new: bool = True) -> None:
        self.lines.cut(new)
        self.answer_time.seconds = 0.2

    def mend(self) -> None:
        self.answer_time.seconds = LONG
        self.lines.mend()

    def do(self, statement: str) -> list[Any]:
        with psycopg.connect(self.server, autocommit=True) as raw:
            done = raw.execute(statement)
            return done.fetchall() if done.description else []

    def keys(self) -> list[str]:
        return [key for (key,) in self.do("SELECT key FROM finals ORDER BY key")]

    def close(self) -> None:
        self.changes.close()
        self.questions.close()
        self.lines.close()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(postgres_batches, "AGAIN", 0.01)
    rig = Rig()
    yield rig
    rig.close()


def outcome(batches: PostgresBatches, job: CatalogJob[Any]) -> Any:
    result = batches.run([job])[0]
    return result.value if isinstance(result, Failure) else result


def test_a_question_without_an_answer_fails_and_the_next_ones_go_on(rig: Rig) -> None:
    assert outcome(rig.questions, question()) == 0
    rig.cut()
    assert str(outcome(rig.questions, question())) == "PostgreSQL: the server doesn't answer"
    assert isinstance(outcome(rig.questions, question()), CatalogUnavailable)  # nor is there another connection
    rig.mend()
    assert outcome(rig.questions, question()) == 0


def test_a_change_without_an_answer_is_unknown_and_nothing_is_changed_before_it_is_proven(rig: Rig) -> None:
    """What was sent arrives late: it has landed then, and that is seen; or it never will."""
    assert outcome(rig.changes, add("a"))
    rig.cut()
    assert str(outcome(rig.changes, add("b"))).startswith("it isn't known whether it was changed")
    assert isinstance(outcome(rig.changes, add("c")), CatalogUnavailable)
    assert rig.keys() == ["a"]
    rig.mend()
    assert outcome(rig.changes, add("d"))  # not before it is known what became of b
    found = rig.keys()
    assert [key for key in found if key != "b"] == ["a", "d"]
    assert outcome(rig.changes, add("e"))
    assert rig.keys() == [*found, "e"]  # what wasn't there stays away


def test_a_change_that_gets_no_answer_before_its_commit_has_not_landed(rig: Rig) -> None:
    assert outcome(rig.changes, classic("a")) == 1
    rig.cut()
    assert str(outcome(rig.changes, classic("b"))) == "PostgreSQL: the server doesn't answer"
    rig.mend()
    assert outcome(rig.changes, classic("c")) == 1
    assert rig.keys() == ["a", "c"]


def test_a_commit_whose_answer_is_held_up_is_not_taken_for_failed(rig: Rig) -> None:
    """The server has done it; only its answer doesn't come."""
    assert outcome(rig.changes, classic("a")) == 1

    def run(connection: Any) -> int:
        count: int = connection.execute("INSERT INTO finals (key, id) VALUES ('b', 'x')").rowcount
        execute = connection.raw.execute

        def commit(statement: str) -> Any:
            if statement == "COMMIT":
                connection.raw.pgconn.send_query(b"COMMIT")
                eventually(lambda: rig.keys() == ["a", "b"])
                rig.cut()
                raise NoAnswer
            return execute(statement)

        connection.raw.execute = commit
        return count

    refused = outcome(rig.changes, CatalogJob(run, writes=True))
    assert str(refused).startswith("it isn't known whether it was changed")
    rig.mend()
    assert outcome(rig.changes, classic("c")) == 1
    assert rig.keys() == ["a", "b", "c"]


def test_who_stops_waits_once_and_then_for_nothing(rig: Rig) -> None:
    assert (outcome(rig.questions, question()), outcome(rig.changes, classic("a"))) == (0, 1)
    rig.lines.cut()
    results: list[Any] = []
    asked = [(rig.questions, question()), (rig.changes, classic("b"))]
    threads = [threading.Thread(target=lambda one=one: results.append(outcome(*one))) for one in asked]
    for thread in threads:
        thread.start()
    assert eventually(lambda: rig.lines.waiting)
    rig.changes.give_up()
    rig.answer_time.hurry(0.1)
    for thread in threads:
        thread.join()
    assert [type(each) for each in results] == [CatalogUnavailable] * 2
    assert rig.answer_time.over
    with pytest.raises(NoAnswer):
        rig.connect()
    assert isinstance(outcome(rig.changes, classic("c")), CatalogUnavailable)


def test_who_stops_asks_a_silent_server_once_what_became_of_a_change(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_batches, "AGAIN", LONG)
    assert outcome(rig.changes, add("a"))
    rig.lines.cut()
    rig.answer_time.hurry(0.1)
    assert str(outcome(rig.changes, add("b"))).startswith("it isn't known whether it was changed")


def test_who_hurries_waits_for_all_that_is_answered(rig: Rig) -> None:
    rig.answer_time.hurry(LONG / 2)
    assert [outcome(rig.changes, classic(key)) for key in "abc"] == [1, 1, 1]
    assert not rig.answer_time.over


def test_a_heartbeat_goes_over_another_connection_when_its_own_is_dead(rig: Rig) -> None:
    """So a worker isn't taken for dead for it. Nor does it take others for dead until it is sure of itself again."""
    batchers: dict[str, HandBatcher] = {}

    def make(name: str, work: Any) -> HandBatcher:
        batchers[name] = HandBatcher(work)
        return batchers[name]

    clock, disowned = Clock(), list[int]()
    workers = PostgresWorkers(
        rig.connect,
        Worker("beating", "here", 1, 0.0),
        clock,
        batcher=make,
        questions=PostgresCatalog(rig.connect, None, batcher=make).jobs,
        on_disowned=lambda: disowned.append(1),
    )

    def beat() -> Any:
        clock.advance(HEARTBEAT)
        batchers["workers"].flush()
        return rig.do("SELECT seen_at FROM workers WHERE id = 'beating'")[0][0]

    workers.register()
    workers.start()
    seen = beat()
    rig.cut(new=False)
    assert beat() == seen
    rig.answer_time.seconds = LONG
    for _ in range(int(DEAD_AFTER)):
        assert not workers.may_bury
        before, seen = seen, beat()
        assert seen > before
    clock.advance(HEARTBEAT)
    assert workers.may_bury and not disowned
    workers.stop()
    batchers["workers"].flush()


def test_only_silence_is_over_at_some_time(rig: Rig) -> None:
    """An answer that comes in pieces is waited for."""

    def answer() -> Iterator[Any]:
        while True:
            yield 1

    with rig.connect() as raw:
        assert isinstance(raw, BoundedConnection)
        waiting = raw._bounded(answer(), AnswerTime(0.0))  # type: ignore[arg-type]
        next(waiting)
        for _ in range(100):
            waiting.send(1)
        with pytest.raises(NoAnswer):
            waiting.send(0)
        assert raw.closed


def test_the_server_ends_a_statement_that_takes_too_long_and_what_may_take_long_goes_on() -> None:
    url = with_tables()
    with connector(url)() as raw:
        assert raw.execute("SELECT current_setting('statement_timeout')").fetchone() == ("9s",)
        take_long(raw)
        assert raw.execute("SELECT current_setting('statement_timeout')").fetchone() == ("0",)


@pytest.mark.parametrize("long", ["migrations", "counting"])
def test_migrations_and_counting_are_not_cut(long: str) -> None:
    """They wait for somebody's lock, longer than any question may."""
    url = with_tables()
    catalog = PostgresCatalog(connector(url, AnswerTime(0.1)), None, batcher=lambda name, work: HandBatcher(work))
    done: list[Any] = []

    def start() -> None:
        if long == "migrations":
            done.append(catalog.open().is_new)
        else:
            with connector(url, AnswerTime(0.1))() as raw:
                done.append(enforce(raw, Quota(size=1), Quota()))

    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE installation, uploads IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=start)
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        with psycopg.connect(url, autocommit=True) as look:
            assert eventually(lambda: (look.execute(waits).fetchone() or [0])[0])
            for _ in range(6):  # psycopg looks up ten times a second
                look.execute("SELECT pg_sleep(0.05)")
        assert thread.is_alive() and not done
    thread.join()
    assert done == [True]
    catalog.stop()

"""Several workers on one PostgreSQL: who sends a replica, and when an upload's next event goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from resumable.catalog.postgres import postgres_replicas
from resumable.model.replica import Backlog, IHeldReplicas
from resumable.model.upload import Commit, Fact, FactKind, GoneReason, Place, Replica, Segment
from tests.catalog.contract import done, name, upload
from tests.catalog.postgres_rig import Database, Process
from tests.waiting import eventually

pytestmark = pytest.mark.process

A = "s3"


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.stop()


def make(process: Process, *numbers: int, **values: Any) -> None:
    for number in numbers:
        made = process.catalog.create(done(upload(number)), (), [Replica(name(number), A, **values)])
        assert process.ask(made) is True


def due(process: Process, after: int = 0) -> list[str]:
    return [replica.upload_id for replica, _ in process.ask(process.catalog.replicas.due(A, 1e9, after, 100)).due]


# Replicas


def test_a_replica_is_sent_by_the_worker_that_created_its_upload(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    make(one, 1, 3)
    make(two, 2)
    assert (due(one), due(two)) == ([name(1), name(3)], [name(2)])
    assert one.ask(one.catalog.replicas.own(name(1), A)) == one.ask(one.catalog.replicas.get(name(1), A))
    assert one.ask(one.catalog.replicas.own(name(2), A)) is None, "another sends it"
    assert one.ask(one.catalog.replicas.own(name(9), A)) is None


def test_everybody_sees_it_all_the_same(database: Database) -> None:
    """Downloads read from remotes whoever brought the upload there, and the sweeper removes nothing of another's."""
    one, two = database.process("a"), database.process("b")
    make(one, 1)
    assert two.ask(two.catalog.replicas.get(name(1), A)) is not None
    assert [each.remote for each in two.ask(two.catalog.replicas.of(name(1)))] == [A]
    assert two.ask(two.catalog.replicas.unfinished()) == {A: 1}


def test_retries_are_those_of_this_worker_and_the_lag_is_that_of_all(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    make(one, 1, retry_at=50.0)
    make(two, 2, retry_at=40.0)
    assert one.ask(one.catalog.replicas.next_retry(A)) == 50.0
    assert two.ask(two.catalog.replicas.next_retry(A)) == 40.0
    assert one.ask(one.catalog.replicas.backlog(A)) == Backlog(2000, 2, 100.0)
    one.ask(one.catalog.replicas.hasten(A))
    assert one.ask(one.catalog.replicas.next_retry(A)) is None
    assert two.ask(two.catalog.replicas.next_retry(A)) == 40.0


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_the_lag_is_summed_up_in_pages(database: Database, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """From holder to holder; those that have none come last."""
    monkeypatch.setattr(postgres_replicas, "ROWS", rows)
    one, two = database.process("a"), database.process("b")
    assert one.ask(one.catalog.replicas.backlog(A)) == Backlog()
    make(one, 1, 3, 5)
    make(two, 2, 4)
    one.ask(one.catalog.create(upload(6), (), [Replica(name(6), "tape")]))
    one.ask(one.catalog.replicas.park(Replica(name(5), A), "no", 5.0))
    assert two.ask(two.catalog.replicas.backlog(A)) == Backlog(4000, 4, 100.0)
    database.do("UPDATE replicas SET holder = NULL WHERE upload_id = %s", name(1))
    assert two.ask(two.catalog.replicas.backlog(A)) == Backlog(4000, 4, 100.0)


def test_holders_are_told_and_one_that_is_gone_counts_as_the_worker_that_asks(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    assert verifyObject(IHeldReplicas, one.catalog.replicas)
    one.ask(one.catalog.create(upload(1), (), [Replica(name(1), each) for each in (A, "tape", "old")]))
    one.ask(one.catalog.replicas.park(Replica(name(1), "old"), "no", 5.0))
    assert two.ask(two.catalog.replicas.holders(name(1))) == {A: "a", "tape": "a"}
    two.ask(two.workers.declare_dead("a"))
    assert two.ask(two.catalog.replicas.holders(name(1))) == {A: "b", "tape": "b"}
    assert two.ask(two.catalog.replicas.holders(name(9))) == {}


def test_those_of_a_worker_that_is_gone_are_taken_over_a_bounded_number_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_replicas, "TAKEN_OVER", 2)
    one, two, three = (database.process(each) for each in "abc")
    make(one, 1, 2, 3)
    make(three, 4)
    assert due(two) == []
    two.ask(two.workers.declare_dead("a"))
    assert due(two, after=1) == [], "taken over at the beginning of a pass"
    assert len(due(two)) == 2
    assert due(two) == [name(1), name(2), name(3)]
    assert due(three) == [name(4)]


def test_one_that_gets_bytes_by_another_worker_is_taken_over_at_once_where_its_own_is_gone(database: Database) -> None:
    one, two, three = (database.process(each) for each in "abc")
    make(one, 1, 2)
    two.ask(two.workers.declare_dead("a"))
    assert two.ask(two.catalog.replicas.own(name(1), A)) is not None
    assert three.ask(three.catalog.replicas.own(name(1), A)) is None
    database.do("UPDATE replicas SET holder = NULL WHERE upload_id = %s", name(2))
    assert three.ask(three.catalog.replicas.own(name(2), A)) is not None
    assert due(two) == [name(1)]


def test_of_two_that_take_over_the_same_one_gets_it(database: Database) -> None:
    one, two, three = (database.process(each) for each in "abc")
    make(one, 1)
    two.ask(two.workers.declare_dead("a"))
    replicas = two.catalog.replicas
    assert two.ask(replicas._own(name(1), A))[1:] == ("a", False)
    assert due(three) == [name(1)]
    assert two.ask(replicas._take_over_one(name(1), A, "a")) is False
    two.ask(replicas._take_over(A, ["a"], True))
    assert due(two) == [] and due(three) == [name(1)]


def test_a_tool_without_a_worker_sees_what_all_have(database: Database) -> None:
    make(database.process("a"), 1)
    make(database.process("b"), 2, retry_at=5.0)
    tool = database.process("t", start=False)
    tool.catalog.replicas._worker_id = None
    tool.catalog.start()
    assert due(tool) == [name(1), name(2)]
    assert tool.ask(tool.catalog.replicas.own(name(1), A)) is not None
    assert tool.ask(tool.catalog.replicas.next_retry(A)) == 5.0
    assert tool.ask(tool.catalog.replicas.backlog(A)) == Backlog(2000, 2, 100.0)


# Events


def fact(number: int, kind: FactKind = FactKind.CREATED, at: float = 1.0) -> Fact:
    return Fact(kind, name(number), at, {})


def kinds(process: Process) -> list[FactKind]:
    return [event.fact.kind for event in process.ask(process.catalog.outbox.due("hook", 1e9, 100))]


def finish(process: Process, number: int) -> None:
    segment = Segment(0, 1000, f"{number}.0-a-x")
    change = Commit(
        name(number), 0, 0, 1000, 100.0, finished=True, facts=[fact(number, FactKind.FINISHED)], segment=segment
    )
    assert process.ask(process.catalog.commit(change)) is True


def test_that_an_upload_has_finished_is_told_once_its_file_is_whole(database: Database) -> None:
    one = database.process("a", ["hook"])
    for number in (1, 2):
        one.ask(one.catalog.create(upload(number), [fact(number)] if number == 1 else []))
        finish(one, number)
    assert kinds(one) == [FactKind.CREATED]
    (created,) = one.ask(one.catalog.outbox.due("hook", 1e9, 100))
    assert list(one.ask(one.catalog.outbox.delivered([created.seq]))) == [], "the next isn't ready"
    assert kinds(one) == []
    for number in (1, 2):
        assert one.ask(one.catalog.segments.made_whole(name(number))) is True
    assert kinds(one) == [FactKind.FINISHED] * 2


def test_behind_one_that_arrived_it_goes_at_once_when_the_file_is_there(database: Database) -> None:
    one = database.process("a", ["hook"])
    one.ask(one.catalog.create(upload(1), [fact(1)]))
    finish(one, 1)
    one.ask(one.catalog.segments.made_whole(name(1)))
    (created,) = one.ask(one.catalog.outbox.due("hook", 1e9, 100))
    (finished,) = one.ask(one.catalog.outbox.delivered([created.seq]))
    assert finished.fact.kind is FactKind.FINISHED


def test_it_is_told_too_when_the_file_will_never_be_made(database: Database) -> None:
    one = database.process("a", ["hook"])
    for number in (1, 2, 3):
        one.ask(one.catalog.create(upload(number), ()))
        finish(one, number)
    assert kinds(one) == []
    one.ask(one.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
    assert kinds(one) == [FactKind.FINISHED]
    database.do("UPDATE uploads SET dropped_at = 5 WHERE id = %s", name(2))
    database.do("DELETE FROM uploads WHERE id = %s", name(3))
    assert kinds(one) == [FactKind.FINISHED] * 3


@pytest.mark.parametrize("delivers", ["delivered", "bury"])
def test_an_event_that_comes_while_the_one_before_it_arrives_is_next(database: Database, delivers: str) -> None:
    """Without the lock of the upload's row the new one would be behind one that is gone, and never go."""
    one, two = database.process("a", ["hook"]), database.process("b", ["hook"])
    one.ask(one.catalog.create(done(upload(1)), [fact(1)], [Replica(name(1), A)]))
    database.do("UPDATE uploads SET placed = '> a', whole = true")
    (created,) = one.ask(one.catalog.outbox.due("hook", 1e9, 100))
    change = two.catalog.placed(name(1), Place("a", "5"), 5.0, [fact(1, FactKind.FINISHED)])
    outbox = one.catalog.outbox
    arrives = outbox.delivered([created.seq]) if delivers == "delivered" else outbox.bury(created.seq, "no", 5.0)
    with database.connect() as raw:
        raw.execute("SET idle_in_transaction_session_timeout = 0")
        raw.execute("BEGIN")
        raw.execute("SELECT 1 FROM uploads FOR NO KEY UPDATE")
        threads = [threading.Thread(target=each.batchers["catalog"].flush) for each in (one, two)]
        for thread in threads:
            thread.start()
        eventually(lambda: database.do("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0] == 2)
        raw.execute("COMMIT")
    for thread in threads:
        thread.join()
    one.ask(arrives)
    assert two.ask(change) is True
    assert kinds(one) == [FactKind.FINISHED]

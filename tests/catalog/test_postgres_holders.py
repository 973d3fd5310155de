"""Which worker holds an upload's replicas, as another one may ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attrs import evolve
from zope.interface.verify import verifyObject

from resumable.catalog.postgres.postgres_replicas import LATE
from resumable.model.replica import IHeldReplicas
from resumable.model.upload import GoneReason, Replica
from tests.catalog.contract import done, name, upload
from tests.catalog.postgres_rig import Database, Process

pytestmark = pytest.mark.process


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.stop()


def holders(process: Process, number: int) -> object:
    return process.ask(process.catalog.replicas.holders(name(number)))


def test_holders_are_those_of_replicas_that_wait_for_something(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    assert verifyObject(IHeldReplicas, one.catalog.replicas)
    copies = [Replica(name(1), remote) for remote in ("s3", "other", "third")]
    assert one.ask(one.catalog.create(done(upload(1)), (), copies)) is True
    assert holders(two, 1) == dict.fromkeys(("s3", "other", "third"), "a") == holders(one, 1)
    pair = one.ask(one.catalog.replicas.own(name(1), "s3"))
    one.ask(one.catalog.replicas.store(pair[0], {}, 5.0))
    one.ask(one.catalog.replicas.park(one.ask(one.catalog.replicas.own(name(1), "other"))[0], "no", 5.0))
    assert holders(two, 1) == {"third": "a"}
    assert two.ask(two.catalog.end(name(1), GoneReason.TERMINATED, 9.0, (), True)) is True
    assert holders(two, 1) == dict.fromkeys(("s3", "other", "third"), "a")
    assert holders(two, 9) == {}


def test_those_of_a_worker_that_is_gone_are_whose_who_asks(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    assert one.ask(one.catalog.create(done(upload(1)), (), [Replica(name(1), "s3")])) is True
    database.do("DELETE FROM workers WHERE id = 'a'")
    assert holders(two, 1) == {"s3": "b"}
    assert two.ask(two.catalog.replicas.own(name(1), "s3")) is not None
    three = database.process("c")
    assert holders(three, 1) == {"s3": "b"}


def test_what_was_taken_over_unstored_is_removed_three_times(database: Database) -> None:
    """A minute and a day after that: a frozen worker may have gone on with its request to the store."""
    one, two = database.process("a"), database.process("b")
    replicas = two.catalog.replicas
    assert one.ask(one.catalog.create(done(upload(1)), (), [Replica(name(1), "s3")])) is True
    database.do("DELETE FROM workers WHERE id = 'a'")
    assert two.ask(replicas.own(name(1), "s3")) is not None
    assert two.ask(two.catalog.end(name(1), GoneReason.TERMINATED, 9.0, (), True)) is True
    for pause in LATE:
        ((replica, _),) = two.ask(replicas.due("s3", time(database), 0, 10)).due
        two.ask(replicas.ended(replica))
        two.ask(replicas.hasten("s3"))
        now = time(database)
        assert two.ask(replicas.unfinished()) == {}
        assert two.ask(replicas.due("s3", now + pause - 30, 0, 10)).due == []
        ((replica, _),) = two.ask(replicas.due("s3", now + pause, 0, 10)).due
        database.do("UPDATE replicas SET retry_at = NULL")
    two.ask(replicas.ended(replica))
    assert two.ask(replicas.get(name(1), "s3")) is None


def test_what_was_stored_after_a_failure_is_removed_again(database: Database) -> None:
    """A request that got no answer may arrive late."""
    process = database.process("a")
    replicas = process.catalog.replicas
    copies = [Replica(name(1), "s3"), Replica(name(1), "other")]
    assert process.ask(process.catalog.create(done(upload(1)), (), copies)) is True
    assert process.ask(replicas.advance(evolve(copies[0], failing_since=4.0, error="no answer"))) is True
    for each in copies:
        assert process.ask(replicas.store(each, {}, 5.0)) == (True, each is copies[1])
    assert process.ask(process.catalog.end(name(1), GoneReason.TERMINATED, 9.0, (), True)) is True
    for each in copies:
        process.ask(replicas.ended(each))
    assert [each.remote for each in process.ask(replicas.of(name(1)))] == ["s3"]


def test_so_is_what_was_failing_when_it_ended(database: Database) -> None:
    process = database.process("a")
    replicas = process.catalog.replicas
    copies = [Replica(name(1), "s3"), Replica(name(1), "other")]
    assert process.ask(process.catalog.create(done(upload(1)), (), copies)) is True
    assert process.ask(replicas.advance(evolve(copies[0], failing_since=4.0, error="no answer"))) is True
    assert process.ask(process.catalog.end(name(1), GoneReason.TERMINATED, 9.0, (), True)) is True
    for each in copies:
        process.ask(replicas.ended(each))
    assert [each.remote for each in process.ask(replicas.of(name(1)))] == ["s3"]


def test_what_was_stored_before_its_worker_was_gone_is_removed_once(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    assert one.ask(one.catalog.create(done(upload(1)), (), [Replica(name(1), "s3")])) is True
    pair = one.ask(one.catalog.replicas.own(name(1), "s3"))
    one.ask(one.catalog.replicas.store(pair[0], {}, 5.0))
    database.do("DELETE FROM workers WHERE id = 'a'")
    assert two.ask(two.catalog.end(name(1), GoneReason.TERMINATED, 9.0, (), True)) is True
    ((replica, _),) = two.ask(two.catalog.replicas.due("s3", 10.0, 0, 10)).due
    two.ask(two.catalog.replicas.ended(replica))
    assert two.ask(two.catalog.replicas.get(name(1), "s3")) is None


def time(database: Database) -> float:
    ((now,),) = database.do("SELECT extract(epoch FROM clock_timestamp())::float8")
    return float(now)

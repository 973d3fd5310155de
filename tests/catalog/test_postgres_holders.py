"""Which worker holds an upload's replicas, as another one may ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from zope.interface.verify import verifyObject

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

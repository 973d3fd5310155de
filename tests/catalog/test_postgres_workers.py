"""Rows of workers and claims on PostgreSQL: who lives, who is taken for dead, and what it had."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from zope.interface.verify import verifyObject

from resumable.catalog.postgres.postgres_batches import Disowned
from resumable.catalog.postgres.wake import channel
from resumable.model.errors import CatalogUnavailable
from resumable.model.workers import BURIED, DEAD_AFTER, IClaims, IWorkers
from tests.catalog.postgres_rig import Database, Process

pytestmark = pytest.mark.process

LONG = DEAD_AFTER + 1


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.stop()


def ids(process: Process) -> list[str]:
    return [worker.id for worker in process.ask(process.workers.all())]


def test_they_provide_the_interfaces(database: Database) -> None:
    one = database.process("a", start=False)
    assert verifyObject(IWorkers, one.workers) and verifyObject(IClaims, one.claims)


# Workers


def test_all_are_those_with_a_fresh_heartbeat_oldest_first(database: Database) -> None:
    one, two = database.process("b"), database.process("a")
    assert ids(two) == ["b", "a"]
    found = one.ask(one.workers.all())[0]
    assert (found.node, found.pid, dict(found.options)) == ("node-b", os.getpid(), {"--base-path": "/files"})
    database.seconds(4, two)
    assert ids(two) == ["a"]
    database.seconds(1, one, two)
    assert ids(two) == ["b", "a"]


def test_a_heartbeat_comes_each_second_and_waits_for_the_one_before(database: Database) -> None:
    one = database.process("a")
    waiting = one.batchers["workers"].jobs
    assert len(waiting) == 0
    database.clock.advance(1)
    database.clock.advance(5)
    assert len(waiting) == 1
    one.batchers["workers"].flush()
    database.clock.advance(1)
    assert len(one.batchers["workers"].jobs) == 1


def test_a_worker_that_was_taken_for_dead_finds_out_by_its_heartbeat(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    assert two.ask(two.workers.declare_dead("a")) is True
    assert two.ask(two.workers.declare_dead("a")) is False
    database.seconds(1, one)
    assert one.disowned == ["heartbeat"]
    database.seconds(2, one)
    assert one.disowned == ["heartbeat"], "once"


def test_and_by_its_next_change_of_which_nothing_lands(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    one.ask(one.catalog.check())
    two.ask(two.workers.declare_dead("a"))
    with pytest.raises(Disowned):
        one.ask(one.catalog.check())
    assert one.disowned == ["changes"]


def test_who_gave_no_sign_for_long_is_buried_but_never_oneself(database: Database) -> None:
    one, _, three = (database.process(each) for each in "abc")
    database.seconds(LONG, one, three)
    assert one.ask(one.workers.bury_dead()) == ["b"]
    assert one.ask(one.workers.bury_dead()) == []
    assert ids(one) == ["a", "c"]
    database.do("UPDATE workers SET seen_at = 0 WHERE id = 'c'")
    assert one.ask(one.workers.bury_dead()) == ["c"]


def test_nobody_is_buried_by_a_worker_that_could_not_be_seen_itself(database: Database) -> None:
    """The database was away: nobody's heartbeat arrived, and whoever comes back first must not bury all others."""
    one, two = database.process("a"), database.process("b")
    database.seconds(LONG, one)
    database.leave()
    database.seconds(1, one)
    database.come_back()
    assert one.workers.may_bury is False
    database.seconds(LONG - 2, one)
    assert one.ask(one.workers.bury_dead()) == []
    database.seconds(3, one)
    assert one.ask(one.workers.bury_dead()) == [two.id]


def test_nobody_is_buried_by_a_worker_whose_own_heartbeat_was_late(database: Database) -> None:
    """The database stood still: whoever is served first afterwards must not bury those who come a moment later."""
    one, two = database.process("a"), database.process("b")
    database.seconds(LONG, one, two)
    database.clock.advance(1)
    asked = one.workers.bury_dead()
    database.do("UPDATE workers SET seen_at = seen_at - %s", LONG)
    database.clock.advance(LONG)
    assert one.ask(asked) == []
    assert one.ask(one.workers.bury_dead()) == []
    assert one.ask(one.claims.take("janitor")) == 1
    assert two.ask(two.claims.take("janitor")) is None
    database.seconds(LONG, one)
    assert one.ask(one.workers.bury_dead()) == ["b"]


def test_nobody_is_buried_by_a_worker_that_stood_still_with_the_others(database: Database) -> None:
    one, _ = database.process("a"), database.process("b")
    database.seconds(LONG, one)
    database.do("UPDATE workers SET seen_at = 0")
    assert one.ask(one.workers.bury_dead()) == [], "the database's own time tells nothing of them"


def test_whoever_takes_a_dead_workers_claim_tells_all_that_it_was_buried(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    one.ask(one.claims.take("janitor"))
    with database.connect() as listening:
        listening.execute(f'LISTEN "{channel(None)}"')
        database.seconds(LONG, two)
        assert two.ask(two.claims.take("janitor")) == 2
        (told,) = listening.notifies(timeout=5, stop_after=1)
    assert BURIED in told.payload


def test_nobody_is_buried_by_a_worker_that_stood_still_itself(database: Database) -> None:
    """The machine slept, or the server did: nobody's heartbeat arrived, whoever wakes first."""
    one, two = database.process("a"), database.process("b")
    database.seconds(LONG, one, two)
    database.clock.advance(LONG)
    database.do("UPDATE workers SET seen_at = seen_at - %s", LONG)
    assert one.workers.may_bury is False
    asked = one.workers.bury_dead()  # comes after the heartbeat that has waited, and before its answer is known
    assert one.ask(asked) == [] and one.ask(one.claims.take("janitor")) is not None
    assert one.workers.may_bury is False
    database.seconds(LONG - 2, one)
    assert one.ask(one.workers.bury_dead()) == []
    database.seconds(3, one)
    assert one.ask(one.workers.bury_dead()) == [two.id]


def test_a_server_that_stands_still_within_a_burial_makes_nobody_dead(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    database.seconds(LONG, one, two)
    database.do("UPDATE workers SET seen_at = seen_at - %s", LONG)  # the clock went on, and nobody's heartbeat came
    assert one.workers.may_bury is True
    assert one.ask(one.workers.bury_dead()) == []


def test_a_worker_with_a_transaction_under_way_is_not_buried(database: Database) -> None:
    one = database.process("a")
    database.process("b")
    database.seconds(LONG, one)
    with database.connect() as busy:
        busy.execute("BEGIN; SELECT resumable_begin('b', 1)")
        assert one.ask(one.workers.bury_dead()) == []
        busy.execute("COMMIT")
    assert one.ask(one.workers.bury_dead()) == ["b"]


def test_the_keeper_is_another_worker_with_a_fresh_heartbeat(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    database.do(
        "INSERT INTO uploads (id, created_at, touched_at, \"offset\", epoch, adoptable) VALUES ('u', 1, 1, 0, 0, 0)"
    )
    assert two.ask(two.workers.keeper("u")) is None
    database.do("UPDATE uploads SET kept_by = 'a'")
    assert two.ask(two.workers.keeper("u")) == "a"
    assert two.ask(two.workers.keeper("v")) is None
    assert one.ask(one.workers.keeper("u")) is None, "it is this one"
    database.seconds(4, two)
    assert two.ask(two.workers.keeper("u")) is None


def test_a_worker_that_stops_leaves_no_row(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    one.stop()
    assert ids(two) == ["b"]
    with pytest.raises(CatalogUnavailable):
        one.ask(one.workers.bury_dead())
    assert one.disowned == []


# Claims


def test_a_claim_is_one_workers_and_its_number_grows_when_it_changes_hands(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    assert one.ask(one.claims.take("janitor")) == 1
    assert two.ask(two.claims.take("janitor")) is None
    assert two.ask(two.claims.take("joiner")) == 1
    one.ask(one.claims.give_back("janitor"))
    assert two.ask(two.claims.take("janitor")) == 2
    two.ask(two.claims.give_back("janitor"))
    assert two.ask(two.claims.take("janitor")) == 3


def test_what_is_held_is_answered_from_memory(database: Database) -> None:
    one = database.process("a")
    one.ask(one.claims.take("janitor"))
    answer = one.claims.take("janitor")
    assert answer.called and one.ask(answer) == 1


def test_what_is_taken_while_all_is_given_back_is_not_held(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    taken, given_back = one.claims.take("janitor"), one.claims.stop()
    assert one.ask(given_back) is None and one.ask(taken) is None
    assert two.ask(two.claims.take("janitor")) == 2


def test_only_its_holder_gives_a_claim_back(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    one.ask(one.claims.take("janitor"))
    two.ask(two.claims.give_back("janitor"))
    assert two.ask(two.claims.take("janitor")) is None


def test_a_claim_whose_work_is_done_for_good_leaves_no_row(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    one.ask(one.claims.take("final:1"))
    two.ask(two.claims.drop("final:1"))
    assert two.ask(two.claims.take("final:1")) is None, "only its holder drops it"
    one.ask(one.claims.drop("final:1"))
    assert database.do("SELECT name FROM claims") == []
    assert two.ask(two.claims.take("final:1")) == 1
    one.ask(one.claims.drop("unknown"))


def test_the_claim_of_a_worker_without_a_row_is_taken_over(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    one.ask(one.claims.take("janitor"))
    two.ask(two.workers.declare_dead("a"))
    assert two.ask(two.claims.take("janitor")) == 2
    assert one.ask(one.claims.take("joiner")) is None, "it is taken for dead"


def test_a_holder_without_a_sign_for_long_is_buried_first(database: Database) -> None:
    one, two, _ = (database.process(each) for each in "abc")
    one.ask(one.claims.take("janitor"))
    database.seconds(DEAD_AFTER - 1, two)
    assert two.ask(two.claims.take("janitor")) is None
    database.seconds(2, two)
    assert two.ask(two.claims.take("janitor")) == 2
    assert database.do("SELECT id FROM workers ORDER BY id") == [("b",), ("c",)]
    assert two.ask(two.catalog.check()) is None
    with pytest.raises(Disowned):
        one.ask(one.catalog.check())


def test_a_claim_whose_answer_was_lost_is_found_with_the_same_number(database: Database) -> None:
    one = database.process("a")
    one.ask(one.claims._take("janitor"))
    assert one.ask(one.claims.take("janitor")) == 1


def test_a_stop_gives_all_back_before_the_row_goes(database: Database) -> None:
    one, two = database.process("a"), database.process("b")
    one.ask(one.claims.take("janitor"))
    one.ask(one.claims.stop())
    assert two.ask(two.claims.take("janitor")) == 2
    assert one.ask(one.claims.take("janitor")) is None
    assert one.ask(one.claims.take("other")) is None

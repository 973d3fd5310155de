"""Several workers on one PostgreSQL: one of them delivers each event of all."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import psycopg
import pytest
from twisted.internet.defer import Deferred

from resumable.hooks.claimed import SharedDeliverers, SharedHooks
from resumable.hooks.deliver import Deliverer
from resumable.model.upload import FactKind, GoneReason
from tests.catalog.contract import name, upload
from tests.catalog.postgres_rig import Database
from tests.cluster import Cluster
from tests.hooks.delivering import FAST, Recorder
from tests.hooks.outbox import fact

pytestmark = pytest.mark.process


class Worker:
    def __init__(self, room: Room, worker_id: str) -> None:
        self.room = room
        self.process = room.database.process(worker_id, ["hook"])
        self.hook = Recorder()
        clock = room.database.clock
        deliverer = Deliverer(
            "hook",
            self.hook,
            self.process.catalog.outbox,
            clock=clock,
            wall=clock.seconds,
            rng=Random(1),
            policy=FAST,
        )
        shared = SharedHooks(self.process.claims, room.cluster.join(worker_id))
        self.deliverers = SharedDeliverers([deliverer], shared, clock)
        self.process.catalog.on_facts = self.deliverers.wake
        self.deliverers.start()

    def create(self, number: int) -> None:
        made = self.process.catalog.create(upload(number), [fact(name(number), FactKind.CREATED)])
        assert self.process.ask(made) is True

    def end(self, number: int) -> None:
        told = [fact(name(number), FactKind.TERMINATED)]
        assert self.process.ask(self.process.catalog.end(name(number), GoneReason.TERMINATED, 9.0, told)) is True

    def got(self) -> list[tuple[str, str]]:
        return [(event.upload.id, event.kind.value) for event in self.hook.arrived]


class Room:
    def __init__(self) -> None:
        self.database = Database()
        self.cluster = Cluster()

    def worker(self, worker_id: str) -> Worker:
        worker = Worker(self, worker_id)
        self.run(0.1)
        return worker

    def run(self, seconds: float) -> None:
        for _ in range(20):
            for process in self.database.processes:
                for batcher in process.batchers.values():
                    batcher.flush()
            self.database.clock.advance(seconds / 20)


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    room.database.stop()


def test_one_worker_delivers_what_all_have_committed_in_the_order_of_each_upload(room: Room) -> None:
    one, two = room.worker("a"), room.worker("b")
    two.create(1)
    one.create(2)
    one.end(1)
    two.end(2)
    room.run(0.5)
    assert sorted(one.got()) == sorted((name(n), kind) for n in (1, 2) for kind in ("created", "terminated"))
    for number in (1, 2):
        events = [event for event in one.hook.arrived if event.upload.id == name(number)]
        assert [event.kind.value for event in events] == ["created", "terminated"]
        assert events[0].sequence < events[1].sequence
    assert two.got() == []


def test_another_takes_over_when_the_row_of_the_first_is_gone(room: Room) -> None:
    one, two = room.worker("a"), room.worker("b")
    one.hook.answer = lambda event: Deferred()
    two.create(1)
    two.end(1)
    room.run(0.5)
    assert len(one.hook.came) == 1
    room.database.do("DELETE FROM workers WHERE id = 'a'")
    room.cluster.die("a")
    room.run(1.5)
    room.run(0.5)
    assert two.got() == [(name(1), "created"), (name(1), "terminated")]
    assert two.hook.came[0] == one.hook.came[0]


def test_a_worker_that_stops_gives_its_hooks_to_another(room: Room) -> None:
    one, two = room.worker("a"), room.worker("b")
    stopped: list[Any] = []
    Deferred.fromCoroutine(one.deliverers.stop()).addBoth(stopped.append)
    room.run(0.1)
    assert stopped == [None]
    two.create(1)
    room.run(0.2)
    assert two.got() == [(name(1), "created")]


def test_an_event_whose_transaction_commits_after_later_ones_is_delivered(room: Room) -> None:
    one, two = room.worker("a"), room.worker("b")
    one.hook.answer = lambda event: Deferred() if event.upload.id == name(1) else None
    two.create(1)  # its event stays here, so not all is read over and over
    room.run(0.5)
    with psycopg.connect(room.database.url) as slow:
        slow.execute(
            "INSERT INTO outbox (deliverer, upload_id, kind, at, data, state)"
            " VALUES ('hook', 'slow', 'terminated', 1, '{}', 'next')"
        )
        two.create(2)
        room.run(0.5)
        assert one.got() == [(name(2), "created")]
        slow.commit()
    room.run(1.5)
    assert one.got()[-1] == ("slow", "terminated")

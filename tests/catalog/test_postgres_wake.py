"""Messages between workers on PostgreSQL, in the reactor, with the real batcher."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from zope.interface.verify import verifyObject

from resumable.aio.threads import Batcher
from resumable.catalog.postgres.postgres_connection import connector
from resumable.catalog.postgres.wake import MOST_BYTES, MOST_WAITING, PostgresWake, packed
from resumable.model.errors import CatalogUnavailable
from resumable.model.workers import IWake
from tests.catalog.doubles import HandBatcher
from tests.postgres import database

pytestmark = pytest.mark.process


@functools.cache
def url() -> str:
    return database()


class Worker:
    """A worker that hears what is told about "topic"."""

    def __init__(self, worker_id: str, connect: Callable[[], psycopg.Connection[Any]] | None = None) -> None:
        from twisted.internet import reactor

        self.wake = PostgresWake(
            connect or connector(url()),
            worker_id,
            reactor,  # type: ignore[arg-type]
            batcher=lambda name, work: Batcher(reactor, work, name=name),  # type: ignore[arg-type]
        )
        self.heard: list[tuple[str, str]] = []
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self.wake.listen("topic", self._hear)
        self.wake.start()

    def _hear(self, sender: str, text: str) -> None:
        self.heard.append((sender, text))
        for count, waiter in self._waiting:
            if len(self.heard) == count:
                waiter.callback(None)

    def hears(self, count: int) -> Deferred[None]:
        """Fires when so many were heard in all."""
        waiter: Deferred[None] = Deferred()
        if len(self.heard) >= count:
            waiter.callback(None)
        else:
            self._waiting.append((count, waiter))
        return waiter


async def hung_up(*workers: Worker) -> None:
    for worker in workers:
        await worker.wake.stop()


def do(statement: str, *values: object) -> list[Any]:
    with psycopg.connect(url(), autocommit=True) as connection:
        done = connection.execute(statement, values or None)
        return done.fetchall() if done.description else []


def test_it_provides_the_interface() -> None:
    def make(name: str, work: Callable[[list[Any]], Sequence[Any]]) -> HandBatcher:
        return HandBatcher(work)

    assert verifyObject(IWake, PostgresWake(connector("postgresql://h"), "a", Clock(), batcher=make))


@pytest_twisted.ensureDeferred
async def test_one_is_told_or_all_others_are() -> None:
    workers = one, two, three = Worker("a"), Worker("b"), Worker("c")
    assert [await worker.wake.hears_itself() for worker in workers] == [True] * 3
    one.wake.tell("b", "topic", "to b")
    one.wake.tell(None, "topic", "to all: na\u00efve \u2603 \x00 \ud800 '\"")
    one.wake.tell("a", "topic", "to myself")
    one.wake.tell(None, "unheard", "of nobody")
    two.wake.tell("c", "topic", "the end")
    await two.hears(2)
    await three.hears(2)
    await one.hears(1)
    assert one.heard == [("a", "to myself")], "not what it told all"
    told = ("a", "to all: na\u00efve \u2603 \x00 \ud800 '\"")
    assert sorted(two.heard) == [told, ("a", "to b")]
    assert sorted(three.heard) == [told, ("b", "the end")]
    await hung_up(*workers)
    assert do("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'resumable'") == [(0,)]


@pytest_twisted.ensureDeferred
async def test_what_is_alike_is_told_once_and_what_is_much_in_several_pieces() -> None:
    one, two = Worker("a"), Worker("b")
    assert await two.wake.hears_itself()
    many = [f"{number:04}" * 500 for number in range(20)]
    for text in ["x", "x", *many, "x"]:
        one.wake.tell("b", "topic", text)
    await two.hears(21)
    one.wake.tell("b", "topic", "x")
    await two.hears(22)
    assert [text for _, text in two.heard] == ["x", *many, "x"]
    await hung_up(one, two)


def test_each_piece_is_short_enough_whatever_it_is_made_of() -> None:
    messages = [
        ("c", "topic", each * number) for number in range(1, 1000, 37) for each in ("x", "\u2603", "\x00", '"\\')
    ]
    pieces = list(packed("0123456789abcdef", messages))
    assert 1 < len(pieces) < len(messages)
    assert max(len(text.encode()) for _, text in pieces) <= MOST_BYTES


class Rig:
    """A worker's wake without a reactor's descriptors."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.told: list[Any] = []
        self.wake = PostgresWake(
            self.refuse,
            "a",
            self.clock,  # type: ignore[arg-type]
            batcher=lambda name, work: self._keep(HandBatcher(work)),
        )

    def refuse(self) -> psycopg.Connection[Any]:
        self.told.append(self.clock.seconds())
        raise psycopg.OperationalError("connection to postgresql://u:secret@h/ failed")

    def _keep(self, batcher: HandBatcher) -> HandBatcher:
        self.batcher = batcher
        return batcher


def test_while_the_database_is_away_it_is_tried_more_and_more_rarely() -> None:
    rig = Rig()
    rig.wake.start()
    for _ in range(160):
        rig.batcher.flush()
        rig.clock.advance(0.125)
    assert rig.told == [0, 0.125, 0.625, 1.625, 3.625, 8.625, 13.625, 18.625]
    rig.wake.stop()
    assert rig.clock.getDelayedCalls() == []


def test_while_the_database_is_away_memory_is_bounded_and_nothing_is_told_late() -> None:
    rig = Rig()
    rig.wake.start()
    for number in range(MOST_WAITING + 5):
        rig.wake.tell(None, "topic", str(number))
    assert len(rig.wake._waiting) == MOST_WAITING
    rig.clock.advance(0)
    rig.batcher.flush()
    assert rig.wake._waiting == {}
    rig.wake.tell(None, "topic", "x" * MOST_BYTES)
    assert rig.wake._waiting == {}, "is too long"
    rig.wake.stop()


def test_a_worker_that_cannot_reach_the_database_says_so_when_it_is_to_hear_itself() -> None:
    rig = Rig()
    rig.wake.start()
    answer = rig.wake.hears_itself()
    failed: list[Any] = []
    answer.addErrback(lambda failure: failed.append(failure.type))
    for _ in range(60):
        rig.batcher.flush()
        rig.clock.advance(0.1)
    assert failed == [CatalogUnavailable]
    rig.wake.stop()
    assert rig.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_after_a_broken_connection_messages_are_heard_again() -> None:
    one, two = Worker("a"), Worker("b")
    assert await one.wake.hears_itself() and await two.wake.hears_itself()
    do("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'resumable'")
    one.wake.tell("b", "topic", "again")
    while not two.heard:
        one.wake.tell("b", "topic", "again")
        await deferLater(reactor(), 0.02)
    assert set(two.heard) == {("a", "again")}
    await hung_up(one, two)


def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest_twisted.ensureDeferred
async def test_behind_a_pooler_that_gives_each_transaction_another_connection_it_hears_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LISTEN reaches a connection that is not this one any more."""
    monkeypatch.setattr("resumable.catalog.postgres.wake.HEARING", 0.3)
    connect = connector(url())

    class Pooled:
        def __init__(self, raw: psycopg.Connection[Any]) -> None:
            self._raw = raw

        def execute(self, statement: str, *values: Any) -> Any:
            done = self._raw.execute(statement, *values)
            if "LISTEN" in statement:
                self._raw.execute("UNLISTEN *")
            return done

        def __getattr__(self, name: str) -> Any:
            return getattr(self._raw, name)

    one = Worker("a", lambda: Pooled(connect()))  # type: ignore[arg-type,return-value]
    assert await one.wake.hears_itself() is False
    await hung_up(one)


@pytest_twisted.ensureDeferred
async def test_a_listener_that_fails_keeps_no_other_from_hearing() -> None:
    one, two = Worker("a"), Worker("b")
    two.wake._listeners["topic"].insert(0, lambda sender, text: 1 / 0)  # type: ignore[arg-type,return-value]
    assert await two.wake.hears_itself()
    do("SELECT pg_notify('resumable_b', 'not one of ours')")
    do("SELECT pg_notify('resumable_b', '[1, 2]')")
    do("SELECT pg_notify('resumable_b', '[\"a\", false, [5]]')")
    one.wake.tell("b", "topic", "x")
    await two.hears(1)
    assert two.heard == [("a", "x")]
    await hung_up(one, two)

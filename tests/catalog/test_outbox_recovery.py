"""Outbox events and owners outlive releases and damage; an attempt that can't be read is forgotten, the fact is not."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs

from resumable.catalog.schema import MIGRATIONS, PAGE_SIZE
from resumable.catalog.sqlite import OpenedCatalog, SqliteCatalog
from resumable.model.errors import CatalogUnavailable
from resumable.model.outbox import OutboxEvent
from resumable.model.upload import Fact, FactKind, Place, Replica
from tests.catalog.contract import name, upload
from tests.catalog.damaging import content, pages_of, spoil
from tests.catalog.doubles import Shelf, older_version

COUNT = 300
KINDS = (FactKind.CREATED, FactKind.FINISHED, FactKind.TERMINATED)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def facts_of(number: int) -> list[Fact]:
    return [Fact(kind, name(number), float(number), {"length": 1000, "offset": at}) for at, kind in enumerate(KINDS)]


def record(number: int) -> Any:
    place = Place(f"2026/f\u00efle {number}", str(number) if number % 2 else None)
    return upload(number, owner=f"owner-{number % 7}", max_size=number + 1, place=place)


def outbox_of(catalog: SqliteCatalog) -> tuple[list[OutboxEvent], list[OutboxEvent]]:
    """All events that wait, in their order and delivered by that, and the dead."""
    waiting: list[OutboxEvent] = []
    while found := ask(catalog, catalog.outbox.due("hook", 1e9, 10_000)):
        waiting += found
        ask(catalog, catalog.outbox.delivered([event.seq for event in found]))
    return sorted(waiting, key=lambda event: event.seq), ask(catalog, catalog.outbox.dead("hook", 0, 10_000))


def ask(catalog: SqliteCatalog, answer: Any) -> Any:
    catalog.jobs._batcher.flush()
    return answer.result


def life(shelf: Shelf, count: int = COUNT) -> tuple[dict[int, OutboxEvent], dict[int, OutboxEvent]]:
    """A catalog with events of all kinds; answers those that wait and those that are dead."""
    catalog = shelf.running(deliverers=["hook"])
    for number in range(count):
        catalog.create(record(number), facts_of(number))
    shelf.flush()
    events = [
        OutboxEvent(seq, "hook", fact) for seq, fact in enumerate((f for n in range(count) for f in facts_of(n)), 1)
    ]
    waiting, dead = {event.seq: event for event in events}, {}
    for number in range(0, count, 3):
        seq = 3 * number + 1
        if number % 2:
            catalog.outbox.failed(seq, "it answered 503", 5.0)
            waiting[seq] = evolve(waiting[seq], attempts=1, error="it answered 503", retry_at=5.0)
        else:
            catalog.outbox.bury(seq, "too old", 6.0)
            dead[seq] = evolve(waiting.pop(seq), attempts=1, error="too old", dead_at=6.0)
    assert catalog.stop().called
    return waiting, dead


def test_damage_elsewhere_costs_no_event_and_no_owner(shelf: Shelf) -> None:
    waiting, dead = life(shelf)
    spoil(shelf.path, *pages_of(shelf.path, "uploads_by_id", "leaf")[:2])
    catalog = shelf.catalog(deliverers=["hook"])
    assert catalog.open().recovered == COUNT
    assert content(catalog) == {name(number): record(number) for number in range(COUNT)}
    catalog.start()
    due = ask(catalog, catalog.outbox.due("hook", 0.0, 10_000))
    wanted = [3 * number + (1 if number % 3 else 2) for number in range(COUNT) if number % 3 or number % 2 == 0]
    assert [event.seq for event in due] == wanted, "the oldest of each upload, but those that wait for a time"
    assert outbox_of(catalog) == (list(waiting.values()), list(dead.values()))
    assert catalog.stop().called


def test_a_smashed_first_page_costs_no_event_and_no_owner(shelf: Shelf) -> None:
    waiting, dead = life(shelf)
    spoil(shelf.path, 1)
    catalog = shelf.catalog(deliverers=["hook"])
    assert catalog.open().recovered == COUNT
    assert content(catalog) == {name(number): record(number) for number in range(COUNT)}
    catalog.start()
    assert outbox_of(catalog) == (list(waiting.values()), list(dead.values()))
    assert catalog.stop().called


def test_bad_pages_cost_the_events_on_them_alone(shelf: Shelf) -> None:
    waiting, dead = life(shelf)
    spoil(shelf.path, *pages_of(shelf.path, "outbox", "leaf")[3:5])
    spoil(
        shelf.path, *pages_of(shelf.path, "outbox_by_state", "leaf"), *pages_of(shelf.path, "outbox_by_upload", "leaf")
    )
    catalog = shelf.running(deliverers=["hook"])
    found, found_dead = outbox_of(catalog)
    assert all(waiting[event.seq] == event for event in found)
    assert all(dead[event.seq] == event for event in found_dead)
    assert len(waiting) + len(dead) - 150 < len(found) + len(found_dead) < len(waiting) + len(dead)
    assert catalog.stop().called


def test_an_attempt_that_is_none_of_ours_is_forgotten_and_the_fact_kept(shelf: Shelf) -> None:
    life(shelf, 12)
    changes = ("attempts = 'x'", "attempts = -1", "error = x'00'", "retry_at = 'soon'", "dead_at = 'what'")
    with closing(sqlite3.connect(shelf.path)) as connection:
        for seq, change in enumerate(changes, 1):
            connection.execute(f"UPDATE outbox SET {change} WHERE seq = ?", (3 * seq,))
        connection.execute("UPDATE outbox SET kind = 'what' WHERE seq = 18")
        connection.execute("UPDATE outbox SET data = '{' WHERE seq = 21")
        connection.commit()
    spoil(shelf.path, *pages_of(shelf.path, "uploads_by_id", "leaf"))
    catalog = shelf.running(deliverers=["hook"])
    found = {event.seq: event for event in outbox_of(catalog)[0]}
    for seq in (3, 6, 9, 12, 15):
        assert found[seq] == OutboxEvent(seq, "hook", facts_of(seq // 3 - 1)[2])
    assert not {18, 21} & set(found)
    assert catalog.stop().called


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE outbox SET error = CAST(x'ff41' AS TEXT) WHERE seq = 3",
        "UPDATE outbox SET data = CAST(x'ff41' AS TEXT) WHERE seq = 3",
        "UPDATE uploads SET owner = CAST(x'ff41' AS TEXT) WHERE seq = 3",
    ],
)
def test_text_that_can_not_be_read_is_found_at_the_start(shelf: Shelf, change: str) -> None:
    life(shelf, 10)
    with closing(sqlite3.connect(shelf.path)) as connection:
        connection.execute(change)
        connection.commit()
    catalog = shelf.catalog()
    assert catalog.open().recovered in (9, 10)
    assert catalog.stop().called


def test_an_event_that_can_not_be_read_says_so(shelf: Shelf) -> None:
    life(shelf, 2)
    with closing(sqlite3.connect(shelf.path)) as connection:
        connection.execute("UPDATE outbox SET data = '{' WHERE seq = 4")
        connection.commit()
    catalog = shelf.running(deliverers=["hook"])
    with capturedLogs() as told:
        answer = catalog.outbox.due("hook", 0.0, 10)
        shelf.flush()
    with pytest.raises(CatalogUnavailable, match="outbox event 4"):
        answer.result.raiseException()
    answer.addErrback(lambda failure: None)
    assert [(each["log_level"], each["reason"]) for each in told] == [(LogLevel.error, "outbox event 4 can't be read")]
    assert catalog.stop().called


OLDER = range(1, len(MIGRATIONS))


@pytest.mark.parametrize("version", OLDER)
def test_a_catalog_of_an_older_version_keeps_its_facts(shelf: Shelf, version: int) -> None:
    facts = [fact for number in range(COUNT) for fact in facts_of(number)]
    records = [upload(number) for number in range(COUNT)]
    older_version(shelf, version, records, facts)
    catalog = shelf.running(deliverers=["hook"])
    assert content(catalog) == {one.id: one for one in records}
    due = ask(catalog, catalog.outbox.due("hook", 0.0, 10_000))
    assert [event.seq for event in due] == list(range(1, 3 * COUNT, 3)), "the oldest of each upload"
    assert outbox_of(catalog)[0] == [OutboxEvent(seq, "hook", fact) for seq, fact in enumerate(facts, 1)]
    assert catalog.stop().called


@pytest.mark.slow
@pytest.mark.parametrize("migrated", [True, False], ids=["migrated", "as it was"])
@pytest.mark.parametrize("page", ["first", "leaf of an index"])
@pytest.mark.parametrize("version", OLDER)
def test_a_damaged_catalog_of_an_older_version_is_saved(shelf: Shelf, version: int, page: str, migrated: bool) -> None:
    facts = [fact for number in range(COUNT) for fact in facts_of(number)]
    records = [upload(number) for number in range(COUNT)]
    replicas = [Replica(name(number), "s3", key=f"k{number}") for number in range(COUNT)] if version > 1 else []
    older_version(shelf, version, records, facts, replicas)
    if migrated:
        assert shelf.running(deliverers=["hook"]).stop().called
    spoil(shelf.path, 1 if page == "first" else pages_of(shelf.path, "uploads_by_id", "leaf")[0])
    catalog = shelf.catalog(deliverers=["hook"])
    assert catalog.open().recovered == COUNT
    assert content(catalog) == {one.id: one for one in records}
    catalog.start()
    assert outbox_of(catalog)[0] == [OutboxEvent(seq, "hook", fact) for seq, fact in enumerate(facts, 1)]
    found = [catalog.replicas.of(one.id) for one in records]
    shelf.flush()
    assert [evolve(one, seq=0) for answer in found for one in answer.result] == replicas
    assert catalog.stop().called


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), hits=st.integers(1, 12), size=st.sampled_from([16, 300, PAGE_SIZE, 20_000]))
def test_whatever_is_overwritten_the_events_go_on(
    tmp_path_factory: pytest.TempPathFactory, seed: int, hits: int, size: int
) -> None:
    shelf = Shelf(tmp_path_factory.mktemp("damaged"))
    chance = random.Random(seed)
    life(shelf, 200)
    for _ in range(hits):
        with open(shelf.path, "r+b") as file:
            file.seek(chance.randrange(os.path.getsize(shelf.path)))
            file.write(chance.randbytes(size))
    catalog = shelf.catalog(deliverers=["hook"])
    saved = catalog.open().recovered is not None
    catalog.start()
    if saved:
        outbox_of(catalog)
        assert ask(catalog, catalog.outbox.depth("hook")).waiting == 0, "nothing waits for ever"
    assert catalog.stop().called
    again = shelf.catalog(deliverers=["hook"])
    assert again.open() == OpenedCatalog(created=False)
    assert again.stop().called

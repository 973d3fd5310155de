"""What a damaged catalog knew of replicas is saved as far as it can be read; none is taken for stored by mistake."""

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

from resumable.catalog.recovery.recover import REASON
from resumable.catalog.schema import PAGE_SIZE
from resumable.catalog.sqlite import OpenedCatalog, SqliteCatalog
from resumable.model.upload import GoneReason, Replica, ReplicaState, Upload
from tests.catalog.contract import done, name, upload
from tests.catalog.damaging import content, pages_of, spoil
from tests.catalog.doubles import Shelf, first_version

COUNT = 400
WORDS = {"location": "s3://bucket/" + "k" * 100, "etag": '"x"'}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def life(catalog: SqliteCatalog, number: int) -> None:
    """One upload and its replica, in a state that depends on the number."""
    replicas, record = catalog.replicas, done(upload(number))
    one = Replica(record.id, "s3", key=f"key-{number}", confirmed=7, run="before", attempts=1, error="503")
    catalog.create(record, (), [one])
    replicas.save_journal(record.id, "s3", {"plan": [[number, 2]]})
    replicas.save_part(record.id, "s3", 1, f"etag-{number}")
    match number % 4:
        case 1:
            replicas.store(one, WORDS, 200.0)
        case 2:
            replicas.park(one, "denied", 200.0)
        case 3:
            catalog.end(record.id, GoneReason.TERMINATED, 200.0, (), delete=True)


def fill(shelf: Shelf, count: int = COUNT) -> dict[str, Replica]:
    """A catalog of so many; answers the replicas in it."""
    catalog = shelf.running()
    for number in range(count):
        life(catalog, number)
    shelf.flush()
    found = replicas_of(catalog, range(count))
    assert catalog.stop().called
    return found


def replicas_of(catalog: SqliteCatalog, numbers: Any) -> dict[str, Replica]:
    answers = [catalog.replicas.of(name(number)) for number in numbers]
    flush(catalog)
    return {one.upload_id: evolve(one, seq=0) for answer in answers for one in answer.result}


def flush(catalog: SqliteCatalog) -> None:
    catalog.jobs._batcher.flush()


def saved(shelf: Shelf) -> tuple[SqliteCatalog, dict[str, Upload], dict[str, Replica]]:
    """The catalog made of the damaged one, running, and what is in it."""
    catalog = shelf.catalog()
    assert catalog.open().recovered is not None
    records = content(catalog)
    catalog.start()
    return catalog, records, replicas_of(catalog, range(COUNT))


def unasked(replica: Replica) -> Replica:
    """As it comes out of the damage: whatever the run was, the remote has to be asked."""
    return evolve(replica, run="")


def as_saved(replicas: dict[str, Replica]) -> dict[str, Replica]:
    return {one: unasked(replica) for one, replica in replicas.items()}


def ask(catalog: SqliteCatalog, answer: Any) -> Any:
    flush(catalog)
    return answer.result


def test_damage_elsewhere_costs_no_replica(shelf: Shelf) -> None:
    before = fill(shelf)
    spoil(shelf.path, *pages_of(shelf.path, "uploads_by_id", "leaf")[:2])
    catalog, records, after = saved(shelf)
    assert after == as_saved(before) and len(records) == COUNT
    for number in (0, 2, 3):
        assert ask(catalog, catalog.replicas.load_journal(name(number), "s3")) == {"plan": [[number, 2]]}
        assert ask(catalog, catalog.replicas.load_parts(name(number), "s3")) == {1: f"etag-{number}"}
    stored = [number for number in range(COUNT) if number % 4 == 1]
    assert {one.id for one in ask(catalog, catalog.replicas.droppable(1e9, COUNT))} == {name(one) for one in stored}
    assert records[name(1)].stored_at == 200.0 and records[name(1)].required == 1
    assert catalog.stop().called


def test_a_smashed_first_page_costs_no_replica(shelf: Shelf) -> None:
    before = fill(shelf)
    spoil(shelf.path, 1)
    catalog, _, after = saved(shelf)
    assert after == as_saved(before)
    assert catalog.stop().called


def test_a_replica_that_can_not_be_read_is_parked_and_its_data_kept(shelf: Shelf) -> None:
    before = fill(shelf)
    spoil(shelf.path, *pages_of(shelf.path, "replicas", "leaf")[3:6])
    catalog, records, after = saved(shelf)
    lost = {one for one in after if after[one] != unasked(before[one])}
    assert 10 < len(lost) < COUNT // 2
    for one in lost:
        assert after[one] == Replica(one, "s3", state=ReplicaState.PARKED, error=REASON)
    unnamed = {one for one in before if one not in after}
    assert unnamed == {one for one in unnamed if records[one].gone}, "nothing is left to be done but to forget them"
    droppable = {one.id for one in ask(catalog, catalog.replicas.droppable(1e9, COUNT))}
    assert droppable and not droppable & lost
    assert ask(catalog, catalog.replicas.restart(min(lost), None)) == 1
    assert catalog.stop().called


def test_parts_that_can_not_be_read_are_left_out(shelf: Shelf) -> None:
    before = fill(shelf)
    spoil(shelf.path, pages_of(shelf.path, "replica_parts", "leaf")[1])
    catalog, _, after = saved(shelf)
    assert after == as_saved(before)
    wanted = [number for number in range(COUNT) if number % 4 != 1]
    answers = [catalog.replicas.load_parts(name(number), "s3") for number in wanted]
    flush(catalog)
    found = [answer.result for answer in answers]
    assert all(parts in ({}, {1: f"etag-{number}"}) for number, parts in zip(wanted, found, strict=True))
    assert 0 < found.count({}) < len(wanted) // 2
    assert catalog.stop().called


def test_an_upload_that_is_lost_ends_what_its_replicas_began(shelf: Shelf) -> None:
    before = fill(shelf)
    spoil(shelf.path, *pages_of(shelf.path, "uploads", "leaf")[2:4])
    catalog, records, after = saved(shelf)
    lost = {one for one, record in records.items() if record.gone is GoneReason.LOST}
    assert lost and set(records) == set(before)
    for one in lost:
        stays = before[one].state is ReplicaState.STORED
        assert after[one].state is (ReplicaState.STORED if stays else ReplicaState.ENDING)
        assert after[one].key == before[one].key
    assert all(after[one] == unasked(before[one]) for one in before if one not in lost)
    assert catalog.stop().called


def test_replicas_name_the_uploads_of_which_nothing_can_be_read(shelf: Shelf) -> None:
    fill(shelf)
    for tree in ("uploads", "uploads_by_id"):
        with closing(sqlite3.connect(shelf.path)) as connection:
            (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (tree,)).fetchone()
        spoil(shelf.path, root)
    catalog, records, _ = saved(shelf)
    assert set(records) == {name(number) for number in range(COUNT) if number % 4 != 3}
    assert all(record.gone is GoneReason.LOST for record in records.values())
    assert catalog.stop().called


def test_a_value_that_is_none_of_ours_is_not_taken_over(shelf: Shelf) -> None:
    fill(shelf, 20)
    with closing(sqlite3.connect(shelf.path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for number, change in (
            (0, "state = 'what'"),
            (1, "stored = '[1]'"),
            (4, "journal = '{'"),
            (5, "confirmed = 'x'"),
            (8, "key = x'00'"),
            (12, "error = CAST(x'ff41' AS TEXT)"),
        ):
            connection.execute(f"UPDATE replicas SET {change} WHERE upload_id = ?", (name(number),))
        connection.commit()
    catalog, _, after = saved(shelf)
    parked = {one for one, replica in after.items() if replica.error == REASON}
    assert parked == {name(number) for number in (0, 1, 4, 5, 8, 12)}
    assert catalog.stop().called


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE replicas SET error = CAST(x'ff41' AS TEXT) WHERE seq = 3",
        "UPDATE replica_parts SET value = CAST(x'ff41' AS TEXT)",
    ],
)
def test_text_that_can_not_be_read_is_found_at_the_start(shelf: Shelf, change: str) -> None:
    fill(shelf, 10)
    with closing(sqlite3.connect(shelf.path)) as connection:
        connection.execute(change)
        connection.commit()
    catalog = shelf.catalog()
    assert catalog.open().recovered == 10
    assert catalog.stop().called


@pytest.mark.parametrize("page", ["leaf of an index", "first"])
def test_a_damaged_catalog_of_the_first_version_is_saved(shelf: Shelf, page: str) -> None:
    records = [upload(number, metadata="x" * 300) for number in range(COUNT)]
    first_version(shelf, records)
    spoil(shelf.path, 1 if page == "first" else pages_of(shelf.path, "uploads_by_id", "leaf")[0])
    catalog = shelf.catalog()
    assert catalog.open().recovered == COUNT
    assert content(catalog) == {record.id: record for record in records}
    assert catalog.stop().called


def test_a_migrated_catalog_that_is_damaged_keeps_its_replicas(shelf: Shelf) -> None:
    first_version(shelf, [upload(number) for number in range(COUNT, 2 * COUNT)])
    before = fill(shelf)
    spoil(shelf.path, *pages_of(shelf.path, "uploads_by_id", "leaf")[:2])
    catalog, records, after = saved(shelf)
    assert after == as_saved(before) and len(records) == 2 * COUNT
    assert catalog.stop().called


def test_a_migrated_catalog_without_its_first_page_keeps_its_uploads(shelf: Shelf) -> None:
    first_version(shelf, [upload(number) for number in range(COUNT, 2 * COUNT)])
    fill(shelf)
    spoil(shelf.path, 1)
    catalog, records, after = saved(shelf)
    assert len(records) == 2 * COUNT
    assert not [one for one in after.values() if one.state is ReplicaState.STORED]
    assert ask(catalog, catalog.replicas.droppable(1e9, COUNT)) == []
    assert catalog.stop().called


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), hits=st.integers(1, 12), size=st.sampled_from([16, 300, PAGE_SIZE, 20_000]))
def test_whatever_is_overwritten_no_replica_is_made_up(
    tmp_path_factory: pytest.TempPathFactory, seed: int, hits: int, size: int
) -> None:
    shelf = Shelf(tmp_path_factory.mktemp("damaged"))
    chance = random.Random(seed)
    before = as_saved(fill(shelf, 200))
    for _ in range(hits):
        with open(shelf.path, "r+b") as file:
            file.seek(chance.randrange(os.path.getsize(shelf.path)))
            file.write(chance.randbytes(size))
    catalog = shelf.catalog()
    catalog.open()
    catalog.start()
    for one, replica in replicas_of(catalog, range(200)).items():
        assert replica.state is not ReplicaState.STORED or before[one].state is ReplicaState.STORED
    page = ask(catalog, catalog.replicas.due("s3", 1e9, 0, 1000))
    assert all(record is None or record.id == found.upload_id for found, record in page.due)
    assert catalog.stop().called
    again = shelf.catalog()
    assert again.open() == OpenedCatalog(created=False)
    assert again.stop().called

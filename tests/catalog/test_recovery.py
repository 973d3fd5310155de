"""A damaged catalog is set aside, recovered as far as SQLite can, and reported; nothing of it is deleted."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from resumable.catalog import catalog_files
from resumable.catalog.damage import damage
from resumable.catalog.recovery import damaged as reading
from resumable.catalog.schema import PAGE_SIZE
from resumable.catalog.sqlite import OpenedCatalog
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Asked, Commit, Fact, FactKind, GoneReason, Upload
from tests.catalog.contract import done, final, name, partial, upload
from tests.catalog.damaging import content, pages_of, spoil
from tests.catalog.doubles import Shelf

COUNT = 800


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def records(count: int = COUNT) -> list[Upload]:
    """Of all kinds; the long metadata makes overflow pages."""
    few = [done(partial(1)), final(2, [1, 3]), upload(4, gone=GoneReason.TERMINATED, gone_at=200.0)]
    many = (
        upload(number, metadata=f"name {'x' * (number % 97 * 60)}", offset=number % 7) for number in range(5, count)
    )
    return [evolve(record, adoptable=record.offset) if not record.gone else record for record in [*few, *many]]


def fill(shelf: Shelf, wanted: list[Upload], **options: Any) -> None:
    catalog = shelf.running(**options)
    answers = [catalog.create(record, [Fact(FactKind.CREATED, record.id, 1.0)]) for record in wanted]
    stopped = catalog.stop()
    assert stopped.called
    assert all(answer.result is True for answer in answers)


def check(shelf: Shelf, wanted: list[Upload], at_least: int) -> tuple[OpenedCatalog, dict[str, Upload]]:
    """What every recovery must keep to; answers what was opened and the live records."""
    damaged = Path(shelf.path).read_bytes()
    before = set(os.listdir(shelf.directory))
    catalog = shelf.catalog()
    opened = catalog.open()
    found = content(catalog)
    truth = {record.id: record for record in wanted}
    live = {one.id: one for one in found.values() if one.gone is not GoneReason.LOST}
    assert all(truth[one] == live[one] for one in live), "a recovered record is the record"
    assert len(live) >= at_least
    assert opened.created and opened.recovered == len(live)
    assert opened.set_aside is not None and Path(opened.set_aside).read_bytes() == damaged
    ours = {"catalog.sqlite3", "catalog.sqlite3-wal", "catalog.sqlite3-shm"}
    aside = os.path.basename(opened.set_aside)
    beside = {aside, f"{aside}-wal", f"{aside}-shm", "ballast"}
    assert set(os.listdir(shelf.directory)) <= before | ours | beside
    catalog.start()
    new = catalog.create(upload(COUNT + 1), ())
    assert catalog.stop().called and new.result is True
    again = shelf.catalog()
    assert again.open() == OpenedCatalog(created=False), "the recovered catalog is sound"
    assert again.stop().called
    return opened, live


def test_no_catalog_is_created_then_found(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    first = shelf.running()
    assert first.stop().called
    catalog = shelf.catalog()
    assert catalog.open() == OpenedCatalog(created=False, recovered=None, set_aside=None)
    assert catalog.stop().called


def test_bad_leaf_pages_cost_the_records_on_them_alone(shelf: Shelf) -> None:
    wanted = records()
    fill(shelf, wanted)
    leaves = pages_of(shelf.path, "uploads", "leaf")
    bad = leaves[len(leaves) // 2 : len(leaves) // 2 + 3] + leaves[-1:] + leaves[:1]
    spoil(shelf.path, *bad)
    _, live = check(shelf, wanted, COUNT - 10 - 16 * len(bad))
    assert len(live) < COUNT - 4


@pytest.mark.parametrize("change", ["gone = 'göne', gone_at = 1", "offset = -1, adoptable = 0", "length = offset - 1"])
def test_a_value_that_no_record_has_is_damage(shelf: Shelf, change: str) -> None:
    """SQLite checks no CHECK on a read-only connection."""
    fill(shelf, records())
    with closing(sqlite3.connect(shelf.path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"UPDATE uploads SET {change} WHERE seq = 3")
    assert damage(shelf.path) == "a record is not a possible one"


def test_a_record_that_can_not_be_read_is_lost_and_not_unknown(shelf: Shelf) -> None:
    wanted = records()
    fill(shelf, wanted)
    leaves = pages_of(shelf.path, "uploads", "leaf")
    spoil(shelf.path, *leaves[20:24])
    catalog = shelf.catalog()
    catalog.open()
    found = content(catalog)
    lost = {one.id for one in found.values() if one.gone is GoneReason.LOST}
    assert lost and set(found) == {record.id for record in wanted}
    assert set(catalog.ids()) == set(found)
    assert catalog.stop().called


def test_a_broken_root_of_the_table_leaves_tombstones_from_the_index(shelf: Shelf) -> None:
    wanted = records()
    fill(shelf, wanted)
    with closing(sqlite3.connect(shelf.path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'uploads'").fetchone()
    spoil(shelf.path, root)
    catalog = shelf.catalog()
    assert catalog.open().recovered == 0
    found = content(catalog)
    assert set(found) == {record.id for record in wanted}
    assert all(one.gone is GoneReason.LOST for one in found.values())
    assert catalog.stop().called


def test_a_broken_index_costs_nothing(shelf: Shelf) -> None:
    wanted = records()
    fill(shelf, wanted)
    spoil(shelf.path, *pages_of(shelf.path, "uploads_by_id", "leaf")[:3])
    spoil(shelf.path, *pages_of(shelf.path, "uploads_to_expire", "leaf")[:3])
    check(shelf, wanted, len(wanted))


def test_overflow_pages_cost_the_records_that_use_them(shelf: Shelf) -> None:
    wanted = records()
    fill(shelf, wanted)
    spoil(shelf.path, *pages_of(shelf.path, "uploads", "leaf")[7:8])
    with open(shelf.path, "r+b") as file:  # cut the chains of the longest metadata
        for page in pages_of(shelf.path, "uploads", "overflow")[:10]:
            file.seek((page - 1) * PAGE_SIZE)
            file.write(b"\xff\xff\xff\xff")
    check(shelf, wanted, COUNT - 60)


def test_a_file_cut_short_keeps_what_is_left(shelf: Shelf) -> None:
    wanted = records()
    fill(shelf, wanted)
    os.truncate(shelf.path, os.path.getsize(shelf.path) // 2 + 1234)
    check(shelf, wanted, COUNT // 4)


def test_a_smashed_header_costs_nothing(shelf: Shelf) -> None:
    wanted = records()
    fill(shelf, wanted)
    with open(shelf.path, "r+b") as file:
        file.write(os.urandom(100))
    check(shelf, wanted, len(wanted))


def test_a_smashed_first_page_costs_nothing(shelf: Shelf) -> None:
    wanted = records()
    fill(shelf, wanted)
    spoil(shelf.path, 1)
    check(shelf, wanted, len(wanted))


@pytest.mark.parametrize("odd", [b"up\xff", b"a?b#c%41 d"])
def test_a_directory_may_have_any_name(odd: bytes, tmp_path: Path) -> None:
    """One that isn't UTF-8, or means something in a URI; opened, and recovered."""
    directory = tmp_path / os.fsdecode(odd)
    directory.mkdir()
    shelf = Shelf(directory)
    wanted = records(20)
    fill(shelf, wanted)
    spoil(shelf.path, 1)
    check(shelf, wanted, len(wanted))
    assert os.listdir(tmp_path) == [directory.name]


@pytest.mark.parametrize("garbage", [b"", b"\0" * 50_000, b"no database at all\n" * 1000, b"x"])
def test_garbage_is_set_aside_and_nothing_recovered(shelf: Shelf, garbage: bytes) -> None:
    fill(shelf, records(10))
    Path(shelf.path).write_bytes(garbage)
    _, live = check(shelf, [], 0)
    assert live == {}


def test_another_database_is_not_taken_for_a_catalog(shelf: Shelf) -> None:
    with closing(sqlite3.connect(shelf.path)) as connection:
        connection.execute("CREATE TABLE uploads (id TEXT)")
        connection.commit()
    check(shelf, [], 0)


def killed(shelf: Shelf, wanted: list[Upload], others: list[Upload]) -> None:
    """A catalog with ``wanted`` checkpointed and ``others`` in the log, as a killed daemon leaves it."""
    elsewhere = Shelf(shelf.directory / "elsewhere")
    elsewhere.directory.mkdir()
    fill(elsewhere, wanted)
    catalog = elsewhere.running()
    for record in others:
        assert catalog.create(record, ()).called is False
        elsewhere.flush()
    for companion in ("", "-wal"):
        Path(shelf.path + companion).write_bytes(Path(elsewhere.path + companion).read_bytes())
    assert catalog.stop().called


def test_what_is_in_the_log_is_there_after_a_kill(shelf: Shelf) -> None:
    killed(shelf, [upload(1)], [upload(2), upload(3)])
    catalog = shelf.catalog()
    assert catalog.open() == OpenedCatalog(created=False)
    assert set(content(catalog)) == {name(1), name(2), name(3)}
    assert catalog.stop().called


@pytest.mark.parametrize("start", [0, 8, 24], ids=["all", "size", "checksum"])
def test_a_log_with_a_broken_header_is_reported(shelf: Shelf, start: int) -> None:
    killed(shelf, [upload(1)], [upload(2), upload(3)])
    with open(f"{shelf.path}-wal", "r+b") as file:
        file.seek(start)
        file.write(os.urandom(32 - start if start else 100_000))
    log = Path(f"{shelf.path}-wal").read_bytes()
    opened, live = check(shelf, [upload(1)], 1)
    assert set(live) == {name(1)}
    assert Path(f"{opened.set_aside}-wal").read_bytes() == log


def test_a_log_broken_in_the_middle_is_reported(shelf: Shelf) -> None:
    everything = [upload(number) for number in range(1, 20)]
    killed(shelf, everything[:1], everything[1:])
    with open(f"{shelf.path}-wal", "r+b") as file:
        file.seek(os.path.getsize(file.name) // 2)
        file.write(os.urandom(2 * PAGE_SIZE))
    log = Path(f"{shelf.path}-wal").read_bytes()
    opened, live = check(shelf, everything, 5)
    assert len(live) < len(everything)
    assert Path(f"{opened.set_aside}-wal").read_bytes() == log


def test_a_log_torn_at_its_end_is_no_damage(shelf: Shelf) -> None:
    killed(shelf, [upload(1)], [upload(2), upload(3)])
    os.truncate(f"{shelf.path}-wal", os.path.getsize(f"{shelf.path}-wal") - 100)
    catalog = shelf.catalog()
    assert catalog.open() == OpenedCatalog(created=False)
    assert set(content(catalog)) == {name(1), name(2)}
    assert catalog.stop().called


def test_a_log_whose_header_never_reached_the_disk_is_no_damage(shelf: Shelf) -> None:
    fill(shelf, [upload(1)])
    Path(f"{shelf.path}-wal").write_bytes(bytes(8192))
    catalog = shelf.catalog()
    assert catalog.open() == OpenedCatalog(created=False)
    assert catalog.stop().called


def test_facts_and_finals_survive(shelf: Shelf) -> None:
    wanted = [done(partial(1)), partial(3), final(2, [1, 3]), *(upload(number) for number in range(4, 500))]
    fill(shelf, wanted, deliverers=["hook"])
    spoil(shelf.path, pages_of(shelf.path, "uploads", "leaf")[-1])
    catalog = shelf.running(deliverers=["hook"])
    due, finals = catalog.outbox.due("hook", 0.0, 1000), catalog.finals_of(name(1), "", 10)
    created = catalog.create(upload(1000), [Fact(FactKind.CREATED, name(1000), 2.0)])
    last = catalog.outbox.due("hook", 0.0, 1000)
    assert catalog.stop().called
    assert [one.fact.upload_id for one in due.result] == [record.id for record in wanted]
    assert created.result is True and last.result[-1].seq > due.result[-1].seq
    assert finals.result == [final(2, [1, 3])]


def test_requests_for_finals_and_what_they_have_used_survive(shelf: Shelf) -> None:
    """The same request is known again, and partials that were used are kept no longer than they would have been."""
    rows = [done(partial(1)), done(partial(2)), done(partial(3))]
    on_its_way, over = final(4, [1, 2], asked="0a"), final(5, [2], asked="0b")
    catalog = shelf.running()
    for record in (*rows, *(upload(number) for number in range(6, 500))):
        catalog.create(record, ())
    catalog.create(on_its_way, (), (), {"method": "POST"})
    catalog.create(over, (), (), {"method": "POST"})
    catalog.create(final(600, [3], asked="0c"), ())
    catalog.commit(Commit(over.id, 0, 0, 1000, 300.0, finished=True))
    catalog.end(name(600), GoneReason.TERMINATED, 310.0, (), False, {"status": 403})
    shelf.flush()
    assert catalog.stop().called
    spoil(shelf.path, pages_of(shelf.path, "uploads", "leaf")[5])
    catalog = shelf.running()
    first, second, third = (catalog.asked(key, 0.0) for key in ("0a", "0b", "0c"))
    request, spent = catalog.request(on_its_way.id), catalog.spent(1e9, 10)
    catalog.commit(Commit(on_its_way.id, 0, 0, 1000, 400.0, finished=True))
    later = catalog.spent(300.0, 10), catalog.spent(400.0, 10)
    assert catalog.stop().called
    assert first.result == Asked(on_its_way) and second.result.upload.finished
    assert third.result.refusal == {"status": 403}
    assert request.result == {"method": "POST"}
    assert spent.result == [], "another final needs it"
    assert [[one.id for one in each.result] for each in later] == [[], [name(1), name(2)]]


def test_delivered_numbers_are_never_used_again(shelf: Shelf) -> None:
    fill(shelf, [upload(number) for number in range(1, 100)], deliverers=["hook"])
    catalog = shelf.running(deliverers=["hook"])
    seen = catalog.outbox.due("hook", 0.0, 1000)
    shelf.flush()
    highest = seen.result[-1].seq
    gone = catalog.outbox.delivered([one.seq for one in seen.result])
    assert catalog.stop().called and gone.result == []
    spoil(shelf.path, pages_of(shelf.path, "uploads", "leaf")[0])
    catalog = shelf.running(deliverers=["hook"])
    catalog.create(upload(1000), [Fact(FactKind.CREATED, name(1000), 2.0)])
    due = catalog.outbox.due("hook", 0.0, 1000)
    assert catalog.stop().called
    assert [one.seq > highest for one in due.result] == [True]


def test_a_newer_catalog_is_refused_and_left_alone(shelf: Shelf) -> None:
    fill(shelf, [upload(1)])
    with closing(sqlite3.connect(shelf.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(CatalogUnavailable, match="newer"):
        shelf.catalog().open()
    assert not [one for one in os.listdir(shelf.directory) if "damaged" in one]


def test_a_catalog_in_use_is_refused_and_left_alone(shelf: Shelf) -> None:
    first = shelf.running()
    with pytest.raises(CatalogUnavailable, match="SQLITE_BUSY"):
        shelf.catalog().open()
    assert first.stop().called
    assert not [one for one in os.listdir(shelf.directory) if "damaged" in one]


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", range(12))
def test_a_crash_in_the_midst_of_recovery_loses_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    wanted = records(300)
    fill(shelf, wanted)
    Path(f"{shelf.path}-wal").write_bytes(os.urandom(5000))
    damaged = Path(shelf.path).read_bytes()
    left = [step]

    def crashing(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return call(*arguments, **options)

        return instead

    with monkeypatch.context() as patch:
        for call in ("rename", "fsync"):
            patch.setattr(catalog_files.os, call, crashing(getattr(os, call)))
        first = shelf.catalog()
        with suppress(Crash):
            first.open()
        assert first.stop().called
    catalog = shelf.catalog()
    catalog.open()
    assert content(catalog) == {record.id: record for record in wanted}
    aside = [one for one in os.listdir(shelf.directory) if "damaged" in one and not one.endswith(("-wal", "-shm"))]
    assert [(shelf.directory / one).read_bytes() for one in aside] == [damaged]
    assert catalog.stop().called


def test_a_page_that_the_disk_can_not_read_counts_as_a_bad_one(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = records()
    fill(shelf, wanted)
    bad = pages_of(shelf.path, "uploads", "leaf")[10]
    spoil(shelf.path, bad)
    real = os.pread

    def failing(handle: int, size: int, place: int) -> bytes:
        if place <= (bad - 1) * PAGE_SIZE < place + size and size >= PAGE_SIZE:
            raise OSError(5, "Input/output error")
        return real(handle, size, place)

    monkeypatch.setattr(reading.os, "pread", failing)
    catalog = shelf.catalog()
    recovered = catalog.open().recovered
    assert recovered is not None and COUNT - 40 < recovered < len(wanted)
    assert catalog.stop().called


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), hits=st.integers(1, 12), size=st.sampled_from([16, 300, PAGE_SIZE, 20_000]))
@example(seed=137394, hits=10, size=20_000)  # SQLite's complaint about the schema isn't UTF-8
def test_whatever_is_overwritten_it_opens_and_what_it_shows_is_well_formed(
    tmp_path_factory: pytest.TempPathFactory, seed: int, hits: int, size: int
) -> None:
    shelf = Shelf(tmp_path_factory.mktemp("damaged"))
    chance = random.Random(seed)
    killed(shelf, records(400), [upload(number) for number in range(1000, 1010)])
    for _ in range(hits):
        target = chance.choice([shelf.path, shelf.path, f"{shelf.path}-wal"])
        with open(target, "r+b") as file:
            file.seek(chance.randrange(os.path.getsize(target)))
            file.write(chance.randbytes(size))
    catalog = shelf.catalog()
    catalog.open()
    for one in content(catalog).values():
        assert one.length is None or 0 <= one.offset <= one.length
    assert catalog.stop().called
    assert catalog.stop().called
    again = shelf.catalog()
    again.open()
    assert again.stop().called


def test_nobody_else_may_read_the_catalog_nor_what_is_made_of_a_damaged_one(shelf: Shelf) -> None:
    """It has session URIs, by which anybody could write to a store."""
    before = os.umask(0)
    try:
        fill(shelf, records(40))
        spoil(shelf.path, 1)
        reading.copy_files(shelf.path, f"{shelf.path}.copy")
        catalog = shelf.running()
        made = catalog.create(upload(1000), ())
        shelf.flush()
        assert made.result is True
        found = {path.name: path.stat().st_mode & 0o777 for path in shelf.directory.iterdir()}
        assert len(found) >= 4 and set(found.values()) == {0o600}, found
        assert catalog.stop().called
    finally:
        os.umask(before)

"""What is answered is on the disk, whatever the disk does; and the catalog heals when the disk does."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable.catalog.catalog_files import SpaceReserve
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Commit, Fact, FactKind, GoneReason, Replica
from tests.catalog.contract import done, name, upload
from tests.catalog.doubles import Shelf
from tests.catalog.faults import Execute, Faults, outcome


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.fixture
def faults() -> Faults:
    return Faults()


def test_a_commit_that_failed_but_is_there_is_answered_as_done(shelf: Shelf, faults: Faults) -> None:
    catalog = shelf.running(connector=faults.connect)
    faults.fail_after("COMMIT")
    answers = [catalog.create(upload(1), ()), catalog.create(upload(1), ()), catalog.get(name(1))]
    shelf.flush()
    assert [outcome(answer) for answer in answers] == [True, False, upload(1)]
    assert faults.opened == 2
    assert catalog.stop().called


def test_a_commit_that_failed_and_is_not_there_fails_everything_in_it(shelf: Shelf, faults: Faults) -> None:
    catalog = shelf.running(connector=faults.connect)
    faults.fail("COMMIT")
    answers = [catalog.create(upload(1), ()), catalog.get(name(1))]
    shelf.flush()
    assert all(isinstance(outcome(answer), CatalogUnavailable) for answer in answers)
    after = catalog.get(name(1)), catalog.create(upload(1), ())
    shelf.flush()
    assert [outcome(answer) for answer in after] == [None, True]
    assert catalog.stop().called


def test_a_commit_found_in_the_log_counts_only_once_copied_and_synced(shelf: Shelf, faults: Faults) -> None:
    catalog = shelf.running(connector=faults.connect)
    faults.fail_after("COMMIT")
    faults.fail("PRAGMA wal_checkpoint")
    answer = catalog.create(upload(1), ())
    shelf.flush()
    assert isinstance(outcome(answer), CatalogUnavailable)
    assert catalog.stop().called


def test_a_commit_that_can_not_be_read_back_fails_and_the_catalog_heals(shelf: Shelf, faults: Faults) -> None:
    catalog = shelf.running(connector=faults.connect)
    faults.fail_after("COMMIT")
    faults.refuse_open = True
    answer = catalog.create(upload(1), ())
    shelf.flush()
    assert isinstance(outcome(answer), CatalogUnavailable)
    still = catalog.get(name(1))
    shelf.flush()
    assert isinstance(outcome(still), CatalogUnavailable)
    faults.refuse_open = False
    healed = catalog.get(name(1))
    shelf.flush()
    assert outcome(healed) == upload(1)
    assert catalog.stop().called


def test_the_count_of_batches_goes_on_after_a_failure(shelf: Shelf, faults: Faults) -> None:
    catalog = shelf.running(connector=faults.connect)
    for number in range(1, 10):
        (faults.fail if number % 2 else faults.fail_after)("COMMIT")
        answer = catalog.create(upload(number), ())
        shelf.flush()
        assert (outcome(answer) is True) == (number % 2 == 0)
        there = catalog.get(name(number))
        shelf.flush()
        assert (outcome(there) is not None) == (number % 2 == 0)
    assert catalog.stop().called


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO uploads", "UPDATE batches", "SELECT id"])
def test_an_error_in_the_middle_fails_the_batch_and_nothing_of_it_stays(
    shelf: Shelf, faults: Faults, statement: str
) -> None:
    catalog = shelf.running(connector=faults.connect)
    faults.fail(statement, 10)
    answers = [catalog.create(upload(1), ()), catalog.get(name(1))]
    shelf.flush()
    assert [type(outcome(answer)) for answer in answers] == [CatalogUnavailable] * 2
    assert not outcome(answers[0]).no_space
    after = catalog.get(name(1))
    shelf.flush()
    assert outcome(after) is None
    assert catalog.stop().called


def test_running_out_of_memory_fails_the_batch(shelf: Shelf, faults: Faults) -> None:
    def failing(execute: Execute, statement: str) -> sqlite3.Cursor:
        raise MemoryError

    catalog = shelf.running(connector=faults.connect)
    faults.instead("INSERT INTO uploads", failing)
    answer = catalog.create(upload(1), ())
    shelf.flush()
    assert isinstance(outcome(answer), CatalogUnavailable)
    assert catalog.stop().called


def test_a_full_disk_is_told_and_end_gets_the_space_reserve(shelf: Shelf, faults: Faults) -> None:
    catalog = shelf.running(connector=faults.connect)
    first = catalog.create(upload(1), ())
    shelf.flush()
    assert outcome(first) is True and (shelf.directory / "ballast").exists()
    faults.fail("COMMIT", 13)
    refused = catalog.create(upload(2), ())
    shelf.flush()
    assert outcome(refused).no_space
    assert (shelf.directory / "ballast").exists()
    faults.fail("COMMIT", 13)
    mixed = [catalog.create(upload(3), ()), catalog.end(name(1), GoneReason.TERMINATED, 9.0, ()), catalog.get(name(1))]
    shelf.flush()
    assert outcome(mixed[0]).no_space and outcome(mixed[1]) is True and outcome(mixed[2]).gone is GoneReason.TERMINATED
    assert not (shelf.directory / "ballast").exists()
    faults.fail("COMMIT", 13)
    last = catalog.removed([name(1)])
    shelf.flush()
    assert outcome(last).no_space
    restored = catalog.restore_reserve()
    shelf.flush()
    assert outcome(restored) is True and (shelf.directory / "ballast").stat().st_size == 4 << 20
    released = catalog.release_reserve()
    shelf.flush()
    assert outcome(released) is True and not (shelf.directory / "ballast").exists()
    assert catalog.stop().called


def test_on_a_full_disk_what_is_stored_can_be_recorded_and_dropped(shelf: Shelf, faults: Faults) -> None:
    """Else a disk that is full would stay full of what the remotes have."""
    catalog = shelf.running(connector=faults.connect)
    catalog.create(done(upload(1)), (), [Replica(name(1), "s3")])
    shelf.flush()
    faults.fail("COMMIT", 13)
    stored = catalog.replicas.store(Replica(name(1), "s3"), {}, 200.0), catalog.replicas.drop([name(1)], 300.0)
    shelf.flush()
    assert [outcome(answer) for answer in stored] == [(True, True), [name(1)]]
    assert not (shelf.directory / "ballast").exists()
    assert catalog.stop().called


def test_a_quota_that_is_used_up_is_a_full_disk(shelf: Shelf, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite tells EDQUOT as any I/O error: whether there is space is tried."""

    def over_quota(handle: int, start: int, size: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    catalog = shelf.running(connector=faults.connect)
    monkeypatch.setattr(os, "posix_fallocate", over_quota)
    faults.fail("COMMIT", 10)
    answer = catalog.create(upload(1), ())
    shelf.flush()
    assert outcome(answer).no_space
    assert catalog.stop().called
    assert "space-probe" not in os.listdir(shelf.directory)


def test_a_record_that_turns_unreadable_is_refused_alone(shelf: Shelf) -> None:
    catalog = shelf.running()
    catalog.create(upload(1), ())
    catalog.create(upload(2), ())
    shelf.flush()
    connection = catalog._batches.open()
    connection.execute("UPDATE uploads SET metadata = CAST(x'ff41' AS TEXT) WHERE id = ?", (name(1),))
    answers = catalog.get_many([name(1)]), catalog.get_many([name(2)]), catalog.create(upload(3), ())
    shelf.flush()
    assert isinstance(outcome(answers[0]), CatalogUnavailable)
    assert [outcome(answer) for answer in answers[1:]] == [{name(2): upload(2)}, True]
    assert catalog.stop().called


def test_with_no_file_to_be_opened_the_open_catalog_goes_on(shelf: Shelf) -> None:
    catalog = shelf.running()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError):
            os.dup(0)
        answers = catalog.create(upload(1), ()), catalog.get(name(1)), catalog.expired(1e9, 10)
        shelf.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [outcome(answer) for answer in answers] == [True, upload(1), [upload(1)]]
    assert catalog.stop().called


def test_nothing_is_answered_after_the_stop(shelf: Shelf) -> None:
    catalog = shelf.running()
    before = catalog.create(upload(1), ())
    assert catalog.stop().called and catalog.stop().called
    assert outcome(before) is True
    assert isinstance(outcome(catalog.get(name(1))), CatalogUnavailable)
    assert sorted(os.listdir(shelf.directory)) in (
        ["ballast", "catalog.sqlite3"],
        ["ballast", "catalog.sqlite3", "catalog.sqlite3-shm"],
    )


def test_the_connection_is_as_durable_as_promised(shelf: Shelf) -> None:
    catalog = shelf.running()
    connection = catalog._batches.open()
    asked = ("journal_mode", "synchronous", "mmap_size", "locking_mode", "page_size")
    values = [connection.execute(f"PRAGMA {one}").fetchone() for one in asked]
    assert [value and value[0] for value in values] == ["wal", 2, 0, "exclusive", 4096]
    assert catalog.stop().called


@pytest.fixture(params=[pytest.param("tmpfs", marks=pytest.mark.process)])
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill_up(place: Path) -> None:
    """Use up every byte that is left."""
    with open(place / "filler", "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_on_a_full_disk_uploads_can_be_ended_and_all_goes_on_when_there_is_space(tiny: Path) -> None:
    shelf = Shelf(tiny)
    catalog = shelf.running(deliverers=["hook"])
    number, answer = 0, catalog.create(upload(0), ())
    shelf.flush()
    fill_up(tiny)
    while outcome(answer) is True:
        number += 1
        answer = catalog.create(upload(number, metadata="m" * 3000), ())
        shelf.flush()
        assert number < 10_000
    assert outcome(answer).no_space
    fill_up(tiny)
    fact = Fact(FactKind.TERMINATED, name(0), 9.0)
    ended = catalog.end(name(0), GoneReason.TERMINATED, 9.0, [fact])
    shelf.flush()
    assert outcome(ended) is True
    read = catalog.get(name(0)), catalog.get(name(number)), catalog.removed([name(0)]), catalog.removable(5)
    shelf.flush()
    assert [outcome(one) for one in read[1:]] == [None, None, []]
    assert outcome(read[0]).gone is GoneReason.TERMINATED
    fill_up(tiny)
    no = catalog.restore_reserve()
    shelf.flush()
    assert outcome(no) is False
    (tiny / "filler").unlink()
    healed = catalog.restore_reserve(), catalog.create(upload(number), ())
    shelf.flush()
    assert [outcome(one) for one in healed] == [True, True]
    assert catalog.stop().called
    again = shelf.running()
    count = sum(1 for _ in again.ids())
    assert count == number + 1
    assert again.stop().called


def test_a_catalog_opens_on_a_full_disk_by_its_space_reserve(tiny: Path) -> None:
    shelf = Shelf(tiny)
    catalog = shelf.running()
    first = catalog.create(upload(1), ())
    assert catalog.stop().called and outcome(first) is True
    fill_up(tiny)
    again = shelf.running()
    got = again.get(name(1)), again.end(name(1), GoneReason.TERMINATED, 9.0, ())
    assert again.stop().called
    assert [outcome(one) for one in got] == [upload(1), True]


def test_no_space_reserve_is_made_where_it_would_fill_the_disk(tiny: Path) -> None:
    assert SpaceReserve(str(tiny / "ballast"), 7 << 20).restore() is False
    assert SpaceReserve(str(tiny / "ballast"), 5 << 20).restore() is True
    assert SpaceReserve(str(tiny / "ballast"), 5 << 20).restore() is True
    assert SpaceReserve(str(tiny / "ballast")).release() is True
    assert SpaceReserve(str(tiny / "ballast")).release() is False


CHILD = """
import sys
from resumable.model.upload import Commit
from tests.catalog.contract import name, upload
from tests.catalog.doubles import Shelf
shelf = Shelf(sys.argv[1])
catalog = shelf.running()
for batch in range(1000000):
    answers = {}
    for number in range(batch * 4, batch * 4 + 4):
        catalog.create(upload(number), ())
        answers[number] = catalog.commit(Commit(name(number), 0, 0, number % 1000, 150.0))
    shelf.flush()
    for number, answer in answers.items():
        if answer.result is True:
            print(number, flush=True)
"""


@pytest.mark.process
def test_what_was_answered_is_there_after_kill_9(shelf: Shelf) -> None:
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(shelf.directory)],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        text=True,
    )
    assert child.stdout is not None
    answered = [int(child.stdout.readline()) for _ in range(150)]
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    answered += [int(line) for line in rest.split("\n")[:-1]]
    catalog = shelf.catalog()
    opened = catalog.open()
    catalog.start()
    asked = catalog.get_many([name(number) for number in answered])
    assert catalog.stop().called
    assert not opened.created and opened.recovered is None
    assert {number: outcome(asked)[name(number)].offset for number in answered} == {one: one % 1000 for one in answered}


def test_a_commit_is_only_there_when_it_was_answered_or_could_not_be_known(shelf: Shelf, faults: Faults) -> None:
    catalog = shelf.running(connector=faults.connect)
    made = catalog.create(upload(1), ())
    shelf.flush()
    offset = 0
    for step in range(1, 20):
        if step % 3 == 0:
            faults.fail("COMMIT")
        elif step % 3 == 1:
            faults.fail_after("COMMIT")
        answer = catalog.commit(Commit(name(1), 0, offset, offset + step, 150.0))
        shelf.flush()
        if outcome(answer) is True:
            offset += step
        now = catalog.get(name(1))
        shelf.flush()
        assert outcome(now).offset == offset
    assert outcome(made) is True and catalog.stop().called

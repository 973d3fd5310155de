"""The catalog beside the data files: what is damaged, missing, short or unknown; and that nothing there is changed."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from attrs import evolve

from resumable.catalog.batches import connect
from resumable.catalog.schema import INSERT, PAGE_SIZE, to_row
from resumable.catalog.sqlite import ready
from resumable.doctor import records
from resumable.doctor.directory import CheckedDirectory, place_of
from resumable.model.upload import GoneReason, Upload
from resumable.spool.directory import DirectoryLock


class Shop:
    """An upload directory as a daemon leaves it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / ".resumable").mkdir()
        self.place = place_of(str(directory))
        self.lock = DirectoryLock(self.place.lock)
        self.lock.acquire()
        self.lock.release()
        ready(self.place.catalog, 0.0)

    def add(self, number: int, size: int | None, **fields: object) -> str:
        """An upload of 100 committed bytes, and its file of ``size`` bytes."""
        upload = evolve(Upload(f"{number:032x}", 0.0, 0.0, offset=100), **fields)
        with closing(connect(self.place.catalog)) as connection:
            connection.execute(INSERT, to_row(upload))
        if size is not None:
            (self.directory / upload.id).write_bytes(bytes(size))
        return upload.id

    def everything(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.directory.rglob("*") if path.is_file()}

    def wrong(self) -> list[str]:
        """What is not well, by level and name; looking has changed nothing."""
        before = self.everything()
        found = records.judge(records.look(self.place))
        assert self.everything() == before
        assert all(each.advice for each in found if each.level != "ok")
        return [f"{each.level} {each.name}: {each.what}" for each in found if each.level != "ok"]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_before_the_first_start_there_is_nothing_to_be_wrong(tmp_path):
    (found,) = records.judge(records.look(place_of(str(tmp_path))))
    assert found.level == "ok" and "first start" in found.what


def test_a_sound_catalog_with_whole_files_is_well(shop):
    shop.add(1, 100)
    shop.add(2, 150)  # bytes that came after the last commit
    assert shop.wrong() == []
    told = records.judge(records.look(shop.place))
    assert [each.what for each in told][1:] == ["2 have all that was acknowledged"]
    assert "sound" in told[0].what


def test_files_that_are_not_needed_are_not_missed(shop):
    shop.add(1, None, offset=0)
    shop.add(2, None, gone=GoneReason.TERMINATED, gone_at=1.0)
    shop.add(3, None, length=100, finished_at=1.0, required=1, stored_at=1.0, dropped_at=2.0)
    assert shop.wrong() == []


def test_files_that_are_missing_or_short_are_bad(shop):
    missing, short = shop.add(1, None), shop.add(2, 99)
    assert shop.wrong() == [
        f"bad data files: 1 are missing: {missing}",
        f"bad data files: 1 are shorter than was acknowledged: {short}",
    ]


def test_many_are_named_by_the_first(shop):
    for number in range(5):
        shop.add(number, None)
    assert shop.wrong()[0].startswith("bad data files: 5 are missing: ")
    assert shop.wrong()[0].endswith(", ...")


def test_only_the_youngest_are_compared(shop):
    shop.add(1, None)
    shop.add(2, 100)
    found = records.look(shop.place, at_most=1)
    assert (found.compared, found.total, found.missing) == (1, 2, ())
    assert "the youngest of 2" in records.judge(found)[-1].what


def test_files_without_a_record_are_told_of_and_harmless(shop):
    (shop.directory / ("f" * 32)).write_bytes(b"x")
    (shop.directory / "notes.txt").write_bytes(b"x")
    assert shop.wrong() == []
    assert records.judge(records.look(shop.place))[-1].what.startswith("1 have no record")


def test_a_damaged_catalog_is_bad_and_left_as_it_is(shop):
    shop.add(1, 100)
    with open(shop.place.catalog, "r+b") as file:
        file.seek(PAGE_SIZE)
        file.write(b"\xff" * PAGE_SIZE)
    (wrong,) = shop.wrong()
    assert wrong.startswith("bad catalog: it is damaged: ")


def test_one_of_a_newer_release_is_not_read(shop):
    with closing(connect(shop.place.catalog)) as connection:
        connection.execute("PRAGMA user_version = 999")
    assert shop.wrong() == ["bad catalog: it can't be read: the catalog was made by a newer release"]


@pytest.mark.process
def test_what_a_killed_daemon_has_left_in_the_log_is_read_and_kept(shop):
    child = os.fork()
    if child == 0:
        shop.add(1, None)
        os._exit(0)
    os.waitpid(child, 0)
    writer = connect(shop.place.catalog)
    writer.execute(INSERT, to_row(Upload("9" * 32, 0.0, 0.0, offset=7)))
    kept = Path(f"{shop.place.catalog}-wal").read_bytes()
    writer.close()
    Path(f"{shop.place.catalog}-wal").write_bytes(kept)
    assert len(shop.wrong()) == 1


def test_damaged_ones_that_were_set_aside_are_remembered(shop):
    for name in ("damaged-20260101T000000Z", "damaged-20260101T000000Z-wal", "recovery"):
        Path(f"{shop.place.catalog}.{name}").write_bytes(b"")
    wrong = shop.wrong()
    assert len(wrong) == 2 and "cut off" in wrong[0] and "catalog.sqlite3.damaged-20260101T000000Z is" in wrong[1]


def test_a_daemon_that_has_just_started_is_not_disturbed(shop):
    shop.lock.acquire()
    (wrong,) = shop.wrong()
    assert "a daemon has just started" in wrong


def test_no_daemon_can_start_while_it_is_read(shop, monkeypatch):
    """Its rule of one connection holds for a reader as well."""

    def damage(path: str) -> None:
        assert place_of(str(shop.directory)).held

    monkeypatch.setattr(records, "damage", damage)
    assert shop.wrong() == []


def test_an_error_of_the_database_is_told(shop, monkeypatch):
    def damage(path: str) -> str:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(records, "damage", damage)
    assert shop.wrong() == ["bad catalog: it can't be read: unable to open database file"]


def test_without_a_lock_to_take_what_a_reader_leaves_stays(tmp_path):
    """Somebody may have begun to use it."""
    shop = Shop(tmp_path)
    os.unlink(shop.place.lock)
    assert records.look(CheckedDirectory(str(tmp_path), str(tmp_path))).damage is None
    assert os.path.exists(f"{shop.place.catalog}-wal")
    assert not os.path.exists(shop.place.lock)

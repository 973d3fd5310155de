"""Room on the disk, and the clock."""

from __future__ import annotations

import ctypes
from datetime import UTC, datetime

import pytest

from resumable.doctor import machine
from resumable.doctor.machine import ClockFacts, SpaceFacts

GIB = 1 << 30
NOW = datetime(2026, 10, 1, tzinfo=UTC).timestamp()


def wrong(findings):
    return [(each.level, each.what, each.advice) for each in findings if each.level != "ok"]


def test_plenty_of_room_is_well():
    findings = machine.judge_space(SpaceFacts(10 * GIB, 10**6, 3 * GIB, 2), 64 << 20, GIB)
    assert [each.what for each in findings] == ["10 GiB are free, 64 MiB in reserve; 2 files here have 3 GiB"]
    (finding,) = machine.judge_space(SpaceFacts(10 * GIB, 10**6, GIB, 1), 64 << 20, GIB)
    assert finding.what.endswith("; 1 file here has 1 GiB")


@pytest.mark.parametrize(
    ("room", "max_size", "level", "words"),
    [
        (SpaceFacts(60 << 20, None), None, "bad", "507"),
        (SpaceFacts(GIB, None), 2 * GIB, "warn", "--max-size (2 GiB)"),
        (SpaceFacts(GIB, 500), None, "warn", "only 500 more files"),
        (SpaceFacts(GIB, 5), None, "bad", "only 5 more files"),
    ],
)
def test_little_room_says_what_to_change(room, max_size, level, words):
    ((found, what, advice),) = wrong(machine.judge_space(room, 64 << 20, max_size))
    assert found == level and words in what and advice


def test_what_is_used_is_counted_up_to_a_bound(tmp_path, monkeypatch):
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(b"x" * 5000)
    (tmp_path / "directory").mkdir()
    room = machine.look_at_space(str(tmp_path), str(tmp_path))
    assert (room.counted, room.more) == (3, False)
    assert room.used >= 15000 and room.free > 0
    monkeypatch.setattr(machine, "COUNTED", 2)
    room = machine.look_at_space(str(tmp_path), str(tmp_path))
    assert (room.counted, room.more) == (2, True)
    assert "at least 2 files" in machine.judge_space(room, 0, None)[0].what
    assert machine.look_at_space(str(tmp_path), str(tmp_path / "none")).counted == 0


def test_a_clock_that_is_right_is_well():
    (found,) = machine.judge_clock(ClockFacts(NOW, True, True, {"the public URL": 2.0}))
    assert found.level == "ok"
    assert found.what == "2026-10-01 00:00:00 UTC, as by the public URL, kept right"


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        (ClockFacts(0.0, True, True), "bad", "before this release"),
        (ClockFacts(NOW, False, True), "bad", "monotonic"),
        (ClockFacts(NOW, True, False), "warn", "nothing keeps it right"),
        (ClockFacts(NOW, True, True, {"remote s3": 1200.0}), "bad", "remote s3 is 20m ahead of"),
        (ClockFacts(NOW, True, True, {"remote s3": -90.0}), "warn", "remote s3 is 1m behind"),
    ],
)
def test_a_clock_that_is_wrong_says_what_to_change(found, level, words):
    ((got, what, advice),) = wrong(machine.judge_clock(found))
    assert got == level and words in what and advice


def test_a_kernel_that_does_not_say_is_not_accused():
    assert not wrong(machine.judge_clock(ClockFacts(NOW, True, None)))
    assert machine.synchronised() in (True, False, None)


def test_where_the_c_library_has_no_adjtimex_nothing_is_said(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert machine.synchronised() is None

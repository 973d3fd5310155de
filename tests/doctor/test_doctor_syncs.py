"""Whether syncs are believed."""

from __future__ import annotations

import os
from itertools import count

import pytest
from attrs import evolve

from resumable.doctor import syncs
from resumable.doctor.syncs import Syncs
from resumable.spool.directory import Mount

DISK = Mount("/srv", "ext4", "/dev/sda1", "8:1", frozenset({"rw"}))
GOOD = Syncs([0.001] * 20, [0.001] * 20, mount=DISK, cache="write back")


def wrong(found):
    return [each for each in syncs.judge(found) if each.level != "ok"]


def test_a_disk_that_takes_its_time_is_believed():
    (found,) = syncs.judge(GOOD)
    assert found.level == "ok"
    assert found.what == "a block is synced in 1 ms (median of 20) on ext4, with write back cache"


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({"fdatasync": [5e-6] * 20, "dsync": [5e-6] * 20}, "warn", "less than any disk needs"),
        ({"fdatasync": [0.3] * 20, "dsync": [0.3] * 20}, "warn", "every acknowledgement waits"),
        ({"fdatasync": [30e-6] * 20, "dsync": [0.001] * 20}, "warn", "skips work"),
        ({"preloaded": "LD_PRELOAD has libeatmydata"}, "bad", "libeatmydata"),
        ({"directory": "Invalid argument"}, "bad", "directory can't be synced"),
        ({"mount": Mount("/tmp", "tmpfs")}, "warn", "doesn't survive power loss"),
        ({"mount": Mount("/", "overlay")}, "warn", "goes with the container"),
        ({"mount": Mount("/", "overlay", options=frozenset({"volatile"}))}, "bad", "volatile"),
        ({"mount": Mount("/", "fuse.mergerfs")}, "warn", "up to it"),
        ({"mount": Mount("/", "virtiofs")}, "warn", "up to it"),
        ({"mount": evolve(DISK, options=frozenset({"nobarrier"}))}, "bad", "without barriers"),
        ({"mount": evolve(DISK, options=frozenset({"barrier=0"}))}, "bad", "without barriers"),
        ({"mount": evolve(DISK, options=frozenset({"data=writeback"}))}, "warn", "data=writeback"),
    ],
)
def test_what_is_doubtful_says_what_to_change(changed, level, words):
    (found,) = wrong(evolve(GOOD, **changed))
    assert found.level == level
    assert words in found.what
    assert found.advice


def test_one_slow_sync_among_fast_ones_is_nothing():
    assert not wrong(evolve(GOOD, fdatasync=[0.001] * 19 + [2.0]))


def test_memory_is_not_reproached_with_its_speed():
    found = evolve(GOOD, mount=Mount("/dev/shm", "tmpfs"), fdatasync=[1e-6] * 20, dsync=[1e-6] * 20)
    assert len(wrong(found)) == 1


def test_a_zfs_data_set_is_said_to_be_looked_at():
    found = syncs.judge(evolve(GOOD, mount=Mount("/tank", "zfs", "tank/up")))
    assert [each.level for each in found] == ["ok", "ok"]
    assert "zfs get sync tank/up" in found[1].advice


def test_without_measures_nothing_is_said_of_speed():
    assert syncs.judge(Syncs([], [])) == []


def test_both_ways_are_measured_with_the_clock_that_is_given(tmp_path):
    ticks = count()
    plain, dsync = syncs.measure(str(tmp_path), lambda: float(next(ticks)), 3)
    assert plain == dsync == [1.0, 1.0, 1.0]
    assert sorted(os.listdir(tmp_path)) == ["dsync", "plain"]
    assert syncs.directory_error(str(tmp_path)) is None
    assert syncs.directory_error(str(tmp_path / "none")) == "No such file or directory"


def test_the_cache_of_a_partition_is_that_of_its_disk(tmp_path):
    disk = tmp_path / "sda"
    (disk / "queue").mkdir(parents=True)
    (disk / "queue" / "write_cache").write_text("write through\n")
    (disk / "sda1").mkdir()
    (tmp_path / "8:0").symlink_to(disk)
    (tmp_path / "8:1").symlink_to(disk / "sda1")
    assert syncs.write_cache("8:0", str(tmp_path)) == "write through"
    assert syncs.write_cache("8:1", str(tmp_path)) == "write through"
    assert syncs.write_cache("0:35", str(tmp_path)) is None

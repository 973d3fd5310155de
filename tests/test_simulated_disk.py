"""What the simulated disk forgets, and what it may not forget."""

from __future__ import annotations

import errno
from random import Random

import pytest

from resumable.testing import SimulatedCrash, SimulatedDisk

SEEDS = range(60)


@pytest.fixture
def disk():
    disk = SimulatedDisk()
    disk.make_directory("/d")
    disk.sync_directory("/")
    return disk


def make(disk, path, data, sync=True):
    fd = disk.open(path, create=True)
    disk.writev(fd, [data], 0)
    if sync:
        disk.fdatasync(fd)
    return fd


def content(disk, path):
    """None when it is missing."""
    if disk.file_size(path) is None:
        return None
    return disk.read(disk.open(path, read_only=True), 1 << 20, 0)


def after_crashes(disk, path):
    return {content(disk.crash(Random(seed)), path) for seed in SEEDS}


def test_what_was_synced_with_its_name_survives_every_crash(disk):
    make(disk, "/d/f", b"data")
    disk.sync_directory("/d")
    assert after_crashes(disk, "/d/f") == {b"data"}


def test_a_name_that_was_not_synced_may_be_lost(disk):
    make(disk, "/d/f", b"data")
    assert after_crashes(disk, "/d/f") == {None, b"data"}


def test_data_that_was_not_synced_survives_or_not_or_is_torn(disk):
    fd = make(disk, "/d/f", b"a" * 2048)
    disk.sync_directory("/d")
    disk.writev(fd, [b"b" * 2048], 0)
    seen = after_crashes(disk, "/d/f")
    assert {b"a" * 2048, b"b" * 2048} < seen
    for each in seen:
        assert [each[low : low + 512] in (b"a" * 512, b"b" * 512) for low in range(0, 2048, 512)] == [True] * 4


def test_a_lost_write_before_one_that_survived_leaves_zeros(disk):
    fd = disk.open("/d/f", create=True)
    disk.sync_directory("/d")
    disk.writev(fd, [b"a" * 10], 0)
    disk.writev(fd, [b"b" * 10], 10)
    assert after_crashes(disk, "/d/f") == {b"", b"a" * 10, bytes(10) + b"b" * 10, b"a" * 10 + b"b" * 10}


def test_a_truncation_that_was_not_synced_may_be_lost(disk):
    fd = make(disk, "/d/f", b"0123456789")
    disk.sync_directory("/d")
    disk.truncate(fd, 4)
    assert after_crashes(disk, "/d/f") == {b"0123", b"0123456789"}
    disk.fdatasync(fd)
    assert after_crashes(disk, "/d/f") == {b"0123"}


def test_a_rename_happens_as_a_whole_or_not(disk):
    make(disk, "/d/old", b"new content")
    make(disk, "/d/target", b"old content")
    disk.sync_directory("/d")
    disk.rename("/d/old", "/d/target")
    seen = set()
    for seed in SEEDS:
        after = disk.crash(Random(seed))
        seen.add((content(after, "/d/old"), content(after, "/d/target")))
    assert seen == {(b"new content", b"old content"), (None, b"new content")}
    disk.sync_directory("/d")
    assert after_crashes(disk, "/d/old") == {None}


def test_an_unlink_that_was_not_synced_may_be_undone(disk):
    make(disk, "/d/f", b"data")
    disk.sync_directory("/d")
    disk.unlink("/d/f")
    assert after_crashes(disk, "/d/f") == {None, b"data"}
    disk.sync_directory("/d")
    assert after_crashes(disk, "/d/f") == {None}


def test_a_directory_whose_name_is_lost_takes_its_files_with_it(disk):
    disk.make_directory("/d/sub")
    make(disk, "/d/sub/f", b"data")
    disk.sync_directory("/d/sub")
    assert after_crashes(disk, "/d/sub/f") == {None, b"data"}
    disk.sync_directory("/d")
    assert after_crashes(disk, "/d/sub/f") == {b"data"}


def test_the_same_seed_crashes_the_same_way(disk):
    fd = make(disk, "/d/f", b"a" * 4096)
    disk.sync_directory("/d")
    disk.writev(fd, [b"b" * 4096], 0)
    assert content(disk.crash(Random(7)), "/d/f") == content(disk.crash(Random(7)), "/d/f")


def test_a_killed_process_loses_nothing_but_makes_nothing_durable(disk):
    make(disk, "/d/f", b"data", sync=False)
    after = disk.kill()
    assert content(after, "/d/f") == b"data"
    assert after.open_files == 1
    assert None in after_crashes(after, "/d/f")
    make(disk, "/d/f", b"later")
    assert content(after, "/d/f") == b"data"


def test_a_failing_sync_loses_what_was_unsynced_and_the_next_one_does_not_bring_it_back(disk):
    fd = make(disk, "/d/f", b"synced")
    disk.sync_directory("/d")
    disk.writev(fd, [b" lost"], 6)
    disk.fail_next("fdatasync", errno.EIO)
    with pytest.raises(OSError) as caught:
        disk.fdatasync(fd)
    assert caught.value.errno == errno.EIO
    assert disk.read(fd, 100, 0) == b"synced lost"
    disk.fdatasync(fd)
    assert after_crashes(disk, "/d/f") == {b"synced"}
    disk.writev(fd, [b" lost"], 6)
    disk.fdatasync(fd)
    assert after_crashes(disk, "/d/f") == {b"synced lost"}


def test_a_failing_write_leaves_half_of_its_bytes(disk):
    fd = make(disk, "/d/f", b"")
    disk.fail_next("writev", errno.ENOSPC)
    with pytest.raises(OSError) as caught:
        disk.writev(fd, [b"ab", b"cd"], 0)
    assert caught.value.errno == errno.ENOSPC
    assert disk.read(fd, 100, 0) == b"ab"


def test_a_failing_close_closes(disk):
    fd = make(disk, "/d/f", b"")
    disk.fail_next("close", errno.EIO)
    with pytest.raises(OSError):
        disk.close(fd)
    assert disk.open_files == 0


def test_the_operation_that_fails_can_be_counted_off(disk):
    disk.fail_next("open", errno.EMFILE, after=2)
    disk.open("/d/a", create=True)
    disk.file_size("/d/a")
    disk.open("/d/b", create=True)
    with pytest.raises(OSError) as caught:
        disk.open("/d/c", create=True)
    assert caught.value.errno == errno.EMFILE
    assert set(disk.names("/d")) == {"a", "b"}
    disk.open("/d/c", create=True)


def test_an_operation_that_does_not_exist_cannot_be_made_to_fail(disk):
    with pytest.raises(ValueError):
        disk.fail_next("defragment", errno.EIO)


@pytest.mark.parametrize(("before", "expected"), [(True, b""), (False, b"data")])
def test_crashes_at_a_step_before_or_after_its_effect(disk, before, expected):
    fd = disk.open("/d/f", create=True)
    disk.crash_at(disk.steps + 1, before=before)
    with pytest.raises(SimulatedCrash):
        disk.writev(fd, [b"data"], 0)
    assert content(disk.kill(), "/d/f") == expected


def test_after_a_crash_every_operation_crashes(disk):
    fd = disk.open("/d/f", create=True)
    disk.crash_at(disk.steps + 1)
    for operation, *arguments in [("fdatasync", fd), ("close", fd), ("unlink", "/d/f"), ("names", "/d")]:
        with pytest.raises(SimulatedCrash):
            getattr(disk, operation)(*arguments)


def test_every_operation_is_one_step_and_is_traced_with_its_path(disk):
    steps = disk.steps
    del disk.trace[:]
    fd = disk.open("/d/f", create=True)
    disk.writev(fd, [b"x"], 0)
    disk.fdatasync(fd)
    disk.close(fd)
    disk.sync_directory("/d")
    assert disk.steps == steps + 5
    assert disk.trace == [
        ("open", "/d/f"),
        ("writev", "/d/f"),
        ("fdatasync", "/d/f"),
        ("close", "/d/f"),
        ("sync_directory", "/d"),
    ]


def test_a_crash_passes_by_whoever_handles_errors():
    assert not issubclass(SimulatedCrash, Exception)


def test_a_file_with_two_names_is_one_file_after_a_crash_too(disk):
    make(disk, "/d/f", b"data")
    disk.sync_directory("/d")
    assert disk.link("/d/f", "/d/g")
    disk.sync_directory("/d")
    after = disk.crash(Random(1))
    fd = after.open("/d/g")
    after.writev(fd, [b"DA"], 0)
    assert content(after, "/d/f") == b"DAta"
    assert after.look("/d/f").inode == after.look("/d/g").inode == disk.look("/d/f").inode


def test_a_link_that_was_not_synced_may_be_lost_and_takes_nothing_with_it(disk):
    make(disk, "/d/f", b"data")
    disk.sync_directory("/d")
    disk.link("/d/f", "/d/g")
    assert after_crashes(disk, "/d/g") == {None, b"data"}
    assert after_crashes(disk, "/d/f") == {b"data"}


def test_the_time_of_a_change_is_durable_only_once_everything_is(disk):
    fd = make(disk, "/d/f", b"data")
    disk.sync_directory("/d")
    modified = disk.look(fd).modified
    assert disk.crash(Random(1)).look("/d/f").modified != modified
    disk.fsync(fd)
    assert disk.crash(Random(1)).look("/d/f").modified == modified

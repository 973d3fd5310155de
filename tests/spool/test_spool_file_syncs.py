"""Several files are synced at once where that is quicker, and each answers for itself."""

from __future__ import annotations

import errno
from threading import Barrier, get_ident

import pytest

from resumable.spool.file_syncs import AT_ONCE, SLOW, FileSyncs


class SlowDisk:
    """Its syncs take ``seconds``; those of ``failing`` files fail; ``together`` makes some wait for each other."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.now = 0.0
        self.failing = set()
        self.threads = set()
        self.together = None

    def fdatasync(self, fd):
        self.threads.add(get_ident())
        self.now += self.seconds
        if self.together is not None:
            self.together.wait(30)
        if fd in self.failing:
            raise OSError(errno.EIO, "bad")


@pytest.fixture
def syncs():
    made = []

    def make(seconds):
        disk = SlowDisk(seconds)
        made.append(FileSyncs(disk, lambda: disk.now))
        return made[-1], disk

    yield make
    for each in made:
        each.stop()


def test_a_disk_that_makes_one_wait_syncs_several_files_at_once(syncs):
    files, disk = syncs(10 * SLOW)
    for _ in range(10):
        files.sync([1, 2, 3])
    disk.together = Barrier(AT_ONCE)  # these would wait for ever in turn
    assert files.sync(range(AT_ONCE)) == [None] * AT_ONCE


def test_a_disk_that_is_quick_needs_no_threads(syncs):
    files, disk = syncs(SLOW / 10)
    for _ in range(10):
        files.sync(range(32))
    assert disk.threads == {get_ident()}


def test_a_busy_moment_makes_no_slow_disk(syncs):
    files, disk = syncs(SLOW / 10)
    files.sync([1, 2])
    disk.seconds = 100 * SLOW
    files.sync([1, 2])
    files.sync([1, 2])
    assert disk.threads == {get_ident()}


@pytest.mark.parametrize("seconds", [SLOW / 10, 10 * SLOW])
def test_only_the_file_whose_sync_failed_has_the_error(syncs, seconds):
    files, disk = syncs(seconds)
    for _ in range(10):
        files.sync([1, 2])
    disk.failing = {2}
    first, second, third = files.sync([1, 2, 3])
    assert (first, third) == (None, None)
    assert second.errno == errno.EIO


def test_no_file_is_synced_in_no_time(syncs):
    files, _ = syncs(10 * SLOW)
    assert files.sync([]) == []


def test_a_system_that_gives_no_threads_fails_one_step_and_then_they_go_in_turn(syncs, monkeypatch):
    """The syncs that began may have heard of a failure, so none of that step is repeated."""
    files, disk = syncs(10 * SLOW)
    for _ in range(10):
        files.sync([1, 2, 3])
    files.stop()
    files._threads = None

    def none(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", none)
    assert [error.errno for error in files.sync([1, 2, 3])] == [errno.EAGAIN] * 3
    disk.threads.clear()
    assert files.sync([1, 2, 3]) == [None] * 3
    assert disk.threads == {get_ident()}

"""Calls that only Linux has, and what stands in for them elsewhere."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from resumable.aio import system
from resumable.hooks.processes import Run
from resumable.model.errors import StartupError
from resumable.spool.disk import Disk
from resumable.spool.objects import scratch

LINUXES = (
    *("fdatasync", "copy_file_range", "posix_fallocate", "memfd_create"),
    *("sched_getaffinity", "waitid", "O_TMPFILE"),
)
FULL = 51


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """The module as it is where these calls are missing. ``control``: what fcntl does."""

    def load(control: Callable[..., Any] | None = None) -> ModuleType:
        for name in LINUXES:
            monkeypatch.delattr(os, name, raising=False)
        monkeypatch.setattr(sys, "platform", "darwin")
        if control is not None:
            monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
            monkeypatch.setattr(fcntl, "fcntl", control)
        spec = spec_from_file_location("elsewhere", system.__file__)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.skipif(sys.platform != "linux", reason="about Linux")
def test_on_linux_each_call_is_the_systems_own() -> None:
    assert system.sync_data is os.fdatasync and system.sync_file is os.fsync
    assert system.copy_file_range is os.copy_file_range and system.claim is os.posix_fallocate
    assert not system.HAS_FULL_SYNC and system.LONGEST_SOCKET_PATH == 107


def test_on_macos_a_sync_reaches_the_platter(elsewhere: Callable[..., ModuleType]) -> None:
    asked: list[tuple[int, int]] = []
    there = elsewhere(lambda *arguments: asked.append(arguments))
    there.sync_data(7)
    there.sync_file(8)
    assert asked == [(7, FULL), (8, FULL)] and there.HAS_FULL_SYNC
    assert there.LONGEST_SOCKET_PATH == 103


def test_a_volume_without_full_syncs_is_synced_as_far_as_it_can(
    elsewhere: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def control(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "no")

    monkeypatch.setattr(os, "fsync", synced.append)
    elsewhere(control).sync_data(7)
    assert synced == [7]


def test_a_full_sync_that_fails_is_no_success(elsewhere: Callable[..., ModuleType]) -> None:
    def control(*_: Any) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    with pytest.raises(OSError, match="broken"):
        elsewhere(control).sync_data(7)


def test_blocks_are_claimed_by_writing_them(elsewhere: Callable[..., ModuleType], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    with file.open("r+b") as opened:
        elsewhere().claim(opened.fileno(), 0, 3 << 20)
    assert file.stat().st_size == 3 << 20 and file.read_bytes()[:4] == b"abc\0"


def test_memory_is_shared_by_a_file_that_has_no_name(elsewhere: Callable[..., ModuleType]) -> None:
    descriptor = elsewhere().shared_memory("table")
    try:
        os.truncate(descriptor, 8)
        one, other = mmap.mmap(descriptor, 8), mmap.mmap(descriptor, 8)
        one[:3] = b"abc"
        assert other[:3] == b"abc" and os.fstat(descriptor).st_nlink == 0
        one.close()
        other.close()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("limits", "most", "asked"),
    [
        ((256, resource.RLIM_INFINITY), 10240, (10240, resource.RLIM_INFINITY)),
        ((256, 4096), 4096, (4096, 4096)),
        ((65536, resource.RLIM_INFINITY), 10240, None),
        ((4096, 4096), 4096, None),
    ],
)
def test_as_many_files_as_macos_grants_may_be_open(
    limits: tuple[int, int],
    most: int,
    asked: tuple[int, int] | None,
    elsewhere: Callable[..., ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: told.append(limit))
    there = elsewhere()
    there.raise_file_limit()
    assert there.most_files() == most and told == ([] if asked is None else [asked])


def test_files_are_copied_without_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resumable.spool.disk.copy_file_range", system._no_copy_range)
    (tmp_path / "a").write_bytes(b"0123456789")
    disk = Disk()
    source, target = disk.open(str(tmp_path / "a")), disk.open(str(tmp_path / "b"), create=True)
    assert disk.copy_range(source, target, 2, 0, 5) == 5
    disk.close(source)
    disk.close(target)
    assert (tmp_path / "b").read_bytes() == b"23456"


def test_an_object_store_as_the_spool_is_refused_where_nothing_can_be_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_libc", object())
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    with pytest.raises(StartupError, match="needs Linux"):
        scratch.Scratch(str(tmp_path), 1 << 20, Disk()).start()


@pytest.mark.process
def test_a_command_ends_where_waitid_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "waitid", raising=False)
    outcome = Run([sys.executable, "-c", "print(input())"], {}).talk(b"hello\n", 60.0, 100, lambda: 0.0)
    assert (outcome.status, outcome.output) == (0, b"hello\n")

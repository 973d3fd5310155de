"""Whether synced data is on the disk, as far as software can see.

A disk that lies can't be caught by software, only suspected: a sync that takes less time than any disk needs was
answered by a memory. Sources: fdatasync(2), open(2) on O_DSYNC,
https://docs.kernel.org/block/writeback_cache_control.html.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import median

from attrs import frozen

from resumable.aio.system import sync_data, sync_file
from resumable.doctor.findings import Finding, span_text
from resumable.spool.directory import Mount

NAME = "fsync"
TIMES = 20
BLOCK = 4096
#: Seconds. The fastest disks with a protected cache take 10 to 30 µs for the block alone, and a sync of a file that
#: has grown has to write the file system's own records too.
TOO_FAST = 20e-6
TOO_SLOW = 0.1
#: A sync that takes less than this share of what O_DSYNC takes did something else; below DOUBT neither tells anything.
SHARE, DOUBT = 0.2, 100e-6

MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
SHARED = frozenset({"9p", "virtiofs", "vboxsf", "prl_fs", "drvfs", "fakeowner"})


@frozen
class Syncs:
    """``fdatasync`` and ``dsync``: seconds that each small write took to be durable, in both ways; empty where it could
    not be tried. ``directory``: why a directory can't be synced. ``preloaded``: the library that makes syncs do
    nothing. ``cache``: the kernel's word for the disk's cache."""

    fdatasync: Sequence[float]
    dsync: Sequence[float]
    directory: str | None = None
    preloaded: str | None = None
    mount: Mount | None = None
    cache: str | None = None


def measure(scratch: str, clock: Callable[[], float], times: int = TIMES) -> tuple[list[float], list[float]]:
    """Write ``times`` blocks in both ways; seconds for each. Raises OSError."""
    plain = _timed(os.path.join(scratch, "plain"), 0, sync_data, clock, times)
    each_write = getattr(os, "O_DSYNC", os.O_SYNC)
    return plain, _timed(os.path.join(scratch, "dsync"), each_write, lambda handle: None, clock, times)


def _timed(path: str, flags: int, sync: Callable[[int], None], clock: Callable[[], float], times: int) -> list[float]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | flags, 0o600)
    try:
        took = []
        for number in range(times):
            start = clock()
            os.pwrite(handle, bytes([number % 256]) * BLOCK, number * BLOCK)
            sync(handle)
            took.append(clock() - start)
        return took
    finally:
        os.close(handle)


def directory_error(scratch: str) -> str | None:
    """Why the names in a directory can't be made durable; None if they can."""
    try:
        handle = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_file(handle)
        finally:
            os.close(handle)
    except OSError as error:
        return error.strerror or str(error)
    return None


def write_cache(device: str, sys: str = "/sys/dev/block") -> str | None:
    """``write back`` or ``write through`` for the device MAJOR:MINOR; None where it has no disk."""
    for queue in ("queue", "../queue"):  # a partition's is its disk's
        with suppress(OSError), open(f"{sys}/{device}/{queue}/write_cache", encoding="ascii") as file:
            return file.read().strip()
    return None


def judge(found: Syncs) -> list[Finding]:
    """The findings about syncs."""
    findings = [*_deceived(found), *_mounted(found), *_directory(found), *_paced(found)]
    told = [Finding(NAME, "ok", _told(found))] if found.fdatasync else []
    return findings if any(each.level == "bad" for each in findings) else [*told, *findings]


def _told(found: Syncs) -> str:
    where = "" if found.mount is None else f" on {found.mount.kind}"
    cache = "" if found.cache is None else f", with {found.cache} cache"
    took = span_text(median(found.fdatasync))
    return f"a block is synced in {took} (median of {len(found.fdatasync)}){where}{cache}"


def _deceived(found: Syncs) -> list[Finding]:
    if found.preloaded is None:
        return []
    advice = "It makes every sync do nothing, so power loss takes what was acknowledged: run the daemon without it."
    return [Finding(NAME, "bad", found.preloaded, advice)]


def _mounted(found: Syncs) -> list[Finding]:
    mount = found.mount
    if mount is None:
        return []
    findings = []
    if mount.kind in MEMORY:
        what = f"{mount.kind} is memory: it doesn't survive power loss, nor a restart of the machine"
        findings.append(Finding(NAME, "warn", what, "Choose a directory on a disk with --upload-dir."))
    if mount.kind == "overlay":
        if "volatile" in mount.options:
            what, level = "the overlay is mounted volatile: syncs do nothing", "bad"
        else:
            what, level = "it is the container's own layer, which goes with the container", "warn"
        findings.append(Finding(NAME, level, what, "Mount a volume or a directory of the host there."))  # type: ignore[arg-type]
    if mount.kind in SHARED or mount.kind.startswith("fuse"):
        what = f"{mount.kind} is made by another program, and how much a sync is worth there is up to it"
        advice = "Choose a file system of this machine's own with --upload-dir, or make sure that it passes syncs on."
        findings.append(Finding(NAME, "warn", what, advice))
    if mount.kind == "zfs":
        what = "a ZFS data set can be told to ignore syncs, which doesn't show from here"
        findings.append(Finding(NAME, "ok", what, f"zfs get sync {mount.source} should not say disabled."))
    if mount.options & {"nobarrier", "barrier=0"}:
        what = "the file system is mounted without barriers, so a sync may leave data in the disk's cache"
        findings.append(Finding(NAME, "bad", what, f"Mount {mount.point} without nobarrier and barrier=0."))
    if "data=writeback" in mount.options:
        what = "data=writeback: files may end in what others have deleted, after power loss"
        findings.append(Finding(NAME, "warn", what, f"Mount {mount.point} with data=ordered."))
    return findings


def _directory(found: Syncs) -> list[Finding]:
    if found.directory is None:
        return []
    what = f"a directory can't be synced: {found.directory}"
    return [Finding(NAME, "bad", what, "New files may be lost with power: choose another file system.")]


def _paced(found: Syncs) -> list[Finding]:
    if not found.fdatasync or not found.dsync:
        return []
    plain, dsync = median(found.fdatasync), median(found.dsync)
    if found.mount is not None and found.mount.kind in MEMORY:
        return []
    if plain < TOO_FAST:
        what = f"a sync takes {span_text(plain)}, less than any disk needs"
        advice = (
            "Something in between answers for the disk: a virtual machine's cache (cache=unsafe), a controller whose"
            " cache has no battery, or a library. Ask whoever runs it; power loss may take what was acknowledged."
        )
        return [Finding(NAME, "warn", what, advice)]
    if dsync > DOUBT and plain < dsync * SHARE:
        what = f"fdatasync takes {span_text(plain)}, and writing with O_DSYNC {span_text(dsync)}: the first skips work"
        return [Finding(NAME, "warn", what, "Look for a library or a sandbox that catches fdatasync.")]
    if plain > TOO_SLOW:
        what = f"a sync takes {span_text(plain)}, and every acknowledgement waits for one"
        advice = "Look at the disk (iostat -x 1, dmesg) and at what else writes to it; take a faster one for uploads."
        return [Finding(NAME, "warn", what, advice)]
    return []

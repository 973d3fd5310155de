"""The machine: versions, open files, memory, clock, and room in the file system: for bytes, and for files.

Expiry, signatures and tokens go by the clock; S3 refuses requests that are fifteen minutes off. Sources: adjtimex(2),
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html (RequestTimeTooSkewed).
"""

from __future__ import annotations

import ctypes
import os
import platform
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from attrs import field, frozen
from twisted import __version__ as twisted_version

from resumable import __version__
from resumable.aio.system import most_files
from resumable.doctor.findings import Finding, age_text, size_text, unseen

#: Tested: from the first to the last; setup.py says the same.
PYTHON = ((3, 11), (3, 14))
#: From the first to before the second.
TWISTED = ((26, 4), (27, 0))
#: A connection takes a descriptor, a long append another.
FEW_FILES = 4096
LITTLE_MEMORY = 256 << 20
CGROUP = "/sys/fs/cgroup/memory.max"

CLOCK = "clock"
#: The clock can't be right before this release was made.
RELEASED: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
SKEWED, OFF = 15 * 60.0, 60.0
"""Seconds of difference that stores refuse, and that are worth a warning."""
_UNSYNCHRONISED = 0x40  # STA_UNSYNC

SPACE = "free space"
#: Files that are counted at most; a directory with more is only estimated.
COUNTED = 100_000
FEW_INODES, NO_INODES = 10_000, 100


@frozen
class MachineFacts:
    """``files``: the most that a process may have open. ``memory``: bytes that are free, or that the cgroup grants."""

    python: tuple[int, ...]
    twisted: tuple[int, ...]
    sqlite: tuple[int, ...]
    files: int
    memory: int | None


def look(meminfo: str = "/proc/meminfo", cgroup: str = CGROUP) -> MachineFacts:
    """Read versions and limits of this process and its machine."""
    python = tuple(map(int, platform.python_version_tuple()[:2]))
    twisted = tuple(int(part) for part in twisted_version.split(".")[:2] if part.isdigit())
    return MachineFacts(
        python, twisted, sqlite3.sqlite_version_info, min(most_files(), 1 << 62), _memory(meminfo, cgroup)
    )


def judge(machine: MachineFacts) -> list[Finding]:
    """The findings about versions, open files and memory."""
    return [_versions(machine), _files(machine), *_memory_found(machine)]


def _versions(machine: MachineFacts) -> Finding:
    python, twisted, sqlite = (".".join(map(str, each)) for each in (machine.python, machine.twisted, machine.sqlite))
    what = f"resumable {__version__}, Python {python}, Twisted {twisted}, SQLite {sqlite}"
    if not PYTHON[0] <= machine.python <= PYTHON[1]:
        tested = " to ".join(f"{major}.{minor}" for major, minor in PYTHON)
        return Finding("versions", "warn", what, f"Python {python} is not one that was tested: take {tested}.")
    if not TWISTED[0] <= machine.twisted < TWISTED[1]:
        advice = f"Twisted {twisted} is not one that was tested: install one from 26.4 on and before 27."
        return Finding("versions", "bad", what, advice)
    return Finding("versions", "ok", what)


def _files(machine: MachineFacts) -> Finding:
    count = "any number of" if machine.files >= 1 << 62 else str(machine.files)
    what = f"{count} files may be open at once"
    if machine.files < FEW_FILES:
        advice = (
            "Each connection takes one, a long append another: raise the hard limit (LimitNOFILE=65536 for systemd,"
            " --ulimit nofile=65536 for docker, ulimit -Hn in a shell)."
        )
        return Finding("open files", "warn", what, advice)
    return Finding("open files", "ok", what)


def _memory(meminfo: str, cgroup: str) -> int | None:
    found = []
    with suppress(OSError, ValueError, StopIteration), open(meminfo, encoding="ascii") as lines:
        found.append(next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError), open(cgroup, encoding="ascii") as file:
        found.append(int(file.read()))  # "max" where there is no limit
    return min(found, default=None)


def _memory_found(machine: MachineFacts) -> list[Finding]:
    if machine.memory is None:
        return [unseen("memory", "this system doesn't tell how much is free", "Leave 256 MiB for it.")]
    what = f"{size_text(machine.memory)} may still be used"
    if machine.memory < LITTLE_MEMORY:
        advice = (
            f"Give it {size_text(LITTLE_MEMORY)}: bodies that wait for the disk take up to 32 MiB, those for remotes"
            " 16 MiB, and there are the program itself and its connections."
        )
        return [Finding("memory", "warn", what, advice)]
    return [Finding("memory", "ok", what)]


def preloaded(pids: tuple[int | str, ...] = ("self",), proc: str = "/proc", environ: str | None = None) -> str | None:
    """The library that makes syncs do nothing, where one of these processes has it or the environment asks for it."""
    wanted = os.environ.get("LD_PRELOAD", "") if environ is None else environ
    if "eatmydata" in wanted:
        return "LD_PRELOAD has libeatmydata"
    for pid in pids:
        with suppress(OSError), open(f"{proc}/{pid}/maps", encoding="utf-8", errors="replace") as lines:
            if any("eatmydata" in line for line in lines):
                return "the daemon has loaded libeatmydata" if pid != "self" else "libeatmydata is loaded"
    return None


class _Timex(ctypes.Structure):
    """The first members of struct timex, and room for the rest."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    ]


@frozen
class ClockFacts:
    """``now``: seconds since the epoch. ``goes_on``: the monotonic clock does not go back. ``synchronised``: None where
    the kernel doesn't say. ``others``: seconds that other clocks are ahead, by their names."""

    now: float
    goes_on: bool
    synchronised: bool | None
    others: Mapping[str, float] = field(factory=dict)


def synchronised() -> bool | None:
    """Whether a service keeps the clock right, as the kernel knows; None where it doesn't say."""
    timex = _Timex()
    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else not timex.status & _UNSYNCHRONISED


def judge_clock(clock: ClockFacts) -> list[Finding]:
    """The findings about the clock."""
    shown = datetime.fromtimestamp(clock.now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    set_it = "Set it, and run chrony or systemd-timesyncd (timedatectl set-ntp true)."
    if clock.now < RELEASED:
        return [Finding(CLOCK, "bad", f"it is {shown} by this machine, before this release was made", set_it)]
    if not clock.goes_on:
        what = "the monotonic clock went back, which no time-out survives"
        return [Finding(CLOCK, "bad", what, "It is the kernel's or the virtual machine's: choose another clocksource.")]
    findings = [_compared(name, ahead, set_it) for name, ahead in clock.others.items() if abs(ahead) > OFF]
    if clock.synchronised is False:
        what = f"{shown}; the kernel says that nothing keeps it right"
        advice = "Run chrony or systemd-timesyncd, unless the host sets this machine's clock: stores refuse 15 minutes."
        findings.append(Finding(CLOCK, "warn", what, advice))
    if findings:
        return findings
    agrees = f", as by {', '.join(clock.others)}" if clock.others else ""
    return [Finding(CLOCK, "ok", f"{shown}{agrees}{', kept right' if clock.synchronised else ''}")]


def _compared(name: str, ahead: float, advice: str) -> Finding:
    what = f"{name} is {age_text(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this machine"
    if abs(ahead) >= SKEWED:
        return Finding(CLOCK, "bad", f"{what}; S3 refuses requests that are 15 minutes off", advice)
    return Finding(CLOCK, "warn", what, advice)


@frozen
class SpaceFacts:
    """``free``: bytes that may still be written. ``files``: how many may still be made, None for any number. ``used``:
    bytes of the ``counted`` uploads here; ``more``: there are more of them."""

    free: int
    files: int | None
    used: int = 0
    counted: int = 0
    more: bool = False


def look_at_space(nearest: str, directory: str) -> SpaceFacts:
    """Ask the file system, and count the files of the directory. Raises OSError."""
    stats = os.statvfs(nearest)
    files = stats.f_favail if stats.f_files else None  # some file systems make them as they need
    used = counted = 0
    more = False
    if os.path.isdir(directory):
        with os.scandir(directory) as entries:
            here = (each for each in entries if each.is_file(follow_symlinks=False))
            for each in islice(here, COUNTED):
                used += each.stat(follow_symlinks=False).st_blocks * 512
                counted += 1
            more = next(here, None) is not None
    return SpaceFacts(stats.f_bavail * stats.f_frsize, files, used, counted, more)


def judge_space(room: SpaceFacts, reserve: int, max_size: int | None) -> list[Finding]:
    """The findings about room. ``reserve`` and ``max_size``: bytes, as in the settings."""
    free = size_text(room.free)
    if room.free <= reserve:
        what = f"{free} are free, and --reserve is {size_text(reserve)}: uploads are refused with 507"
        advice = "Make room on the disk, enlarge it, or let local copies go (--local reclaim, with a remote)."
        return [Finding(SPACE, "bad", what, advice), *_inodes(room)]
    files = "files here have" if room.counted != 1 else "file here has"
    least = "at least " if room.more else ""
    used = f"; {least}{room.counted} {files} {size_text(room.used)}" if room.counted else ""
    findings = [Finding(SPACE, "ok", f"{free} are free, {size_text(reserve)} in reserve{used}")]
    if max_size is not None and max_size > room.free - reserve:
        what = f"one upload of --max-size ({size_text(max_size)}) doesn't fit into {free}"
        findings.append(Finding(SPACE, "warn", what, "Enlarge the disk, or lower --max-size."))
    return [*findings, *_inodes(room)]


def _inodes(room: SpaceFacts) -> list[Finding]:
    if room.files is None or room.files >= FEW_INODES:
        return []
    what = f"only {room.files} more files can be made (df -i), however much space there is"
    advice = "Each upload is a file: remove small ones, or make the file system anew with more inodes."
    return [Finding(SPACE, "bad" if room.files < NO_INODES else "warn", what, advice)]

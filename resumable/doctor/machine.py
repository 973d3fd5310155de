"""Versions, open files and memory.

Changes when another release of Python or Twisted has been tested, or what a daemon needs of its machine.
"""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
from contextlib import suppress

from attrs import frozen
from twisted import __version__ as twisted_version

from resumable import __version__
from resumable.doctor import human
from resumable.doctor.findings import Finding

#: Tested: from the first to the last; setup.py says the same.
PYTHON = ((3, 11), (3, 14))
#: From the first to before the second.
TWISTED = ((26, 4), (27, 0))
#: A connection takes a descriptor, a long append another.
FEW_FILES = 4096
LITTLE_MEMORY = 256 << 20
CGROUP = "/sys/fs/cgroup/memory.max"


@frozen
class Machine:
    """``files``: the most that a process may have open. ``memory``: bytes that are free, or that are granted."""

    python: tuple[int, ...]
    twisted: tuple[int, ...]
    sqlite: tuple[int, ...]
    files: int
    memory: int | None


def look(meminfo: str = "/proc/meminfo", cgroup: str = CGROUP) -> Machine:
    python = tuple(map(int, platform.python_version_tuple()[:2]))
    twisted = tuple(int(part) for part in twisted_version.split(".")[:2] if part.isdigit())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 1 << 62 if hard == resource.RLIM_INFINITY else hard
    return Machine(python, twisted, sqlite3.sqlite_version_info, files, _memory(meminfo, cgroup))


def judge(machine: Machine) -> list[Finding]:
    return [_versions(machine), _files(machine), *_memory_found(machine)]


def _versions(machine: Machine) -> Finding:
    python, twisted, sqlite = (".".join(map(str, each)) for each in (machine.python, machine.twisted, machine.sqlite))
    what = f"resumable {__version__}, Python {python}, Twisted {twisted}, SQLite {sqlite}"
    if not PYTHON[0] <= machine.python <= PYTHON[1]:
        tested = " to ".join(f"{major}.{minor}" for major, minor in PYTHON)
        return Finding("versions", "warn", what, f"Python {python} is not one that was tested: take {tested}.")
    if not TWISTED[0] <= machine.twisted < TWISTED[1]:
        advice = f"Twisted {twisted} is not one that was tested: install one from 26.4 on and before 27."
        return Finding("versions", "bad", what, advice)
    return Finding("versions", "ok", what)


def _files(machine: Machine) -> Finding:
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


def _memory_found(machine: Machine) -> list[Finding]:
    if machine.memory is None:
        return []
    what = f"{human.size(machine.memory)} may still be used"
    if machine.memory < LITTLE_MEMORY:
        advice = (
            f"Give it {human.size(LITTLE_MEMORY)}: bodies that wait for the disk take up to 32 MiB, those for remotes"
            " 16 MiB, and there are the program itself and its connections."
        )
        return [Finding("memory", "warn", what, advice)]
    return [Finding("memory", "ok", what)]


def preloaded(pids: tuple[int | str, ...] = ("self",), proc: str = "/proc", environ: str | None = None) -> str | None:
    """A library that makes syncs do nothing, if one of these processes has it, or the environment asks for it."""
    wanted = os.environ.get("LD_PRELOAD", "") if environ is None else environ
    if "eatmydata" in wanted:
        return "LD_PRELOAD has libeatmydata"
    for pid in pids:
        with suppress(OSError), open(f"{proc}/{pid}/maps", encoding="utf-8", errors="replace") as lines:
            if any("eatmydata" in line for line in lines):
                return "the daemon has loaded libeatmydata" if pid != "self" else "libeatmydata is loaded"
    return None

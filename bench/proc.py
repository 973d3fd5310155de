"""What a process and its children have used, read from /proc (Linux).

Changes when another figure of a process is wanted. Invariant: everything is summed over the whole process tree, so
that a server with helpers or workers is charged for them. See proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
KIB = 1024


def tree(pid: int) -> Iterator[int]:
    """Yield ``pid`` and every living descendant of it."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """User and system seconds of the tree; the root's reaped children count too. Resolution: one clock tick."""
    ticks = 0
    for one in tree(pid):
        with suppress(OSError):
            # The name in parentheses may hold blanks; what follows it starts at field 3, utime is field 14.
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11 : 15 if one == pid else 13])
    return ticks / TICK


def memory(pid: int, field: str) -> int:
    """Bytes of ``field`` of /proc/PID/status (VmRSS, VmHWM, RssAnon), summed over the tree."""
    total = 0
    for one in tree(pid):
        with suppress(OSError):
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == field:
                    total += int(value.split()[0]) * KIB
    return total


def forget_peak(pid: int) -> None:
    """Let VmHWM start again from the present; where the kernel refuses, it stays the peak since the start."""
    for one in tree(pid):
        with suppress(OSError):
            Path(f"/proc/{one}/clear_refs").write_text("5")


def available() -> int:
    """Bytes of memory that the machine can still give without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KIB
    return 0

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
ESTABLISHED = "01"


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


def exact_seconds(pid: int) -> float:
    """The same to the nanosecond, of processes that have one thread each; those that have ended don't count."""
    first, *others = tree(pid)
    ran = [_nanoseconds(first)]
    for one in others:
        with suppress(OSError):
            ran.append(_nanoseconds(one))
    return sum(ran) / 1e9


def _nanoseconds(pid: int) -> int:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def connections(pid: int, port: int) -> list[int]:
    """How many open connections to that TCP port of this machine each process of the tree has, where it has any."""
    table = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inodes = {
        fields[9] for fields in table if fields[3] == ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port
    }
    counts = []
    for one in tree(pid):
        with suppress(OSError):
            links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{one}/fd")]
            counts.append(sum(link.removeprefix("socket:[").removesuffix("]") in inodes for link in links))
    return [count for count in counts if count]


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

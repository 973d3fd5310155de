"""What the daemon takes of the machine, now and at rest.

Source: proc(5); the daemon's own metrics.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.proc import memory

MIB = 1 << 20
MAY_GROW = 12 * MIB
"""Bytes that memory may grow by between two rests of one process: an allocator is no bookkeeper."""
POOLED = 24
"""Connections to the store and to hooks, and threads, that may wait to be used again."""
TABLES = ("uploads", "replicas", "replica_parts", "outbox", "pins")


@dataclass(frozen=True)
class Rest:
    """A process at rest. ``memory``: resident bytes of its own, not of files."""

    pid: int
    memory: int
    files: int
    threads: int

    def __str__(self) -> str:
        return f"{self.memory / MIB:.1f} MiB, {self.files} files, {self.threads} threads"


def rest(pid: int) -> Rest:
    return Rest(pid, memory(pid, "RssAnon"), len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")))


def leaks(before: Rest, after: Rest, pooled: int = POOLED, may_grow: int = MAY_GROW) -> list[str]:
    """What has grown from one rest to the other of the same process. ``pooled``: connections and threads that may;
    ``may_grow``: bytes."""
    assert before.pid == after.pid
    problems = []
    if after.memory > before.memory + may_grow:
        problems.append(f"memory has grown: {before} -> {after}")
    if after.files > before.files + pooled:
        problems.append(f"open files have grown: {before} -> {after}")
    if after.threads > before.threads + pooled:
        problems.append(f"threads have grown: {before} -> {after}")
    return problems


def rows(upload_dir: Path) -> Mapping[str, int]:
    """Rows of each table; the daemon must have ended."""
    link = sqlite3.connect(upload_dir / ".resumable" / "catalog.sqlite3")
    try:
        return {each: link.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in TABLES}
    finally:
        link.close()


def files(upload_dir: Path) -> list[str]:
    """Data files that are there."""
    return [each.name for each in upload_dir.iterdir() if each.name != ".resumable"]

"""When long appends commit by time: one tick for all of them, with a bound on how many commit in one second.

An append commits a second after its last commit if it has `WORTHWHILE` new bytes, and after `LATEST` seconds if
it has any. Those that waited longest go first, so 5,000 slow uploads share `PER_TICK` syncs a second.
"""

from __future__ import annotations

from typing import Protocol

WORTHWHILE = 1 << 20
LATEST = 10.0
PER_TICK = 128


class Committer(Protocol):
    """A long append, as far as the schedule cares."""

    @property
    def committed(self) -> int: ...

    @property
    def committed_at(self) -> float: ...

    @property
    def committable(self) -> int: ...

    def commit_soon(self) -> None: ...


class Schedule:
    """The appends under way."""

    def __init__(self) -> None:
        self._waiting: dict[Committer, None] = {}

    def add(self, append: Committer) -> None:
        self._waiting[append] = None

    def remove(self, append: Committer) -> None:
        self._waiting.pop(append, None)

    def __len__(self) -> int:
        return len(self._waiting)

    def appends(self) -> list[Committer]:
        return list(self._waiting)

    def tick(self, now: float) -> int:
        """Start the commits that are due; answers how many. Called once a second."""
        due = [append for append in self._waiting if self._due(append, now)][:PER_TICK]
        for append in due:
            del self._waiting[append]
            self._waiting[append] = None
            append.commit_soon()
        return len(due)

    @staticmethod
    def _due(append: Committer, now: float) -> bool:
        fresh = append.committable - append.committed
        waited = now - append.committed_at
        return waited >= (1.0 if fresh >= WORTHWHILE else LATEST) and fresh > 0

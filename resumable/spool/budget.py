"""The bytes that may wait in memory, over all sinks together.

Invariant: once the limit is exceeded, every sink with bytes queued has its producer paused until the sum of queued
bytes falls below half of the limit; a sink with nothing queued never waits for others.
"""

from __future__ import annotations

from typing import Protocol


class BudgetHolder(Protocol):
    """A sink, or another holder of bytes in memory."""

    def squeeze(self) -> None:
        """Take no more bytes, as far as possible, and write those that are held."""

    def ease(self) -> None:
        """There is room again."""


class Budget:
    """Bytes queued by all sinks; over ``limit`` they are paused, below half of it resumed.

    A larger limit lets a slow disk take more memory, a smaller one makes the senders stutter.
    """

    def __init__(self, limit: int = 32 << 20) -> None:
        self.limit = limit
        self.used = 0
        self.over = False
        self._held: dict[BudgetHolder, int] = {}

    def add(self, holder: BudgetHolder, count: int) -> None:
        """``holder`` holds ``count`` bytes more."""
        self._held[holder] = self._held.get(holder, 0) + count
        self.used += count
        if not self.over and self.used > self.limit:
            self.over = True
            for each in list(self._held):
                each.squeeze()

    def release(self, holder: BudgetHolder, count: int) -> None:
        """``holder`` holds ``count`` bytes less."""
        left = self._held.get(holder, 0) - count
        if left > 0:
            self._held[holder] = left
        else:
            self._held.pop(holder, None)
        self.used -= count
        if self.over and self.used < self.limit // 2:
            self.over = False
            for each in list(self._held):
                each.ease()

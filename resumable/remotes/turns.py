"""Who may work on an upload's record.

One reason to change: how changes of one record keep out of each other's way. Invariant: one at a time for each upload,
in the order in which they came; nothing is kept of uploads that nobody works on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock

R = TypeVar("R")


class Turns:
    """Takes turns, upload by upload."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[DeferredLock, int]] = {}

    async def alone(self, upload_id: str, work: Callable[[], Coroutine[Deferred[Any], Any, R]]) -> R:
        """Do it while nobody else changes this upload's record."""
        lock, users = self._locks.get(upload_id, (DeferredLock(), 0))
        self._locks[upload_id] = lock, users + 1
        try:
            await lock.acquire()
            try:
                return await work()
            finally:
                lock.release()
        finally:
            lock, users = self._locks.pop(upload_id)
            if users > 1:
                self._locks[upload_id] = lock, users - 1

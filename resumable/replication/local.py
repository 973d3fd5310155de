"""What becomes of the local data of uploads that are stored.

One reason to change: the operator's choice. Invariant: nothing is given up but what the catalog calls droppable, and
its file only after the catalog has recorded that.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable

from twisted.logger import Logger

from resumable.model.replica import IReplicas

BATCH = 256
SMALL_BATCH = 16
"""Uploads that are given up before it is asked again whether space is needed."""

_log = Logger()


class Policy(enum.Enum):
    """KEEP: for ever. DROP: at once. RECLAIM: kept as a cache until space is needed or an age is reached."""

    KEEP = "keep"
    DROP = "drop"
    RECLAIM = "reclaim"


class Local:
    """Call `sweep` now and then, and after an upload was stored.

    ``age``: seconds since the last replica was stored, after which RECLAIM gives the data up (None: never for that).
    ``space_needed`` is asked before each small batch. ``reclaim`` removes the files of what was given up and returns
    when they are off the disk.
    """

    def __init__(
        self,
        replicas: IReplicas,
        policy: Policy,
        *,
        wall: Callable[[], float],
        reclaim: Callable[[], Awaitable[None]],
        space_needed: Callable[[], bool] = lambda: False,
        age: float | None = None,
    ) -> None:
        self._replicas = replicas
        self._policy = policy
        self._wall = wall
        self._reclaim = reclaim
        self._space_needed = space_needed
        self._age = age

    async def sweep(self) -> int:
        """Give up what may go; how many. Raises CatalogUnavailable, OSError."""
        if self._policy is Policy.KEEP:
            return 0
        if self._policy is Policy.DROP:
            return await self._drop_all(self._wall(), BATCH, lambda: True)
        dropped = 0
        if self._age is not None:
            dropped = await self._drop_all(self._wall() - self._age, BATCH, lambda: True)
        return dropped + await self._drop_all(self._wall(), SMALL_BATCH, self._space_needed)

    async def _drop_all(self, stored_before: float, batch: int, wanted: Callable[[], bool]) -> int:
        """The oldest first, as long as it is ``wanted``."""
        count = 0
        while wanted():
            found = await self._replicas.droppable(stored_before, batch)
            dropped = await self._replicas.drop([upload.id for upload in found], self._wall()) if found else []
            if not dropped:
                break
            count += len(dropped)
            _log.debug("gave up the local data of {count} uploads", count=len(dropped))
            await self._reclaim()
        return count

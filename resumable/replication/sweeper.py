"""Finds what was begun in a store and never finished.

One reason to change: what may be removed from a store without being asked for. Invariant: nothing goes but what lies
under the key of an upload of ours, is not what that upload is working with, and is older than a day; what is not ours
is counted and reported, never touched.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence

from attrs import define
from twisted.logger import Logger

from resumable.model.replica import IReplicas
from resumable.remotes.interfaces import ISweeper, Unfinished

DAY = 86400.0
PAGE = 100
MOST = 10_000
"""Entries of one store that one sweep looks at; the next one goes on behind them."""

_log = Logger()


@define
class Swept:
    """``discarded``: removed, or would be. ``young``: of ours, not old enough. ``in_use``: an upload works with it.

    ``foreign``: under keys that we know nothing of.
    """

    discarded: int = 0
    young: int = 0
    in_use: int = 0
    foreign: int = 0


class StoreSweeper:
    """One remote's. Call `sweep` about once a day. ``dry_run``: it only tells."""

    def __init__(
        self,
        remote: str,
        backend: ISweeper,
        replicas: IReplicas,
        wall: Callable[[], float],
        *,
        dry_run: bool = False,
        most: int = MOST,
    ) -> None:
        self._remote = remote
        self._backend = backend
        self._replicas = replicas
        self._wall = wall
        self._dry_run = dry_run
        self._most = most
        self._after: Unfinished | None = None

    async def sweep(self) -> Swept:
        """What was found. Raises RemoteError, CatalogUnavailable; what was done until then is done."""
        swept = Swept()
        left = max(1, self._most // PAGE)
        page = await self._page() or await self._page()  # the last sweep may have ended with the last entry
        while page:
            for found in page:
                await self._look_at(found, swept)
            left -= 1
            page = await self._page() if left else ()
        self._report(swept)
        return swept

    async def _page(self) -> Sequence[Unfinished]:
        page = await self._backend.list_unfinished(PAGE, self._after)
        self._after = page[-1] if page else None
        return page

    async def _look_at(self, found: Unfinished, swept: Swept) -> None:
        owners = [found.upload_id] if found.upload_id is not None and await self._knows(found.upload_id) else None
        owners = owners or list(await self._replicas.owners(self._remote, found.key))
        if not owners:
            swept.foreign += 1
        elif found.started_at is not None and self._wall() - found.started_at < DAY:
            swept.young += 1
        elif not all([await self._backend.discard(found, owner, True) for owner in owners]):
            swept.in_use += 1
        else:
            await self._backend.discard(found, owners[0], self._dry_run)
            swept.discarded += 1

    async def _knows(self, upload_id: str) -> bool:
        return await self._replicas.get(upload_id, self._remote) is not None

    def _report(self, swept: Swept) -> None:
        if swept.discarded or swept.foreign:
            _log.info(
                "unfinished in the store: {discarded} removed, {foreign} not ours, {young} younger than a day",
                remote=self._remote,
                dry_run=self._dry_run,
                discarded=swept.discarded,
                foreign=swept.foreign,
                young=swept.young,
            )


BATCH = 256
SMALL_BATCH = 16
"""Uploads that are given up before it is asked again whether space is needed."""

_log = Logger()


class LocalPolicy(enum.Enum):
    """KEEP: for ever. DROP: at once. RECLAIM: kept as a cache until space is needed or an age is reached."""

    KEEP = "keep"
    DROP = "drop"
    RECLAIM = "reclaim"


class LocalSweeper:
    """Call `sweep` now and then, and after an upload was stored.

    ``age``: seconds since the last replica was stored, after which RECLAIM gives the data up (None: never for that).
    ``space_needed`` is asked before each small batch. ``reclaim`` removes the files of what was given up and returns
    when they are off the disk.
    """

    def __init__(
        self,
        replicas: IReplicas,
        policy: LocalPolicy,
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
        if self._policy is LocalPolicy.KEEP:
            return 0
        if self._policy is LocalPolicy.DROP:
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

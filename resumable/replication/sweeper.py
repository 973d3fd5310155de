"""Sweepers: they remove leftovers in a store, and local data that is stored elsewhere.

Invariants: an object is removed from a store only if it lies under the key of an upload of ours, is not in use by that
upload, and is older than a day; others' objects are counted and reported, never touched. Local data is only given up
where the catalog calls it droppable, and its file only after the catalog has recorded that.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from attrs import define
from twisted.logger import Logger

from resumable.model.replica import IReplicas
from resumable.remotes.interfaces import ISweeper, Unfinished

DAY = 86400.0
PAGE = 100
MOST = 10_000
"""Entries of one store that one sweep looks at; the next one goes on behind them."""
BATCH = 256
SMALL_BATCH = 16
"""Uploads that are given up before it is asked again whether space is needed."""

_log = Logger()


@define
class Swept:
    """The entries that a sweep has found. ``discarded``: removed (in a dry run: not). ``young``: ours, and too young.

    ``in_use``: an upload works with them. ``foreign``: under keys that belong to no upload.
    """

    discarded: int = 0
    young: int = 0
    in_use: int = 0
    foreign: int = 0


class StoreSweeper:
    """Removes unfinished objects of one remote that nothing will finish. Call `sweep` about once a day.

    ``dry_run``: only report it. ``most``: entries that one sweep looks at. ``forget``: of the backend's journal, which
    remembers what another worker may have changed since; called with an upload's id before its record decides.
    """

    def __init__(
        self,
        remote: str,
        backend: ISweeper,
        replicas: IReplicas,
        wall: Callable[[], float],
        *,
        dry_run: bool = False,
        most: int = MOST,
        forget: Callable[[str], None] = lambda upload_id: None,
    ) -> None:
        self._remote = remote
        self._backend = backend
        self._replicas = replicas
        self._wall = wall
        self._dry_run = dry_run
        self._most = most
        self._forget = forget
        self._after: Unfinished | None = None

    async def sweep(self) -> Swept:
        """Look at the next entries, and remove those that may go. Raises RemoteError, CatalogUnavailable on the way."""
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
        for owner in owners:
            self._forget(owner)
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


class LocalPolicy(enum.Enum):
    """How long local data of stored uploads is kept. DROP: not at all. RECLAIM: until space is needed, or an age."""

    KEEP = "keep"
    DROP = "drop"
    RECLAIM = "reclaim"


class LocalSweeper:
    """Gives up local data of stored uploads. Call `sweep` from time to time.

    ``age``: seconds since the last replica was stored, after which RECLAIM gives the data up (None: at no age).
    ``lacking``: bytes of room that are needed, asked before each small batch. ``reclaim`` removes the files of uploads
    whose data was given up ``delay`` seconds ago or earlier, and returns when they are off the disk. What was given up
    and is still on the disk counts as room.
    """

    def __init__(
        self,
        replicas: IReplicas,
        policy: LocalPolicy,
        *,
        wall: Callable[[], float],
        reclaim: Callable[[], Awaitable[None]],
        lacking: Callable[[], float] = lambda: 0,
        age: float | None = None,
        delay: float = 0.0,
    ) -> None:
        self._replicas = replicas
        self._policy = policy
        self._wall = wall
        self._reclaim = reclaim
        self._lacking = lacking
        self._age = age
        self._delay = delay
        self._given_up: deque[tuple[float, int]] = deque()  # when it may go, and bytes

    async def sweep(self) -> int:
        """Give up the data that may go; answers of how many uploads. Raises CatalogUnavailable, OSError."""
        if self._policy is LocalPolicy.KEEP:
            return 0
        if self._policy is LocalPolicy.DROP:
            return await self._drop_all(self._wall(), BATCH, lambda: True)
        dropped = 0
        if self._age is not None:
            dropped = await self._drop_all(self._wall() - self._age, BATCH, lambda: True)
        if self._given_up and self._given_up[0][0] <= self._wall():
            await self._free()
        return dropped + await self._drop_all(self._wall(), SMALL_BATCH, self._needs_more)

    def _needs_more(self) -> bool:
        return self._lacking() > sum(size for _, size in self._given_up)

    async def _free(self) -> None:
        await self._reclaim()
        while self._given_up and self._given_up[0][0] <= self._wall():
            self._given_up.popleft()

    async def _drop_all(self, stored_before: float, batch: int, wanted: Callable[[], bool]) -> int:
        """The oldest first, in batches, as long as ``wanted`` says so."""
        count = 0
        while wanted():
            found = await self._replicas.droppable(stored_before, batch)
            dropped = await self._replicas.drop([upload.id for upload in found], self._wall()) if found else []
            if not dropped:
                break
            count += len(dropped)
            size = sum(upload.offset for upload in found if upload.id in dropped)
            self._given_up.append((self._wall() + self._delay, size))
            _log.debug("gave up the local data of {count} uploads", count=len(dropped))
            await self._free()
        return count

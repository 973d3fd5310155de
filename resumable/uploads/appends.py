"""All appends under way (`append` is one of them): when the long ones commit, and how a stop ends them.

A long append commits a second after its last commit if it has `WORTHWHILE` new bytes, and after `LATEST` seconds if it
has any. The appends that waited longest go first, so 5,000 slow uploads share `PER_TICK` syncs a second. Where several
processes share the uploads, any new byte is worth it: another process gets only what is committed when this one dies or
freezes; and one that commits nothing for long touches its row, so that no janitor expires it.
Invariant: no append begins once a stop has, and each has committed all that it received when `stop` returns.
"""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred, DeferredList

from resumable.model.principal import Principal
from resumable.model.upload import Upload
from resumable.protocol.errors import Stopping
from resumable.protocol.requests import Append, Creation
from resumable.protocol.rules import AppendPlan
from resumable.uploads.append import RunningAppend
from resumable.uploads.limits import IAccount
from resumable.uploads.status import Lookup

WORTHWHILE = 1 << 20
NEVER = sys.maxsize
LATEST = 10.0
PER_TICK = 128


class Appends:
    """The appends of one process."""

    def __init__(self, lookup: Lookup, touch_every: float | None = None, worthwhile: int = WORTHWHILE) -> None:
        """``touch_every``: seconds after which the row of an append that commits nothing is touched; None: never.
        ``worthwhile``: so many new bytes are committed after a second. Where each commit costs a request to a store, no
        number is: see `NEVER`."""
        self._lookup = lookup
        self._touch_every = touch_every
        self._worthwhile = worthwhile
        self._under_way: dict[RunningAppend, None] = {}
        self._stopping = False

    def __len__(self) -> int:
        return len(self._under_way)

    def check_open(self) -> None:
        """Raises Stopping once a stop has begun."""
        if self._stopping:
            raise Stopping()

    def add(self, append: RunningAppend) -> None:
        """It is about to run: a stop ends it."""
        self._under_way[append] = None

    async def give_up(self, append: RunningAppend) -> None:
        """It won't run, or has run."""
        self._under_way.pop(append, None)
        await append.release()

    def tick(self, now: float) -> int:
        """Start the commits that are due; answers how many. Called once a second."""
        due = [append for append in self._under_way if self._due(append, now)][:PER_TICK]
        for append in due:
            del self._under_way[append]  # behind all others
            self._under_way[append] = None
            append.commit_soon()
        if self._touch_every is not None:
            self._touch(now - self._touch_every)
        return len(due)

    def _touch(self, before: float) -> None:
        quiet = [each for each in self._under_way if each.touched_at <= before and each.recorded and not each.is_busy]
        for append in quiet[:PER_TICK]:
            append.touch_soon()

    async def run(
        self,
        append: RunningAppend,
        upload: Upload,
        plan: AppendPlan,
        request: Creation | Append,
        account: IAccount,
        by: Principal,
        repeats: bool = False,
    ) -> Upload:
        """See `RunningAppend.run`; raises the error for the client."""
        self.add(append)
        checksum, trailer = request.checksum, request.checksum_trailer
        try:
            return await append.run(
                *(upload, plan),
                checksum=checksum,
                trailer=trailer,
                content=request.digests.content,
                repeats=repeats,
                account=account,
                by=by,
            )
        except Exception as error:
            answer = await self._lookup.answer(error, upload.id)
            if answer is error:
                raise
            raise answer from error
        finally:
            await self.give_up(append)

    def _due(self, append: RunningAppend, now: float) -> bool:
        fresh = append.committable - append.committed
        waited = now - append.committed_at
        if append.is_busy:  # however long the catalog takes
            return False
        return waited >= (1.0 if fresh >= self._worthwhile else LATEST) and fresh > 0

    async def stop(self) -> None:
        """Each append commits all that it received, and is answered 503."""
        self._stopping = True
        waiting = [Deferred.fromCoroutine(each.evict(Stopping())) for each in tuple(self._under_way)]
        await DeferredList(waiting, consumeErrors=True)

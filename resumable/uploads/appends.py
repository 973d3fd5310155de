"""The appends under way: how they are run, when the long ones commit, and how a stop ends them.

A long append commits a second after its last commit if it has `WORTHWHILE` new bytes, and after `LATEST` seconds if it
has any. Those that waited longest go first, so 5,000 slow uploads share `PER_TICK` syncs a second. Invariant: no append
begins once a stop has, and each has committed what it received when `stop` returns.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred, DeferredList

from resumable.model.principal import Principal
from resumable.model.upload import Upload
from resumable.protocol import tus
from resumable.protocol.errors import Stopping
from resumable.protocol.rules import Plan
from resumable.uploads.append import RunningAppend
from resumable.uploads.limits import IAccount
from resumable.uploads.status import Lookup

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


class Appends:
    """Those of one process."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._under_way: set[RunningAppend] = set()
        self.schedule = Schedule()
        self._stopping = False

    def check_open(self) -> None:
        """Raises Stopping once a stop has begun."""
        if self._stopping:
            raise Stopping()

    def add(self, append: RunningAppend) -> None:
        """It is about to run: a stop ends it."""
        self._under_way.add(append)

    async def give_up(self, append: RunningAppend) -> None:
        """It won't run."""
        self._under_way.discard(append)
        self.schedule.remove(append)
        await append.release()

    async def run(
        self,
        append: RunningAppend,
        upload: Upload,
        plan: Plan,
        request: tus.Creation | tus.Append,
        account: IAccount,
        by: Principal,
        repeats: bool = False,
    ) -> Upload:
        """See `RunningAppend.run`; raises what a client is told."""
        self.add(append)
        self.schedule.add(append)
        checksum, trailer = request.checksum, request.checksum_trailer
        try:
            return await append.run(
                upload, plan, checksum=checksum, trailer=trailer, repeats=repeats, account=account, by=by
            )
        except Exception as error:
            answer = await self._lookup.answer(error, upload.id)
            if answer is error:
                raise
            raise answer from error
        finally:
            await self.give_up(append)

    async def stop(self) -> None:
        """Each commits what it has, and is answered 503."""
        self._stopping = True
        waiting = [Deferred.fromCoroutine(each.evict(Stopping())) for each in tuple(self._under_way)]
        await DeferredList(waiting, consumeErrors=True)

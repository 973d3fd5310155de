"""The appends under way.

Reason to change: how they are run, and ended by a stop. Invariant: none begins once a stop has, and each has committed
what it received when `stop` returns.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredList

from resumable.model.upload import Upload
from resumable.protocol import tus
from resumable.protocol.errors import Stopping
from resumable.protocol.rules import AppendPlan
from resumable.uploads.append import Append
from resumable.uploads.caller import Caller
from resumable.uploads.lookup import Lookup
from resumable.uploads.quota import IAccount


class Running:
    """Those of one process."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._under_way: set[Append] = set()
        self._stopping = False

    def check_open(self) -> None:
        """Raises Stopping once a stop has begun."""
        if self._stopping:
            raise Stopping()

    def add(self, append: Append) -> None:
        """It is about to run: a stop ends it."""
        self._under_way.add(append)

    async def give_up(self, append: Append) -> None:
        """It won't run."""
        self._under_way.discard(append)
        await append.release()

    async def run(
        self,
        append: Append,
        upload: Upload,
        plan: AppendPlan,
        request: tus.Creation | tus.Append,
        account: IAccount,
        by: Caller,
        repeats: bool = False,
    ) -> Upload:
        """See `Append.run`; raises what a client is told."""
        self.add(append)
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

"""Final uploads: their bytes are copied from their partials, in the background, once all of these are finished.

Invariant: a final is durable as a list of partials before its 201; its data file gets its name only when whole, and
its offset is committed only after that. A crash at any point leaves it to be assembled again at start-up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.hooks import QuestionKind
from resumable.interfaces import Commit, FactKind, Gone, Upload
from resumable.protocol import rules
from resumable.protocol.errors import Refused, Stopping, TooLarge, TusError
from resumable.spool import SpoolDamaged
from resumable.threads import Stopped
from resumable.uploads.engine import Engine
from resumable.uploads.janitor import Janitor
from resumable.uploads.quota import account_of, settle

log = Logger()

#: Seconds until an assembly that failed (a full disk, say) is tried again.
RETRY = 30.0


class Assembler:
    """Assembles one final at a time, oldest request first."""

    def __init__(self, engine: Engine, janitor: Janitor) -> None:
        self._engine = engine
        self._janitor = janitor
        self._queue: deque[str] = deque()
        self._working: Deferred[None] | None = None
        self._stopping = False
        engine.on_partial_finished = self.partial_finished

    async def start(self) -> None:
        """Take up what an earlier run left."""
        for final in await self._engine.catalog.unassembled():
            self.wake(final.id)

    async def stop(self) -> None:
        """No step of an assembly is under way any more."""
        self._stopping = True
        self._queue.clear()
        if self._working is not None:
            await self._working

    def partial_finished(self, partial_id: str) -> None:
        """A partial has all its bytes: finals that wait for it may be assembled."""
        Deferred.fromCoroutine(self._wake_finals(partial_id)).addErrback(self._failed, partial_id)

    def wake(self, final_id: str) -> None:
        """See whether this final can be assembled now."""
        if self._stopping:
            return
        if final_id not in self._queue:
            self._queue.append(final_id)
        if self._working is None:
            self._working = Deferred.fromCoroutine(self._work())

    async def _wake_finals(self, partial_id: str) -> None:
        for final in await self._engine.catalog.finals_of(partial_id):
            self.wake(final.id)

    async def _work(self) -> None:
        while self._queue:
            final_id = self._queue.popleft()
            try:
                await self._assemble(final_id)
            except (Stopped, Stopping):
                log.info("assembling goes on at the next start", upload=final_id)
            except TusError as error:
                log.warn("a final upload waits: {reason}", upload=final_id, reason=error.detail)
                self._engine.clock.callLater(RETRY, self.wake, final_id)
            except Exception:
                self._failed(Failure(), final_id)
                self._engine.clock.callLater(RETRY, self.wake, final_id)
        self._working = None

    async def _assemble(self, final_id: str) -> None:
        engine = self._engine
        final = await engine.catalog.get(final_id)
        if final is None or final.gone or final.finished:
            return
        partials = await engine.catalog.get_many(final.partials)
        found = [partials.get(each) for each in final.partials]
        # A partial that is gone before it was finished never will be.
        if any(each is None or (each.gone and not each.finished) for each in found):
            await self._janitor.end(final, Gone.TERMINATED)
            return
        ready = [each for each in found if each is not None and each.finished]
        if len(ready) < len(found):
            return
        try:
            rules.final_length((each.length for each in ready), engine.largest(final.max_size))
            account = account_of(engine.quota, final)
            account.reach(sum(each.offset for each in ready))
        except TooLarge:
            await self._janitor.end(final, Gone.TERMINATED)
            return
        try:
            final = await self._copied(final, ready)
        finally:
            settle(account, final)

    async def _copied(self, final: Upload, partials: Sequence[Upload]) -> Upload:
        """Copy them, and commit that; answers the final's record."""
        sources = [(each.id, each.offset) for each in partials]
        try:
            await self._engine.spool.assemble(final.id, sources, stopping=self._interrupted)
        except SpoolDamaged as damage:
            log.error("a partial's data file is shorter than its committed offset", upload=damage.upload_id)
            await self._lost(final, next(each for each in partials if each.id == damage.upload_id))
            return final
        return await self._finish(final, sum(each.offset for each in partials))

    def _interrupted(self) -> bool:
        """Whether the next start goes on with it. Raises NoSpace at the reserve: a copy can be larger than the disk."""
        if not self._stopping:
            self._engine.space.admit()
        return self._stopping

    async def _lost(self, final: Upload, partial: Upload) -> None:
        """The final can never be made; what it has copied so far goes with it."""
        await self._janitor.end(partial, Gone.LOST)
        await self._janitor.end(final, Gone.TERMINATED)
        await self._janitor.reclaim()

    async def _finish(self, final: Upload, length: int) -> Upload:
        engine = self._engine
        now = engine.wall()
        after = evolve(final, length=length, offset=length, touched_at=max(now, final.touched_at), finished_at=now)
        after = engine.finishing(after)
        try:
            await engine.questions.ask(QuestionKind.FINISH, evolve(after, finished_at=None))
        except Refused:
            log.warn("a hook has refused a final upload", upload=final.id)
            await self._janitor.end(final, Gone.TERMINATED)
            await self._janitor.reclaim()
            return final
        facts = engine.facts(after, None, FactKind.FINISHED)
        commit = Commit(final.id, final.epoch, 0, length, now, length, True, facts, after.place)
        if await engine.catalog.commit(commit):
            engine.committed(after)
            final = after
        else:
            await engine.spool.remove([final.id])
        await self._janitor.reclaim()
        return final

    @staticmethod
    def _failed(failure: Failure, upload_id: str) -> None:
        log.failure("assembling a final upload failed; it will be tried again", failure, upload=upload_id)

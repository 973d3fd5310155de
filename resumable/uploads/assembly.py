"""Final uploads: the requests for them and their answers, and their assembly once all of their partials are finished.

Invariants: a request that comes again, while the first is on its way or soon after, makes nothing anew and is answered
for the first; whatever its client does, the upload goes on; an upload that may still be refused is never answered with
a success. A final is durable as a list of partials before its 201, so after a crash at any point the next start puts
it together; no final waits until another one is finished; and however many there are, few of them are in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import TaskGroup, Timer, deferred
from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable, level_of
from resumable.model.hooks import Granted, QuestionKind, refusal_from_data
from resumable.model.upload import Asked, Upload
from resumable.model.workers import BURIED
from resumable.protocol.errors import (
    ChecksumMismatch,
    Gone,
    Refused,
    Stopping,
    TooLarge,
    TusError,
    Unavailable,
    WrongState,
)
from resumable.uploads.building import AssemblyJob, Building, BuiltElsewhere
from resumable.uploads.context import HookContext, UploadContext, as_answer
from resumable.uploads.finishing import Acknowledgements, CreationCut
from resumable.uploads.holds import ASSEMBLER
from resumable.uploads.janitor import ANSWERED, Endings, Reclaimer
from resumable.uploads.limits import Claim
from resumable.uploads.other_workers import PARTIAL

log = Logger()

#: Seconds until assemblies that failed (a full disk, say) are tried again.
RETRY = 30.0
#: Finals that wait for one partial, or for the start, and are put together at once.
AHEAD = 8
#: Finals that the catalog is asked for at a time.
PAGE = 256
#: Seconds for which a refusal that was heard is kept for the same request at other workers.
HEARD = 2.5
#: In place of a partial: whatever a final has waited for.
ANY = ""

Waiter = Deferred[Granted | None]


class Late(Exception):
    """It takes longer than its client waits."""


def digest_of(partial_ids: Sequence[str], metadata: str | None, name: str) -> str:
    """By which the same request is known: the same partials in the same order, metadata and identity."""
    said = json.dumps([list(partial_ids), metadata, name]).encode()
    return hashlib.sha256(said).hexdigest()[:32]


class Finals:
    """The requests for finals in this process."""

    def __init__(self, context: UploadContext, acknowledgements: Acknowledgements, assembler: Assembler) -> None:
        self._context = context
        self._acknowledgements = acknowledgements
        self._assembler = assembler
        self._making: dict[str, DeferredLock] = {}
        #: By digest: refusals that were heard here, and that requests at other workers may still wait for.
        self._hearing: dict[str, Timer] = {}

    async def once(self, digest: str, make: Callable[[], Awaitable[Upload]]) -> Asked:
        """The final that a request of this digest has made before; else that of ``make``, one call at a time."""
        turn = self._making.setdefault(digest, DeferredLock())
        await turn.acquire()
        try:
            return await self._before(digest) or Asked(await make())
        except WrongState:
            made = await self._before(digest) if self._context.others.several else None
            if made is None:
                raise
            return made  # another process has made it since it was looked for
        finally:
            if not turn.waiting:
                del self._making[digest]
            turn.release()

    async def _before(self, digest: str) -> Asked | None:
        context = self._context
        try:
            return await context.catalog.asked(digest, context.wall() - ANSWERED)
        except Exception as error:
            raise as_answer(error, "") from error

    def begin(self, final: Upload, claim: Claim | None) -> None:
        """A new one; its partials may have finished since they were looked up. ``claim``: the room that it has."""
        self._assembler.wake(final.id, claim)

    @deferred
    async def answer(self, asked: Asked, hooks: HookContext) -> Upload:
        """The upload, finished and stored; or unfinished, as long as it can't be refused any more.

        Fails with CreationCut: it goes on, but the client has to ask again. With Refused, TooLarge, ChecksumMismatch or
        Gone: it has ended. Cancel it when the client has gone.
        """
        if asked.refusal is not None:
            await self._heard(asked.upload)
            raise refusal_from_data(asked.refusal)
        context, upload = self._context, asked.upload
        until = context.clock.seconds() + context.limits.final_timeout
        try:
            if not upload.finished:
                granted = await self._assembler.result(upload.id, context.limits.final_timeout)
                if granted is not None:
                    hooks.add(granted)
                upload = await context.present(upload.id)
            if context.withheld(upload):
                upload = await self._acknowledgements.stored(upload.id, max(0.0, until - context.clock.seconds()))
        except Late as late:
            if not self._refusable(upload):
                return upload
            error = Unavailable("The final upload is not finished yet; ask again.", context.limits.retry_after)
            raise CreationCut(upload, error) from late
        except Refused:
            await self._heard(upload)
            raise
        except Gone:
            before = await self._before(upload.asked or "")
            if before is None or before.refusal is None:
                raise
            return await self.answer(before, hooks)  # it was refused since it was found
        except (TooLarge, ChecksumMismatch):
            raise
        except TusError as error:
            raise CreationCut(upload, error) from error
        return upload

    def _refusable(self, upload: Upload) -> bool:
        """Whether finishing can fail for good, or the client is to know when it is stored."""
        context = self._context
        waits = upload.required > 0 and bool(context.replication.acknowledges)
        return waits or context.questions.asks(QuestionKind.FINISH)

    async def _heard(self, upload: Upload) -> None:
        """Its client hears the refusal: the same request after that begins anew."""
        if not self._context.others.several:
            await self._forget(upload)
        elif upload.asked is not None and upload.asked not in self._hearing:
            timer = Timer(self._context.clock, lambda: Deferred.fromCoroutine(self._forget(upload)))
            self._hearing[upload.asked] = timer
            timer.set(HEARD)

    def stop(self) -> None:
        """Refusals that were just heard may be repeated."""
        for timer in self._hearing.values():
            timer.clear()

    async def _forget(self, upload: Upload) -> None:
        self._hearing.pop(upload.asked or "", None)
        try:
            await self._context.catalog.heard(upload.asked or "")
        except CatalogUnavailable:
            log.warn("a refusal will be repeated to a client that has heard it", upload=upload.id)


class Assembler:
    """Puts finals together: at once where a request asks for them, a few at a time where they waited for a partial."""

    def __init__(self, context: UploadContext, endings: Endings, reclaimer: Reclaimer) -> None:
        self._context = context
        self._endings = endings
        self._reclaimer = reclaimer
        self._building = Building(context, endings)
        self._jobs: dict[str, AssemblyJob] = {}
        #: By final: Deferreds that fire when nothing is being done for it any more.
        self._waiting: dict[str, list[Waiter]] = {}
        #: By partial whose finals are being woken: the same.
        self._waking: dict[str, list[Waiter]] = {}
        #: Finals that requests here wait for while another process puts them together.
        self._abroad: list[str] = []
        self._tasks = TaskGroup(lambda failure: log.failure("background work failed", failure))
        self._retry = Timer(context.clock, self._again)
        self._untidy = self._tidying = self._left = self._stopping = False
        #: Whether all finals that an earlier run has left were tried.
        self._caught_up = False
        context.listeners.partial_finished.append(self.partial_finished)
        context.listeners.ended.append(self._ended)
        context.others.listen(PARTIAL, self._told)
        context.others.listen(BURIED, lambda _: self.start())

    def start(self) -> None:
        """Take up what an earlier run, or an earlier attempt, or another process has left."""
        if self._stopping:
            return
        if not self._context.others.several:
            self.partial_finished(ANY)
            return
        self._caught_up = True  # as others may have begun any of them: see `Janitor`
        self._tasks.start(self._take_up())
        self._retry.set(RETRY)

    async def _take_up(self) -> None:
        if await self._context.others.granted(ASSEMBLER) and not self._stopping:
            self.partial_finished(ANY)

    def leave(self) -> None:
        """Answer all waiting requests that the server stops."""
        self._left = True
        for waiting in (*self._waiting.values(), *self._waking.values()):
            _fire(waiting, Failure(Stopping()))
        for final_id in tuple(self._abroad):
            self._context.others.heard(final_id)

    async def stop(self) -> None:
        """No step of an assembly is under way any more."""
        self._stopping = self._building.stopping = True
        self.leave()
        self._retry.clear()
        while self._tasks:
            await self._tasks.ended()

    def partial_finished(self, partial_id: str) -> None:
        """A partial has all its bytes: finals that wait for it may be assembled."""
        if self._stopping and partial_id != ANY and self._context.others.several:
            self._context.others.tell(PARTIAL, partial_id)
        if partial_id not in self._waking:
            self._waking[partial_id] = []
            self._tasks.start(self._wake_all(partial_id))

    def _told(self, partial_id: str) -> None:
        """Another process has found finals that may be assembled: help with them."""
        if partial_id not in self._waking and not self._stopping:
            self._waking[partial_id] = []
            self._tasks.start(self._wake_all(partial_id, told=True))

    def assembles(self, final_id: str) -> bool:
        """Whether a final is being put together, or its turn to be tried has yet to come: it isn't idle."""
        return not self._caught_up or final_id in self._jobs

    def wake(self, final_id: str, claim: Claim | None = None) -> None:
        """See whether this final can be assembled now. ``claim``: room for all of it, which is ours from now on."""
        if self._stopping or final_id in self._jobs:
            if claim is not None:
                claim.release()
            return
        self._begin(final_id, AssemblyJob(claim))

    async def result(self, final_id: str, within: float) -> Granted | None:
        """The hooks' answer, once the final is finished; None: it was before, has ended, or waits for a partial.

        Raises the error that keeps it from being finished; Late; Stopping.
        """
        if self._left:
            raise Stopping()
        self.wake(final_id)
        if not self._context.others.several:
            return await self._wait(final_id, [], within) if final_id in self._jobs else None
        return await self._result(final_id, self._context.clock.seconds() + within)

    async def _result(self, final_id: str, until: float) -> Granted | None:
        """See `result`, where another process may put it together. If that ends without it, this one does it."""
        context = self._context
        while final_id in self._jobs:
            try:
                return await self._wait(final_id, [], max(0.0, until - context.clock.seconds()))
            except BuiltElsewhere:
                if not await self._elsewhere(final_id, until):
                    return None
            self.wake(final_id)
        return None

    async def _elsewhere(self, final_id: str, until: float) -> bool:
        """Wait a little for another process; False: the final is finished, or has ended. Raises Late, Stopping."""
        left = until - self._context.clock.seconds()
        if left <= 0:
            raise Late()
        self._abroad.append(final_id)
        try:
            await self._context.others.news(final_id, left)
        finally:
            self._abroad.remove(final_id)
        if self._left:
            raise Stopping()
        try:
            row = await self._context.catalog.get(final_id)
        except CatalogUnavailable:
            return True  # as far as is known
        return not (row is None or row.finished or row.gone)

    async def settled(self, final: Upload, within: float) -> None:
        """Nothing is being done for it any more, or so many seconds have passed."""
        until = self._context.clock.seconds() + within
        if self._context.others.several:
            with suppress(Late, TusError, CatalogUnavailable):
                await self.result(final.id, within)
            return
        while not self._left and (left := until - self._context.clock.seconds()) > 0:
            waking = [self._waking[each] for each in set(final.partials) if each in self._waking]
            if not waking and final.id not in self._jobs:
                return
            with suppress(Late, TusError):
                await self._wait(final.id, waking, left)
            row = await self._context.catalog.get(final.id)
            if row is None or row.finished or row.gone:
                return  # while others are woken still

    async def _wait(self, final_id: str, waking: Sequence[list[Waiter]], within: float) -> Granted | None:
        waiter: Waiter = Deferred()
        places = [self._waiting.setdefault(final_id, []), *waking]
        for place in places:
            place.append(waiter)
        timer = Timer(self._context.clock, lambda: waiter.errback(Late()))
        timer.set(within)
        try:
            return await waiter
        finally:
            for place in places:
                if waiter in place:
                    place.remove(waiter)
            if not self._waiting.get(final_id, True):
                del self._waiting[final_id]
            timer.clear()

    # Which finals are to be put together

    async def _wake_all(self, partial_id: str, told: bool = False) -> None:
        """Begin the finals that wait for this partial and no other, `AHEAD` at a time; others go on beside them."""
        ahead = DeferredSemaphore(AHEAD)
        after: str | None = ""
        try:
            while after is not None and not self._stopping:
                found, after = await self._context.catalog.assemblable(after, PAGE, partial_id or None)
                if found and self._context.others.several and partial_id != ANY and not told:
                    self._context.others.tell(PARTIAL, partial_id)
                    told = True
                for final_id in found:
                    await ahead.acquire()
                    if self._stopping or final_id in self._jobs:
                        ahead.release()
                    else:
                        self._begin(final_id, AssemblyJob(over=ahead.release))
            for _ in range(AHEAD):
                await ahead.acquire()
            if partial_id == ANY:
                self._caught_up = True
        except CatalogUnavailable:
            self._retry_later()
        finally:
            _fire(self._waking.pop(partial_id), None)

    def _begin(self, final_id: str, job: AssemblyJob) -> None:
        self._jobs[final_id] = job
        self._tasks.start(self._work(final_id, job))

    def _retry_later(self) -> None:
        if not (self._retry.pending or self._stopping):
            self._retry.set(RETRY)

    def _again(self) -> None:
        if ANY in self._waking:  # what failed has been passed already
            self._retry_later()
        else:
            self.start()

    def _ended(self, upload_id: str) -> None:
        if upload_id in self._jobs:
            self._jobs[upload_id].gone = True

    # One final

    async def _work(self, final_id: str, job: AssemblyJob) -> None:
        outcome: Granted | Failure | None
        try:
            outcome = await self._building.build(final_id, job)
        except (Stopped, Stopping):
            log.info("assembling goes on at the next start", upload=final_id)
            outcome = Failure(Stopping())
        except (Refused, TooLarge, ChecksumMismatch) as error:
            log.warn("a final upload was refused: {reason}", upload=final_id, reason=error.detail)
            outcome = Failure()
        except BuiltElsewhere as elsewhere:
            outcome = Failure(elsewhere)
        except Exception as error:
            outcome = None
            if not job.gone:  # else whatever went wrong did so because of that
                answer = as_answer(error, final_id)
                log.warn("a final upload waits: {reason}", upload=final_id, reason=str(answer))
                outcome = Failure(answer)
                self._retry_later()
        finally:
            if job.claim is not None:
                job.claim.release()
            del self._jobs[final_id]
            job.over()
        _fire(self._waiting.pop(final_id, []), outcome)
        if job.gone or not (outcome is None or (isinstance(outcome, Failure) and outcome.check(BuiltElsewhere))):
            self._tidy()

    def _tidy(self) -> None:
        """Free the data that finals needed, soon and for many at once; no request waits for it."""
        self._untidy = True
        if not self._tidying:
            self._tidying = True
            self._tasks.start(self._tidy_up())

    async def _tidy_up(self) -> None:
        try:
            while self._untidy and not self._stopping:
                self._untidy = False
                if not self._context.limits.keep_partials:
                    await self._endings.drop_spent()
                await self._reclaimer.reclaim()
        except (CatalogUnavailable, OSError, Stopped) as error:
            log.emit(
                level_of(error),
                "what a final upload needed goes with the janitor's next round: {reason}",
                reason=str(error),
            )
        finally:
            self._tidying = False


def _fire(waiting: list[Waiter], outcome: Granted | Failure | None) -> None:
    for waiter in tuple(waiting):
        if not waiter.called:
            waiter.callback(outcome)

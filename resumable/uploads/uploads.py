"""The use cases of uploads, each one method: create, append, inspect, terminate, read, status, restart.

Invariant: every offset in an answer comes from the catalog, under the hold or after the holder has settled, and is no
more than `UploadContext.shown` lets a client see.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import Task, deferred
from resumable.aio.threads import IPool
from resumable.model.errors import BodyLost
from resumable.model.hooks import QuestionKind, RequestView
from resumable.model.principal import NOBODY, Principal
from resumable.model.upload import GoneReason, IBody, IInterim, Upload
from resumable.protocol import digests, rules
from resumable.protocol.errors import (
    BadRequest,
    CompletedUpload,
    Forbidden,
    Gone,
    Held,
    OffsetMismatch,
    PastLength,
    TusError,
)
from resumable.protocol.requests import Append, Creation
from resumable.spool import Reader
from resumable.uploads.append import Algorithms, RunningAppend
from resumable.uploads.appends import WORTHWHILE, Appends
from resumable.uploads.assembly import Assembler, Finals
from resumable.uploads.context import HookContext, UploadContext, as_answer
from resumable.uploads.creation import Creator
from resumable.uploads.digesting import Digester
from resumable.uploads.finishing import Acknowledgements, CreationCut
from resumable.uploads.holds import HoldMoved
from resumable.uploads.janitor import Endings, Janitor, Reclaimer
from resumable.uploads.limits import IAccount, account_of
from resumable.uploads.other_workers import ENDED
from resumable.uploads.placing import Placer
from resumable.uploads.status import Lookup, UploadStatus, status_of, statuses_of

__all__ = ["CreationCut", "Uploads"]


T = TypeVar("T")

log = Logger()


def shielded(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """A Deferred of the work's outcome whose cancellation leaves the work alone.

    A failure after the client has gone is logged, unless it only says that the body or the request was bad.
    """
    outer: Deferred[T] = Deferred(lambda _: None)

    def done(outcome: T | Failure) -> None:
        if not outer.called:
            outer.callback(outcome)
        elif isinstance(outcome, Failure) and not outcome.check(TusError, BodyLost, CreationCut):
            log.failure("work failed after its client had gone", outcome)

    Task(work, done).go()
    return outer


def _touch_every(context: UploadContext) -> float | None:
    """Four times before it would expire. The only process expires no upload while a request has it."""
    expire_after = context.limits.expire_after
    return expire_after / 4 if expire_after is not None and context.others.several else None


def _worthwhile(context: UploadContext) -> int:
    """For several processes 1: what isn't committed is lost to the others when this one dies."""
    if context.worthwhile is not None:
        return context.worthwhile
    return 1 if context.others.several else WORTHWHILE


class Uploads:
    """What clients may do. Every method raises TusError, or BodyLost where a body was cut off.

    ``assembler``, ``placer``, ``digester``, ``janitor`` and ``appends`` work in the background: the
    service starts and stops them.
    """

    def __init__(
        self,
        context: UploadContext,
        reclaimer: Reclaimer,
        *,
        algorithms: Algorithms,
        new_id: Callable[[], str],
        pool: IPool | None = None,
    ) -> None:
        """``pool``: see `Digester`."""
        self._context = context
        self.wall = context.wall
        self.withheld, self.expires_at = context.withheld, context.expires_at
        #: Reads uploads whose local data was dropped.
        self.copies = context.replication
        self.algorithms = algorithms
        self._reclaimer = reclaimer
        self._endings = Endings(context)
        self.assembler = Assembler(context, self._endings, reclaimer)
        self.placer = Placer(context, reclaimer)
        self.janitor = Janitor(context, self._endings, reclaimer, self.assembler.assembles, self._sweep)
        self._lookup = Lookup(context, self._endings, self.assembler)
        self.digester = Digester(context, self._lookup.read, pool)
        self._acknowledgements = Acknowledgements(context)
        self.appends = Appends(self._lookup, _touch_every(context), _worthwhile(context))
        context.others.listen(ENDED, context.ended_here)
        self._finals = Finals(context, self._acknowledgements, self.assembler)
        self._creator = Creator(context, self.appends, self._acknowledgements, self._finals, algorithms, new_id)

    def _sweep(self) -> None:
        """Work in the background that is looked for with each round of the janitor."""
        self.placer.sweep()
        self.digester.sweep()

    def create(
        self,
        creation: Creation,
        body: IBody,
        by: Principal = NOBODY,
        hooks: HookContext | None = None,
        interim: IInterim | None = None,
    ) -> Deferred[Upload]:
        """A new upload, with as much of the body as there was. Not for finals: see `concatenate`.

        Raises CreationCut when the body failed after the upload was made, or when one without bytes can't be finished
        or isn't stored in time. An upload with bytes is then answered with its last byte withheld, one of the draft as
        it is. ``interim``: tells the client what happens before the answer.
        """
        hooks = hooks or HookContext()
        work = self._creator.create(creation, body, by, hooks, interim)
        # a declared length was compared before any byte
        made = shielded(self._sound(work) if creation.draft and body.length is None else work)
        return made.addCallback(self._creator.acknowledge, creation, hooks)

    def append(
        self,
        upload_id: str,
        request: Append | TusError,
        body: IBody,
        by: Principal = NOBODY,
        hooks: HookContext | None = None,
        interim: IInterim | None = None,
    ) -> Deferred[Upload]:
        """Bytes for an upload. ``request`` is an error where the header was malformed: it is raised only if the
        upload is there and no final (404, 410 and 403 come first). Unavailable when it isn't stored in time. The answer
        to the draft is the upload as it is: see `complete`. ``interim``: as in `create`."""
        hooks = hooks or HookContext()
        work = self._append(upload_id, request, body, by, hooks, interim)
        if isinstance(request, TusError) or not request.draft:
            return shielded(work).addCallback(self._acknowledgements.acknowledged, hooks)
        appended = shielded(self._sound(work, upload_id) if body.length is None else work)
        if not request.completes:
            return appended.addCallback(self._as_it_is, hooks)
        return appended.addCallback(self._acknowledgements.acknowledged, hooks)

    def _as_it_is(self, upload: Upload, hooks: HookContext) -> Upload | Deferred[Upload]:
        """The answer to an append that doesn't complete its upload by itself; an upload of tus is, at its length."""
        return upload if upload.draft else self._acknowledgements.acknowledged(upload, hooks)

    async def _sound(self, work: Coroutine[Deferred[Any], Any, Upload], upload_id: str | None = None) -> Upload:
        """That work; an upload whose content has gone past its length is ended (the draft, 4.1.3)."""
        try:
            return await work
        except PastLength:
            if upload_id is not None:
                await self._invalidate(upload_id)
            raise
        except CreationCut as cut:
            if isinstance(cut.error, PastLength):
                await self._invalidate(cut.upload.id)
            raise

    async def _invalidate(self, upload_id: str) -> None:
        upload = await self.find(upload_id)
        if upload is not None and not upload.finished:  # by another request, since
            await self._end(upload_id, None)

    def concatenate(
        self,
        creation: Creation,
        partial_ids: Sequence[str],
        by: Principal = NOBODY,
        hooks: HookContext | None = None,
    ) -> Deferred[Upload]:
        """A final upload made of these partials, in this order (T50 to T60); the same request again has the same one.

        Finished and stored where all of them are finished; unfinished where one isn't, or where it takes long but can't
        be refused any more. CreationCut: it is there and goes on, but the client has to ask again.
        """
        hooks = hooks or HookContext()
        made = shielded(self._creator.concatenate(creation, partial_ids, by, hooks))
        return made.addCallback(self._finals.answer, hooks)

    async def check_finished(self, upload_ids: Sequence[str]) -> None:
        """Raises BadRequest if one of these uploads is there and not finished."""
        try:
            found = await self._context.catalog.get_many(upload_ids)
        except Exception as error:
            raise as_answer(error, "") from error
        for upload in found.values():
            if not upload.finished:
                raise BadRequest(f"{upload.id} is not finished, and concatenation-unfinished is switched off here.")

    def complete(self, upload: Upload) -> bool:
        """Whether the draft calls it complete: it is finished, and nothing is waited for."""
        return upload.finished and not self._context.withheld(upload)

    async def find(self, upload_id: str) -> Upload | None:
        """The record of an upload, if it is there. Never touches the hold. Raises Unavailable."""
        try:
            upload = await self._context.catalog.get(upload_id)
        except Exception as error:
            raise as_answer(error, upload_id) from error
        return upload if upload is not None and upload.gone is None else None

    def look(self, upload_id: str) -> Deferred[Upload]:
        """The upload as the draft's HEAD reports it: as `inspect`, but an append of the draft has ended, and the offset
        is what it is, as completeness is said apart from it."""
        return shielded(self._lookup.inspect(upload_id, interrupts=True))

    def inspect(self, upload_id: str) -> Deferred[Upload]:
        """The upload as HEAD may report it: a live holder has committed, a silent one was evicted, and a final that is
        just being put together was waited for.

        A data file that is shorter than its committed offset makes the upload gone. Never raises Stopping.
        """
        return shielded(self._lookup.inspect(upload_id)).addCallback(self._context.shown)

    def read(self, upload_id: str) -> Deferred[tuple[Upload, Reader]]:
        """A finished upload and its open data file; the caller closes it. NotFinished until it is, Elsewhere
        when its data was dropped: then `UploadContext.replication` may have a copy."""
        return shielded(self._lookup.read(upload_id))

    def terminate(self, upload_id: str, hooks: HookContext | None = None) -> Deferred[None]:
        """End an upload and free its disk, whatever is under way."""
        return shielded(self._terminate(upload_id, hooks or HookContext()))

    def stop_upload(self, upload_id: str, reason: TusError | None = None) -> Deferred[None]:
        """End an upload as `terminate` does, without asking hooks; ``reason``: the error for its running request."""
        return shielded(self._end(upload_id, None, reason or Gone("The upload was stopped.")))

    @deferred
    async def status(self, upload_id: str) -> UploadStatus:
        """How far the upload is in both tiers. Never touches the hold."""
        return await status_of(self._context, upload_id)

    async def statuses(self, upload_ids: Sequence[str]) -> Mapping[str, UploadStatus]:
        """Those of many at once, see `statuses_of`."""
        return await statuses_of(self._context, upload_ids)

    def restart(self, upload_id: str, remote: str | None = None) -> Deferred[int]:
        """Try parked replicas of this upload again, in one remote or in all; answers how many there were."""
        return shielded(self._restart(upload_id, remote))

    async def _append(
        self,
        upload_id: str,
        request: Append | TusError,
        body: IBody,
        by: Principal,
        hooks: HookContext,
        interim: IInterim | None,
    ) -> Upload:
        self.appends.check_open()
        context = self._context
        if isinstance(request, TusError):
            self._check_appendable(await context.present(upload_id))
            raise request
        if context.questions.asks(QuestionKind.APPEND):  # before it takes the hold: others don't wait for hooks
            upload = context.shown(await context.present(upload_id))
            self._check_appendable(upload)
            hooks.add(await context.questions.ask(QuestionKind.APPEND, upload, hooks.request))
            self.appends.check_open()
        append = RunningAppend(
            *(context, Upload(upload_id, 0, 0), request.offset, body, self.algorithms, hooks),
            draft=request.draft,
            interim=interim,
        )
        self.appends.add(append)
        try:
            await self._take(upload_id, append, request)
            row = await context.present(upload_id)
            if request.draft:  # it says apart from the offset whether the upload is complete, so no byte is withheld
                upload, repeats = row, row.finished
                self._check_completes(row, request, body)
            else:
                upload, repeats = context.shown(row), row.finished or context.pending(row)
            self._check_appendable(upload)
            largest = context.largest(upload.max_size, by.max_size)
            announced = digests.merged(upload.announced, request.digests.whole)
            plan = rules.admit_append(
                upload.offset, upload.length, request, body.length, largest, by_length=not row.draft
            )
            if row.finished:  # it stays, whatever is sent or announced now
                plan = replace(plan, fatal=False)
                digests.merged(row.digest, request.digests.whole)
            if body.length != 0 and not repeats:
                context.space.admit()
            account = account_of(context.quota, upload)
            total = plan.start + (body.length or 0) if plan.length is None else plan.length
            if account.asks(total):
                await self._reserve(account, total, upload)
            account.reach(total)
            if announced is not None and announced != upload.announced and not row.finished:
                upload = await self._announced(upload, announced)
        except BaseException:
            await self.appends.give_up(append)
            raise
        return await self.appends.run(append, upload, plan, request, account, by, repeats)

    async def _take(self, upload_id: str, append: RunningAppend, request: Append) -> None:
        """Get the hold. Raises OffsetMismatch. The draft: a newer append ends the one before (8), and is told an offset
        that is right."""
        context = self._context
        try:
            try:
                await context.holds.take(upload_id, append, request.offset)
            except HoldMoved:
                if not request.draft:
                    raise
                await self._interrupt(upload_id)
                await context.holds.take(upload_id, append, request.offset)
        except HoldMoved:
            row = await context.present(upload_id)
            offset = row.offset if request.draft else context.shown(row).offset
            raise OffsetMismatch(offset, request.offset) from None

    async def _interrupt(self, upload_id: str) -> None:
        """What is under way has ended, or committed what came."""
        try:
            await self._context.holds.interrupt(upload_id)
        except Exception as error:
            answer = await self._lookup.answer(error, upload_id)
            if answer is error:
                raise
            raise answer from error

    async def _announced(self, upload: Upload, announced: str) -> Upload:
        """The record, with what its client says of all its bytes."""
        try:
            if await self._context.catalog.announce(upload.id, announced):
                return evolve(upload, announced=announced)
        except Exception as error:
            raise as_answer(error, upload.id) from error
        raise Held("Another request has taken this upload over.")

    async def _reserve(self, account: IAccount, total: int, upload: Upload) -> None:
        try:
            await account.reserve(total, upload.epoch)
        except Exception as error:
            raise as_answer(error, upload.id) from error

    async def _terminate(self, upload_id: str, hooks: HookContext) -> None:
        questions = self._context.questions
        if questions.asks(QuestionKind.TERMINATE):
            upload = await self._context.present(upload_id)
            hooks.add(await questions.ask(QuestionKind.TERMINATE, upload, hooks.request))
        await self._end(upload_id, hooks.request)

    async def _end(self, upload_id: str, request: RequestView | None, reason: TusError | None = None) -> None:
        context = self._context
        upload = await context.present(upload_id)
        await context.holds.evict(upload_id, reason)
        try:
            ended = await self._endings.end(upload, GoneReason.TERMINATED, request)
            stuck = await self._reclaimer.reclaim()
            if upload_id in stuck:
                raise stuck[upload_id]
        except Exception as error:
            raise as_answer(error, upload_id) from error
        if not ended:
            raise Gone("The upload was removed.")

    async def _restart(self, upload_id: str, remote: str | None) -> int:
        context = self._context
        await context.present(upload_id)
        if context.replicas is None:
            return 0
        try:
            count = await context.replicas.restart(upload_id, remote)
        except Exception as error:
            raise as_answer(error, upload_id) from error
        if count:
            context.replication.restarted(upload_id)
        return count

    async def stop(self) -> None:
        """Take no more bytes; each append commits all that it received; it and all waiting requests are answered
        503."""
        self._context.questions.stop()
        self._acknowledgements.stop()
        self.assembler.leave()
        self._finals.stop()
        await self.appends.stop()

    @staticmethod
    def _check_completes(row: Upload, request: Append, body: IBody) -> None:
        """A finished upload takes an append of the draft only as the answer that got lost, asked for again."""
        if row.finished and request.offset != row.offset:
            raise OffsetMismatch(row.offset, request.offset)
        if row.finished and (body.length or not request.completes):
            raise CompletedUpload(row.offset)

    @staticmethod
    def _check_appendable(upload: Upload) -> None:
        if upload.is_final:
            # T57: "The Server MUST respond with the 403 Forbidden status to PATCH requests against a final upload URL"
            raise Forbidden("A final upload takes no bytes; it is made of its partial uploads.")

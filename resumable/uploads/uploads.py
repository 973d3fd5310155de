"""The use cases of uploads, each one method: create, append, inspect, terminate, read, status, restart.

Invariant: every offset in an answer comes from the catalog, under the hold or after the holder has settled, and is no
more than `UploadContext.shown` lets a client see.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import Task, deferred
from resumable.model.errors import BodyLost
from resumable.model.hooks import QuestionKind, RequestView
from resumable.model.principal import NOBODY, Principal
from resumable.model.upload import GoneReason, IBody, Upload
from resumable.protocol import rules, tus
from resumable.protocol.errors import BadRequest, Forbidden, Gone, OffsetMismatch, TusError
from resumable.spool import Reader
from resumable.uploads.append import Algorithms, RunningAppend
from resumable.uploads.appends import WORTHWHILE, Appends
from resumable.uploads.assembly import Assembler, Finals
from resumable.uploads.context import HookContext, UploadContext, as_answer
from resumable.uploads.creation import Creator
from resumable.uploads.finishing import Acknowledgements, CreationCut
from resumable.uploads.holds import HoldMoved
from resumable.uploads.janitor import Endings, Janitor, Reclaimer
from resumable.uploads.limits import IAccount, account_of
from resumable.uploads.other_workers import ENDED
from resumable.uploads.placing import Placer
from resumable.uploads.status import Lookup, UploadStatus, status_of

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
        elif isinstance(outcome, Failure) and not outcome.check(TusError, BodyLost):
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

    ``assembler``, ``placer``, ``janitor`` and ``appends`` work in the background: the service starts and stops them.
    """

    def __init__(
        self,
        context: UploadContext,
        reclaimer: Reclaimer,
        *,
        algorithms: Algorithms,
        new_id: Callable[[], str],
    ) -> None:
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
        self.janitor = Janitor(context, self._endings, reclaimer, self.assembler.assembles, self.placer.sweep)
        self._lookup = Lookup(context, self._endings, self.assembler)
        self._acknowledgements = Acknowledgements(context)
        self.appends = Appends(self._lookup, _touch_every(context), _worthwhile(context))
        context.others.listen(ENDED, context.ended_here)
        self._finals = Finals(context, self._acknowledgements, self.assembler)
        self._creator = Creator(context, self.appends, self._acknowledgements, self._finals, algorithms, new_id)

    def create(
        self, creation: tus.Creation, body: IBody, by: Principal = NOBODY, hooks: HookContext | None = None
    ) -> Deferred[Upload]:
        """A new upload, with as much of the body as there was. Not for finals: see `concatenate`.

        Raises CreationCut when the body failed after the upload was made, or when one without bytes can't be finished
        or isn't stored in time. An upload with bytes is then answered with its last byte withheld.
        """
        hooks = hooks or HookContext()
        made = shielded(self._creator.create(creation, body, by, hooks))
        return made.addCallback(self._creator.acknowledge, hooks)

    def append(
        self,
        upload_id: str,
        request: tus.Append | TusError,
        body: IBody,
        by: Principal = NOBODY,
        hooks: HookContext | None = None,
    ) -> Deferred[Upload]:
        """Bytes for an upload. ``request`` is an error where the header was malformed: it is raised only if the
        upload is there and no final (404, 410 and 403 come first). Unavailable when it isn't stored in time."""
        hooks = hooks or HookContext()
        appended = shielded(self._append(upload_id, request, body, by, hooks))
        return appended.addCallback(self._acknowledgements.acknowledged, hooks)

    def concatenate(
        self,
        creation: tus.Creation,
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

    def restart(self, upload_id: str, remote: str | None = None) -> Deferred[int]:
        """Try parked replicas of this upload again, in one remote or in all; answers how many there were."""
        return shielded(self._restart(upload_id, remote))

    async def _append(
        self, upload_id: str, request: tus.Append | TusError, body: IBody, by: Principal, hooks: HookContext
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
        append = RunningAppend(context, Upload(upload_id, 0, 0), request.offset, body, self.algorithms, hooks)
        self.appends.add(append)
        try:
            try:
                await context.holds.take(upload_id, append, request.offset)
            except HoldMoved:
                upload = context.shown(await context.present(upload_id))
                raise OffsetMismatch(upload.offset, request.offset) from None
            row = await context.present(upload_id)
            upload, repeats = context.shown(row), row.finished or context.pending(row)
            self._check_appendable(upload)
            largest = context.largest(upload.max_size, by.max_size)
            plan = rules.admit_append(upload.offset, upload.length, request, body.length, largest)
            if body.length != 0 and not repeats:
                context.space.admit()
            account = account_of(context.quota, upload)
            total = plan.start + (body.length or 0) if plan.length is None else plan.length
            if account.asks(total):
                await self._reserve(account, total, upload)
            account.reach(total)
        except BaseException:
            await self.appends.give_up(append)
            raise
        return await self.appends.run(append, upload, plan, request, account, by, repeats)

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
    def _check_appendable(upload: Upload) -> None:
        if upload.is_final:
            # T57: "The Server MUST respond with the 403 Forbidden status to PATCH requests against a final upload URL"
            raise Forbidden("A final upload takes no bytes; it is made of its partial uploads.")

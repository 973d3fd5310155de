"""New uploads: with bytes, without, or made of partial uploads.

Invariant: nothing of an upload whose id wasn't drawn here is written before the catalog knows it; a refused creation
leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from resumable.model.errors import CatalogUnavailable
from resumable.model.hooks import QuestionKind
from resumable.model.principal import Principal
from resumable.model.upload import Asked, FactKind, IBody, IInterim, Upload
from resumable.protocol import rules
from resumable.protocol.errors import BadRequest, Refused, TusError, WrongState
from resumable.protocol.requests import Creation
from resumable.uploads.append import Algorithms, RunningAppend
from resumable.uploads.appends import Appends
from resumable.uploads.assembly import Finals, digest_of
from resumable.uploads.context import HookContext, UploadContext, as_answer, log
from resumable.uploads.finishing import DIFFERING, Acknowledgements, CreationCut
from resumable.uploads.limits import Claim, IAccount


class Creator:
    """Makes new uploads."""

    def __init__(
        self,
        context: UploadContext,
        appends: Appends,
        acknowledgements: Acknowledgements,
        finals: Finals,
        algorithms: Algorithms,
        new_id: Callable[[], str],
    ) -> None:
        self._context = context
        self._appends = appends
        self._acknowledgements = acknowledgements
        self._finals = finals
        self._algorithms = algorithms
        self._new_id = new_id

    async def create(
        self, creation: Creation, body: IBody, by: Principal, hooks: HookContext, interim: IInterim | None = None
    ) -> Upload:
        """A new upload, with as much of the body as there was. Raises CreationCut if that failed once it was there."""
        context = self._context
        self._appends.check_open()
        plan = rules.admit_creation(creation, body.length, context.largest(by.max_size))
        context.drain.check()
        context.check_room()
        upload = self._new(creation, creation.length, by)
        if context.questions.asks(QuestionKind.CREATE):
            upload = await self._asked(upload, hooks)
            plan = rules.admit_creation(creation, body.length, context.largest(upload.max_size))
        if creation.has_body and context.questions.asks(QuestionKind.APPEND):
            hooks.add(await context.questions.ask(QuestionKind.APPEND, upload, hooks.request))
        self._appends.check_open()
        account = context.quota.open(by.name, creation.length, upload.id)
        # An id that wasn't drawn here may be another upload's: its file is touched only once the catalog has said no.
        given = hooks.changes is not None and hooks.changes.id is not None
        empty = not creation.has_body and creation.length != 0
        if given or empty:
            upload = await self._record(upload, account, hooks)
        if empty:
            return upload
        if given and interim is not None:
            interim.created(upload)
        append = RunningAppend(
            *(context, upload, 0, body, self._algorithms, hooks),
            new=not given,
            draft=creation.draft,
            interim=interim,
        )
        try:
            if plan.length is None:
                account.reach(body.length or 0)
            await context.holds.take(upload.id, append, 0)
            return await self._appends.run(append, upload, plan, creation, account, by)
        except TusError as error:
            if append.recorded:
                raise CreationCut(append.upload, error) from error
            if error.status >= 500:
                await self._discard(upload.id)
            raise
        finally:
            if not append.recorded:
                account.remove()

    async def concatenate(
        self, creation: Creation, partial_ids: Sequence[str], by: Principal, hooks: HookContext
    ) -> Asked:
        """The final upload that this request makes, or has made before."""
        digest = digest_of(partial_ids, creation.metadata, by.name)
        return await self._finals.once(digest, lambda: self._final(creation, partial_ids, by, hooks, digest))

    async def _final(
        self, creation: Creation, partial_ids: Sequence[str], by: Principal, hooks: HookContext, digest: str
    ) -> Upload:
        context = self._context
        self._appends.check_open()
        partials = await self._partials(partial_ids)
        lengths = [each.length for each in partials]
        length = rules.final_length(lengths, context.largest(by.max_size))
        context.check_room()
        claim = await self._room(length)
        try:
            final = evolve(self._new(creation, length, by, partial_ids), asked=digest)
            if context.questions.asks(QuestionKind.CREATE):
                final = await self._asked(final, hooks)
                rules.final_length(lengths, context.largest(final.max_size))
                self._appends.check_open()
            final = await self._record(final, context.quota.open(by.name, length, final.id), hooks)
        except BaseException:
            claim.release()
            raise
        ready = all(each.finished for each in partials)
        if not ready:
            claim.release()
        self._finals.begin(final, claim if ready else None)
        return final

    async def _partials(self, partial_ids: Sequence[str]) -> list[Upload]:
        """Their records, in that order. Raises BadRequest unless they are there, and partials."""
        try:
            found = await self._context.catalog.get_many(tuple(dict.fromkeys(partial_ids)))
        except Exception as error:
            raise as_answer(error, "") from error
        for partial_id in partial_ids:
            partial = found.get(partial_id)
            if partial is None or partial.gone or not partial.is_partial:
                raise BadRequest(f"Upload-Concat: {partial_id} is no partial upload here.")
        return [found[partial_id] for partial_id in partial_ids]

    async def _room(self, length: int | None) -> Claim:
        """For the whole of a final, before anything of it is copied. Raises NoSpace."""
        try:
            return await self._context.space.claim(self._context.spool, length or 0)
        except OSError as error:
            raise as_answer(error, "") from error

    def acknowledge(self, upload: Upload, creation: Creation, hooks: HookContext) -> Upload | Deferred[Upload]:
        """The answer to the creation of an upload, which is there by now, whatever comes of waiting for it."""
        if not (self._context.withheld(upload) and creation.completes):
            return upload
        answer = self._acknowledgements.acknowledged(upload, hooks)
        return answer.addErrback(self._not_acknowledged, upload) if isinstance(answer, Deferred) else answer

    def _not_acknowledged(self, failure: Failure, upload: Upload) -> Upload:
        error = failure.value
        if not isinstance(error, TusError) or (error.status < 500 and not isinstance(error, (Refused, *DIFFERING))):
            failure.raiseException()
        if isinstance(error, DIFFERING):  # no repetition helps: its client is to know where to delete it
            raise CreationCut(self._context.shown(upload), error) from error
        if upload.length == 0 or upload.draft:  # no byte of it could be withheld
            raise CreationCut(upload, error) from error
        return self._context.shown(upload)

    def _new(self, creation: Creation, length: int | None, by: Principal, partials: Sequence[str] = ()) -> Upload:
        now = self._context.wall()
        return Upload(
            id=self._new_id(),
            created_at=now,
            touched_at=now,
            length=length,
            metadata=creation.metadata,
            concat=creation.concat_header,
            partials=tuple(partials),
            owner=by.name or None,
            max_size=by.max_size,
            draft=creation.draft,
            announced=creation.digests.whole,
            # nobody reads a partial upload but the final one
            digest_due=None if creation.concat == "partial" else self._context.digests.algorithm,
        )

    async def _asked(self, upload: Upload, hooks: HookContext) -> Upload:
        """A new upload as hooks want it."""
        granted = await self._context.questions.ask(QuestionKind.CREATE, upload, hooks.request)
        hooks.add(granted)
        changes = hooks.changes = granted.changes
        sizes = [size for size in (upload.max_size, changes.max_size) if size is not None]
        upload = evolve(upload, id=changes.id or upload.id)
        return evolve(
            upload,
            place=None if changes.key is None else self._context.places.chosen(upload, changes.key),
            metadata=upload.metadata if granted.raw_metadata is None else granted.raw_metadata or None,
            max_size=min(sizes, default=None),
        )

    async def _record(self, upload: Upload, account: IAccount, hooks: HookContext) -> Upload:
        created = None
        try:
            facts = self._context.facts(upload, hooks.request, FactKind.CREATED)
            created = await self._context.create(upload, facts, hooks.changes, hooks.request)
        except Exception as error:
            raise as_answer(error, upload.id) from error
        finally:
            if created is None:
                account.remove()
        if created is not None:
            return created
        if upload.is_final and not await self._taken(upload.id):
            raise WrongState(
                "A partial upload has gone meanwhile, or an upload like this one is made by another request."
            )
        raise BadRequest("An upload with this id was made before.")

    async def _taken(self, upload_id: str) -> bool:
        try:
            catalog = self._context.catalog
            return await catalog.get(upload_id) is not None or await catalog.has_remains(upload_id)
        except Exception as error:
            raise as_answer(error, upload_id) from error

    async def _discard(self, upload_id: str) -> None:
        """Remove what a creation has written, if the catalog knows for sure that it is not there."""
        try:
            if await self._context.catalog.get(upload_id) is None:
                await self._context.spool.discard(upload_id)
        except (CatalogUnavailable, OSError):
            log.warn("a failed creation's data stays until the next start", upload=upload_id)

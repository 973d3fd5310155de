"""The use cases of uploads, each one method: create, append, inspect, terminate, read, status, restart.

Reason to change: what a client may ask for. Invariant: every answer about an offset comes from the catalog, under
the hold or after the holder has settled, and is no more than `Engine.shown` lets a client see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from resumable.hooks import QuestionKind, RequestView
from resumable.interfaces import CatalogUnavailable, FactKind, IBody, Upload
from resumable.interfaces import Gone as GoneKind
from resumable.protocol import rules, tus
from resumable.protocol.concat import Final
from resumable.protocol.errors import BadRequest, Forbidden, Gone, OffsetMismatch, Refused, Stopping, TusError
from resumable.protocol.rules import Plan
from resumable.spool import Reader
from resumable.uploads.append import Algorithms, Append
from resumable.uploads.assembly import Assembler
from resumable.uploads.caller import NOBODY, Caller
from resumable.uploads.engine import Engine, as_answer, log
from resumable.uploads.finishing import Finishing
from resumable.uploads.gate import check_admitted
from resumable.uploads.holds import HoldMoved
from resumable.uploads.janitor import Janitor
from resumable.uploads.lookup import Lookup, present
from resumable.uploads.quota import IAccount, account_of
from resumable.uploads.shield import shielded
from resumable.uploads.status import UploadStatus, status_of
from resumable.uploads.visits import Visit


class CreationCut(Exception):
    """The body of a creation failed after the upload was made: it is there, and can be resumed."""

    def __init__(self, upload: Upload, error: TusError) -> None:
        super().__init__(error.detail)
        self.upload = upload
        self.error = error


class Uploads:
    """What clients may do. Every method raises TusError, or BodyLost where a body was cut off."""

    def __init__(
        self,
        engine: Engine,
        assembler: Assembler,
        janitor: Janitor,
        *,
        algorithms: Algorithms,
        new_id: Callable[[], str],
    ) -> None:
        self.engine = engine
        self.algorithms = algorithms
        self._assembler = assembler
        self._janitor = janitor
        self._lookup = Lookup(engine, janitor)
        self._finishing = Finishing(engine)
        self._new_id = new_id
        self._under_way: set[Append] = set()
        self._stopping = False

    def create(
        self, creation: tus.Creation, body: IBody, by: Caller = NOBODY, visit: Visit | None = None
    ) -> Deferred[Upload]:
        """A new upload, with as much of the body as there was. Not for finals: see `concatenate`.

        Raises CreationCut when the body failed after the upload was made, or when one without bytes can't be finished
        or isn't stored in time. One with bytes for which that is so is answered with its last byte withheld.
        """
        visit = visit or Visit()
        made = shielded(self._create(creation, body, by, visit))
        return made.addCallback(self._acknowledge, visit)

    def append(
        self,
        upload_id: str,
        request: tus.Append | TusError,
        body: IBody,
        by: Caller = NOBODY,
        visit: Visit | None = None,
    ) -> Deferred[Upload]:
        """Bytes for an upload. ``request`` is an error where the header was malformed: it is raised only if the
        upload is there and no final (404, 410 and 403 come first). Unavailable when it isn't stored in time."""
        visit = visit or Visit()
        appended = shielded(self._append(upload_id, request, body, by, visit))
        return appended.addCallback(self._finishing.acknowledged, visit)

    def concatenate(
        self, creation: tus.Creation, partial_ids: Sequence[str], by: Caller = NOBODY, visit: Visit | None = None
    ) -> Deferred[Upload]:
        """A final upload made of these partials, in this order; durable at once, its bytes follow (T50 to T60)."""
        return shielded(self._concatenate(creation, partial_ids, by, visit or Visit()))

    def inspect(self, upload_id: str) -> Deferred[Upload]:
        """The upload as HEAD may report it: a live holder has committed, a silent one was evicted.

        A data file that is shorter than its committed offset makes the upload gone. Never raises Stopping.
        """
        return shielded(self._lookup.inspect(upload_id)).addCallback(self.engine.shown)

    def read(self, upload_id: str) -> Deferred[tuple[Upload, Reader]]:
        """A finished upload and its open data file; the caller closes it. NotFound while it isn't finished, and when
        its data was dropped."""
        return shielded(self._lookup.read(upload_id))

    def terminate(self, upload_id: str, visit: Visit | None = None) -> Deferred[None]:
        """End an upload and free its disk, whatever is under way."""
        return shielded(self._terminate(upload_id, visit or Visit()))

    def stop_upload(self, upload_id: str, reason: TusError | None = None) -> Deferred[None]:
        """End an upload as `terminate` does, without asking anybody; ``reason``: what its running request is told."""
        return shielded(self._end(upload_id, None, reason or Gone("The upload was stopped.")))

    def status(self, upload_id: str) -> Deferred[UploadStatus]:
        """How far the upload is in both tiers. Never touches the hold."""
        return Deferred.fromCoroutine(status_of(self.engine, upload_id))

    def restart(self, upload_id: str, remote: str | None = None) -> Deferred[int]:
        """Try again what was parked of this upload, in one remote or in all; answers how many replicas that were."""
        return shielded(self._restart(upload_id, remote))

    async def _create(self, creation: tus.Creation, body: IBody, by: Caller, visit: Visit) -> Upload:
        engine = self.engine
        self._check_open()
        plan = rules.admit_creation(creation, body.length, engine.largest(by.max_size))
        engine.space.admit()
        check_admitted(engine)
        upload = self._new(creation, creation.length, by)
        if engine.questions.asks(QuestionKind.CREATE):
            upload = await self._asked(upload, visit)
            plan = rules.admit_creation(creation, body.length, engine.largest(upload.max_size))
        if creation.has_body and engine.questions.asks(QuestionKind.APPEND):
            visit.add(await engine.questions.ask(QuestionKind.APPEND, upload, visit.request))
        self._check_open()
        account = engine.quota.open(by.name, creation.length)
        # An id that wasn't drawn here may be another upload's: its file is touched only once the catalog has said no.
        given = visit.changes is not None and visit.changes.id is not None
        empty = not creation.has_body and creation.length != 0
        if given or empty:
            upload = await self._record(upload, account, visit)
        if empty:
            return upload
        append = Append(engine, upload, 0, body, self.algorithms, visit, new=not given)
        try:
            if plan.length is None:
                account.reach(body.length or 0)
            await engine.holds.take(upload.id, append, 0)
            return await self._run(append, upload, plan, creation, account, by)
        except TusError as error:
            if append.recorded:
                raise CreationCut(append.upload, error) from error
            if error.status >= 500:
                await self._discard(upload.id)
            raise
        finally:
            if not append.recorded:
                account.remove()

    def _new(self, creation: tus.Creation, length: int | None, by: Caller, partials: Sequence[str] = ()) -> Upload:
        now = self.engine.wall()
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
        )

    async def _asked(self, upload: Upload, visit: Visit) -> Upload:
        """A new upload as hooks want it."""
        granted = await self.engine.questions.ask(QuestionKind.CREATE, upload, visit.request)
        visit.add(granted)
        changes = visit.changes = granted.changes
        sizes = [size for size in (upload.max_size, changes.max_size) if size is not None]
        return evolve(
            upload,
            id=changes.id or upload.id,
            metadata=upload.metadata if granted.raw_metadata is None else granted.raw_metadata or None,
            max_size=min(sizes, default=None),
        )

    async def _record(self, upload: Upload, account: IAccount, visit: Visit) -> Upload:
        created = None
        try:
            facts = self.engine.facts(upload, visit.request, FactKind.CREATED)
            created = await self.engine.create(upload, facts, visit.changes)
        except Exception as error:
            raise as_answer(error, upload.id) from error
        finally:
            if created is None:
                account.remove()
        if created is None:
            raise BadRequest("An upload with this id was made before.")
        return created

    def _acknowledge(self, upload: Upload, visit: Visit) -> Upload | Deferred[Upload]:
        """The answer to the creation of an upload, which is there by now, whatever comes of waiting for it."""
        answer = self._finishing.acknowledged(upload, visit)
        return answer.addErrback(self._not_acknowledged, upload) if isinstance(answer, Deferred) else answer

    def _not_acknowledged(self, failure: Failure, upload: Upload) -> Upload:
        error = failure.value
        if not isinstance(error, TusError) or (error.status < 500 and not isinstance(error, Refused)):
            failure.raiseException()
        if upload.length == 0:  # no byte of it could be withheld
            raise CreationCut(upload, error) from error
        return self.engine.shown(upload)

    async def _discard(self, upload_id: str) -> None:
        """Remove what a creation has written, if the catalog knows for sure that it is not there."""
        try:
            if await self.engine.catalog.get(upload_id) is None:
                await self.engine.spool.remove([upload_id])
        except (CatalogUnavailable, OSError):
            log.warn("a failed creation's data stays until the next start", upload=upload_id)

    async def _append(
        self, upload_id: str, request: tus.Append | TusError, body: IBody, by: Caller, visit: Visit
    ) -> Upload:
        self._check_open()
        engine = self.engine
        if isinstance(request, TusError):
            self._check_appendable(await present(engine, upload_id))
            raise request
        if engine.questions.asks(QuestionKind.APPEND):  # before it takes the hold: others don't wait for hooks
            upload = engine.shown(await present(engine, upload_id))
            self._check_appendable(upload)
            visit.add(await engine.questions.ask(QuestionKind.APPEND, upload, visit.request))
            self._check_open()
        append = Append(engine, Upload(upload_id, 0, 0), request.offset, body, self.algorithms, visit)
        self._under_way.add(append)
        try:
            try:
                await engine.holds.take(upload_id, append, request.offset)
            except HoldMoved:
                upload = engine.shown(await present(engine, upload_id))
                raise OffsetMismatch(upload.offset, request.offset) from None
            row = await present(engine, upload_id)
            upload, repeats = engine.shown(row), row.finished or engine.pending(row)
            self._check_appendable(upload)
            largest = engine.largest(upload.max_size, by.max_size)
            plan = rules.admit_append(upload.offset, upload.length, request, body.length, largest)
            if body.length != 0 and not repeats:
                engine.space.admit()
            account = account_of(engine.quota, upload)
            account.reach(plan.start + (body.length or 0) if plan.length is None else plan.length)
        except BaseException:
            self._under_way.discard(append)
            await append.release()
            raise
        return await self._run(append, upload, plan, request, account, by, repeats)

    async def _run(
        self,
        append: Append,
        upload: Upload,
        plan: Plan,
        request: tus.Creation | tus.Append,
        account: IAccount,
        by: Caller,
        repeats: bool = False,
    ) -> Upload:
        self._under_way.add(append)
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
            self._under_way.discard(append)
            await append.release()

    async def _concatenate(
        self, creation: tus.Creation, partial_ids: Sequence[str], by: Caller, visit: Visit
    ) -> Upload:
        self._check_open()
        assert isinstance(creation.concat, Final)
        engine = self.engine
        try:
            partials = await engine.catalog.get_many(partial_ids)
        except Exception as error:
            raise as_answer(error, "") from error
        for partial_id in partial_ids:
            partial = partials.get(partial_id)
            if partial is None or partial.gone or not partial.is_partial:
                raise BadRequest(f"Upload-Concat: {partial_id} is no partial upload here.")
        lengths = [partials[each].length for each in partial_ids]
        length = rules.final_length(lengths, engine.largest(by.max_size))
        engine.space.admit()
        check_admitted(engine)
        final = self._new(creation, length, by, partial_ids)
        if engine.questions.asks(QuestionKind.CREATE):
            final = await self._asked(final, visit)
            rules.final_length(lengths, engine.largest(final.max_size))
            self._check_open()
        account = engine.quota.open(by.name, length)
        final = await self._record(final, account, visit)
        self._assembler.wake(final.id)
        return final

    async def _terminate(self, upload_id: str, visit: Visit) -> None:
        questions = self.engine.questions
        if questions.asks(QuestionKind.TERMINATE):
            upload = await present(self.engine, upload_id)
            visit.add(await questions.ask(QuestionKind.TERMINATE, upload, visit.request))
        await self._end(upload_id, visit.request)

    async def _end(self, upload_id: str, request: RequestView | None, reason: TusError | None = None) -> None:
        engine = self.engine
        upload = await present(engine, upload_id)
        await engine.holds.evict(upload_id, reason)
        try:
            ended = await self._janitor.end(upload, GoneKind.TERMINATED, request)
            await self._janitor.reclaim()
        except Exception as error:
            raise as_answer(error, upload_id) from error
        if not ended:
            raise Gone("The upload was removed.")

    async def _restart(self, upload_id: str, remote: str | None) -> int:
        engine = self.engine
        await present(engine, upload_id)
        if engine.replicas is None:
            return 0
        try:
            count = await engine.replicas.restart(upload_id, remote)
        except Exception as error:
            raise as_answer(error, upload_id) from error
        if count:
            engine.replication.restarted(upload_id)
        return count

    async def stop(self) -> None:
        """Take no more bytes; everything under way commits what it has and is answered 503, as are those who wait."""
        self._stopping = True
        self.engine.questions.stop()
        self._finishing.stop()
        waiting = [Deferred.fromCoroutine(each.evict(Stopping())) for each in tuple(self._under_way)]
        await DeferredList(waiting, consumeErrors=True)

    def _check_open(self) -> None:
        if self._stopping:
            raise Stopping()

    @staticmethod
    def _check_appendable(upload: Upload) -> None:
        if upload.is_final:
            # T57: "The Server MUST respond with the 403 Forbidden status to PATCH requests against a final upload URL"
            raise Forbidden("A final upload takes no bytes; it is made of its partial uploads.")

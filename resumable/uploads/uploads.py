"""The use cases of uploads, each one method: create, append, inspect, terminate, read.

Reason to change: what a client may ask for. Invariant: every answer about an offset comes from the catalog, under
the hold or after the holder has settled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList

from resumable.interfaces import CatalogUnavailable, FactKind, IBody, Upload
from resumable.interfaces import Gone as GoneKind
from resumable.protocol import rules, tus
from resumable.protocol.concat import Final
from resumable.protocol.errors import BadRequest, Forbidden, Gone, NotFound, OffsetMismatch, Stopping, TusError
from resumable.protocol.rules import Plan
from resumable.spool import Reader, SpoolDamaged
from resumable.uploads.append import Algorithms, Append
from resumable.uploads.assembly import Assembler
from resumable.uploads.engine import Engine, as_answer, log
from resumable.uploads.holds import HoldMoved
from resumable.uploads.janitor import Janitor
from resumable.uploads.shield import shielded


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
        self._new_id = new_id
        self._under_way: set[Append] = set()
        self._stopping = False

    def create(self, creation: tus.Creation, body: IBody) -> Deferred[Upload]:
        """A new upload, with as much of the body as there was. Not for finals: see `concatenate`.

        Raises CreationCut when the body failed after the upload was made.
        """
        return shielded(self._create(creation, body))

    def append(self, upload_id: str, request: tus.Append | TusError, body: IBody) -> Deferred[Upload]:
        """Bytes for an upload. ``request`` is an error where the header was malformed: it is raised only if the
        upload is there and no final (404, 410 and 403 come first)."""
        return shielded(self._append(upload_id, request, body))

    def concatenate(self, creation: tus.Creation, partial_ids: Sequence[str]) -> Deferred[Upload]:
        """A final upload made of these partials, in this order; durable at once, its bytes follow (T50 to T60)."""
        return shielded(self._concatenate(creation, partial_ids))

    def inspect(self, upload_id: str) -> Deferred[Upload]:
        """The upload as HEAD may report it: a live holder has committed, a silent one was evicted.

        A data file that is shorter than its committed offset makes the upload gone. Never raises Stopping.
        """
        return shielded(self._inspect(upload_id))

    def read(self, upload_id: str) -> Deferred[tuple[Upload, Reader]]:
        """A finished upload and its open data file; the caller closes it. NotFound while it isn't finished."""
        return shielded(self._read(upload_id))

    def terminate(self, upload_id: str) -> Deferred[None]:
        """End an upload and free its disk, whatever is under way."""
        return shielded(self._terminate(upload_id))

    async def _create(self, creation: tus.Creation, body: IBody) -> Upload:
        engine = self.engine
        self._check_open()
        plan = rules.admit_creation(creation, body.length, engine.limits.max_size)
        engine.space.admit()
        now = engine.wall()
        upload = Upload(
            id=self._new_id(),
            created_at=now,
            touched_at=now,
            length=creation.length,
            metadata=creation.metadata,
            concat=creation.concat_header,
        )
        if creation.has_body or creation.length == 0:
            append = Append(engine, upload, 0, body, self.algorithms)
            await engine.holds.take(upload.id, append, 0)
            try:
                return await self._run(append, upload, plan, creation, new=True)
            except TusError as error:
                if append.recorded:
                    raise CreationCut(append.upload, error) from error
                if error.status >= 500:
                    await self._discard(upload.id)
                raise
        await self._record(upload)
        return upload

    async def _record(self, upload: Upload) -> None:
        try:
            fresh = await self.engine.catalog.create(upload, [self.engine.fact(FactKind.CREATED, upload)])
        except Exception as error:
            raise as_answer(error, upload.id) from error
        if not fresh:
            raise BadRequest("An upload with this id was made before.")

    async def _discard(self, upload_id: str) -> None:
        """Remove what a creation has written, if the catalog knows for sure that it is not there."""
        try:
            if await self.engine.catalog.get(upload_id) is None:
                await self.engine.spool.remove([upload_id])
        except (CatalogUnavailable, OSError):
            log.warn("a failed creation's data stays until the next start", upload=upload_id)

    async def _append(self, upload_id: str, request: tus.Append | TusError, body: IBody) -> Upload:
        self._check_open()
        if isinstance(request, TusError):
            self._check_appendable(await self._present(upload_id))
            raise request
        engine = self.engine
        append = Append(engine, Upload(upload_id, 0, 0), request.offset, body, self.algorithms)
        self._under_way.add(append)
        try:
            try:
                await engine.holds.take(upload_id, append, request.offset)
            except HoldMoved:
                upload = await self._present(upload_id)
                raise OffsetMismatch(upload.offset, request.offset) from None
            upload = await self._present(upload_id)
            self._check_appendable(upload)
            plan = rules.admit_append(upload.offset, upload.length, request, body.length, engine.limits.max_size)
            if body.length != 0:
                engine.space.admit()
        except BaseException:
            self._under_way.discard(append)
            await append.release()
            raise
        return await self._run(append, upload, plan, request)

    async def _run(
        self, append: Append, upload: Upload, plan: Plan, request: tus.Creation | tus.Append, new: bool = False
    ) -> Upload:
        self._under_way.add(append)
        try:
            return await append.run(upload, plan, checksum=request.checksum, trailer=request.checksum_trailer, new=new)
        except Exception as error:
            answer = await self._answer(error, upload.id)
            if answer is error:
                raise
            raise answer from error
        finally:
            self._under_way.discard(append)
            await append.release()

    async def _concatenate(self, creation: tus.Creation, partial_ids: Sequence[str]) -> Upload:
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
        length = rules.final_length((partials[each].length for each in partial_ids), engine.limits.max_size)
        engine.space.admit()
        now = engine.wall()
        final = Upload(
            id=self._new_id(),
            created_at=now,
            touched_at=now,
            length=length,
            metadata=creation.metadata,
            concat=creation.concat_header,
            partials=tuple(partial_ids),
        )
        await self._record(final)
        self._assembler.wake(final.id)
        return final

    async def _inspect(self, upload_id: str) -> Upload:
        try:
            return await self._settled(upload_id)
        except Exception as error:
            answer = await self._answer(error, upload_id)
            if answer is error:
                raise
            raise answer from error

    async def _settled(self, upload_id: str) -> Upload:
        engine = self.engine
        await engine.holds.settle(upload_id)
        upload = await self._present(upload_id)
        if upload.is_final and not upload.finished:
            return await self._final_view(upload)
        if upload.offset:
            size = await engine.spool.size(upload_id)
            if size is None or size < upload.offset:
                raise SpoolDamaged(upload_id, upload.offset, size)
        return upload

    async def _read(self, upload_id: str) -> tuple[Upload, Reader]:
        upload = await self._present(upload_id)
        if not upload.finished:
            raise NotFound("The upload is not finished.")
        try:
            reader = await self.engine.spool.reader(upload_id)
            if reader.size < upload.offset:
                reader.close()
                raise SpoolDamaged(upload_id, upload.offset, reader.size)
        except FileNotFoundError:
            raise await self._answer(SpoolDamaged(upload_id, upload.offset, None), upload_id) from None
        except Exception as error:
            raise await self._answer(error, upload_id) from error
        return upload, reader

    async def _terminate(self, upload_id: str) -> None:
        engine = self.engine
        upload = await self._present(upload_id)
        await engine.holds.evict(upload_id)
        try:
            ended = await self._janitor.end(upload, GoneKind.TERMINATED)
            await self._janitor.reclaim()
        except Exception as error:
            raise as_answer(error, upload_id) from error
        if not ended:
            raise Gone("The upload was removed.")

    async def stop(self) -> None:
        """Take no more bytes; everything under way commits what it has and is answered 503."""
        self._stopping = True
        waiting = [Deferred.fromCoroutine(each.evict(Stopping())) for each in tuple(self._under_way)]
        await DeferredList(waiting, consumeErrors=True)

    def _check_open(self) -> None:
        if self._stopping:
            raise Stopping()

    async def _present(self, upload_id: str) -> Upload:
        """The record of an upload that is there; NotFound or Gone (T10, T17, T39, T48)."""
        try:
            upload = await self.engine.catalog.get(upload_id)
        except Exception as error:
            raise as_answer(error, upload_id) from error
        if upload is None:
            raise NotFound("There is no such upload.")
        if upload.gone is not None:
            raise Gone(f"The upload was {upload.gone.value}.")
        return upload

    @staticmethod
    def _check_appendable(upload: Upload) -> None:
        if upload.is_final:
            # T57: "The Server MUST respond with the 403 Forbidden status to PATCH requests against a final upload URL"
            raise Forbidden("A final upload takes no bytes; it is made of its partial uploads.")

    async def _final_view(self, upload: Upload) -> Upload:
        """T60: the length of a final as soon as all its partials know theirs."""
        if upload.length is not None:
            return upload
        partials = await self.engine.catalog.get_many(upload.partials)
        lengths = [partials[each].length if each in partials else None for each in upload.partials]
        return evolve(upload, length=rules.final_length(lengths, None))

    async def _answer(self, error: Exception, upload_id: str) -> BaseException:
        if not isinstance(error, SpoolDamaged):
            return as_answer(error, upload_id)
        log.error("data file is shorter than its committed offset", upload=upload_id, found=error.found)
        try:
            await self._janitor.end(await self._present(upload_id), GoneKind.LOST)
        except Exception as failed:
            return as_answer(failed, upload_id)
        return Gone("The upload was lost: its data was damaged.")

"""Looking at an upload: what is recorded of it, and whether its data still bears that out.

Reason to change: when an upload counts as there. Invariant: an upload whose data file is shorter than its committed
offset is never shown as whole: it becomes gone, unless its data was given up because remotes have it.
"""

from __future__ import annotations

from attrs import evolve

from resumable.model.upload import Gone as GoneKind
from resumable.model.upload import Upload
from resumable.protocol import rules
from resumable.protocol.errors import Gone, NotFound
from resumable.spool import Reader, SpoolDamaged
from resumable.uploads.assembly import Assembler
from resumable.uploads.context import UploadContext, as_answer, log
from resumable.uploads.janitor import Janitor

#: Seconds that a look at a final upload waits for it while it is being put together.
PATIENCE = 5.0


async def present(context: UploadContext, upload_id: str) -> Upload:
    """The record of an upload that is there; NotFound or Gone (T10, T17, T39, T48)."""
    try:
        upload = await context.catalog.get(upload_id)
    except Exception as error:
        raise as_answer(error, upload_id) from error
    if upload is None:
        raise NotFound("There is no such upload.")
    if upload.gone is not None:
        raise Gone(f"The upload was {upload.gone.value}.")
    return upload


class Unfinished(NotFound):
    """There is nothing to be read yet."""


class Elsewhere(NotFound):
    """A finished upload whose data isn't here any more: remotes have it, or its placed file was taken away."""

    def __init__(self, upload: Upload) -> None:
        super().__init__("The file is no longer on this server; it was moved or stored elsewhere.")
        self.upload = upload


class Lookup:
    """Reads of uploads, and the verdict on damaged ones."""

    def __init__(self, context: UploadContext, janitor: Janitor, assembler: Assembler) -> None:
        self._context = context
        self._janitor = janitor
        self._assembler = assembler

    async def inspect(self, upload_id: str) -> Upload:
        """The record, after a live holder has committed or a silent one was evicted."""
        try:
            return await self._settled(upload_id)
        except Exception as error:
            answer = await self.answer(error, upload_id)
            if answer is error:
                raise
            raise answer from error

    async def read(self, upload_id: str) -> tuple[Upload, Reader]:
        """A finished upload and its open file, wherever that is here. Raises Unfinished, Elsewhere."""
        upload = await self._made(await present(self._context, upload_id))
        if not upload.finished:
            raise Unfinished("The upload is not finished.")
        if upload.dropped_at is not None:
            return upload, await self._placed(upload)
        try:
            reader = await self._context.spool.reader(upload_id)
            if reader.size < upload.offset:
                reader.close()
                raise SpoolDamaged(upload_id, upload.offset, reader.size)
        except FileNotFoundError:
            upload = await present(self._context, upload_id)
            if upload.dropped_at is not None:  # since it was looked at
                return upload, await self._placed(upload)
            raise await self.answer(SpoolDamaged(upload_id, upload.offset, None), upload_id) from None
        except Exception as error:
            raise await self.answer(error, upload_id) from error
        return upload, reader

    async def answer(self, error: Exception, upload_id: str) -> BaseException:
        """What a client is told of an inner failure; a damaged upload is gone by then."""
        if not isinstance(error, SpoolDamaged):
            return as_answer(error, upload_id)
        try:
            # Its data may have been given up since its record was read.
            upload = await present(self._context, upload_id)
            if upload.dropped_at is not None:
                return Elsewhere(upload)
            log.error("data file is shorter than its committed offset", upload=upload_id, found=error.found)
            await self._janitor.end(upload, GoneKind.LOST)
        except Exception as failed:
            return as_answer(failed, upload_id)
        return Gone("The upload was lost: its data was damaged.")

    async def _placed(self, upload: Upload) -> Reader:
        """What was placed of an upload without a data file. Raises Elsewhere: nothing was, or it was taken away."""
        try:
            reader = await self._context.places.reader(upload)
        except Exception as error:
            raise as_answer(error, upload.id) from error
        if reader is None:
            raise Elsewhere(upload)
        return reader

    async def _settled(self, upload_id: str) -> Upload:
        context = self._context
        await context.holds.settle(upload_id)
        upload = await self._made(await present(context, upload_id))
        if upload.is_final and not upload.finished:
            return await self._final_view(upload)
        if upload.offset and upload.dropped_at is None:
            size = await context.spool.size(upload_id)
            if size is None or size < upload.offset:
                upload = await present(context, upload_id)
                if upload.dropped_at is None:
                    raise SpoolDamaged(upload_id, upload.offset, size)
        return upload

    async def _made(self, upload: Upload) -> Upload:
        """The upload; if that is a final that is just being put together, then what has become of it soon after."""
        if not upload.is_final or upload.finished:
            return upload
        await self._assembler.settled(upload, PATIENCE)
        return await present(self._context, upload.id)

    async def _final_view(self, upload: Upload) -> Upload:
        """T60: the length of a final as soon as all its partials know theirs."""
        if upload.length is not None:
            return upload
        partials = await self._context.catalog.get_many(tuple(dict.fromkeys(upload.partials)))
        lengths = [partials[each].length if each in partials else None for each in upload.partials]
        return evolve(upload, length=rules.final_length(lengths, None))

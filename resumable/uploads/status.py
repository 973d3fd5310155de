"""Looking at an upload: its record, whether its data still bears that out, and how far it is in both tiers.

Invariants: an upload whose data file is shorter than its committed offset is never shown as whole: it becomes gone,
unless its data was given up because remotes have it. Where several processes share the data, a look by one of them
proves nothing, and ends no upload. A status never touches the hold, so a monitor may look as often as it likes, and
holds no secrets: errors are those of `IReplicas`, one line without any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import evolve, frozen

from resumable.model.listing import UploadState, state_of
from resumable.model.replica import TransferProgress
from resumable.model.upload import GoneReason, Replica, ReplicaState, Upload
from resumable.protocol import metadata, rules
from resumable.protocol.errors import Gone, NotFound, Unavailable
from resumable.spool import Reader, SpoolDamaged
from resumable.spool.datafile import NotReadable
from resumable.spool.interfaces import IStoredFile, IStoredFiles
from resumable.uploads.assembly import Assembler
from resumable.uploads.context import UploadContext, as_answer, log
from resumable.uploads.janitor import Endings
from resumable.uploads.other_workers import UNREADABLE

AT_ONCE: Final = 200
"""Uploads that are read in one job of the catalog: commits wait for it."""


@frozen
class ReplicaStatus:
    """One remote's copy, in bytes. ``sent``: on their way or there; ``confirmed``: there; ``lag``: durable, but not
    there."""

    remote: str
    required: bool
    state: ReplicaState
    key: str | None
    sent: int
    confirmed: int
    lag: int
    attempts: int
    error: str | None
    retry_at: float | None
    location: str | None
    stored_at: float | None


@frozen
class UploadStatus:
    """One upload. ``received``: bytes that have come, durable or not; ``durable``: committed; ``offset``: the one
    that its client sees. ``local``: whether its data is still here, unless it is gone. ``placed``: its file's path
    below the place directory, None before it is there. ``object``: its address in the store that is the spool, there
    once it is finished; None without one, and of what is gone. ``metadata``: the client's, decoded. ``owner``: the
    identity that created it; ``protocol``: the one that it did so by. ``appending``: whether a request holds it now.
    ``touched_at``: when that last moved it. ``gone``: why it is, where that is shown. ``announced``, ``digest``: see
    `Upload`."""

    id: str
    state: UploadState
    length: int | None
    received: int
    durable: int
    offset: int
    created_at: float
    finished_at: float | None
    stored_at: float | None
    expires_at: float | None
    metadata: Mapping[str, bytes]
    local: bool
    placed: str | None
    object: str | None
    replicas: Sequence[ReplicaStatus]
    owner: str | None
    protocol: str
    appending: bool
    touched_at: float
    gone: GoneReason | None
    gone_at: float | None
    announced: str | None
    digest: str | None


async def status_of(context: UploadContext, upload_id: str) -> UploadStatus:
    """The status of an upload that is there. Raises NotFound, Gone, Unavailable."""
    upload = await context.present(upload_id)
    try:
        replicas = [] if context.replicas is None else await context.replicas.of(upload_id)
    except Exception as error:
        raise as_answer(error, upload_id) from error
    return status_from(context, upload, replicas)


async def statuses_of(context: UploadContext, upload_ids: Sequence[str]) -> dict[str, UploadStatus]:
    """Those of the ids that are known, gone ones too: for somebody who looks at many again and again. Raises
    Unavailable."""
    found: dict[str, UploadStatus] = {}
    for start in range(0, len(upload_ids), AT_ONCE):
        some = upload_ids[start : start + AT_ONCE]
        try:
            uploads = await context.catalog.get_many(some)
            replicas = {} if context.replicas is None else await context.replicas.of_many(some)
        except Exception as error:
            raise as_answer(error, "") from error
        for upload_id, upload in uploads.items():
            found[upload_id] = status_from(context, upload, replicas.get(upload_id, ()))
    return found


def status_from(context: UploadContext, upload: Upload, replicas: Sequence[Replica]) -> UploadStatus:
    """The status of what the catalog says of an upload, which may be gone."""
    progress = context.replication.progress(upload.id)
    return UploadStatus(
        id=upload.id,
        state=state_of(upload),
        length=upload.length,
        received=max(upload.offset, context.holds.received(upload.id) or 0),
        durable=upload.offset,
        offset=upload.offset if upload.draft else context.shown(upload).offset,
        created_at=upload.created_at,
        finished_at=upload.finished_at,
        stored_at=upload.stored_at,
        expires_at=context.expires_at(upload),
        metadata=metadata.parse(upload.metadata or ""),
        local=upload.dropped_at is None,
        placed=upload.place.path if upload.place is not None and upload.placed else None,
        object=context.spool.path(upload.id) if context.objects is not None and upload.gone is None else None,
        replicas=[_replica(each, upload, progress.get(each.remote)) for each in replicas],
        owner=upload.owner,
        protocol="draft" if upload.draft else "tus",
        appending=context.holds.held(upload.id),
        touched_at=upload.touched_at,
        gone=upload.gone,
        gone_at=upload.gone_at,
        announced=upload.announced,
        digest=upload.digest,
    )


def _replica(replica: Replica, upload: Upload, progress: TransferProgress | None) -> ReplicaStatus:
    confirmed = replica.confirmed if progress is None else max(replica.confirmed, progress.confirmed)
    location = (replica.stored or {}).get("location")
    return ReplicaStatus(
        remote=replica.remote,
        required=replica.required,
        state=replica.state,
        key=replica.key,
        sent=confirmed if progress is None else max(confirmed, progress.sent),
        confirmed=confirmed,
        lag=max(0, upload.offset - confirmed),
        attempts=replica.attempts,
        error=replica.error,
        retry_at=replica.retry_at,
        location=None if location is None else str(location),
        stored_at=replica.stored_at,
    )


#: Seconds that a look at a final upload waits for it while it is being put together.
PATIENCE = 5.0


class NotFinished(NotFound):
    """There is nothing to be read yet."""


class Elsewhere(NotFound):
    """A finished upload whose data isn't here any more: remotes have it, or its placed file was taken away; or never
    was: then ``file`` is its object."""

    def __init__(self, upload: Upload, file: IStoredFile | None = None) -> None:
        super().__init__("The file is no longer on this server; it was moved or stored elsewhere.")
        self.upload = upload
        self.file = file


class Lookup:
    """Reads of uploads, and the verdict on damaged ones."""

    def __init__(self, context: UploadContext, endings: Endings, assembler: Assembler) -> None:
        self._context = context
        self._endings = endings
        self._assembler = assembler

    async def inspect(self, upload_id: str, interrupts: bool = False) -> Upload:
        """The record, after a live holder has committed or a silent one was evicted. ``interrupts``: an append of the
        draft has ended, however live it was."""
        context = self._context
        try:
            await (context.holds.interrupt(upload_id) if interrupts else context.holds.settle(upload_id))
            upload = await context.present(upload_id)
            if upload.is_final and not upload.finished:
                upload = await self._made(upload)
                if not upload.finished:
                    return await self._final_view(upload)
            if upload.offset and upload.dropped_at is None:
                try:
                    await context.spool.check(upload)
                except SpoolDamaged:
                    upload = await context.present(upload_id)
                    if upload.dropped_at is None:
                        raise
            return upload
        except Exception as error:
            answer = await self.answer(error, upload_id)
            if answer is error:
                raise
            raise answer from error

    async def read(self, upload_id: str) -> tuple[Upload, Reader]:
        """A finished upload and its open file, wherever that is here. Raises NotFinished, Elsewhere."""
        upload = await self._context.present(upload_id)
        if upload.is_final and not upload.finished:
            upload = await self._made(upload)
        if not upload.finished:
            raise NotFinished("The upload is not finished.")
        if self._context.objects is not None:
            raise Elsewhere(upload, await self._object(upload, self._context.objects))
        if upload.dropped_at is not None:
            return upload, await self._placed(upload)
        try:
            reader = await self._context.spool.reader(upload_id)
            if reader.size < upload.offset:
                reader.close()
                raise SpoolDamaged(upload_id, upload.offset, reader.size)
        except FileNotFoundError:
            upload = await self._context.present(upload_id)
            if upload.dropped_at is not None:  # since it was looked at
                return upload, await self._placed(upload)
            raise await self._missing(upload) from None
        except Exception as error:
            raise await self.answer(error, upload_id) from error
        return upload, reader

    async def answer(self, error: Exception, upload_id: str) -> BaseException:
        """The error for the client for an inner failure; a damaged upload is gone by then."""
        if isinstance(error, NotReadable):
            self._context.others.tell(UNREADABLE, upload_id)
        if not isinstance(error, SpoolDamaged):
            return as_answer(error, upload_id)
        try:
            # Its data may have been given up since its record was read.
            upload = await self._context.present(upload_id)
            if upload.dropped_at is not None:
                return Elsewhere(upload)
            if self._context.others.several:  # others may see what this worker does not
                return Unavailable("The upload's data can't be read at the moment.", self._context.limits.retry_after)
            log.error("data file is shorter than its committed offset", upload=upload_id, found=error.found)
            await self._endings.end(upload, GoneReason.LOST)
        except Exception as failed:
            return as_answer(failed, upload_id)
        return Gone("The upload was lost: its data was damaged.")

    async def _missing(self, upload: Upload) -> BaseException:
        """The error for the client of an upload that isn't dropped, and whose data wasn't found."""
        error: Exception = NotReadable(upload.id, "its data was not found")
        try:
            await self._context.spool.check(upload)
        except Exception as found:
            error = found
        return await self.answer(error, upload.id)

    async def _placed(self, upload: Upload) -> Reader:
        """The placed file of an upload without a data file. Raises Elsewhere: there is none, or it was taken away."""
        try:
            reader = await self._context.places.reader(upload)
        except Exception as error:
            raise as_answer(error, upload.id) from error
        if reader is None:
            raise Elsewhere(upload)
        return reader

    async def _object(self, upload: Upload, objects: IStoredFiles) -> IStoredFile:
        """Its object; while that is being completed, it is waited for, `PATIENCE` seconds at most. Raises
        Unavailable."""
        try:
            file = await objects.find(upload, PATIENCE)
        except Exception as error:
            raise as_answer(error, upload.id) from error
        if file is None:
            raise Unavailable("The file is being put together; ask again.", self._context.limits.retry_after)
        return file

    async def _made(self, upload: Upload) -> Upload:
        """An unfinished final; while it is being put together, it is waited for, `PATIENCE` seconds at most."""
        await self._assembler.settled(upload, PATIENCE)
        return await self._context.present(upload.id)

    async def _final_view(self, upload: Upload) -> Upload:
        """T60: the length of a final as soon as all its partials know theirs."""
        if upload.length is not None:
            return upload
        partials = await self._context.catalog.get_many(tuple(dict.fromkeys(upload.partials)))
        lengths = [partials[each].length if each in partials else None for each in upload.partials]
        return evolve(upload, length=rules.final_length(lengths, None))

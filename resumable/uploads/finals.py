"""The requests for final uploads, and their answers.

Invariants: a request that comes again, while the first is on its way or soon after, makes nothing anew and is answered
for the first; whatever its client does, the upload goes on; an upload that may still be refused is never answered with
a success.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from resumable.aio.deferreds import deferred
from resumable.model.errors import CatalogUnavailable
from resumable.model.hooks import QuestionKind, refusal_from_data
from resumable.model.upload import Asked, Upload
from resumable.protocol.errors import Gone, Refused, TooLarge, TusError, Unavailable
from resumable.uploads.assembly import Assembler, Late
from resumable.uploads.context import UploadContext, as_answer
from resumable.uploads.finishing import Acknowledgements, CreationCut
from resumable.uploads.janitor import ANSWERED
from resumable.uploads.limits import Claim
from resumable.uploads.questions import HookContext

log = Logger()


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

    async def once(self, digest: str, make: Callable[[], Awaitable[Upload]]) -> Asked:
        """The final that a request of this digest has made before; else that of ``make``, one call at a time."""
        turn = self._making.setdefault(digest, DeferredLock())
        await turn.acquire()
        try:
            return await self._before(digest) or Asked(await make())
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

        Fails with CreationCut: it goes on, but the client has to ask again. With Refused, TooLarge or Gone: it has
        ended. Cancel it when the client has gone.
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
        except TooLarge:
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
        try:
            await self._context.catalog.heard(upload.asked or "")
        except CatalogUnavailable:
            log.warn("a refusal will be repeated to a client that has heard it", upload=upload.id)

"""An upload that has all its bytes is not finished yet: a hook may have to agree, and with `--ack remote` it counts
only once it is stored. And its digest has to be the one that its client has announced, if any.

Invariant: until then no client is shown an offset past the last byte but one, however often it asks; no upload is
finished before every hook that is asked has agreed; and every wait ends: by success, by time, by the end of the
upload, of the client or of the server. Several processes ask about one upload one after the other, never at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from resumable.aio.deferreds import Timer, deferred
from resumable.model.errors import CatalogUnavailable
from resumable.model.hooks import Granted, QuestionKind, RequestView
from resumable.model.upload import Commit, FactKind, Upload
from resumable.protocol import digests
from resumable.protocol.errors import (
    ChecksumMismatch,
    DigestMismatch,
    Gone,
    Held,
    OffsetMismatch,
    Stopping,
    TusError,
    Unavailable,
)
from resumable.uploads.context import HookContext, UploadContext, as_answer
from resumable.uploads.digest_rules import hashed, hashed_tail
from resumable.uploads.limits import account_of, settle
from resumable.uploads.other_workers import NEWS, finish_claim

DIFFERING = (ChecksumMismatch, DigestMismatch)
"""The errors for an upload whose digest isn't the one that was announced."""


class CreationCut(Exception):
    """A creation failed after the upload was made: it is there, and can be resumed or waited for."""

    def __init__(self, upload: Upload, error: TusError) -> None:
        super().__init__(error.detail)
        self.upload = upload
        self.error = error


class OtherByte(OffsetMismatch):
    """The last byte came again, and was another one."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.detail = "The upload's last byte is here already, and it is not this one."


async def check_repeated(context: UploadContext, upload: Upload, chunks: Sequence[bytes]) -> None:
    """The withheld last byte, sent again, must be the one that is here. Raises OtherByte; OSError."""
    sent = b"".join(chunks)
    if sent and sent != await context.spool.read(upload.id, upload.offset, len(sent)):
        raise OtherByte(upload.offset)


class Acknowledgements:
    """The requests that wait until their upload is finished and stored."""

    def __init__(self, context: UploadContext) -> None:
        self._context = context
        self._asking: dict[str, list[Deferred[tuple[Upload, Granted]]]] = {}
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._over: set[str] = set()
        self._stopping = False
        context.listeners.ended.append(self._ended)

    def acknowledged(self, upload: Upload, hooks: HookContext) -> Upload | Deferred[Upload]:
        """The answer to a request that has brought ``upload`` to its offset; waits if that completes it.

        Fails with Refused (by a hook), Unavailable (not stored in time, a hook has failed), Stopping or Gone. Cancel it
        when the client has gone: the hooks' answer counts all the same.
        """
        if not self._context.withheld(upload):
            return upload
        if upload.offset == upload.length:
            return self._complete(upload, hooks)
        return self._context.shown(upload)

    def stop(self) -> None:
        """End all waits."""
        self._stopping = True
        for upload_id in tuple(self._waiting):
            self._ended(upload_id)
        for upload_id in tuple(self._asking):
            self._context.others.heard(upload_id)

    @deferred
    async def _complete(self, upload: Upload, hooks: HookContext) -> Upload:
        if self._context.pending(upload):
            upload, granted = await self._agreed(upload, hooks)
            hooks.add(granted)
        return (
            await self.stored(upload.id, self._context.limits.ack_timeout) if self._context.withheld(upload) else upload
        )

    def _agreed(self, upload: Upload, hooks: HookContext) -> Deferred[tuple[Upload, Granted]]:
        """Ask hooks, once for all that want to know meanwhile; the finished upload."""
        waiter: Deferred[tuple[Upload, Granted]] = Deferred()
        waiting = self._asking.get(upload.id)
        if waiting is not None:
            waiting.append(waiter)
            return waiter
        self._asking[upload.id] = [waiter]
        asked = Deferred.fromCoroutine(self._ask(upload, hooks.request))
        asked.addBoth(self._answered, upload.id)
        return waiter

    async def _ask(self, upload: Upload, request: RequestView | None) -> tuple[Upload, Granted]:
        """Ask hooks; no other process does so meanwhile."""
        others = self._context.others
        if not others.several:
            return await self._ask_now(upload, request)
        claim = finish_claim(upload.id)
        row = await self._turn(claim, upload.id)
        if row.finished:
            return row, Granted()
        try:
            return await self._ask_now(row, request)
        finally:
            await others.drop(claim)
            others.tell(NEWS, upload.id)

    async def _turn(self, claim: str, upload_id: str) -> Upload:
        """The record, once it is this process's turn to ask, or has become needless. Raises Held: another one asks for
        longer than a client is to wait."""
        context, others = self._context, self._context.others
        until = context.clock.seconds() + context.limits.ack_timeout
        while True:
            mine = False
            try:
                mine = await others.claim(claim)
                row = await context.present(upload_id)
            except Exception as error:
                if mine:
                    await others.drop(claim)
                raise as_answer(error, upload_id) from error
            if row.finished and mine:
                await others.drop(claim)
            if row.finished or mine:
                return row
            if self._stopping:
                raise Stopping()
            left = until - context.clock.seconds()
            if left <= 0:
                raise Held("Whether the upload may be finished is still asked; come back later.")
            await others.news(upload_id, left)

    async def _ask_now(self, upload: Upload, request: RequestView | None) -> tuple[Upload, Granted]:
        context = self._context
        try:
            upload = await self._digested(upload)
            if (wrong := digests.refusal(upload.announced, upload.digest, upload.draft)) is not None:
                raise wrong
            granted = await context.questions.ask(QuestionKind.FINISH, upload, request)
            now = context.wall()
            after = context.finishing(evolve(upload, finished_at=now, touched_at=max(now, upload.touched_at)))
            facts = context.facts(after, request, FactKind.FINISHED)
            here = upload.offset
            if await context.catalog.commit(
                Commit(
                    *(upload.id, upload.epoch, here, here, now),
                    finished=True,
                    facts=facts,
                    place=after.place,
                    digest_due=after.digest_due,
                )
            ):
                context.committed(after)
                context.joinable(after.id)
                settle(account_of(context.quota, upload), after)
                return after, granted
            row = await context.present(upload.id)
        except Exception as error:
            raise as_answer(error, upload.id) from error
        if not row.finished:
            raise Held("Another request has taken this upload over.")
        return row, granted

    async def _digested(self, upload: Upload) -> Upload:
        """The record, with the digests that its client has announced, as far as its bytes can be read before the end.
        They are hashed once only: no bytes of an upload that has all of them change."""
        context = self._context
        if not digests.lacking(upload.announced, upload.digest):
            return upload
        algorithms = context.digests.along(upload)
        if context.digests.readable:
            found = await hashed(
                *(context.spool, [(upload.id, upload.offset)], algorithms),
                stopping=lambda: self._stopping or upload.id in self._over,
                turns=context.digests.turns,
            )
        else:
            found = await hashed_tail(context.spool, upload.id, upload.offset, algorithms)
            if found is None:
                return upload  # what the digest is, is found out once the upload is one object
        digest = digests.joined(upload.digest, found)
        if digest is None or not await context.catalog.set_digest(upload.id, digest):
            raise Gone("The upload was removed.")
        return evolve(upload, digest=digest, digest_due=None)

    def _answered(self, outcome: tuple[Upload, Granted] | Failure, upload_id: str) -> None:
        self._over.discard(upload_id)
        for waiter in self._asking.pop(upload_id):
            if not waiter.called:  # it was cancelled: its client has gone
                waiter.callback(outcome)

    async def stored(self, upload_id: str, within: float) -> Upload:
        """The upload, once it is stored. Raises Unavailable: it isn't within so many seconds; Stopping, Gone."""
        context = self._context
        wait: Deferred[None] = Deferred()  # cancelled only by its request
        # First of all, so that nothing can happen unseen between the look at the catalog and the wait.
        stored = context.replication.when_stored(upload_id).addCallbacks(lambda _: _end(wait), _cancelled)
        self._waiting.setdefault(upload_id, []).append(wait)
        timer = Timer(context.clock, lambda: _end(wait))
        timer.set(within)
        watch = Deferred.fromCoroutine(self._watch(upload_id, wait)) if context.others.several else None
        try:
            upload = await context.present(upload_id)
            if context.withheld(upload) and not self._stopping:
                await wait
                upload = await context.present(upload_id)
        finally:
            self._forget(upload_id, wait)
            stored.cancel()
            timer.clear()
            if watch is not None:
                watch.addErrback(_cancelled).cancel()
        if not context.withheld(upload):
            return upload
        if self._stopping:
            raise Stopping()
        raise Unavailable("The upload is not stored yet; ask again.", context.limits.retry_after)

    async def _watch(self, upload_id: str, wait: Deferred[None]) -> None:
        """End the wait when the row says so: another process may have stored or ended the upload."""
        while not wait.called:
            await self._context.others.news(upload_id)
            with suppress(CatalogUnavailable):  # then it is known a second later, or the wait ends by time
                row = await self._context.catalog.get(upload_id)
                if row is None or row.gone or not self._context.withheld(row):
                    _end(wait)

    def _ended(self, upload_id: str) -> None:
        if upload_id in self._asking:
            self._over.add(upload_id)  # until nobody reads its bytes
        self._context.others.heard(upload_id)
        for wait in tuple(self._waiting.get(upload_id, ())):
            _end(wait)

    def _forget(self, upload_id: str, wait: Deferred[None]) -> None:
        waiting = self._waiting[upload_id]
        waiting.remove(wait)
        if not waiting:
            del self._waiting[upload_id]


def _end(wait: Deferred[None]) -> None:
    if not wait.called:
        wait.callback(None)


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)

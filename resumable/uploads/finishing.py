"""`--ack remote`: an upload counts as finished only once it is stored.

Reason to change: when a client may believe that its upload is complete. Invariant: until an upload is stored nobody is
told an offset past its last byte but one, whoever asks and however often; and every wait ends: by success, by time, by
the end of the upload, of the client or of the server.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from resumable.interfaces import Upload
from resumable.protocol.errors import OffsetMismatch, Stopping, Unavailable
from resumable.uploads.engine import Engine
from resumable.uploads.lookup import present


class OtherByte(OffsetMismatch):
    """The last byte came again, and was another one."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.detail = "The upload's last byte is here already, and it is not this one."


async def check_repeated(engine: Engine, upload: Upload, chunks: Sequence[bytes]) -> None:
    """The withheld last byte, sent again, must be the one that is here. Raises OtherByte; OSError."""
    sent = b"".join(chunks)
    if sent and sent != await engine.spool.read(upload.id, upload.offset, len(sent)):
        raise OtherByte(upload.offset)


class Finishing:
    """The requests that wait until their upload is stored."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._stopping = False
        engine.on_ended = self._ended

    def acknowledged(self, upload: Upload) -> Deferred[Upload]:
        """What a request may answer that has brought ``upload`` to its offset; waits if that completes it.

        Fails with Unavailable (not stored in time), Stopping or Gone. Cancel it when nobody waits any more.
        """
        if self._engine.withheld(upload) and upload.offset == upload.length:
            return Deferred.fromCoroutine(self._stored(upload.id))
        return succeed(self._engine.shown(upload))

    def stop(self) -> None:
        """Nobody waits any more."""
        self._stopping = True
        for upload_id in tuple(self._waiting):
            self._ended(upload_id)

    async def _stored(self, upload_id: str) -> Upload:
        engine = self._engine
        # First of all, so that nothing can happen unseen between the look at the catalog and the wait.
        stored = engine.replication.when_stored(upload_id).addErrback(_cancelled)
        self._waiting.setdefault(upload_id, []).append(stored)
        timer = engine.clock.callLater(engine.limits.ack_timeout, stored.cancel)
        try:
            upload = await present(engine, upload_id)
            if engine.withheld(upload) and not self._stopping:
                await stored
                upload = await present(engine, upload_id)
        finally:
            self._forget(upload_id, stored)
            if timer.active():
                timer.cancel()
        if not engine.withheld(upload):
            return upload
        if self._stopping:
            raise Stopping()
        raise Unavailable("The upload is not stored yet; ask again.", engine.limits.retry_after)

    def _ended(self, upload_id: str) -> None:
        for stored in tuple(self._waiting.get(upload_id, ())):
            stored.cancel()

    def _forget(self, upload_id: str, stored: Deferred[None]) -> None:
        stored.cancel()
        waiting = self._waiting[upload_id]
        waiting.remove(stored)
        if not waiting:
            del self._waiting[upload_id]


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)

"""Downloads: what a GET of an upload is answered with.

Reason to change: where the bytes of an answer come from. Invariant: nothing of an upload is sent before it is finished,
and nothing here touches the hold: who reads never disturbs who writes. Spec: RFC 9110 sections 13 to 15.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from resumable.http.content import describe, set_validators, undescribe, validators
from resumable.http.fields import RequestFields
from resumable.http.sending import CHUNK, Sending
from resumable.http.streaming import StreamingRequest
from resumable.interfaces import Upload
from resumable.protocol import conditions, ranges
from resumable.protocol.errors import Unavailable
from resumable.protocol.ranges import Span
from resumable.spool import Reader
from resumable.uploads.uploads import Uploads

log = Logger()


def patience(network_timeout: float, min_rate: int) -> float | None:
    """Seconds that a client may take for one piece: silent for the one, and no slower than the other (0: any)."""
    return network_timeout + CHUNK / min_rate if min_rate else None


class Downloads:
    """``clock`` measures how long a client leaves a piece unread; see `Sending` for its ``patience``."""

    def __init__(self, uploads: Uploads, clock: IReactorTime, patience: float | None = None) -> None:
        self._uploads = uploads
        self._clock = clock
        self._patience = patience

    async def answer(self, request: StreamingRequest, upload_id: str) -> None:
        """Answer, body and all. Raises TusError while nothing is sent yet."""
        upload, reader = await self._uploads.read(upload_id)
        try:
            span = self._begin(request, upload)
        except BaseException:
            reader.close()
            raise
        if span is None or request.gone:
            reader.close()
        else:
            await self._send(request, upload, reader, span)

    def _begin(self, request: StreamingRequest, upload: Upload) -> Span | None:
        """Set status and fields; answers what is to be sent, None: nothing."""
        fields = RequestFields(request)
        state = validators(upload, self._uploads.engine.wall())
        known = conditions.not_modified(fields, state)
        span = None
        if not known and conditions.allows_range(fields, state):
            span = ranges.wanted(fields, upload.offset)
        set_validators(request, state)
        if known:
            request.setResponseCode(304)
            return None
        describe(request, upload)
        if span is not None:
            request.setResponseCode(206)
            request.set_field(b"content-range", span.content_range.encode())
        else:
            span = Span(0, upload.offset, upload.offset)
        request.set_field(b"content-length", b"%d" % span.size)
        return span

    async def _send(self, request: StreamingRequest, upload: Upload, reader: Reader, span: Span) -> None:
        try:
            await Sending(request, reader, span.start, span.size, self._clock, self._patience).run()
        except (OSError, EOFError) as error:
            log.error("a download failed: {reason}", upload=upload.id, reason=str(error))
            if not request.startedWriting:
                undescribe(request)
                raise Unavailable("The file can't be read at the moment.") from error
            # Whatever were sent now would be taken for the file's: the end that is missing is all that tells.
            request.channel.loseConnection()

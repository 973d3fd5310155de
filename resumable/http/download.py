"""Downloads: what a GET of an upload is answered with.

Reason to change: where the bytes of an answer come from. Invariant: nothing of an upload is sent before it is finished,
and nothing here touches the hold: who reads never disturbs who writes. Spec: RFC 9110 sections 13 to 15.
"""

from __future__ import annotations

import enum

from attrs import frozen
from twisted.logger import Logger

from resumable.http.content import describe, described, set_validators, undescribe, validators
from resumable.http.fields import RequestFields
from resumable.http.sending import Sending, Source
from resumable.http.streaming import StreamingRequest
from resumable.model.upload import Upload
from resumable.protocol import conditions, ranges
from resumable.protocol.errors import TusError, Unavailable
from resumable.protocol.ranges import Span
from resumable.uploads.status import Elsewhere
from resumable.uploads.uploads import Uploads

log = Logger()


class Remotely(enum.Enum):
    """What becomes of a GET whose bytes only remotes have. PROXY: they go through here. REDIRECT: the client is sent
    to the store, where there is one that gives out signed URLs; else as PROXY. OFF: 404."""

    PROXY = "proxy"
    REDIRECT = "redirect"
    OFF = "off"


@frozen
class Ways:
    """``url_lifetime``: seconds that a client has to follow a redirect. ``inline``: see `described`."""

    remotely: Remotely = Remotely.PROXY
    url_lifetime: float = 300.0
    inline: bool = False


class Downloads:
    """Of all uploads."""

    def __init__(self, uploads: Uploads, ways: Ways | None = None) -> None:
        self._uploads = uploads
        self._ways = ways or Ways()

    async def answer(self, request: StreamingRequest, upload_id: str) -> None:
        """Answer, body and all; a HEAD without. Raises TusError while nothing is sent yet: NotFinished, for one."""
        try:
            upload, reader = await self._uploads.read(upload_id)
        except Elsewhere as elsewhere:
            if self._ways.remotely is Remotely.OFF:
                raise
            await self._from_remote(request, elsewhere.upload)
            return
        try:
            span = self._begin(request, upload)
        except BaseException:
            reader.close()
            raise
        if span is None or request.gone or request.method == b"HEAD":
            reader.close()
        else:
            await self._send(request, upload, reader, span)

    async def _from_remote(self, request: StreamingRequest, upload: Upload) -> None:
        span = self._begin(request, upload)
        if span is None or not span.size:
            return
        copies, ways = self._uploads.copies, self._ways
        try:
            if ways.remotely is Remotely.REDIRECT:
                url = await copies.signed_url(upload.id, *described(upload, ways.inline), ways.url_lifetime)
                if url is not None:
                    if request.method != b"HEAD":  # it was signed for GET
                        _redirect(request, url)
                    return
            copy = await copies.open_copy(upload.id, span.start, 1 if request.method == b"HEAD" else span.size)
        except BaseException:
            undescribe(request)
            raise
        if request.gone or request.method == b"HEAD":
            copy.close()
        else:
            await self._send(request, upload, copy, span)

    def _begin(self, request: StreamingRequest, upload: Upload) -> Span | None:
        """Set status and fields; answers what is to be sent, None: nothing."""
        fields = RequestFields(request)
        state = validators(upload, self._uploads.wall())
        known = conditions.not_modified(fields, state)
        span = None
        # 14.2: GET "is the only method for which range handling is defined"
        if not known and request.method == b"GET" and conditions.allows_range(fields, state):
            span = ranges.wanted(fields, upload.offset)
        set_validators(request, state)
        if known:
            request.setResponseCode(304)
            return None
        describe(request, upload, self._ways.inline)
        if span is not None:
            request.setResponseCode(206)
            request.set_field(b"content-range", span.content_range.encode())
        else:
            span = Span(0, upload.offset, upload.offset)
        request.set_field(b"content-length", b"%d" % span.size)
        return span

    async def _send(self, request: StreamingRequest, upload: Upload, source: Source, span: Span) -> None:
        try:
            await Sending(request, source, span.start, span.size).run()
        except (OSError, EOFError, TusError) as error:
            log.error("a download failed: {reason}", upload=upload.id, reason=str(error))
            if not request.startedWriting:
                undescribe(request)
                raise Unavailable("The file can't be read at the moment.") from error
            # Whatever were sent now would be taken for the file's: the end that is missing is all that tells.
            request.channel.loseConnection()


def _redirect(request: StreamingRequest, url: str) -> None:
    """Send the client to where the bytes are. The URL is good for anybody, so nobody may keep it."""
    undescribe(request)
    request.setResponseCode(307)
    request.set_field(b"location", url.encode("ascii"))
    request.set_field(b"cache-control", b"no-store")
    request.set_field(b"referrer-policy", b"no-referrer")
    request.set_field(b"content-length", b"0")

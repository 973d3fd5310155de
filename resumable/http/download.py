"""Downloads: the answer to a GET of an upload, read piece by piece and sent at the client's pace, and its fields.

Invariants: no byte of an upload is sent before it is finished; nothing here touches the hold, so that readers never
disturb writers; at most one piece is read ahead, no larger than what the client would take where that is known; the
source is closed however the download ends: sent, given up by the client, or failed. A client that doesn't read is found
by its connection. No word of an uploader makes a browser run, style or lay out anything: types come from a short list,
everything is an attachment unless the operator wants pictures and the like shown, and names hold no path and no control
character. Specs: RFC 9110 sections 8.3, 8.6, 8.8 and 13 to 15, RFC 6266, RFC 8187, the Fetch standard's nosniff,
Content Security Policy Level 3, RFC 9530.
"""

from __future__ import annotations

import enum
import re
from hashlib import sha256
from typing import Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from resumable.http.request import StreamingRequest
from resumable.model.upload import Upload
from resumable.protocol import digests, metadata, tus
from resumable.protocol.downloads import Span, Validators, allows_range, not_modified, wanted_range
from resumable.protocol.errors import TusError, Unavailable
from resumable.protocol.fields import Fields
from resumable.protocol.names import disposition
from resumable.uploads.status import Elsewhere
from resumable.uploads.uploads import Uploads

log = Logger()

CHUNK: Final = 256 * 1024

PLAIN: Final = "application/octet-stream"
_IMAGES: Final = ("avif", "bmp", "gif", "heic", "heif", "jpeg", "png", "tiff", "webp")
_APPLICATIONS: Final = (
    "gzip", "json", "msword", "ogg", "pdf", "rtf", "vnd.ms-excel", "vnd.ms-powerpoint", "vnd.rar", "x-7z-compressed",
    "x-bzip2", "x-tar", "x-xz", "zip", "zstd",
)  # fmt: skip
_AUDIO: Final = (
    "3gpp", "3gpp2", "aac", "ac3", "aiff", "amr", "amr-wb", "basic", "eac3", "flac", "matroska", "midi", "mp3", "mp4",
    "mpeg", "ogg", "opus", "vnd.wave", "vorbis", "wav", "wave", "webm", "x-aac", "x-aiff", "x-flac", "x-m4a",
    "x-matroska", "x-midi", "x-ms-wma", "x-wav",
)  # fmt: skip
_VIDEO: Final = (
    "3gpp", "3gpp2", "av1", "h264", "h265", "matroska", "mp2t", "mp4", "mpeg", "mpv", "ogg", "quicktime", "vp8", "vp9",
    "webm", "x-flv", "x-m4v", "x-matroska", "x-ms-wmv", "x-msvideo",
)  # fmt: skip
# A suffix makes a type another one: a type that ends in +xml is laid out and run as XML.
_OFFICE: Final = re.compile(r"application/vnd\.(?:openxmlformats-officedocument|oasis\.opendocument)\.[a-z0-9.-]+")
_PDF: Final = "application/pdf"
_SHOWN: Final = frozenset(
    [
        _PDF,
        *(f"image/{each}" for each in _IMAGES),
        *(f"audio/{each}" for each in _AUDIO),
        *(f"video/{each}" for each in _VIDEO),
    ]
)
"""What browsers show, and can be let show."""
_HARMLESS: Final = _SHOWN | {"text/plain", "text/csv", *(f"application/{each}" for each in _APPLICATIONS)}

_POLICY: Final = "default-src 'none'"
# A browser makes a page for a picture or a film, with styles of its own, and fetches the film once more.
_SHOWING: Final = f"sandbox; {_POLICY}; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'"
# No browser's viewer of PDF works in a sandbox. They run a document's scripts apart from the page's origin.
_SHOWING_PDF: Final = f"{_POLICY}; object-src 'self'; style-src 'unsafe-inline'"

_DIGEST: Final = b"repr-digest"
_CONTENT_DIGEST: Final = b"content-digest"
_DESCRIBING: Final = (
    b"content-type", b"content-disposition", b"content-encoding", b"x-content-type-options", b"content-security-policy",
    b"accept-ranges", b"content-range", b"etag", b"last-modified", _DIGEST, _CONTENT_DIGEST,
)  # fmt: skip


class Remotely(enum.Enum):
    """How a GET is answered if only remotes have the bytes. PROXY: they go through here. REDIRECT: the client is sent
    to the store, where there is one that gives out signed URLs; else as PROXY. OFF: 404; as PROXY where the spool
    is in a store, and the bytes are nowhere else."""

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

    async def answer(self, request: StreamingRequest, fields: Fields, upload_id: str) -> None:
        """Answer, body and all; a HEAD without. Raises TusError while nothing is sent yet: NotFinished, for one."""
        try:
            upload, reader = await self._uploads.read(upload_id)
        except Elsewhere as elsewhere:
            if self._ways.remotely is Remotely.OFF and elsewhere.file is None:
                raise
            await self._from_remote(request, fields, elsewhere)
            return
        try:
            span = self._begin(request, fields, upload)
        except BaseException:
            reader.close()
            raise
        if span is None or request.gone or request.method == b"HEAD":
            reader.close()
        else:
            await self._send(request, upload, reader, span)

    async def _from_remote(self, request: StreamingRequest, fields: Fields, elsewhere: Elsewhere) -> None:
        upload, ways = elsewhere.upload, self._ways
        span = self._begin(request, fields, upload)
        if span is None:
            return
        if elsewhere.file is not None and elsewhere.file.digest is not None and not fields.values("want-repr-digest"):
            # RFC 9530, 3: of the representation that the range is taken from
            said = [each for each in (elsewhere.file.digest, upload.digest) if each is not None]
            request.set_field(_DIGEST, ", ".join(said).encode())
        if not span.size:
            return
        copies = elsewhere.file or self._uploads.copies
        try:
            if ways.remotely is Remotely.REDIRECT and _coding(upload) is None:  # stores tell nobody of codings
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

    def _begin(self, request: StreamingRequest, fields: Fields, upload: Upload) -> Span | None:
        """Set status and fields. The bytes that are to be sent; None: no body."""
        state = validators(upload, self._uploads.wall())
        known = not_modified(fields, state)
        span = None
        # 14.2: GET "is the only method for which range handling is defined"
        if not known and request.method == b"GET" and allows_range(fields, state):
            span = wanted_range(fields, upload.offset)
        set_validators(request, state)
        if known:
            request.setResponseCode(304)
            return None
        describe(request, upload, self._ways.inline)
        self._set_digests(request, fields, upload, is_part=span is not None)
        if span is not None:
            request.setResponseCode(206)
            request.set_field(b"content-range", span.content_range.encode())
        else:
            span = Span(0, upload.offset, upload.offset)
        request.set_field(b"content-length", b"%d" % span.size)
        return span

    @staticmethod
    def _set_digests(request: StreamingRequest, fields: Fields, upload: Upload, is_part: bool) -> None:
        """Those that are known, and that the client wants. The content is the representation, unless it's a part."""
        whole = digests.chosen(fields, "want-repr-digest", upload.digest)
        if whole is not None:  # RFC 9530, 3: of the representation that the range is taken from
            request.set_field(_DIGEST, whole.encode())
        if fields.values("want-content-digest") and request.method == b"GET" and not is_part:
            content = digests.chosen(fields, "want-content-digest", upload.digest)
            if content is not None:
                request.set_field(_CONTENT_DIGEST, content.encode())

    async def _send(self, request: StreamingRequest, upload: Upload, source: ByteSource, span: Span) -> None:
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


class ByteSource(Protocol):
    """The spool's Reader, or a copy in a remote."""

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Up to ``size`` bytes; none only at the end."""

    def close(self) -> object:
        """No more is read; a read under way may fail."""


@implementer(IPushProducer)
class Sending:
    """Sends ``size`` bytes from ``start`` on."""

    def __init__(self, request: StreamingRequest, source: ByteSource, start: int, size: int) -> None:
        self._request = request
        self._source = source
        self._offset = start
        self._end = start + size
        self._resumed: Deferred[None] | None = None
        self._stopped = self._closed = False

    async def run(self) -> None:
        """Returns when all is sent or the client has gone. Raises EOFError, and errors of `ByteSource.read`."""
        self._request.registerProducer(self, True)  # type: ignore[no-untyped-call]
        try:
            if self._resumed is not None:  # others are sent before
                await self._resumed
            while self._offset < self._end and not self._gone():
                size = min(CHUNK, self._end - self._offset, self._request.channel.room)
                data = await self._source.read(self._offset, size)
                if self._resumed is not None:
                    await self._resumed
                if self._gone():
                    break
                if not data:
                    raise EOFError("there are fewer bytes than there should be")
                self._offset += len(data)
                self._request.write(data)
        except Exception:
            if not self._gone():  # else it failed because it was closed
                raise
        finally:
            if not self._request.gone:  # a transport tells its producer that it's over before anybody else
                self._request.unregisterProducer()  # type: ignore[no-untyped-call]
            self._close()

    def _gone(self) -> bool:
        return self._stopped

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._source.close()

    def pauseProducing(self) -> None:
        if self._resumed is None and not self._closed:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        self._stopped = True
        self._close()
        self.resumeProducing()


def safe_type(declared: str | None) -> str:
    """The declared media type where it is one that no browser runs, styles with or lays out; else plain bytes.

    Of its parameters only ``charset=utf-8`` of a text is kept.
    """
    kind, _, parameters = (declared or "").lower().partition(";")
    kind = kind.strip(" ")
    if kind not in _HARMLESS and not _OFFICE.fullmatch(kind):
        return PLAIN
    is_utf_8 = parameters.replace('"', "").strip(" ") == "charset=utf-8"
    return f"{kind}; charset=utf-8" if is_utf_8 and kind.startswith("text/") else kind


def described(upload: Upload, inline: bool) -> tuple[str, str]:
    """The values of Content-Type and Content-Disposition; ``inline``: browsers may show types that they can show."""
    known = metadata.parse(upload.metadata or "")
    kind = safe_type(metadata.content_type(known))
    way = "inline" if inline and kind in _SHOWN else "attachment"
    return kind, disposition(metadata.filename(known), way)


def validators(upload: Upload, now: float) -> Validators:
    """Of a finished upload, which never changes. ``now``: seconds since the epoch.

    RFC 9110 section 8.8.2.1: a time of modification in the future is replaced by now.
    """
    finished = upload.finished_at or 0.0
    state = sha256(f"{upload.id} {upload.length} {finished!r}".encode()).hexdigest()
    return Validators(f'"{state[:32]}"', int(min(finished, now)))


def set_validators(request: StreamingRequest, state: Validators) -> None:
    """The fields that 200, 206 and 304 have. To be asked again before each use: access may have been withdrawn."""
    request.set_field(b"etag", state.etag.encode())
    request.set_field(b"last-modified", tus.http_date(state.modified).encode())
    request.set_field(b"cache-control", b"private, no-cache")


def undescribe(request: StreamingRequest) -> None:
    """Take the fields back: there will be no download."""
    for name in _DESCRIBING:
        request.responseHeaders.removeHeader(name)


def _coding(upload: Upload) -> str | None:
    """The value of Content-Encoding; None: its bytes are the file's."""
    return metadata.content_encoding(upload.metadata or "") if upload.draft else None


def describe(request: StreamingRequest, upload: Upload, inline: bool) -> None:
    """The fields of a download with a body. The browser saves it, or may show it, and never guesses at its type."""
    kind, name = described(upload, inline)
    policy = f"sandbox; {_POLICY}"
    if name.startswith("inline"):
        policy = _SHOWING_PDF if kind == _PDF else _SHOWING
    request.set_field(b"content-type", kind.encode())
    coding = _coding(upload)
    if coding is not None:
        request.set_field(b"content-encoding", coding.encode())
    request.set_field(b"content-disposition", name.encode())
    request.set_field(b"x-content-type-options", b"nosniff")
    request.set_field(b"content-security-policy", policy.encode())
    request.set_field(b"accept-ranges", b"bytes")

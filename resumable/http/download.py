"""A finished upload as a response body, read in threads and sent at the client's pace."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from resumable.http.streaming import StreamingRequest
from resumable.interfaces import Upload
from resumable.protocol import metadata
from resumable.spool import Reader

CHUNK = 256 * 1024


def describe(request: StreamingRequest, upload: Upload) -> None:
    """The fields of a download. The browser saves it and never guesses at its type."""
    known = metadata.parse(upload.metadata or "")
    name = metadata.filename(known)
    request.set_field(b"content-type", (metadata.content_type(known) or "application/octet-stream").encode())
    request.set_field(b"content-disposition", disposition(name).encode())
    request.set_field(b"x-content-type-options", b"nosniff")
    request.set_field(b"content-security-policy", b"sandbox; default-src 'none'")
    request.set_field(b"content-length", b"%d" % upload.offset)


def disposition(name: str | None) -> str:
    """RFC 6266: a plain-ASCII name, and the real one in RFC 8187 coding where it differs."""
    if not name:
        return "attachment"
    plain = "".join(each if 32 <= ord(each) < 127 and each not in '"\\%' else "_" for each in name)
    if plain == name:
        return f'attachment; filename="{name}"'
    safe = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&+-.^_`|~"
    coded = "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in name.encode())
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{coded}"


@implementer(IPushProducer)
class Download:
    """Sends one file; at most one chunk is read ahead."""

    def __init__(self, request: StreamingRequest, reader: Reader, size: int) -> None:
        self._request = request
        self._reader = reader
        self._size = size
        self._resumed: Deferred[None] | None = None
        self._stopped = False

    async def run(self) -> None:
        """Returns when all is sent or the client has gone. Raises OSError; the reader is closed in any case."""
        self._request.registerProducer(self, True)  # type: ignore[no-untyped-call]
        try:
            offset = 0
            while offset < self._size and not self._gone():
                data = await self._reader.read(offset, min(CHUNK, self._size - offset))
                if self._resumed is not None:
                    await self._resumed
                if self._gone():
                    break
                if not data:
                    raise EOFError("the data file has become shorter")
                offset += len(data)
                self._request.write(data)
        finally:
            if not self._request.gone:  # a transport tells its producer that it's over before anybody else
                self._request.unregisterProducer()  # type: ignore[no-untyped-call]
            self._reader.close()

    def _gone(self) -> bool:
        return self._stopped

    def pauseProducing(self) -> None:
        if self._resumed is None:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        self._stopped = True
        self.resumeProducing()

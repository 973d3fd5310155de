"""Reading from a remote: two optional interfaces, and the code that their backends share.

`resumable.testing.contract` tests every promise made here.

Invariant: a reader gets the upload's own object, whole as it was finalised: nothing of another object under its key, or
of one that was replaced, is ever given out. As in `resumable.remotes.interfaces`, nothing blocks, and failures are
`RemoteError`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from resumable.httpclient.bodies import PIECE
from resumable.httpclient.client import IHttp, IStream, StreamedAnswer
from resumable.httpclient.errors import HttpError
from resumable.remotes.errors import NotThere, Permanent, RemoteError, remote_error
from resumable.remotes.interfaces import Stored


class IObjectStream(Interface):
    """Bytes of an object, at the reader's pace: so many are held as it takes to go on at once, some `PIECE` at most."""

    def read() -> Deferred[bytes]:
        """The next bytes, 1 MiB at most; none once all have come that were asked for.

        One call at a time. RemoteError: they don't come, and no more will. Cancelling it is closing.
        """

    def close() -> None:
        """No more is wanted. May be repeated, also after the end; a `read` that waits fails, now or later."""


class IReadable(Interface):
    """A remote whose objects can be read back."""

    def read_object(upload_id: str, start: int, size: int) -> Deferred[IObjectStream]:
        """``size`` bytes (at least one) of the object from ``start`` on. It is there, and ours, when this fires.

        NotThere: it was never finalised, is gone, or the object under its key isn't the upload's. ValueError: these
        bytes don't lie within the object. The stream is the caller's to close.
        """


@frozen
class Presented:
    """Header values that a browser gets with an object; ``lifetime``: seconds."""

    content_type: str
    disposition: str
    lifetime: float


class ISigning(Interface):
    """A remote that can give somebody without credentials the right to read one object, for a while."""

    def signed_url(upload_id: str, presented: Presented) -> Deferred[str | None]:
        """A URL that answers a GET, with and without Range, with the object, and with these fields.

        It holds a signature, so it is a secret, but no credentials of ours. None: these credentials can't sign, or a
        reader would need more than a URL. NotThere: as `IReadable.read_object`.
        """


def check_span(start: int, size: int, total: int | None) -> None:
    """Raise ValueError for bytes that don't lie within an object."""
    if total is None or not 0 <= start < start + size <= total:
        raise ValueError(f"{size} bytes at {start} are not in an object of {total}")


def range_headers(start: int, size: int, total: int) -> dict[str, str]:
    """The Range header for these bytes; none where they are the whole object."""
    return {} if size == total else {"Range": f"bytes={start}-{start + size - 1}"}


def check_answered(status: int, headers: Mapping[str, str], start: int, size: int, total: int) -> None:
    """That a 200 or 206 has the bytes that were asked for. Raises NotThere for those of another object.

    Content-Range counts: rclone has it in a 200.
    """
    whole = status == 200 and "content-range" not in headers
    if whole and size != total:
        raise Permanent("the store serves no ranges")
    told = headers.get("content-length" if whole else "content-range")
    if told != (str(total) if whole else f"bytes {start}-{start + size - 1}/{total}"):
        raise not_ours()


def ranged(opened: StreamedAnswer, start: int, size: int) -> ObjectStream:
    """The bytes that were asked for, of an object whose size isn't known: the answer tells. Raises as
    `check_answered`; the stream is closed then."""
    told = opened.headers.get("content-range", "").rpartition("/")[2]
    try:
        check_answered(opened.status, opened.headers, start, size, int(told) if told.isdecimal() else start + size)
    except RemoteError:
        opened.stream.close()
        raise
    return ObjectStream(opened.stream)


def missing(error: RemoteError) -> RemoteError:
    """The same, where a condition or a range says that the object isn't the one that was stored: NotThere."""
    return not_ours() if error.status in (412, 416) else error


def not_ours() -> NotThere:
    """The error for an object that isn't the one we stored."""
    return NotThere("what is under the key is another object than the upload's")


def finalised(stored: Stored | None) -> int:
    """The size of an object that was finalised. Raises NotThere."""
    if stored is None:
        raise NotThere("the upload was not finalised")
    return stored.size


@implementer(IObjectStream)
class Pieces:
    """A stream of which each piece is asked for by itself: nothing is held, and nothing is open, between two.

    ``ask`` answers so many bytes from an offset on, fewer only if there are no more. ``piece``: at once, at most.
    """

    def __init__(self, ask: Callable[[int, int], Awaitable[bytes]], start: int, size: int, piece: int = PIECE) -> None:
        self._ask = ask
        self._offset = start
        self._end = start + size
        self._piece = piece

    def read(self) -> Deferred[bytes]:
        """See IObjectStream."""
        return Deferred.fromCoroutine(self._next())

    def close(self) -> None:
        """See IObjectStream."""
        self._offset = self._end

    async def _next(self) -> bytes:
        offset, size = self._offset, min(self._piece, self._end - self._offset)
        if not size:
            return b""
        data = await self._ask(offset, size)
        if len(data) != size:
            raise not_ours()
        self._offset = min(self._end, offset + size)
        return data


@implementer(IObjectStream)
class BytesStream:
    """Bytes in memory, for tests and for small objects."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def read(self) -> Deferred[bytes]:
        """See IObjectStream."""
        piece, self._left = self._left[:PIECE], self._left[PIECE:]
        return succeed(piece)

    def close(self) -> None:
        """See IObjectStream."""
        self._left = b""


async def open_stream(http: IHttp, operation: str, url: str, headers: Mapping[str, str]) -> StreamedAnswer:
    """The answer to a GET, whose body comes piece by piece. Raises RemoteError; its stream raises HttpError."""
    try:
        return await http.stream(url, headers)
    except HttpError as error:
        raise remote_error(error, operation) from None


@implementer(IObjectStream)
class ObjectStream:
    """The body of an answer as the bytes of an object: it fails with RemoteError."""

    def __init__(self, stream: IStream) -> None:
        self._stream = stream

    def read(self) -> Deferred[bytes]:
        """See IObjectStream."""
        return self._stream.read().addErrback(_as_remote_error)

    def close(self) -> None:
        """See IObjectStream."""
        self._stream.close()


def _as_remote_error(failure: Failure) -> Failure:
    error = failure.value
    return Failure(remote_error(error)) if isinstance(error, HttpError) else failure

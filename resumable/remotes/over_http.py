"""Failures of HTTP as a remote's: the one place where `HttpError` becomes `RemoteError`."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.httpclient.client import IHttp, IStream, StreamedAnswer
from resumable.httpclient.errors import HttpError, Insecure
from resumable.remotes.errors import RemoteError, Transient, Unusable
from resumable.remotes.reading import IObjectStream


def remote_error(error: HttpError, operation: str = "") -> RemoteError:
    """The remote's failure that this one stands for; ``operation`` (PutObject) goes into its reason."""
    reason = f"{operation}: {error.reason}" if operation else error.reason
    if isinstance(error, Insecure):
        return Unusable(reason, code=error.code, advice="check the certificate and the address")
    advice = "check endpoint and region" if error.code == "NameNotFound" else ""
    return Transient(reason, code=error.code, advice=advice)


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

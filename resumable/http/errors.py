"""The only place that renders an error of the core: problem+json (RFC 9457), short, and leaking nothing."""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as NoSuchMethod
from werkzeug.exceptions import NotFound as NoSuchRoute

from resumable.http import cors
from resumable.http.h1 import problem
from resumable.http.request import StreamingRequest
from resumable.model.errors import BodyLost
from resumable.protocol import errors
from resumable.protocol.errors import Refused, TusError

log = Logger()

CONTENT_TYPE = b"application/problem+json"

_TO_HEAD = (
    errors.BadRequest,
    errors.Unauthorized,
    errors.Forbidden,
    errors.NotFound,
    errors.MethodNotAllowed,
    errors.Gone,
    errors.UnsupportedVersion,
    errors.PreconditionFailed,
)


def respond(request: StreamingRequest, error: TusError) -> bytes:
    """Set status and fields for ``error``; answers the body: a hook's own, or a problem document."""
    body = error.body if isinstance(error, Refused) else b""
    request.setResponseCode(error.status, error.title.encode())
    for name, value in error.headers.items():
        request.set_field(name.encode(), value.encode())
    if isinstance(error, Refused):
        cors.expose(request, error.headers)
    if not body:
        body = problem(error.status, error.detail, error.title, error.type, error.members)
        request.set_field(b"content-type", CONTENT_TYPE)
    request.set_field(b"content-length", b"%d" % len(body))
    request.set_field(b"cache-control", b"no-store")
    return body


def as_tus_error(failure: Failure, request: StreamingRequest) -> TusError:
    """The error that a client sees for any failure of a route; unexpected failures are logged here, once."""
    error = failure.value
    if isinstance(error, TusError):
        return error
    if isinstance(error, NoSuchMethod):
        return errors.MethodNotAllowed(sorted(error.valid_methods or ()))
    if isinstance(error, (NoSuchRoute, HTTPException)):
        return errors.NotFound("There is nothing at this address.")
    if isinstance(error, BodyLost):
        return BodyCut(error.reason)
    log.failure("a request failed in an unexpected way", failure, request=request.known_as)
    return errors.InternalError("The server failed in an unexpected way.")


def to_head(error: TusError) -> TusError:
    """The error that a HEAD sees: tus-js-client begins a new upload on any other than these, unless it is 423."""
    if isinstance(error, _TO_HEAD):
        return error
    return errors.Held("The upload can't be looked at now.", getattr(error, "retry_after", 1))


class BodyCut(TusError):
    """The body did not come to its end, but its connection is still there to be told."""

    def __init__(self, reason: str) -> None:
        said = {"malformed": "The body's transfer coding is malformed.", "slow": "The body came too slowly."}
        super().__init__(said.get(reason, "The body did not go on."))
        malformed = reason == "malformed"
        self.status = 400 if malformed else 408  # type: ignore[misc]
        self.title = "Bad Request" if malformed else "Request Timeout"  # type: ignore[misc]

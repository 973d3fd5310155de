"""The errors that refuse a request: the status of each, its title, and its usual text.

    TusError
     +-- BadRequest            400  malformed header, length, offset, metadata, checksum, list
     |    +-- InvalidDigest, DigestMismatch   of RFC 9530's fields
     +-- Unauthorized          401  + WWW-Authenticate
     +-- Forbidden             403  an append to a final upload, or not for this identity
     +-- NotFound              404  there is none of that id
     +-- MethodNotAllowed      405  + Allow
     +-- CompletedUpload       400  an append to an upload that the draft calls complete
     +-- InconsistentLength    400  lengths that don't match (the draft)
     |    +-- PastLength       400  content that has gone past it
     +-- WrongState            409  the upload isn't in the state for that
     +-- OffsetMismatch        409  + Upload-Offset
     +-- Gone                  410  expired, terminated or lost
     +-- UnsupportedVersion    412  + Tus-Version
     +-- PreconditionFailed    412  a download has changed
     +-- TooLarge              413  past the length or the maximum
     +-- UnsupportedMediaType  415  not application/offset+octet-stream
     +-- RangeNotSatisfiable   416  + Content-Range
     +-- Held                  423  + Retry-After
     |    +-- TakenOver        423  by a newer request
     +-- TooManyRequests       429  + Retry-After
     +-- ChecksumMismatch      460  the bytes have another checksum than the client's
     +-- InternalError         500  ours, never the client's
     +-- Stopping, Unavailable 503  + Retry-After
     +-- NoSpace               507  + Retry-After
     |    +-- UsedUp           507  by what this identity has stored
     +-- Refused               any  a hook's own status, header fields and body

Invariant: an error only *hints* a status, a title and header fields; it
knows nothing of responses. Field values made here hold numbers and fixed tokens, never a client's bytes.
Spec: tus 1.0.0, RFC 9110 section 15.5, RFC 6585 section 4 (429), RFC 4918 sections 11.3 (423) and 11.5 (507).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar


class TusError(Exception):
    """A refusal. ``detail`` tells the client the reason; ``headers`` go into the answer as they are.

    ``type``: the URI of the kind of problem, for the document that the client gets (RFC 9457, 3.1.1); None: the status
    says it all. ``members``: what that kind adds to the document.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal Server Error"
    type: ClassVar[str | None] = None

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members: Mapping[str, object] = {}
        self.headers: dict[str, str] = dict(headers or {})


class BadRequest(TusError):
    """A header field, a length, an offset, metadata or a list is malformed."""

    status = 400
    title = "Bad Request"


_PROBLEMS = "https://iana.org/assignments/http-problem-types#"


class InvalidDigest(BadRequest):
    """No bytes can have this digest: draft-ietf-httpapi-digest-fields-problem-types, "Invalid Digest Values"."""

    type = f"{_PROBLEMS}digest-invalid-values"
    title = "Invalid Digest Values"

    def __init__(self, header: str, algorithm: str, reason: str) -> None:
        super().__init__(f"{header}: {reason}.")
        self.members = {"invalid-digests": [{"algorithm": algorithm, "header": header, "reason": reason}]}


class DigestMismatch(BadRequest):
    """The bytes have another digest than the client's, or the client has told two: as above, "Mismatching Digest
    Values". ``provided``: the client's, as structured fields have it. The server's is never told."""

    type = f"{_PROBLEMS}digest-mismatching-values"
    title = "Mismatching Digest Values"

    def __init__(self, detail: str, header: str, algorithm: str, provided: str) -> None:
        super().__init__(detail)
        found = {"algorithm": algorithm, "provided-digest": provided, "header": header}
        self.members = {"mismatching-digests": [found]}


class Unauthorized(TusError):
    """RFC 9110, 15.5.2: "The server generating a 401 response MUST send a WWW-Authenticate header field"."""

    status = 401
    title = "Unauthorized"

    def __init__(self, detail: str, challenges: Sequence[str]) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": ", ".join(challenges)})
        self.challenges = tuple(challenges)


class Forbidden(TusError):
    """An append to a final upload, or a request that this identity may not make."""

    status = 403
    title = "Forbidden"


class NotFound(TusError):
    """There is no such upload, or its data is in no place that can be read."""

    status = 404
    title = "Not Found"


class MethodNotAllowed(TusError):
    """RFC 9110, 15.5.6: "The origin server MUST generate an Allow header field in a 405 response"."""

    status = 405
    title = "Method Not Allowed"

    def __init__(self, allowed: Sequence[str], detail: str | None = None) -> None:
        methods = ", ".join(allowed)
        super().__init__(detail or f"This resource understands {methods}.", headers={"Allow": methods})


class WrongState(TusError):
    """The upload isn't in the state for this request."""

    status = 409
    title = "Conflict"


class OffsetMismatch(TusError):
    """The current offset is ``offset``: "If the offsets do not match, the Server MUST respond with the 409". The
    problem's type is the draft's (7.1)."""

    status = 409
    title = "Conflict"
    type = "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"

    def __init__(self, offset: int, provided: int | None = None) -> None:
        said = "" if provided is None else f", not {provided} as the request's Upload-Offset says"
        if provided == offset:
            said = ", but another request is under way that has gone on from there"
        super().__init__(f"The upload's offset is {offset}{said}.", headers={"Upload-Offset": str(offset)})
        self.offset = offset
        self.provided = provided
        self.members = {"expected-offset": offset}
        if provided is not None:
            self.members = {**self.members, "provided-offset": provided}


class CompletedUpload(TusError):
    """The draft, 4.1.2: an upload that is complete takes no more bytes."""

    status = 400
    title = "Upload Completed"
    type = "https://iana.org/assignments/http-problem-types#completed-upload"

    def __init__(self, offset: int) -> None:
        super().__init__("The upload is complete; no more can be appended.", headers={"Upload-Offset": str(offset)})


class InconsistentLength(TusError):
    """The draft, 4.1.3: the lengths that requests say, or that their content shows, "MUST match"."""

    status = 400
    title = "Inconsistent Length"
    type = "https://iana.org/assignments/http-problem-types#inconsistent-upload-length"

    def __init__(self, known: int, other: int) -> None:
        super().__init__(f"The upload's length is {known}, and by this request {other}.")


class PastLength(InconsistentLength):
    """The content has gone past the upload's length, so the upload is invalid from now on (the draft, 4.1.3)."""

    def __init__(self, length: int) -> None:
        TusError.__init__(self, f"The content has gone past the upload's length, {length}; the upload is invalid now.")


class Gone(TusError):
    """The upload has expired, was terminated or is lost."""

    status = 410
    title = "Gone"


class UnsupportedVersion(TusError):
    """The server "MUST respond with the 412 Precondition Failed status and MUST include the Tus-Version header"."""

    status = 412
    title = "Precondition Failed"

    def __init__(self, detail: str, versions: Sequence[str] = ("1.0.0",)) -> None:
        super().__init__(detail, headers={"Tus-Version": ",".join(versions)})


class PreconditionFailed(TusError):
    """RFC 9110, 15.5.13: a condition of the request's own doesn't hold."""

    status = 412
    title = "Precondition Failed"


class TooLarge(TusError):
    """Past the length or the maximum; ``offset`` is the committed offset where there is an upload to go on with."""

    status = 413
    title = "Content Too Large"

    def __init__(self, detail: str, *, offset: int | None = None) -> None:
        super().__init__(detail, headers=None if offset is None else {"Upload-Offset": str(offset)})
        self.offset = offset


class UnsupportedMediaType(TusError):
    """The body is not ``application/offset+octet-stream``."""

    status = 415
    title = "Unsupported Media Type"


class RangeNotSatisfiable(TusError):
    """RFC 9110, 15.5.17: "SHOULD generate a Content-Range header field specifying the current length"."""

    status = 416
    title = "Range Not Satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(
            f"There are {size} bytes, and none in that range.", headers={"Content-Range": f"bytes */{size}"}
        )


class _Later(TusError):
    """A refusal that time may heal: ``retry_after`` is in whole seconds."""

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})
        self.retry_after = retry_after


class Held(_Later):
    """Another request has the hold. The only refusal of a HEAD that tus-js-client retries."""

    status = 423
    title = "Locked"


class TakenOver(Held):
    """A newer request has ended this one: "the server SHOULD ... terminate" it (the draft, 8)."""

    def __init__(self) -> None:
        super().__init__("A newer request has taken this upload over.")


class TooManyRequests(_Later):
    """RFC 6585, section 4: too many, too fast, or too many unfinished uploads at once."""

    status = 429
    title = "Too Many Requests"


class ChecksumMismatch(TusError):
    """The bytes are not those that were meant: "460 Checksum Mismatch if the checksums mismatch"."""

    status = 460
    title = "Checksum Mismatch"


class InternalError(TusError):
    """Ours; the detail is fixed so that no path or trace can leak."""

    def __init__(self, detail: str = "The server failed; what was acknowledged is safe.") -> None:
        super().__init__(detail)


class Stopping(_Later):
    """The server is about to stop, and begins nothing new."""

    status = 503
    title = "Service Unavailable"

    def __init__(self, detail: str = "The server is stopping; resume later.", retry_after: int = 1) -> None:
        super().__init__(detail, retry_after)


class Unavailable(_Later):
    """A part of the server doesn't work at the moment."""

    status = 503
    title = "Service Unavailable"


class NoSpace(_Later):
    """The disk has no room for the upload (RFC 4918, 11.5)."""

    status = 507
    title = "Insufficient Storage"

    def __init__(self, detail: str = "No space left for this upload; resume later.", retry_after: int = 60) -> None:
        super().__init__(detail, retry_after)


class UsedUp(NoSpace):
    """What this identity may store is used up (RFC 4918, 11.5)."""


class Refused(TusError):
    """A hook said no. The client gets the hook's status (400 to 599), checked fields, and its body (empty: the usual
    problem document)."""

    def __init__(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        super().__init__("The server's operator does not allow this.", headers=headers)
        self.status = status  # type: ignore[misc]
        self.title = "Refused"  # type: ignore[misc]
        self.body = body

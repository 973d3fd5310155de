"""The answers of S3: its documents and the headers as values, and the error that an answer stands for. Pure.

Invariants: no entity is ever expanded and no document type is accepted; a document nests at most ten deep. A value is
complete, or Transient is raised. Every answer that isn't a success becomes exactly one `RemoteError`; of the store's
words, only its code and a cleaned, shortened message get into the reason, and never an access key, signature or token.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from attrs import frozen
from defusedxml import ElementTree

from resumable.httpclient.client import HttpAnswer, retry_after
from resumable.remotes.errors import (
    AuthFailed,
    Conflict,
    NotThere,
    Permanent,
    RemoteError,
    Throttled,
    Transient,
    Unusable,
    Unwelcome,
)
from resumable.remotes.object_store import Listed
from resumable.remotes.s3.checksums import Algorithm

DEEPEST = 10

THROTTLES = {
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded",
    "TooManyRequests", "TooManyRequestsException", "ServiceUnavailable", "Busy",
}  # fmt: skip
TRANSIENT = {
    "RequestTimeout", "RequestTimeoutException", "InternalError", "OperationAborted", "IncompleteBody", "BadDigest",
    "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "ConditionalRequestConflict",
    "PriorRequestNotComplete", "RequestAborted", "InvalidPart", "InvalidPartOrder",
}  # fmt: skip
LOST = {"NoSuchUpload", "NoSuchKey", "NotFound", "NoSuchVersion"}
#: New keys may help; `S3Client` fetches them before it raises.
STALE_KEYS = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId",
              "XAdminUserNotFound"}  # fmt: skip

ADVICE = {
    "PermanentRedirect": "correct the endpoint or the region",
    "TemporaryRedirect": "correct the endpoint or the region",
    "NoSuchBucket": "create the bucket, or correct its name",
    "InvalidBucketName": "correct the bucket's name",
    "AccessDenied": "allow s3:PutObject, s3:AbortMultipartUpload, s3:ListMultipartUploadParts, s3:GetObject and "
    "s3:ListBucket on the bucket and prefix",
    "AllAccessDisabled": "the bucket has been disabled by the store",
    "AccountProblem": "ask the store's support about the account",
    "InvalidAccessKeyId": "correct the access key",
    "XAdminUserNotFound": "correct the access key",
    "Forbidden": "correct the credentials, or give them rights on the bucket and prefix",
    "Unauthorized": "correct the credentials, or give them rights on the bucket and prefix",
    "AuthorizationHeaderMalformed": "correct the region, and the access key",
    "InvalidRegion": "correct the region",
    "MethodNotAllowed": "correct the endpoint: what answers there takes no objects",
    "InvalidRequest": "compare the dialect and the options with what the store supports",
    "AccessControlListNotSupported": "take acl= away: the bucket has ACLs disabled",
    "SignatureDoesNotMatch": "correct the secret key; a proxy that changes requests does this too",
    "ExpiredToken": "get new credentials",
    "InvalidToken": "correct the session token",
    "RequestTimeTooSkewed": "set this machine's clock",
    "KMS.NotFoundException": "correct the KMS key",
    "KMS.DisabledException": "enable the KMS key",
    "QuotaExceeded": "free space in the store, or raise the quota",
    "InvalidStorageClass": "choose a storage class that the store has",
    "EntityTooSmall": "raise the part size: the store wants larger parts",
    "EntityTooLarge": "lower the part size: the store takes no parts that large",
    "InvalidTag": "correct the option tags",
    "InvalidArgument": "compare the dialect and the options with what the store supports",
    "NotImplemented": "choose the dialect of the store, which doesn't know something that we ask for",
}
SETUP = {
    "NoSuchBucket", "InvalidBucketName", "QuotaExceeded", "InvalidStorageClass", "NotImplemented", "InvalidRegion",
    "IllegalLocationConstraintException", "InvalidRequest", "InvalidArgument", "XNotImplemented",
    "AuthorizationHeaderMalformed", "AccessControlListNotSupported",
    "ServerSideEncryptionConfigurationNotFoundError", "MalformedACLError", "MethodNotAllowed", "InvalidTag",
}  # fmt: skip
PERMANENT = {
    "EntityTooSmall", "EntityTooLarge", "KeyTooLongError", "KeyTooLong", "MalformedXML", "InvalidObjectState",
}  # fmt: skip
#: Codes of stores that name the refused header; 431 is an answer of the HTTP server before one, or of a proxy.
UNWELCOME = {
    "MetadataTooLarge", "RequestHeaderSectionTooLarge", "InvalidMetadata", "InvalidMetadataHeader", "BadMetadata",
    "UnsupportedMetadata",
}  # fmt: skip
#: Codes that stores also use about our options.
VAGUE = {"InvalidArgument", "InvalidRequest"}


class BadXml(ValueError):
    """The document can't be read, or it is one that we don't want to read."""


@frozen
class Element:
    """An element of a document. Names are without their namespaces."""

    _element: Any

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._element.tag).rpartition("}")[2]

    @property
    def text(self) -> str:
        """The text before its first child."""
        return self._element.text or ""

    def find(self, name: str) -> str | None:
        """The text of the first child of that name."""
        return next((child.text.strip() for child in self.all(name)), None)

    def all(self, name: str) -> Iterator[Element]:
        """The children of that name."""
        return map(Element, self._element.iterfind(f"{{*}}{name}"))


def parse(document: bytes) -> Element:
    """The root element. Raises BadXml. The caller has bounded the document's size."""
    try:
        # white space in front of a document keeps the connection of a long CompleteMultipartUpload alive
        root = ElementTree.fromstring(document.strip(), forbid_dtd=True)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadXml(f"not XML, or none to be trusted: {error}") from None
    level = [root]
    for _ in range(DEEPEST):
        level = [child for each in level for child in each]
    if level:
        raise BadXml("the document is nested too deep")
    return Element(root)


def complete_document(parts: Sequence[Sequence[tuple[str, str]]]) -> bytes:
    """The body of CompleteMultipartUpload: for each part, in order, its (name, text) pairs."""
    rows = "".join(
        "<Part>" + "".join(f"<{name}>{escape(text)}</{name}>" for name, text in part) + "</Part>" for part in parts
    )
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<CompleteMultipartUpload xmlns="{namespace}">{rows}</CompleteMultipartUpload>'.encode()


def delete_document(keys: Sequence[str]) -> bytes:
    """The body of DeleteObjects, whose answer names only what went wrong."""
    rows = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<Delete xmlns="{namespace}"><Quiet>true</Quiet>{rows}</Delete>'.encode()


@frozen
class Written:
    """The store's confirmation of a payload. ``checksum`` is the one that was sent and compared."""

    etag: str
    checksum: str | None = None
    version: str | None = None


@frozen
class ObjectHead:
    """An object's properties; ``metadata`` by lower-case name without its prefix."""

    size: int
    etag: str
    version: str | None
    metadata: Mapping[str, str]
    headers: Mapping[str, str]


@frozen
class ListedPart:
    """A part that the store has; ``checksum`` only where it keeps them."""

    number: int
    size: int
    etag: str
    checksum: str | None = None


@frozen
class ListedUpload:
    """An unfinished multipart; ``initiated`` in seconds since the epoch."""

    key: str
    upload_id: str
    initiated: float | None


@frozen
class PartsPage:
    """``marker`` asks for the next page; None: this is the last."""

    parts: Sequence[ListedPart]
    marker: int | None


@frozen
class UploadsPage:
    """``markers`` (of key and of upload id) ask for the next page; None: this is the last."""

    uploads: Sequence[ListedUpload]
    markers: tuple[str, str] | None


def written(operation: str, answer: HttpAnswer, checksum: str | None, algorithm: Algorithm | None) -> Written:
    """The confirmation in an answer to PutObject or UploadPart; ``checksum`` is ours."""
    etag = answer.headers.get("etag")
    if not etag:
        raise Transient(f"{operation}: the answer has no ETag")
    theirs = answer.headers.get(algorithm.header) if algorithm else None
    if theirs and theirs != checksum:
        raise Transient(f"{operation}: the store has another checksum", code="BadDigest")
    return Written(etag, checksum, answer.headers.get("x-amz-version-id"))


def part_of(element: Element, checksum: str | None) -> ListedPart:
    """A Part of ListParts; ``checksum`` is the element that has it."""
    number, size = number_of(element.find("PartNumber")), number_of(element.find("Size"))
    return ListedPart(number, size, element.find("ETag") or "", element.find(checksum) if checksum else None)


def upload_of(element: Element, encoded: bool) -> ListedUpload:
    """An Upload of ListMultipartUploads; ``encoded``: its key is."""
    key = element.find("Key") or ""
    initiated = _seconds(element.find("Initiated"))
    return ListedUpload(unquote_plus(key) if encoded else key, element.find("UploadId") or "", initiated)


def object_of(element: Element, encoded: bool) -> Listed:
    """A Contents of ListObjectsV2; ``encoded``: its key is."""
    key = element.find("Key") or ""
    changed_at = _seconds(element.find("LastModified"))
    if changed_at is None:
        raise Transient("ListObjectsV2: an object has no time")
    return Listed(unquote_plus(key) if encoded else key, number_of(element.find("Size")), changed_at)


def _seconds(text: str | None) -> float | None:
    try:
        return _time(text or "").timestamp()
    except ValueError:
        return None


def number_of(text: str | None) -> int:
    """A number; 0 where there is none."""
    try:
        return int(text or "0")
    except ValueError:
        raise Transient(f"a number can't be read: {(text or '')[:20]!r}") from None


def error_from(operation: str, status: int, headers: Mapping[str, str], body: bytes, region: str) -> RemoteError:
    """The error that an answer stands for. ``headers`` by lower-case name; ``region``: that of our signature."""
    document = _document(body)
    code = (document.find("Code") if document else None) or _implied(status)
    message = _clean(document.find("Message") if document else None)
    reason = f"{operation}: {status} {code}" + (f" ({message})" if message else "")
    theirs = headers.get("x-amz-bucket-region") or (document.find("Region") if document else None)
    if theirs and theirs != region and (300 <= status < 500) and status not in (404, 409, 412):
        where = _clean(theirs)
        return Unusable(f"{operation}: the bucket is in the region {where}, not {region}", status=status, code=code,
                        advice=f"set the region to {where}")  # fmt: skip
    if code == "RequestTimeTooSkewed":
        reason = f"{operation}: {_skew(document)}"
    advice = _missing_right(document) if code == "AccessDenied" else ""
    error = _classed(code, status, reason, advice or ADVICE.get(code, ""), retry_after(headers))
    # A proxy's 503 may mean that it lost the store in the middle of the request.
    error.undone = 400 <= status < 500 or (document is not None and code in THROTTLES)
    return error


def _missing_right(document: Element | None) -> str:
    """The permission that AWS names: "... is not authorized to perform: s3:PutObjectTagging on resource ..."."""
    message = (document.find("Message") if document else None) or ""
    found = re.search(r"to perform: ((?:s3|kms):[A-Za-z]{1,64})\b", message)
    if not found:
        return ""
    return f"allow {found[1]} on the " + ("key" if found[1].startswith("kms:") else "bucket and prefix")


def _classed(code: str, status: int, reason: str, advice: str, pause: float | None) -> RemoteError:
    kind: type[RemoteError]
    if code in THROTTLES or status in (429, 503):
        return Throttled(reason, pause, status=status, code=code, advice=advice)
    if code == "RequestTimeTooSkewed":
        kind = Unusable  # keys and rights may be in order
    elif code in LOST:
        kind = NotThere
    elif code == "PreconditionFailed":
        kind = Conflict
    elif code in TRANSIENT:
        kind = Transient
    elif code in UNWELCOME or status == 431:
        kind = Unwelcome
    elif code in SETUP or code.startswith("KMS.") or 300 <= status < 400:
        kind = Unusable
    elif code in PERMANENT:
        kind = Permanent
    elif code in STALE_KEYS or status in (401, 403):
        kind = AuthFailed
    elif status >= 500 or status in (408, 409, 425):
        kind = Transient
    else:
        kind = Permanent if status >= 400 else Transient
    return kind(reason, status=status, code=code, advice=advice)


def may_be_metadata(error: RemoteError) -> bool:
    """Whether an object might be taken with less of its client's metadata: the store didn't say which part it minds."""
    unknown = type(error) is Permanent and error.code not in PERMANENT
    return error.status in (400, 422) and (unknown or error.code in VAGUE)


def error_in(operation: str, status: int, headers: Mapping[str, str], body: bytes, region: str) -> RemoteError | None:
    """The error inside of an answer that calls itself a success, as CompleteMultipartUpload may; None: it is one."""
    document = _document(body)
    if document is None or document.name != "Error":
        return None
    error = error_from(operation, status, headers, body, region)
    # the status is no help here: an unknown error may well be gone next time
    known = THROTTLES | TRANSIENT | LOST | STALE_KEYS | SETUP | PERMANENT | set(ADVICE) | {"PreconditionFailed"}
    return error if error.code in known else Transient(error.reason, status=status, code=error.code)


def error_of(operation: str, element: Element) -> RemoteError | None:
    """The error for one object in an answer to DeleteObjects; None: it isn't there anyway."""
    code = element.find("Code") or "Unknown"
    if code in LOST:
        return None
    message = _clean(element.find("Message"))
    reason = f"{operation}: {code}" + (f" ({message})" if message else "")
    if code == "AccessDenied":
        advice = _missing_right(element) or "allow s3:DeleteObject on the bucket and prefix"
        return AuthFailed(reason, code=code, advice=advice)
    return _classed(code, 200, reason, ADVICE.get(code, ""), None)


def _document(body: bytes) -> Element | None:
    try:
        return parse(body) if body.strip() else None
    except BadXml:
        return None


def _implied(status: int) -> str:
    """The code of an answer without a document: to HEAD, or from a proxy."""
    return {
        400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 412: "PreconditionFailed",
    }.get(status, "Unknown")  # fmt: skip


def _clean(message: str | None) -> str:
    """One short line, without anything that looks like a key or a signature."""
    line = " ".join((message or "").split())
    line = re.sub(r"(?i)(AKIA|ASIA)[A-Z0-9]{12,}|[A-Za-z0-9/+=_-]{32,}", "...", line)
    return "".join(c if c.isprintable() else "?" for c in line)[:200]


def _skew(document: Element | None) -> str:
    ours, theirs = (document and document.find("RequestTime")) or "", (document and document.find("ServerTime")) or ""
    try:
        seconds = (_time(ours) - _time(theirs)).total_seconds()
    except ValueError:
        return "this machine's clock and the store's differ too much"
    return f"this machine's clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the store's"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))

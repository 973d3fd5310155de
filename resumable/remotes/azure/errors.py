"""The error that an answer of Azure, or its silence, stands for.

Pure.

Invariant: every failure of the SDK becomes exactly one `RemoteError`. Of the SDK's words, only names get into the
reason (codes, classes, the system's words for an error number): its messages repeat URLs, and those hold signatures.
Source: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime

from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestTimeoutError, ServiceResponseTimeoutError

from resumable.httpclient.client import retry_after
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

SKEW = 15 * 60
"""Seconds that the store lets a clock be wrong."""

RIGHTS = "grant the role Storage Blob Data Contributor on the container, or a SAS with the rights rwdl on it"
ADVICE = {
    "AuthenticationFailed": "correct the key or the SAS token, which may have expired, and this machine's clock",
    "InvalidAuthenticationInfo": "correct the credentials; the tenant may differ from that of the account",
    "NoAuthenticationInformation": "give a connection string, a key, a SAS token or an identity",
    "AuthorizationFailure": f"let this address through the account's firewall, correct the key, or {RIGHTS}",
    "AuthorizationPermissionMismatch": RIGHTS,
    "AuthorizationSourceIPMismatch": "the SAS is for other addresses than this machine's",
    "AuthorizationProtocolMismatch": "the SAS is for https only",
    "AuthorizationResourceTypeMismatch": "the SAS must be for containers and objects (srt=co)",
    "AuthorizationServiceMismatch": "the SAS must be for blobs (ss=b)",
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys: use an identity (auth=identity)",
    "InsufficientAccountPermissions": RIGHTS,
    "AccountIsDisabled": "ask Azure's support about the account",
    "ContainerNotFound": "create the container, or correct its name",
    "ContainerBeingDeleted": "create the container again when it is gone",
    "InvalidResourceName": "correct the container's name: 3 to 63 lower-case letters, digits and single hyphens",
    "OutOfRangeInput": "correct the container's name: 3 to 63 lower-case letters, digits and single hyphens",
    "BlobAlreadyExists": "remove it, choose another key, or allow to replace it",
    "UnauthorizedBlobOverwrite": "remove it, choose another key, or use a SAS that has the right w to replace it",
    "BlobImmutableDueToPolicy": "the container's immutability policy forbids it; set abort=expire then",
    "LeaseIdMissing": "somebody holds a lease on the blob: let them release it",
    "InvalidBlobType": "remove the blob: it is an append or page blob",
    "InvalidBlobOrBlock": "others write blocks under this key: choose another, or wait a week",
    "InvalidHeaderValue": "compare the options with what the account supports; api-version= asks for an older service",
    "SnapshotsPresent": "delete the snapshots of the blob",
    "EncryptionScopeNotFound": "correct the encryption scope",
}  # fmt: skip
THROTTLES = {"ServerBusy", "TooManyRequests", "AccountLimitExceeded"}
TRANSIENT = {
    "InternalError", "OperationTimedOut", "Md5Mismatch", "Crc64Mismatch", "RequestBodyIncomplete", "LeaseIsBreaking",
    "BlobBeingRehydrated", "PendingCopyOperation", "SystemInUse", "IncompleteRead",
}  # fmt: skip
LOST = {"BlobNotFound", "ResourceNotFound", "NotFound"}
THEIRS = {
    "BlobAlreadyExists", "UnauthorizedBlobOverwrite", "BlobImmutableDueToPolicy", "LeaseIdMissing", "InvalidBlobType",
    "BlobArchived", "ConditionNotMet", "ConditionFailed", "InvalidBlobOrBlock",
}  # fmt: skip
SETUP = {
    "ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled", "InvalidResourceName", "OutOfRangeInput",
    "InvalidHeaderValue", "UnsupportedHeader", "InvalidUri", "InvalidQueryParameterValue", "ResourceTypeMismatch",
    "EncryptionScopeNotFound", "FeatureEncryptionMismatch", "SnapshotsPresent", "FeatureVersionMismatch",
    "AccountBeingCreated", "AccessTierNotSupportedForBlobType", "InvalidBlobTier",
}  # fmt: skip

UNWELCOME = {"MetadataTooLarge", "InvalidMetadata", "EmptyMetadataKey", "RequestHeaderFieldsTooLarge"}
#: Codes that the store also uses about our options.
VAGUE = {"InvalidHeaderValue", "InvalidInput", "BadRequest"}
#: Codes about blocks and bytes, never about metadata.
OF_BLOCKS = {
    "InvalidBlockList", "InvalidBlockId", "BlockListTooLong", "BlockCountExceedsLimit", "InvalidMd5",
    "InvalidXmlDocument",
}  # fmt: skip


def error_from(operation: str, error: AzureError, now: float) -> RemoteError:
    """The error that this failure of ``operation`` (Put Block) stands for; ``now``: seconds since the epoch."""
    response = error.response if isinstance(error, HttpResponseError) else None
    if response is None:
        return _without_answer(operation, error)
    status: int = response.status_code or 0
    given: Mapping[str, str] = getattr(response, "headers", {})
    headers = {name.lower(): value for name, value in given.items()}
    code = _code(getattr(error, "error_code", None)) or _code(headers.get("x-ms-error-code")) or _implied(status)
    reason = f"{operation}: {status} {code}"
    ahead = _ahead(headers, now)
    if status in (401, 403) and abs(ahead) > SKEW:
        direction = "ahead of" if ahead > 0 else "behind"
        return Unusable(f"{operation}: this machine's clock is {abs(ahead):.0f} s {direction} the store's",
                        status=status, code=code, advice="set this machine's clock")  # fmt: skip
    advice = ADVICE.get(code, "")
    if code in THROTTLES or status in (429, 503):
        return Throttled(reason, retry_after(headers), status=status, code=code, advice=advice)
    return _kind(code, status)(reason, status=status, code=code, advice=advice)


def _kind(code: str, status: int) -> type[RemoteError]:
    if code in LOST:
        return NotThere
    if code in THEIRS:
        return Conflict
    if code in TRANSIENT:
        return Transient
    if code in UNWELCOME or status == 431:
        return Unwelcome
    if code in SETUP or 300 <= status < 400:
        return Unusable
    if status in (401, 403):
        return AuthFailed
    if status >= 500 or status in (408, 409):
        return Transient
    return Permanent if status >= 400 else Transient  # a success that could not be read


def may_be_metadata(error: RemoteError) -> bool:
    """Whether a blob might be taken with less of its client's metadata: the store didn't say which part it minds."""
    unknown = type(error) is Permanent and error.code not in OF_BLOCKS
    return error.status == 400 and (unknown or error.code in VAGUE)


def _without_answer(operation: str, error: AzureError) -> RemoteError:
    """The network's failures, and those of whoever gives out tokens."""
    if isinstance(error, HttpResponseError):  # credentials that could not be got, or could not sign
        return AuthFailed(f"{operation}: no credentials ({type(error).__name__})", code=type(error).__name__,
                          advice="correct the key, or give this machine an identity")  # fmt: skip
    names = [name for cause in _causes(error) if (name := _named(cause))]
    if isinstance(error, ServiceRequestTimeoutError | ServiceResponseTimeoutError) or "TimeoutError" in names:
        return Transient(f"{operation}: no answer in time", code="TimedOut")
    code = names[-1] if names else type(error).__name__
    return Transient(f"{operation}: {code}", code=code)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The causes of the error, the outermost first. Libraries put causes into arguments and attributes, too."""
    passed: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in passed:
            continue
        passed.add(id(one))
        yield one
        inner = (getattr(one, name, None) for name in ("inner_exception", "reason", "__cause__", "__context__"))
        waiting += [*inner, *one.args]


def _named(cause: BaseException) -> str:
    """The system's own errors and TLS's; not the classes around them."""
    plain = isinstance(cause, OSError) and type(cause).__module__ in ("builtins", "socket", "ssl")
    return type(cause).__name__ if plain else ""


def _code(value: object) -> str:
    text = str(getattr(value, "value", value) or "")
    return text if re.fullmatch(r"[A-Za-z0-9.]{1,80}", text) else ""


def _implied(status: int) -> str:
    """The code of an answer without one: to HEAD, or from a proxy."""
    return {
        400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict",
        412: "ConditionNotMet", 429: "TooManyRequests", 500: "InternalError", 503: "ServerBusy",
    }.get(status, "Unknown")  # fmt: skip


def _ahead(headers: Mapping[str, str], now: float) -> float:
    """Seconds that this machine's clock is ahead of the one that answered."""
    try:
        return now - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return 0.0

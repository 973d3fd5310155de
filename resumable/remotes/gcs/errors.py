"""The error that an answer of Cloud Storage stands for.

Pure.

Invariant: every answer that isn't a success becomes exactly one `RemoteError`; of the store's words, only its reason
and a cleaned, shortened message get out, and never a token or the URI of a session.
Source: https://docs.cloud.google.com/storage/docs/json_api/v1/status-codes
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from resumable.httpclient.client import retry_after
from resumable.remotes.errors import (
    AuthFailed,
    Conflict,
    NotThere,
    OutOfStep,
    Permanent,
    RemoteError,
    Throttled,
    Transient,
    Unusable,
    Unwelcome,
)

BAD_DIGEST = "badDigest"
"""Our code for bytes whose checksum differs from the store's."""
NO_BUCKET = "bucketNotFound"
"""Our code for a 404 that can only mean the bucket."""
UNWELCOME = "metadataTooLarge"
"""Our code for a 400 that names the metadata."""

THROTTLES = {"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "slowDown", "dailyLimitExceeded"}
SETUP = {
    "userProjectMissing", "userProjectInvalid", "sslRequired", "accountDisabled", "billingNotEnabled",
    "accessNotConfigured", "orgPolicyConstraintFailed", "retentionPolicyNotMet", "objectUnderActiveHold",
    "invalidStorageClass", NO_BUCKET,
}  # fmt: skip

RIGHTS = "give the account the role Storage Object User (roles/storage.objectUser) on the bucket"
ADVICE = {
    NO_BUCKET: "create the bucket, or correct its name",
    "authError": "correct the credentials: GOOGLE_APPLICATION_CREDENTIALS, or the option credentials",
    "required": "correct the credentials: GOOGLE_APPLICATION_CREDENTIALS, or the option credentials",
    "forbidden": RIGHTS,
    "insufficientPermissions": f"{RIGHTS}; a virtual machine also needs the access scope devstorage.read_write",
    "userProjectMissing": "the bucket lets the requester pay: set the option user_project",
    "userProjectInvalid": "correct the option user_project",
    "accountDisabled": "enable billing for the bucket's project",
    "billingNotEnabled": "enable billing for the bucket's project",
    "accessNotConfigured": "enable the Cloud Storage API in the project",
    "retentionPolicyNotMet": "the bucket's retention policy forbids it; choose a bucket without one",
    "objectUnderActiveHold": "release the object's hold",
    "invalidStorageClass": "choose a storage class that the bucket's location has",
}
BY_STATUS = {
    400: "invalid", 401: "authError", 403: "forbidden", 404: "notFound", 409: "conflict", 410: "gone",
    412: "conditionNotMet", 416: "requestedRangeNotSatisfiable", 429: "rateLimitExceeded", 499: "cancelled",
    503: "backendError",
}  # fmt: skip


def error_from(operation: str, status: int, headers: Mapping[str, str], body: bytes) -> RemoteError:
    """The error that an answer stands for. ``headers`` by lower-case name."""
    code, message = _said(status, body)
    reason = f"{operation}: {status} {code}" + (f" ({message})" if message else "")
    advice = ADVICE.get(code, "")
    if status == 429 or status == 503 or (status == 403 and code in THROTTLES):
        return Throttled(reason, retry_after(headers), status=status, code=code, advice=advice)
    return _kind(status, code)(reason, status=status, code=code, advice=advice or _advice(status, code))


def may_be_metadata(error: RemoteError) -> bool:
    """Whether an object might be taken with less of its client's metadata: the store didn't say which part it minds."""
    return type(error) is Permanent and error.status in (400, 413)


def _kind(status: int, code: str) -> type[RemoteError]:
    if code == UNWELCOME or status == 431:
        return Unwelcome
    if code in SETUP or code.startswith("cloudKms") or 300 <= status < 400:
        return Unusable
    if code == BAD_DIGEST or status >= 500 or status in (408, 409, 425):
        return Transient
    kinds: dict[int, type[RemoteError]] = {
        401: AuthFailed, 403: AuthFailed, 404: NotThere, 410: NotThere, 499: NotThere, 412: Conflict, 416: OutOfStep,
    }  # fmt: skip
    return kinds.get(status, Permanent if status >= 400 else Transient)


def _advice(status: int, code: str) -> str:
    if code.startswith("cloudKms"):
        return "correct the KMS key, and let the Cloud Storage service agent of the project use it"
    if status in (401, 403):
        return ADVICE["authError"] if status == 401 else RIGHTS
    return "correct the endpoint" if 300 <= status < 400 else ""


def _said(status: int, body: bytes) -> tuple[str, str]:
    """The store's reason and message, both clean."""
    said = _document(body).get("error")
    if not isinstance(said, dict):
        # a session answers in plain text
        said = {"message": body.decode("utf-8", "replace") if body[:1] not in (b"<", b"{", b"") else ""}
    details = said.get("errors")
    detail = details[0] if isinstance(details, list) and details and isinstance(details[0], dict) else {}
    code = str(detail.get("reason") or "")
    if not re.fullmatch(r"[A-Za-z]{1,64}", code):
        code = BY_STATUS.get(status, "unknown")
    message = clean(str(said.get("message") or ""))
    lower = message.lower()
    if status == 400 and ("crc32c" in lower or "md5" in lower or "x-goog-hash" in lower):
        code = BAD_DIGEST
    elif status == 400 and "metadata" in lower:
        code = UNWELCOME
    elif status == 400 and "storage class" in lower:
        code = "invalidStorageClass"
    elif status == 404 and "bucket does not exist" in lower:
        code = NO_BUCKET
    return code, message


def _document(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def clean(message: str) -> str:
    """One short line without anything that looks like a token, a session or its URI."""
    line = " ".join(message.split())
    line = re.sub(r"https?://\S+|(?i:upload_?id)\S*|ya29\.\S+|[A-Za-z0-9/+=_-]{32,}", "...", line)
    return "".join(char if char.isprintable() else "?" for char in line)[:200]

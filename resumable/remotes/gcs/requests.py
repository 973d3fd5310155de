"""One request to Cloud Storage: its token, its body, its way there, and the meaning of its answer.

Invariants: a token goes only to the endpoint that it was made for. An answer that comes back is a success, or of a
status that was named as expected; each other one is raised as exactly one `RemoteError`. Of the store's words, only its
reason and a cleaned, shortened message get out, and never a token or the URI of a session. The memory of all requests
together is bounded.
Sources: https://docs.cloud.google.com/storage/docs/request-endpoints,
https://docs.cloud.google.com/storage/docs/json_api/v1/status-codes
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import google_crc32c
from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.httpclient.bodies import PIECE, BytesBody, RegionBody
from resumable.httpclient.client import HttpAnswer, IHttp, StreamedAnswer, retry_after
from resumable.httpclient.errors import HttpError, KeptClosed
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
    remote_error,
)
from resumable.remotes.gcs.credentials import ITokens
from resumable.remotes.interfaces import IContent, IRegion
from resumable.remotes.reading import open_stream
from resumable.remotes.regions import BodyMemory

A = TypeVar("A", HttpAnswer, StreamedAnswer)

GOOGLE = "https://storage.googleapis.com"
ANSWER_SIZE = 256 << 10

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


@frozen
class GcsPlace:
    """A bucket. ``base``: scheme, host, port and path before the API's own. ``user_project`` pays for requests."""

    bucket: str
    base: str = GOOGLE
    user_project: str | None = None

    def upload(self, kind: str, key: str, query: Sequence[tuple[str, str]] = ()) -> str:
        """Where objects are made; ``kind``: multipart or resumable."""
        named = [("uploadType", kind), ("name", key), *query]
        return self._url(f"/upload/storage/v1/b/{quote(self.bucket, safe='')}/o", named)

    def object(self, key: str, query: Sequence[tuple[str, str]] = ()) -> str:
        """Where an object is looked at, read or deleted."""
        return self._url(f"/storage/v1/b/{quote(self.bucket, safe='')}/o/{quote(key, safe='')}", query)

    def objects(self, query: Sequence[tuple[str, str]]) -> str:
        """Where objects are listed."""
        return self._url(f"/storage/v1/b/{quote(self.bucket, safe='')}/o", query)

    def compose(self, key: str, query: Sequence[tuple[str, str]] = ()) -> str:
        """Where an object is made of others."""
        return self._url(f"/storage/v1/b/{quote(self.bucket, safe='')}/o/{quote(key, safe='')}/compose", query)

    def batch(self) -> str:
        """Where several calls are made at once."""
        return f"{self.base}/batch/storage/v1"

    def is_here(self, url: str) -> bool:
        """Whether the URL leads to our endpoint."""
        return _origin(url) == _origin(self.base)

    def _url(self, path: str, query: Sequence[tuple[str, str]]) -> str:
        named = [*query, ("userProject", self.user_project)] if self.user_project else query
        return f"{self.base}{path}" + (f"?{urlencode(named, quote_via=quote)}" if named else "")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port or {"https": 443, "http": 80}.get(parts.scheme)


class GcsRequests:
    """Sends requests. ``sent`` counts them by operation."""

    def __init__(self, place: GcsPlace, tokens: ITokens, http: IHttp, *, memory: BodyMemory | None = None) -> None:
        self.place = place
        self.sent: dict[str, int] = {}
        self.tokens = tokens
        self._http = http
        self._memory = memory or BodyMemory()

    async def send(
        self,
        operation: str,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: IContent | bytes | None = None,
        *,
        expected: Collection[int] = (),
        largest: int = ANSWER_SIZE,
        patience: float = 1.0,
    ) -> HttpAnswer:
        """The answer, of a status below 300 or in ``expected``. Raises RemoteError, and errors of reading the body.

        A refused token is replaced once; a request on a kept connection that the store had closed goes out once more:
        all that we ask for may be asked for twice.
        """
        held = 0 if body is None or isinstance(body, bytes) else min(body.size, PIECE)
        await self._memory.acquire(held)
        try:

            async def once(named: Mapping[str, str]) -> HttpAnswer:
                return await self._once(operation, method, url, named, body, largest, patience)

            answer = await self._allowed(url, headers or {}, once)
        finally:
            self._memory.release(held)
        if not 200 <= answer.status < 300 and answer.status not in expected:
            raise error_from(operation, answer.status, answer.headers, answer.body)
        return answer

    async def stream(self, operation: str, url: str, headers: Mapping[str, str]) -> StreamedAnswer:
        """A successful answer to a GET, whose body comes piece by piece. Raises RemoteError."""

        async def once(named: Mapping[str, str]) -> StreamedAnswer:
            self.sent[operation] = self.sent.get(operation, 0) + 1
            return await open_stream(self._http, operation, url, named)

        opened = await self._allowed(url, headers, once)
        if opened.status not in (200, 206):
            raise error_from(operation, opened.status, opened.headers, opened.body)
        return opened

    async def _allowed(
        self, url: str, headers: Mapping[str, str], once: Callable[[Mapping[str, str]], Awaitable[A]]
    ) -> A:
        """The answer of ``once`` with a token, or with another one if that was refused."""
        token = await self.tokens.get() if self.place.is_here(url) else None
        for _ in range(2):
            named = {**headers, "Authorization": f"Bearer {token.value}"} if token else dict(headers)
            answer = await once(named)
            if answer.status != 401 or token is None:
                return answer
            token = await self.tokens.renew(token)
            if token is None:
                return answer
        return answer

    async def _once(
        self,
        operation: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: IContent | bytes | None,
        largest: int,
        patience: float,
        again: bool = False,
    ) -> HttpAnswer:
        self.sent[operation] = self.sent.get(operation, 0) + 1
        made = BytesBody(body or b"") if body is None or isinstance(body, bytes) else RegionBody(body)
        sent = None if body is None and method in ("GET", "DELETE") else made
        try:
            return await self._http.request(method, url, headers, sent, largest=largest, patience=patience)
        except HttpError as error:
            if isinstance(error, KeptClosed) and not again:
                return await self._once(operation, method, url, headers, body, largest, patience, again=True)
            raise remote_error(error, operation) from None


def may_not(operation: str, error: AuthFailed, right: str) -> AuthFailed:
    """The same, naming the right that is missing."""
    advice = f"{error.advice}; {operation} needs {right}" if error.advice else f"{operation} needs {right}"
    return AuthFailed(error.reason, status=error.status, code=error.code, advice=advice)


SCANNED = 1 << 20
"""Bytes that are read and reckoned in one go."""


@implementer(IContent)
class Stretch:
    """``size`` bytes of ``data`` from ``start`` on. ``crc``: of all before them, and of those that were read."""

    def __init__(self, data: IContent, start: int, size: int, crc: int = 0) -> None:
        self.size = size
        self.crc = crc
        self._data = data
        self._start = start
        self._before = crc

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See IContent."""
        return self._data.read(self._start + offset, size).addCallback(self._took, offset)

    def _took(self, piece: bytes, offset: int) -> bytes:
        self.crc = google_crc32c.extend(self.crc if offset else self._before, piece)
        return piece


@implementer(IContent)
class Framed:
    """``data`` between ``head`` and ``foot``."""

    def __init__(self, head: bytes, data: IContent, foot: bytes) -> None:
        self.size = len(head) + data.size + len(foot)
        self._head = head
        self._data = data
        self._foot = foot

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See IContent."""
        return Deferred.fromCoroutine(self._read(offset, offset + size))

    async def _read(self, start: int, end: int) -> bytes:
        head, middle = len(self._head), len(self._head) + self._data.size
        before = self._head[start:end]
        first, last = max(start, head), min(end, middle)
        inside = await self._data.read(first - head, last - first) if first < last else b""
        return before + inside + self._foot[max(start - middle, 0) : max(end - middle, 0)]


async def crc_of(data: IRegion, size: int, crc: int = 0) -> int:
    """The CRC32C of the first ``size`` bytes behind others whose CRC32C is ``crc``; read by the threads that read."""
    values = [crc]

    def feed(piece: bytes) -> None:
        values[0] = google_crc32c.extend(values[0], piece)

    offset = 0
    while offset < size:
        step = min(SCANNED, size - offset)
        await data.scan(offset, step, feed)
        offset += step
    return values[0]


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

"""One request to Cloud Storage: its token, its body, its way there, and the meaning of its answer.

Invariant: a token goes only to the endpoint that it was made for. An answer that comes back is a success, or of a
status that was named as expected; all others are raised. The memory of all requests together is bounded.
Source: https://docs.cloud.google.com/storage/docs/request-endpoints
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import google_crc32c
from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.httpclient.bodies import PIECE, BytesBody, RegionBody
from resumable.httpclient.client import HttpAnswer, IHttp, StreamedAnswer
from resumable.httpclient.errors import HttpError, KeptClosed
from resumable.remotes.errors import AuthFailed
from resumable.remotes.gcs.credentials import ITokens
from resumable.remotes.gcs.errors import error_from
from resumable.remotes.interfaces import IContent, IRegion
from resumable.remotes.over_http import open_stream, remote_error
from resumable.remotes.regions import BodyMemory

A = TypeVar("A", HttpAnswer, StreamedAnswer)

GOOGLE = "https://storage.googleapis.com"
ANSWER_SIZE = 256 << 10


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

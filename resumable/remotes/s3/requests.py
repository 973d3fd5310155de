"""One request to S3: its digests, its signature, its way there, and the meaning of its answer.

Invariant: a request is signed for the time at which it goes out; an answer that comes back is a success, all others are
raised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from attrs import frozen

from resumable.aio.threads import IPool
from resumable.httpclient.bodies import PIECE, BytesBody, RegionBody
from resumable.httpclient.client import HttpAnswer, IHttp, StreamedAnswer
from resumable.httpclient.errors import HttpError, KeptClosed
from resumable.remotes.errors import AuthFailed, remote_error
from resumable.remotes.interfaces import IRegion
from resumable.remotes.reading import open_stream
from resumable.remotes.regions import BodyMemory
from resumable.remotes.s3.answers import STALE_KEYS, error_from
from resumable.remotes.s3.checksums import Algorithm, Hash, digest_bytes, digest_region, encoded
from resumable.remotes.s3.credentials import ICredentials, Keys
from resumable.remotes.s3.endpoint import Endpoint
from resumable.remotes.s3.signing import EMPTY_SHA256, UNSIGNED, S3Signer, encode_query, presigned

T = TypeVar("T")

ERROR_SIZE = 64 << 10


@frozen
class Payload:
    """The body of a request. ``algorithm`` adds a checksum's header."""

    data: IRegion | bytes
    algorithm: Algorithm | None = None


class S3Requests:
    """Sends requests to one bucket. ``sign_bodies``: the signature covers payloads, by their SHA-256.

    ``sent`` counts the requests by operation.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: ICredentials,
        http: IHttp,
        pool: IPool,
        now: Callable[[], float],
        *,
        memory: BodyMemory | None = None,
        sign_bodies: bool = True,
    ) -> None:
        self.endpoint = endpoint
        self.sent: dict[str, int] = {}
        self._credentials = credentials
        self._http = http
        self._pool = pool
        self._now = now
        self._memory = memory or BodyMemory()
        self._sign_bodies = sign_bodies
        self._signer = S3Signer(endpoint.region)

    async def send(
        self,
        operation: str,
        method: str,
        key: str,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        payload: Payload | None = None,
        *,
        largest: int = ERROR_SIZE,
        patience: float = 1.0,
    ) -> tuple[HttpAnswer, str | None]:
        """A successful answer, and the payload's checksum. Raises RemoteError, and errors of reading the payload.

        A refusal of our keys is answered once with newer ones, if there are any.
        """
        if payload is None:
            return await self._trying(operation, method, key, query, headers or {}, None, None, largest, patience)
        data, held = payload.data, 0
        if not isinstance(data, bytes):
            held = min(data.size, PIECE)
            await self._memory.acquire(held)
        try:
            if not isinstance(data, bytes) and data.size <= PIECE:
                data = await data.read(0, data.size) if data.size else b""  # once, for the digest and the journey
            return await self._trying(
                operation, method, key, query, headers or {}, data, payload.algorithm, largest, patience
            )
        finally:
            self._memory.release(held)

    async def _trying(
        self,
        operation: str,
        method: str,
        key: str,
        query: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        data: IRegion | bytes | None,
        algorithm: Algorithm | None,
        largest: int,
        patience: float,
    ) -> tuple[HttpAnswer, str | None]:
        digest, checksum = await self._digests(data, algorithm)
        named = dict(headers)
        if algorithm is not None and checksum is not None:
            named[algorithm.header] = checksum
        url = self.endpoint.url(key) + (f"?{encode_query(query)}" if query else "")

        async def once(signed: Mapping[str, str]) -> HttpAnswer:
            return await self._once(operation, method, url, signed, data, largest, patience)

        return await self._signed(method, url, named, digest, once), checksum

    async def stream(self, operation: str, key: str, headers: Mapping[str, str]) -> StreamedAnswer:
        """A successful answer to a GET, whose body comes piece by piece. Raises RemoteError."""
        url = self.endpoint.url(key)

        async def once(signed: Mapping[str, str]) -> StreamedAnswer:
            self.sent[operation] = self.sent.get(operation, 0) + 1
            opened = await open_stream(self._http, operation, url, signed)
            if opened.status not in (200, 206):
                raise error_from(operation, opened.status, opened.headers, opened.body, self.endpoint.region)
            return opened

        return await self._signed("GET", url, headers, EMPTY_SHA256, once)

    async def presigned(self, key: str, query: Sequence[tuple[str, str]], seconds: float) -> str:
        """A URL with which anybody may GET the object for so long."""
        keys = await self._credentials.get()
        url = f"{self.endpoint.url(key)}?{encode_query(query)}"
        return presigned(url, keys, self.endpoint.region, self._now(), seconds)

    async def _signed(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        digest: str,
        once: Callable[[Mapping[str, str]], Awaitable[T]],
    ) -> T:
        """The answer of ``once`` with signed headers; a refusal of our keys is answered once with newer ones."""
        named = dict(headers, Host=self.endpoint.netloc)
        refused: Keys | None = None
        while True:
            keys = await self._credentials.get()
            signed = self._signer.sign(method, url, named, digest, keys, self._now())
            try:
                return await once(signed)
            except AuthFailed as error:
                # an answer to HEAD has no code
                if refused is not None or (error.code not in STALE_KEYS and method != "HEAD"):
                    raise
                refused = keys
                if await self._credentials.renew(keys) is None:
                    raise

    async def _once(
        self,
        operation: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: IRegion | bytes | None,
        largest: int,
        patience: float,
        again: bool = False,
    ) -> HttpAnswer:
        """``again``: a kept connection has failed. All but POST may be sent twice (RFC 9110, 9.2.2)."""
        self.sent[operation] = self.sent.get(operation, 0) + 1
        body = None if data is None else BytesBody(data) if isinstance(data, bytes) else RegionBody(data)
        try:
            answer = await self._http.request(method, url, headers, body, largest=largest, patience=patience)
        except HttpError as error:
            if isinstance(error, KeptClosed) and method != "POST" and not again:
                return await self._once(operation, method, url, headers, data, largest, patience, again=True)
            failed = remote_error(error, operation)
        else:
            if 200 <= answer.status < 300:
                return answer
            failed = error_from(operation, answer.status, answer.headers, answer.body, self.endpoint.region)
        failed.undone = failed.undone and not again  # the request before may have been heard
        raise failed

    async def _digests(self, data: IRegion | bytes | None, algorithm: Algorithm | None) -> tuple[str, str | None]:
        """The signature's value for the payload, and the payload's checksum."""
        if data is None:
            return EMPTY_SHA256, None
        sha256 = hashlib.sha256() if self._sign_bodies else None
        made = algorithm.make() if algorithm else None
        hashes: list[Hash] = [each for each in (sha256, made) if each is not None]
        pool = self._pool if sha256 or not (algorithm and algorithm.cheap) else None
        if isinstance(data, bytes):
            await digest_bytes(data, hashes, pool)
        else:
            await digest_region(data, hashes)
        return sha256.hexdigest() if sha256 else UNSIGNED, encoded(made.digest()) if made else None

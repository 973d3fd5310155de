"""A document is posted to a hook's URL, and its answer read.

One reason to change: what counts as an answer, and as a failure.

Invariant: no redirect is followed, no answer longer than the limit is read, nothing waits past its time-out; what went
wrong is told in one line that holds no secret (no URL: it may carry a token).
Spec: RFC 9110 sections 10.2.3 (Retry-After), 15.4 (redirects).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from resumable.hooks.ask import is_ours
from resumable.hooks.interfaces import HookFailed
from resumable.httpclient.bodies import BytesBody
from resumable.httpclient.client import HttpAnswer, IHttp, retry_after
from resumable.httpclient.errors import HttpError, KeptClosed, Unreached
from resumable.masking import has_user
from resumable.model.hooks import RequestView

LONGEST_WAIT = 86400.0
"""Seconds that a hook may ask us to wait."""
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_RESERVED = ("webhook-", "content-")


@frozen
class Posting:
    """``timeout``: seconds for one attempt. ``attempts`` at a question, ``pause`` seconds between, more or less.

    ``largest``: bytes of an answer. ``forward``: headers of the client's request that go along, in lower case.
    """

    timeout: float = 5.0
    attempts: int = 3
    pause: float = 0.2
    largest: int = 256 << 10
    forward: Sequence[str] = ()


def check_url(url: str) -> str:
    """The URL as it is requested. Raises ValueError, which does not repeat it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable or not url.isascii() or not url.isprintable() or " " in url or has_user(url) or parts.fragment:
        raise ValueError(
            "a hook's URL looks like https://host/path, without a password in it; its path and query are never shown"
        )
    return url


def check_forward(names: Sequence[str]) -> tuple[str, ...]:
    """Lower-case names of headers that may be forwarded. Raises ValueError."""
    lower = tuple(name.strip().lower() for name in names)
    for name in lower:
        if not _TOKEN.fullmatch(name) or (is_ours(name) and not name.startswith(("upload-", "tus-"))):
            raise ValueError(f"the header {name!a} can't be forwarded")
        if name.startswith(_RESERVED):
            raise ValueError(f"the header {name!a} is the hook's own")
    return lower


class Poster:
    """Posts to one URL. Raises ValueError for a URL or headers that can't be. ``http`` is closed by whoever made it."""

    def __init__(
        self, url: str, http: IHttp, *, clock: IReactorTime, wall: Callable[[], float], rng: Random, posting: Posting
    ) -> None:
        self._url = check_url(url)
        self._forward = check_forward(posting.forward)
        self._http = http
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._posting = posting

    def forwarded(self, request: RequestView | None) -> dict[str, str]:
        """The headers of the client's request that go along."""
        headers = {} if request is None else request.headers
        return {name: _joined(name, headers[name]) for name in self._forward if headers.get(name)}

    async def post(self, headers: Callable[[], Mapping[str, str]], body: bytes) -> HttpAnswer:
        """One attempt; again at once if only a kept connection had been closed. Any 2xx; HookFailed otherwise."""
        try:
            return await self._once(headers(), body)
        except _Stale:
            return await self._once(headers(), body)

    async def insist(self, headers: Callable[[], Mapping[str, str]], body: bytes) -> HttpAnswer:
        """A few attempts, for a question that somebody waits for. HookFailed is that of the last."""
        for attempt in range(1, self._posting.attempts + 1):
            try:
                return await self.post(headers, body)
            except HookFailed as failed:
                if not failed.may_retry or attempt == self._posting.attempts:
                    raise
            if self._posting.pause:
                await deferLater(self._clock, self._posting.pause * attempt * self._rng.uniform(0.5, 1))
        raise HookFailed("it was not asked")

    async def _once(self, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        posting = self._posting
        asking = Deferred.fromCoroutine(
            self._http.request("POST", self._url, headers, BytesBody(body), largest=posting.largest)
        )
        asking.addTimeout(posting.timeout, self._clock, _too_long)
        try:
            answer = await asking
        except KeptClosed:
            raise _Stale("the connection was closed", may_retry=True) from None
        except HttpError as problem:
            said = problem.code or problem.reason
            raise HookFailed(f"no answer: {said}", may_retry=True, unreached=isinstance(problem, Unreached)) from None
        if 200 <= answer.status < 300:
            return answer
        busy = answer.status >= 500 or answer.status in (408, 425, 429)
        wait = retry_after(answer.headers, self._wall(), longest=LONGEST_WAIT)
        raise HookFailed(f"it answered {answer.status}", retry_after=wait, may_retry=busy)


def _joined(name: str, lines: Sequence[str]) -> str:
    """One field, in UTF-8, as text of which each character is a byte.

    RFC 9113 section 8.2.3: the pieces of a Cookie are put together with another sign.
    """
    return ("; " if name == "cookie" else ", ").join(lines).encode().decode("latin-1")


class _Stale(HookFailed):
    """The connection had been kept, and was closed by the other side."""


def _too_long(result: object, seconds: float) -> HttpAnswer:
    raise HookFailed("no answer in time", may_retry=True, unanswered=True)

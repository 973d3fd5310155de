"""Hooks behind a URL: the connection, a request and its answer, and our own format (CloudEvents, Standard Webhooks).

Invariants: the host's name is always checked; no redirect is followed, no answer longer than the limit is read, and
nothing waits past its time-out. An error is one line that holds no secret, so no URL: it may carry a token. The same
event is sent with the same ``webhook-id`` and the same body each time; only a 200 with our JSON answers yes.
Spec: RFC 9110 sections 10.2.3 (Retry-After), 15.4 (redirects); CloudEvents 1.0.2 HTTP binding, structured mode;
Standard Webhooks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.internet.task import deferLater
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from resumable.hooks import messages
from resumable.hooks.ask import is_ours
from resumable.hooks.interfaces import BadVerdict, Event, HookFailed, IGuard, IHook, IWatcher, Question, Refuse, Verdict
from resumable.hooks.messages import WebhookSigner
from resumable.httpclient.bodies import BytesBody
from resumable.httpclient.client import HttpAnswer, IHttp, retry_after
from resumable.httpclient.errors import HttpError, KeptClosed, Unreached
from resumable.masking import has_user
from resumable.model.hooks import RequestView

LONGEST_WAIT = 86400.0
"""Seconds that a hook may ask us to wait."""
JSON = frozenset({"application/json", "application/cloudevents+json"})
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
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


@implementer(IHook, IGuard, IWatcher)
class HttpHook:
    """``source``: which daemon it is, a URI reference. ``wall`` tells the time for signatures."""

    def __init__(self, poster: Poster, signer: WebhookSigner, *, source: str, wall: Callable[[], float]) -> None:
        self._poster = poster
        self._signer = signer
        self._source = source
        self._wall = wall

    def deliver(self, event: Event) -> Deferred[None]:
        """See IHook: any 2xx says that it arrived."""
        return Deferred.fromCoroutine(self._deliver(event))

    def ask(self, question: Question) -> Deferred[Verdict]:
        """See IGuard."""
        return Deferred.fromCoroutine(self._ask(question))

    def watch(self, event: Event) -> Deferred[Refuse | None]:
        """See IWatcher: a JSON answer may say stop."""
        return Deferred.fromCoroutine(self._watch(event))

    async def _deliver(self, event: Event) -> None:
        await self._poster.post(*self._prepared(event))

    async def _ask(self, question: Question) -> Verdict:
        answer = await self._poster.insist(*self._prepared(question))
        if answer.status != 200 or not is_json(answer):
            raise BadVerdict("it answered something else than JSON")
        return messages.parse(answer.body)

    async def _watch(self, event: Event) -> Refuse | None:
        answer = await self._poster.post(*self._prepared(event))
        return messages.parse_stop(answer.body) if is_json(answer) else None

    def _prepared(self, message: Event | Question) -> tuple[Callable[[], dict[str, str]], bytes]:
        """The body, and headers that are made anew for each attempt: the signature holds the time."""
        body = messages.dumps(messages.document(message, self._source))

        def headers() -> dict[str, str]:
            return {
                **self._poster.forwarded(message.request),
                **self._signer.headers(message.id, int(self._wall()), body),
                "content-type": messages.CONTENT_TYPE,
                "accept": "application/json",
            }

        return headers, body


def is_json(answer: HttpAnswer) -> bool:
    """Whether the answer says that it is JSON."""
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower() in JSON


@implementer(IPolicyForHTTPS)
class Tls:
    """The trust in a hook's server, and our identity. ``authorities``: PEM text of those to trust instead of the
    system's. ``identity``: PEM text of a certificate and its key, shown to hooks that ask. Raises ValueError for text
    that is neither."""

    def __init__(self, authorities: str | None = None, identity: str | None = None) -> None:
        try:
            self._trust: Any = platformTrust() if authorities is None else _roots(authorities)
            self._identity = None if identity is None else PrivateCertificate.loadPEM(identity.encode())
        except Exception as error:  # pyOpenSSL and cryptography have no base class of their own for this
            raise ValueError("that is no PEM certificate, or has no key with it") from error

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        made: IOpenSSLClientConnectionCreator = optionsForClientTLS(
            hostname.decode("ascii"), trustRoot=self._trust, clientCertificate=self._identity
        )
        return made


def from_files(authorities: Path | None, certificate: Path | None, key: Path | None) -> Tls:
    """Read before the reactor runs. ``key`` may be in ``certificate``'s file. Raises ValueError, OSError."""
    read = [None if path is None else path.read_text(encoding="ascii") for path in (authorities, certificate, key)]
    identity = None if read[1] is None else read[1] + "\n" + (read[2] or "")
    return Tls(read[0], identity)


def _roots(text: str) -> Any:
    found = [part.partition(_END)[0] for part in text.split(_BEGIN)[1:]]
    if not found:
        raise ValueError("no certificate")
    return trustRootFromCertificates([Certificate.loadPEM(f"{_BEGIN}{part}{_END}\n".encode()) for part in found])

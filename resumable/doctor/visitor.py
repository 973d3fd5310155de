"""A client of the public URL: whole requests with treq; without it those that are cut off in the middle of their body,
and those whose body waits for an informational response.

Invariant: every request ends within its time, and no answer's body is read.
"""

from __future__ import annotations

import io
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from http.client import HTTPException, parse_headers
from typing import Any, TypeVar
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS

from resumable.httpclient.bodies import stream_of
from resumable.httpclient.client import all_lines
from resumable.httpclient.connections import ConnectionPool
from resumable.httpclient.errors import one_line

T = TypeVar("T")

TIMEOUT = 15.0
LONGEST_HEAD = 64 << 10


class Unanswered(Exception):
    """There is no answer; the reason is one line."""


@frozen
class TusAnswer:
    """``fields``: by lower-case name, each with its lines."""

    status: int
    fields: Mapping[str, tuple[str, ...]]

    def get(self, name: str) -> str | None:
        """The field's lines as one list; None without any."""
        lines = self.fields.get(name)
        return None if lines is None else ", ".join(lines)

    @property
    def is_tus(self) -> bool:
        """Whether the upload server has answered, and not somebody in front of it."""
        return "tus-resumable" in self.fields


@frozen
class Heard:
    """The answers to a request whose body was held back, informational ones and perhaps a final one last. ``early``:
    those before the rest of the body was sent; ``late``: those after it."""

    early: tuple[TusAnswer, ...]
    late: tuple[TusAnswer, ...]

    @property
    def all(self) -> tuple[TusAnswer, ...]:
        """In the order in which they came."""
        return (*self.early, *self.late)

    @property
    def final(self) -> TusAnswer | None:
        """The answer, if there was one."""
        return next((each for each in self.all if each.status >= 200), None)


def upload_at(url: str, location: str) -> str:
    """The URL of an upload that was made by POST to ``url``, as seen from here, whatever the Location says."""
    name, mark, query = location.partition("?")
    return url + name.rpartition("/")[2] + mark + query


class Visitor:
    """``headers``: those that let it in, sent with each request. ``policy``: the certificates that it trusts."""

    def __init__(
        self, reactor: Any, headers: Mapping[str, str], policy: IPolicyForHTTPS | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._reactor = reactor
        self._headers = dict(headers)
        self._policy = policy or BrowserLikePolicyForHTTPS()
        self._timeout = timeout
        self._connections = ConnectionPool(reactor, reactor, self._policy, timeout, kept=0, kept_for=0.0, repeats=False)

    async def ask(self, method: str, url: str, fields: Mapping[str, str]) -> TusAnswer:
        """A request without a body. Raises Unanswered."""
        return await self._within(self._timeout, self._ask(method, url, {**self._headers, **fields}))

    async def _ask(self, method: str, url: str, fields: Mapping[str, str]) -> TusAnswer:
        raw = Headers({name.encode(): [value.encode("latin-1")] for name, value in fields.items()})
        response = await self._connections.request(method, url, raw)
        stream_of(response, self._reactor, self._timeout).close()  # nobody reads its body
        return TusAnswer(response.code, all_lines(response))

    async def cut(
        self, method: str, url: str, fields: Mapping[str, str], length: int, body: bytes, wait: float
    ) -> TusAnswer | None:
        """Announce a body of ``length`` bytes, send ``body``, wait ``wait`` seconds and close the connection.

        The answer until then, if any. Raises Unanswered if there was no connection.
        """
        link = await self._begun(method, url, fields, length, body)
        try:
            await self._settled(wait, link.answered)  # else it waits for the rest of the body, as it should
        finally:
            link.close()
        return link.answers[0] if link.answers else None

    async def held(self, method: str, url: str, fields: Mapping[str, str], body: bytes, wait: float) -> Heard:
        """Send a request but for the last byte of ``body``; send that once something is answered, or after ``wait``
        seconds; wait as long for the final answer. Raises Unanswered if there was no connection."""
        link = await self._begun(method, url, fields, len(body), body[:-1])
        try:
            await self._settled(wait, link.answered)
            early = tuple(link.answers)
            link.send(body[-1:])
            await self._settled(wait, link.ended)
        finally:
            link.close()
        return Heard(early, tuple(link.answers[len(early) :]))

    async def _begun(self, method: str, url: str, fields: Mapping[str, str], length: int, body: bytes) -> _Link:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        named = {"Host": parts.netloc.rpartition("@")[2], **self._headers, **fields, "Content-Length": str(length)}
        head = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items()), "", ""]
        link = _Link("\r\n".join(head).encode("latin-1") + body)
        await self._within(self._timeout, self._connect(url, link))
        return link

    async def _settled(self, seconds: float, waited: Deferred[None]) -> None:
        with suppress(Unanswered):
            await self._within(seconds, _result(waited))

    async def _connect(self, url: str, link: _Link) -> None:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = parts.hostname or ""
        endpoint: IStreamClientEndpoint = HostnameEndpoint(self._reactor, host, port, timeout=self._timeout)
        if parts.scheme == "https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(host.encode(), port), endpoint)
        await endpoint.connect(Factory.forProtocol(lambda: link))

    async def _within(self, seconds: float, work: Coroutine[Deferred[Any], Any, T]) -> T:
        try:
            return await Deferred.fromCoroutine(work).addTimeout(seconds, self._reactor, _too_late)
        except TimeoutError:
            raise Unanswered(f"no answer within {seconds:g} s") from None
        except Exception as problem:  # the layers below have no common class of errors
            raise Unanswered(one_line(problem)) from problem


class _Link(Protocol):
    """Sends ``said`` and keeps the heads of its answers, up to that of the final one.

    ``answered``: there is one, or there never will be. ``ended``: there is the final one, or there never will be.
    """

    def __init__(self, said: bytes) -> None:
        self.answers: list[TusAnswer] = []
        self.answered: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._said = said
        self._heard = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._said)

    def send(self, data: bytes) -> None:
        """More of the body."""
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        if self.ended.called or len(self._heard) > LONGEST_HEAD:
            return
        self._heard += data
        while b"\r\n\r\n" in self._heard and not self.ended.called:
            head, end, self._heard = self._heard.partition(b"\r\n\r\n")
            answer = _parsed(head + end)
            if answer is not None:
                self.answers.append(answer)
            if not self.answered.called:
                self.answered.callback(None)
            if answer is None or answer.status >= 200:
                self.ended.callback(None)

    def connectionLost(self, reason: Failure | None = None) -> None:
        for waited in (self.answered, self.ended):
            if not waited.called:
                waited.callback(None)

    def close(self) -> None:
        """In order: the bytes written before are delivered."""
        if self.transport is not None:
            self.transport.loseConnection()


async def _result(waited: Deferred[None]) -> None:
    await waited


def _too_late(value: T | Failure, seconds: float) -> T | Failure:
    """A cancelled operation often fails with another error."""
    if isinstance(value, Failure):
        raise TimeoutError(seconds)
    return value


def _parsed(head: bytes) -> TusAnswer | None:
    line, _, rest = head.partition(b"\r\n")
    words = line.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return None
    try:
        message = parse_headers(io.BytesIO(rest))
    except HTTPException:
        return None
    fields: dict[str, tuple[str, ...]] = {}
    for name, value in message.items():
        fields[name.lower()] = (*fields.get(name.lower(), ()), value)
    return TusAnswer(int(words[1]), fields)

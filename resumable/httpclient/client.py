"""Requests to one server: so many connections, time-outs of our own, answers of a bounded size. And small GET requests.

Invariants: every request ends: nothing waits longer than a time-out for the next sign of progress. An answer that comes
before its request is fully sent stops the body. Connections are at most as many as the limit; those of streams are
apart, so that readers never wait for requests, nor requests for readers, however slow these are. No request is
repeated but a GET of `Http.stream`: whether it may be sent twice is the caller's to know. `Fetch` asks a server that
the operator named (an issuer of keys, or one that decides about access): every question ends within its time-out, an
answer of more than ``largest`` bytes is a failure, no redirect is followed, and only so many are asked at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Any, Protocol

from attrs import field, frozen
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS, IResponse

from resumable.httpclient.agent import LightAgent
from resumable.httpclient.answer import AgentAnswer
from resumable.httpclient.bodies import BodyStream, BytesBody, IdleTimeout, RegionBody, stream_of
from resumable.httpclient.connections import ClientEndpoints, ConnectionPool
from resumable.httpclient.errors import HttpError, KeptClosed, TimedOut, TooLong, causes_of, error_for, one_line
from resumable.httpclient.exchange import KeptLost
from resumable.httpclient.http1 import Fields
from resumable.model.telemetry import REQUEST

KEPT_STREAMS = 8
"""Idle connections that are kept for the next reader."""
KEPT, KEPT_FOR = 16, 240.0
"""Idle connections of a `Fetch`, and the seconds for which each is kept."""
ERROR_SIZE = 64 << 10
"""Bytes of a streamed answer that isn't a success."""
LONGEST_PAUSE = 3600.0

Body = BytesBody | RegionBody | None


@frozen
class HttpLimits:
    """``idle_timeout``: seconds without a byte moving either way. ``connections``: more let more requests go at once.

    ``connect_timeout``: seconds. ``kept_for``: seconds that an idle connection is kept. ``until_closed``: an answer of
    unknown length may end with its connection, as those of HTTP/1.0 do; it may have been cut then.
    """

    connect_timeout: float = 10.0
    idle_timeout: float = 60.0
    kept_for: float = 15.0
    connections: int = 32
    until_closed: bool = False


@frozen
class HttpAnswer:
    """``headers``: the first line of each field, by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class IStream(Protocol):
    """Bytes at the reader's pace, such as `BodyStream`."""

    def read(self) -> Deferred[bytes]:
        """The next bytes, none at the end."""

    def close(self) -> None:
        """No more is wanted."""


@frozen
class StreamedAnswer:
    """An answer whose body is still to come. ``headers`` as in `HttpAnswer`, with the length where it is known.

    ``stream`` has the body of a 200 or 206; ``body`` that of any other status.
    """

    status: int
    headers: Mapping[str, str]
    stream: IStream
    body: bytes = field(default=b"", repr=False)


class IHttp(Protocol):
    """The methods of `Http`, so that tests can do without a network."""

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: Body, *, largest: int, patience: float = 1.0
    ) -> HttpAnswer:
        """See `Http.request`."""

    async def stream(self, url: str, headers: Mapping[str, str]) -> StreamedAnswer:
        """See `Http.stream`."""

    def close(self) -> Deferred[None]:
        """See `Http.close`."""


class Http:
    """A client for one server. ``clock`` measures the time-outs; ``reactor`` does the rest."""

    def __init__(
        self,
        reactor: Any,
        limits: HttpLimits | None = None,
        *,
        clock: IReactorTime | None = None,
        policy: IPolicyForHTTPS | None = None,
    ) -> None:
        limits = limits or HttpLimits()
        self._idle = limits.idle_timeout
        self._until_closed = limits.until_closed
        self._clock: IReactorTime = clock or reactor
        self._slots = DeferredSemaphore(limits.connections)

        trust = policy or BrowserLikePolicyForHTTPS()
        endpoints = ClientEndpoints(reactor, self._clock, trust, limits.connect_timeout)
        agent = partial(LightAgent, reactor, self._clock, endpoints, kept_for=limits.kept_for)
        self._requests = agent(kept=limits.connections, repeats=False)
        self._streams = agent(kept=KEPT_STREAMS, repeats=True)

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: Body, *, largest: int, patience: float = 1.0
    ) -> HttpAnswer:
        """Send a request and gather its answer, whatever its status.

        ``url`` goes out as it is. ``largest``: bytes of the answer. ``patience`` multiplies the idle time-out. Raises
        HttpError, CancelledError, and errors of reading the body.
        """
        await self._slots.acquire()
        watch = IdleTimeout(self._clock, self._idle * patience)
        try:
            answer = await self._answered(method, url, headers, body, watch)
            watch.stop()
            whole = answer.whole()
            if whole is None:
                stream = stream_of(answer, self._clock, self._idle * patience, self._until_closed)
                whole = await stream.read_all(largest)
            elif len(whole) > largest:
                raise TooLong(largest)
            return HttpAnswer(answer.code, first_lines(answer.fields), whole)
        except HttpError:
            raise
        except Exception as problem:
            if isinstance(body, RegionBody) and body.failure is not None:
                raise body.failure.value or problem from None
            raise TimedOut(self._idle * patience) if watch.expired else error_for(problem) from None
        finally:
            watch.stop()
            if isinstance(body, RegionBody):
                body.stopProducing()
            self._slots.release()

    async def _answered(
        self, method: str, url: str, headers: Mapping[str, str], body: Body, watch: IdleTimeout
    ) -> AgentAnswer:
        """The answer, once its head is there."""
        if isinstance(body, RegionBody):
            body.progress = watch.touch
        asking = _asked(self._requests, method, url, headers, body)
        watch.give_up = asking.cancel
        try:
            return await asking
        except KeptLost as problem:
            if not watch.expired and isinstance(causes_of(problem)[-1], error.ConnectionClosed):
                raise KeptClosed from None
            raise

    async def stream(self, url: str, headers: Mapping[str, str]) -> StreamedAnswer:
        """The answer to a GET once its head is there. Its connection is none of those that `request` uses.

        The stream is the caller's to close. Raises HttpError, CancelledError.
        """
        asking = _asked(self._streams, "GET", url, headers, None)
        watch = IdleTimeout(self._clock, self._idle)
        watch.give_up = asking.cancel
        try:
            answer = await asking
        except Exception as problem:
            raise TimedOut(self._idle) if watch.expired else error_for(problem) from None
        finally:
            watch.stop()
        stream: BodyStream = stream_of(answer, self._clock, self._idle)
        got = first_lines(answer.fields)
        if answer.code in (200, 206):
            return StreamedAnswer(answer.code, got, stream)
        return StreamedAnswer(answer.code, got, stream, await stream.read_all(ERROR_SIZE))

    def close(self) -> Deferred[None]:
        """Close the idle connections; fires when they are closed."""
        return gatherResults([self._requests.close(), self._streams.close()]).addCallback(lambda _: None)


def _asked(agent: LightAgent, method: str, url: str, headers: Mapping[str, str], body: Body) -> Deferred[AgentAnswer]:
    """Ask with these headers, and the id of the request that this one is made for. ValueError: they can't be sent."""
    lines = [f"{_title(name)}: {value}\r\n" for name, value in headers.items()]
    names = {name.lower() for name in headers}
    if "x-request-id" not in names and (request := REQUEST.get()):
        lines.append(f"X-Request-Id: {request}\r\n")
    fields = "".join(lines).encode("latin-1")
    if fields.count(b"\n") != len(lines) or fields.count(b"\r") != len(lines):
        raise ValueError("a header with a line break")
    return agent.ask(method.encode("ascii"), url.encode("ascii"), fields, body, has_host="host" in names)


@lru_cache(maxsize=256)
def _title(name: str) -> str:
    """The name in the case that proxies and logs are used to."""
    return name.title()


def first_lines(fields: Fields) -> dict[str, str]:
    """The first line of each field, by lower-case name, as UTF-8."""
    found: dict[str, str] = {}
    for name, value in fields:
        found.setdefault(name.decode("latin-1").lower(), value.decode("utf-8", "replace"))
    return found


def all_lines(response: IResponse) -> dict[str, tuple[str, ...]]:
    """All lines of each field, by lower-case name, as latin-1: each character is a byte."""
    return {
        name.decode("latin-1").lower(): tuple(line.decode("latin-1") for line in lines)
        for name, lines in response.headers.getAllRawHeaders()
    }


def retry_after(headers: Mapping[str, str], now: float | None = None, longest: float = LONGEST_PAUSE) -> float | None:
    """Seconds that an answer asks to wait, at most ``longest``; None where it says nothing that can be read.

    A date counts from ``now`` (seconds since the epoch), else from the answer's own Date. Spec: RFC 9110 section
    10.2.3; Azure's fields count milliseconds.
    """
    for name, unit in (("retry-after", 1.0), ("x-ms-retry-after-ms", 0.001), ("retry-after-ms", 0.001)):
        value = headers.get(name, "").strip()
        if value.isascii() and value.isdigit():
            return min(float(value) * unit, longest)
    try:
        then = parsedate_to_datetime(headers["retry-after"]).timestamp()
        since = parsedate_to_datetime(headers["date"]).timestamp() if now is None else now
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return min(max(then - since, 0.0), longest)


class FetchFailed(Exception):
    """There is no answer; the reason is one line."""


@frozen
class Fetched:
    """An answer. ``headers``: all lines of each, by lower-case name, as latin-1 text."""

    status: int
    headers: Mapping[str, Sequence[str]]
    body: bytes


class IFetch(Protocol):
    """The one method of `Fetch`, so that tests can do without a network."""

    async def get(self, url: str, headers: Mapping[str, Sequence[str]]) -> Fetched:
        """See `Fetch.get`."""


class Fetch:
    """``timeout``: seconds for all of it. ``most``: questions at once; more hold more memory."""

    def __init__(
        self,
        reactor: Any,
        *,
        timeout: float,
        largest: int = 256 << 10,
        most: int = 256,
        clock: IReactorTime | None = None,
        policy: IPolicyForHTTPS | None = None,
    ) -> None:
        self._clock: IReactorTime = clock or reactor
        self._timeout = timeout
        self._largest = largest
        self._most = most
        self._asking = 0
        trust = policy or BrowserLikePolicyForHTTPS()
        self._connections = ConnectionPool(
            reactor, self._clock, trust, timeout, kept=KEPT, kept_for=KEPT_FOR, repeats=True
        )

    async def get(self, url: str, headers: Mapping[str, Sequence[str]]) -> Fetched:
        """The answer, whatever its status. Raises FetchFailed. ``headers``: latin-1 text."""
        if self._asking >= self._most:
            raise FetchFailed(f"{self._most} questions are waiting already")
        self._asking += 1
        try:
            return await Deferred.fromCoroutine(self._get(url, headers)).addTimeout(self._timeout, self._clock)
        except CancelledError:
            raise
        except TimeoutError:
            raise FetchFailed(f"no answer within {self._timeout:g} s") from None
        except TooLong as problem:
            raise FetchFailed(f"the answer is longer than {problem.largest} bytes") from None
        except Exception as problem:  # the layers below have no common class of errors
            raise FetchFailed(f"{type(problem).__name__}: {one_line(problem)}"[:200]) from problem
        finally:
            self._asking -= 1

    async def _get(self, url: str, headers: Mapping[str, Sequence[str]]) -> Fetched:
        raw = Headers({name.encode(): [line.encode("latin-1") for line in lines] for name, lines in headers.items()})
        response = await self._connections.request("GET", url, raw)
        stream = stream_of(response, self._clock, self._timeout, until_closed=True)
        return Fetched(response.code, all_lines(response), await stream.read_all(self._largest))

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        return self._connections.close()

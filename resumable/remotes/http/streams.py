"""Answers over HTTP whose bodies come piece by piece, at the reader's pace.

One reason to change: how objects travel back. Their connections are apart from those of requests: readers never wait
for parts, nor parts for readers, however slow these are.

Invariant: of one body some `PIECE` is held at most, then the TCP window closes; a body that is given up takes its
connection along; nobody waits longer than a time-out for the next sign of progress.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from resumable.model.telemetry import REQUEST
from resumable.remotes.errors import Transient
from resumable.remotes.http.connections import Endpoints
from resumable.remotes.http.failures import meaning, timed_out
from resumable.remotes.http.watch import Watch
from resumable.remotes.reading import IObjectStream
from resumable.remotes.regions import PIECE

KEPT = 8
"""Idle connections that are kept for the next reader."""
ERROR_SIZE = 64 << 10
"""Bytes of an answer that isn't a success."""


def sent(headers: Mapping[str, str]) -> Headers:
    """What goes out: these, and the id of the request that it is done for."""
    made = Headers({name.encode(): [value.encode("latin-1")] for name, value in headers.items()})
    if not made.hasHeader(b"x-request-id") and (request := REQUEST.get()):
        made.setRawHeaders(b"x-request-id", [request.encode("latin-1")])
    return made


@frozen
class Opened:
    """``headers`` by lower-case name. ``stream`` has the body of a 200 or 206; ``body`` that of any other status."""

    status: int
    headers: Mapping[str, str]
    stream: Stream
    body: bytes = b""


@implementer(IObjectStream)
class Stream(Protocol):
    """The body of one answer. ``seconds``: of silence, while somebody waits, after which it is given up."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._pieces: list[bytes] = []
        self._held = 0
        self._paused = False
        self._waiting: Deferred[bytes] | None = None
        self._watch: Watch | None = None
        self._end: Failure | None = None

    def read(self) -> Deferred[bytes]:
        """See IObjectStream."""
        if self._pieces:
            return succeed(self._take())
        if self._end is not None:
            return succeed(b"") if self._end.check(ResponseDone) else fail(self._end)
        self._waiting = Deferred(lambda _: self.close())
        self._watch = Watch(self._clock, self._seconds)
        self._watch.give_up = self._give_up
        return self._waiting

    def close(self) -> None:
        """See IObjectStream."""
        self._stop(Failure(CancelledError()))

    def _stop(self, reason: Failure) -> None:
        if self._end is None:
            self._ended(reason)
            if self.transport is not None:
                self.transport.stopProducing()  # type: ignore[attr-defined]
        self._pieces.clear()

    def dataReceived(self, data: bytes) -> None:
        if self._end is not None:
            return
        self._pieces.append(data)
        self._held += len(data)
        if self._waiting is not None:
            self._tell(self._take())
        elif self._held >= PIECE and not self._paused:
            self._paused = True
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._ended(reason or Failure(error.ConnectionLost()))

    def _ended(self, reason: Failure) -> None:
        if self._end is None:
            done = reason.check(ResponseDone) is not None
            self._end = reason if done else Failure(meaning(reason.value or error.ConnectionLost()))
            if self._waiting is not None:
                self._tell(b"" if done else self._end)

    def _give_up(self) -> None:
        self._stop(Failure(timed_out(self._seconds)))

    def _tell(self, result: bytes | Failure) -> None:
        waiting, self._waiting = self._waiting, None
        if self._watch is not None:
            self._watch.stop()
        if waiting is not None and not waiting.called:
            waiting.callback(result)

    def _take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if self._paused:
            self._paused = False
            if self._end is None:
                self.transport.resumeProducing()  # type: ignore[union-attr]
        return data


class Streams:
    """Asks for bodies. ``seconds``: of silence after which an answer is given up."""

    def __init__(
        self, reactor: Any, endpoints: Endpoints, clock: IReactorTime, seconds: float, kept_for: float
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._pool = HTTPConnectionPool(reactor, persistent=True)  # repeats a GET on a kept connection that was closed
        self._pool.maxPersistentPerHost = KEPT
        self._pool.cachedConnectionTimeout = kept_for  # type: ignore[assignment]
        self._agent = Agent.usingEndpointFactory(reactor, endpoints, self._pool)

    async def open(self, url: str, headers: Mapping[str, str]) -> Opened:
        """The answer to a GET once its head is in. Raises RemoteError, CancelledError. Its stream is to be closed."""
        asking = self._agent.request(b"GET", url.encode("ascii"), sent(headers))
        watch = Watch(self._clock, self._seconds)
        watch.give_up = asking.cancel
        try:
            response: IResponse = await asking
        except Exception as problem:
            raise timed_out(self._seconds) if watch.expired else meaning(problem) from None
        finally:
            watch.stop()
        stream = Stream(self._clock, self._seconds)
        response.deliverBody(stream)
        got = {
            name.decode("latin-1").lower(): values[0].decode("utf-8", "replace")
            for name, values in response.headers.getAllRawHeaders()
        }
        if isinstance(response.length, int):  # Twisted's client keeps this one to itself
            got["content-length"] = str(response.length)
        if response.code in (200, 206):
            return Opened(response.code, got, stream)
        return Opened(response.code, got, stream, await _small(stream))

    def close(self) -> Deferred[None]:
        """Close what is idle; fires when it is closed."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


async def _small(stream: Stream) -> bytes:
    """All of a body that is small; Transient for one that isn't."""
    found = b""
    try:
        while piece := await stream.read():
            found += piece
            if len(found) > ERROR_SIZE:
                raise Transient("the answer is too long")
        return found
    finally:
        stream.close()

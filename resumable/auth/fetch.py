"""Small GET requests to a server that the operator named.

Reason to change: how such a server is asked. Invariant: every question ends within its time-out, an answer of more than
``largest`` bytes is a failure, no redirect is followed, and only so many are asked at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS


class FetchFailed(Exception):
    """There is no answer; the reason is one line."""


@frozen
class Answer:
    """``headers`` by lower-case name, as latin-1 text."""

    status: int
    headers: Mapping[str, Sequence[str]]
    body: bytes


class IFetch(Protocol):
    """What `Fetch` does, so that tests can do without a network."""

    async def get(self, url: str, headers: Mapping[str, Sequence[str]]) -> Answer:
        """See `Fetch.get`."""


class _Collector(TwistedProtocol):
    """Gathers a body of ``largest`` bytes at most. Who cancels ``done`` gives the connection up."""

    def __init__(self, largest: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._lose())
        self._body = bytearray()
        self._largest = largest

    def dataReceived(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._largest:
            self._lose()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.done.called:  # it was given up, and the connection has ended for that
            return
        if len(self._body) > self._largest:
            self.done.errback(FetchFailed(f"the answer is longer than {self._largest} bytes"))
        elif reason is not None and reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._body))
        else:
            self.done.errback(reason or Failure(error.ConnectionLost()))

    def _lose(self) -> None:
        if self.transport is not None:
            self.transport.stopProducing()  # type: ignore[attr-defined]


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
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 16
        further = {} if policy is None else {"contextFactory": policy}
        self._agent = Agent(reactor, connectTimeout=timeout, pool=self._pool, **further)

    async def get(self, url: str, headers: Mapping[str, Sequence[str]]) -> Answer:
        """Raises FetchFailed. ``headers``: latin-1 text."""
        if self._asking >= self._most:
            raise FetchFailed(f"{self._most} questions are waiting already")
        self._asking += 1
        try:
            return await Deferred.fromCoroutine(self._get(url, headers)).addTimeout(self._timeout, self._clock)
        except (FetchFailed, CancelledError):
            raise
        except TimeoutError:
            raise FetchFailed(f"no answer within {self._timeout:g} s") from None
        except Exception as problem:  # each layer below raises what it likes
            raise FetchFailed(_one_line(problem)) from problem
        finally:
            self._asking -= 1

    async def _get(self, url: str, headers: Mapping[str, Sequence[str]]) -> Answer:
        raw = Headers({name.encode(): [line.encode("latin-1") for line in lines] for name, lines in headers.items()})
        response = await self._agent.request(b"GET", url.encode(), raw)
        collector = _Collector(self._largest)
        response.deliverBody(collector)
        body = await collector.done
        got = {
            name.decode("latin-1").lower(): tuple(line.decode("latin-1") for line in lines)
            for name, lines in response.headers.getAllRawHeaders()
        }
        return Answer(response.code, got, body)

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


def _one_line(problem: BaseException) -> str:
    reasons = getattr(problem, "reasons", None) or ()
    inner = [str(failure.value) or type(failure.value).__name__ for failure in reasons]
    return " ".join(f"{type(problem).__name__}: {'; '.join(inner) or problem}".split())[:200]

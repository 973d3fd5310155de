"""Small GET requests to a server that the operator named: an issuer of keys, or one that decides about access.

Invariant: every question ends within its time-out, an answer of more than ``largest`` bytes is a failure, no redirect
is followed, and only so many are asked at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS

from resumable.httpclient.client import all_lines
from resumable.httpclient.connections import ConnectionPool
from resumable.httpclient.errors import TooLong, one_line
from resumable.httpclient.streams import stream_of

KEPT, KEPT_FOR = 16, 240.0
"""Idle connections, and the seconds for which each is kept."""


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

"""The metrics of all workers of a machine, by whichever of them is asked.

Invariant: a worker that doesn't answer within `PATIENCE` is left out, and counted. Spec: RFC 9112.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.http.admin.api import MetricsSource
from resumable.metrics.merged import merged, parsed

PATIENCE: Final = 1.0
"""Seconds."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

log = Logger()


class _Asked(Protocol):
    """Asks for the metrics, and reads until the other closes: Twisted's agent logs each connection."""

    def __init__(self) -> None:
        self.answer: Deferred[bytes] = Deferred()
        self._parts: list[bytes] = []

    def connectionMade(self) -> None:
        self.transport.write(  # type: ignore[union-attr]
            b"GET /metrics HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n"
        )

    def dataReceived(self, data: bytes) -> None:
        self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answer.called:
            self.answer.callback(b"".join(self._parts))

    def give_up(self) -> None:
        """Wait no longer."""
        if self.transport is not None:
            self.transport.loseConnection()


class _Askers(Factory):
    """Makes them, and says nothing in the log."""

    protocol = _Asked
    noisy = False


def body_of(answer: bytes) -> bytes:
    """The body of a whole answer of status 200. Raises ValueError for any other."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or length is None or int(length[1]) != len(body):
        raise ValueError(f"no whole answer: {head[:40]!r}")
    return body


class MachineMetrics:
    """A `MetricsSource`. ``own``: this worker's; ``number``: its number; ``others``: the paths of the others' sockets
    for operators, by number."""

    def __init__(self, reactor: Any, own: MetricsSource, number: int, others: Mapping[int, str]) -> None:
        self._reactor = reactor
        self._own = own
        self._number = number
        self._others = others

    async def render(self) -> bytes:
        """See `MetricsSource.render`."""
        asked = [Deferred.fromCoroutine(self._ask(path)) for path in self._others.values()]
        found = {self._number: parsed(await self._own.render())}
        answers = zip(self._others, await gatherResults(asked), strict=True)
        found |= {number: families for number, families in answers if families is not None}
        return merged(found, len(self._others) + 1 - len(found))

    async def _ask(self, path: str) -> list[Metric] | None:
        endpoint, link = UNIXClientEndpoint(self._reactor, path, timeout=PATIENCE), None
        try:
            link = await endpoint.connect(_Askers())
            return parsed(body_of(await link.answer.addTimeout(PATIENCE, self._reactor)))
        except Exception as error:
            log.debug("a worker's metrics are not known: {reason}", reason=str(error) or type(error).__name__)
            return None
        finally:
            if link is not None:
                link.give_up()

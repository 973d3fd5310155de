"""The log of requests and their metrics: each request's id, how it ended, how long it took.

Invariants: no byte that a client sends becomes the name of a metric, so that no client can make the metrics grow; no
value of a query gets into the log, as it may be a secret; a request costs a few microseconds here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from twisted.logger import Logger, LogLevel

from resumable.http.origin import Origin
from resumable.http.request import RequestObserver, StreamingRequest
from resumable.masking import masked_target
from resumable.model.telemetry import Tally

METHODS: Final = ("POST", "HEAD", "PATCH", "GET", "DELETE", "OPTIONS")
OTHER: Final = "other"
LOST: Final = "lost"
STATUSES: Final = (LOST, "1xx", "2xx", "3xx", "4xx", "5xx")
"""How a request ended: by the class of its status, or its client was lost before it was answered."""
PROTOCOLS: Final = ("tus", "draft")
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


class MethodCounts:
    """The requests of one method: ``seconds`` they took, ``ended`` as `STATUSES` says."""

    __slots__ = ("ended", "seconds")

    def __init__(self) -> None:
        self.seconds = Tally(SECONDS)
        self.ended = [0] * len(STATUSES)

    def by_status(self) -> list[tuple[str, int]]:
        """How many have ended in which way."""
        return list(zip(STATUSES, self.ended, strict=True))


class ProtocolCounts:
    """The requests of one protocol for uploads, and the bytes of their content that came."""

    __slots__ = ("received", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.received = 0


class RequestLog(RequestObserver):
    """For `StreamingSite`. ``run``: the beginning of the ids that are made here, another one in each run.

    ``level``: at which each request is logged when it has ended; None: not at all.
    """

    log = Logger()

    def __init__(self, origin: Origin, run: str, level: LogLevel | None = None) -> None:
        self._origin = origin
        self._run = run.encode("ascii")
        self._level = level
        self._number = 0
        self._other = MethodCounts()
        self._methods = {name.encode(): MethodCounts() for name in METHODS}
        #: Requests by the protocol that they are of; downloads and others that are of neither aren't here.
        self.protocols: Mapping[str, ProtocolCounts] = {name: ProtocolCounts() for name in PROTOCOLS}

    @property
    def methods(self) -> Mapping[str, MethodCounts]:
        """What was counted, by method; those that aren't in `METHODS` together as `OTHER`."""
        return {**{name.decode(): method for name, method in self._methods.items()}, OTHER: self._other}

    def prepare(self, request: StreamingRequest) -> None:
        """Set the request's id in the answer: the one from its client or a proxy if that is sane, else a new one.

        A new one is put into the request's header too, where other code reads it.
        """
        given = request.requestHeaders.getRawHeaders(b"x-request-id")
        if given is not None and len(given) == 1 and _SANE_ID.fullmatch(given[0]):
            name = given[0]
        else:
            self._number += 1
            name = b"%s-%x" % (self._run, self._number)
            request.requestHeaders.setRawHeaders(b"x-request-id", [name])
        request.set_field(b"x-request-id", name)

    def done(self, request: StreamingRequest, seconds: float) -> None:
        """The request was answered after so long, or its client has gone."""
        method = self._methods.get(request.method, self._other)
        method.seconds.add(seconds)
        method.ended[0 if request.gone else min(request.code // 100, 5)] += 1
        if request.speaks is not None:
            protocol = self.protocols[request.speaks[0]]
            protocol.requests += 1
            protocol.received += request.body.received
        if self._level is not None:
            self._tell(self._level, request, seconds)

    def refused(self, status: int) -> None:
        """What was sent was no request, and was answered with this status."""
        self._other.ended[status // 100] += 1
        if self._level is not None:
            self.log.emit(self._level, "no request: {status}", status=status)

    def _tell(self, level: LogLevel, request: StreamingRequest, seconds: float) -> None:
        self.log.emit(
            level,
            "{peer} {method} {path} {status} {received}+{sent} bytes {seconds:.3f} s {request} {protocol}",
            peer=self._origin.peer(request) or "-",
            method=request.method.decode("latin-1"),
            path=shown(request.uri.decode("latin-1")),
            status=LOST if request.gone else request.code,
            received=request.body.received,
            sent=request.sentLength,
            seconds=seconds,
            request=request.known_as,
            protocol="-" if request.speaks is None else request.speaks[0],
        )


def shown(uri: str) -> str:
    """The URI without the values in its query, and without characters that would break a line."""
    return masked_target(uri).encode("unicode_escape").decode("ascii")[:2000]

"""Readiness: whether a load balancer should send requests to the daemon, and if not, why.

Invariants: it answers within `PATIENCE`, however its checks hang; however often it is asked, they are made once in
`FRESH` seconds, so that nobody keeps a disk busy by asking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from resumable.aio.deferreds import Waiters
from resumable.http.request import StreamingRequest

FRESH: Final = 1.0
PATIENCE: Final = 5.0

Check = Callable[[], Coroutine[Deferred[Any], Any, str | None]]
"""Answers with the problem, in a few words; None without one."""

log = Logger()


class Readiness:
    """``checks`` by name. `stopping` makes it not ready for good."""

    def __init__(self, checks: Mapping[str, Check], clock: IReactorTime) -> None:
        self._checks = checks
        self._clock = clock
        self._found: Mapping[str, str] = {}
        self._looked: float | None = None
        self._looking = False
        self._waiters = Waiters()
        self._stopping = False

    def stopping(self) -> None:
        """The daemon is about to end."""
        self._stopping = True

    def look_again(self) -> None:
        """Something has changed: forget the last result."""
        self._looked = None

    async def wrong(self) -> Mapping[str, str]:
        """The problems by the names of their checks; none: it is ready."""
        if self._stopping:
            return {"stopping": "the daemon is stopping"}
        if self._looking:
            await self._waiters.wait()
        elif self._looked is None or self._clock.seconds() - self._looked >= FRESH:
            self._looking = True
            Deferred.fromCoroutine(self._look())
            return await self.wrong()
        return self._found

    async def _look(self) -> None:
        found = await gatherResults([Deferred.fromCoroutine(self._check(each)) for each in self._checks.values()])
        self._found = {name: wrong for name, wrong in zip(self._checks, found, strict=True) if wrong is not None}
        self._looked = self._clock.seconds()
        self._looking = False
        self._waiters.fire()

    async def _check(self, check: Check) -> str | None:
        try:
            return await Deferred.fromCoroutine(check()).addTimeout(PATIENCE, self._clock)
        except TimeoutError:
            return f"no answer within {PATIENCE:g} s"
        except Exception as error:
            log.failure("a check of readiness failed")
            return type(error).__name__

    # Answers

    async def respond(self, request: StreamingRequest) -> bytes:
        """200 or 503, and a word: for everybody."""
        wrong = await self.wrong()
        return _answer(request, not wrong, b"text/plain; charset=utf-8", b"not ready\n" if wrong else b"ready\n")

    async def respond_fully(self, request: StreamingRequest) -> bytes:
        """200 or 503, and the problems as JSON: for operators."""
        wrong = await self.wrong()
        document = json.dumps({"ready": not wrong, "wrong": dict(wrong)}) + "\n"
        return _answer(request, not wrong, b"application/json", document.encode())


def alive(request: StreamingRequest) -> bytes:
    """200: the reactor turns."""
    return _answer(request, True, b"text/plain; charset=utf-8", b"ok\n")


def _answer(request: StreamingRequest, good: bool, kind: bytes, body: bytes) -> bytes:
    request.setResponseCode(200 if good else 503)
    request.set_field(b"content-type", kind)
    request.set_field(b"cache-control", b"no-store")
    request.set_field(b"content-length", b"%d" % len(body))
    return body

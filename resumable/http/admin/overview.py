"""The daemon's state as documents for operators, and its readiness for a load balancer.

The documents: all of the state, its remotes, a drain, and events that were given up.

Invariants: asking is cheap however often it is done: a readiness check is made once in `FRESH` seconds, and its answer
comes within `PATIENCE`, however a check hangs. No document shows the headers of a client's request, as they may be
secrets. A value that isn't known at the moment is null. Sizes are bytes, spans are seconds, times RFC 3339 in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from resumable.aio.deferreds import Waiters
from resumable.http.request import StreamingRequest
from resumable.http.status import written
from resumable.model.errors import CatalogUnavailable
from resumable.model.listing import UploadState
from resumable.model.outbox import IOutbox, OutboxEvent
from resumable.model.upload import ReplicaState
from resumable.protocol.errors import BadRequest, NotFound
from resumable.replication.remote_queue import RemoteQueue
from resumable.spool import Budget
from resumable.uploads.context import Counts
from resumable.uploads.holds import IHolds
from resumable.uploads.limits import Drain, Space
from resumable.uploads.operators import Census, Count, Operators

log = Logger()

FRESH: Final = 1.0
PATIENCE: Final = 5.0

Check = Callable[[], Coroutine[Deferred[Any], Any, str | None]]
"""Answers with the problem, in a few words; None without one."""


class MeasuredLag(Protocol):
    """The data that a remote lacks."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def seconds(self) -> float:
        """How long the oldest finished upload has waited for it."""


class LagMeter(Protocol):
    """Those of all remotes."""

    async def of(self, name: str) -> MeasuredLag:
        """Raises CatalogUnavailable."""


@frozen
class OverviewSources:
    """The parts of the daemon that are looked at. ``disk``: bytes of the upload directory's disk that are free and in
    use; raises OSError."""

    version: str
    started_at: float
    clock: IReactorTime
    counts: Counts
    drain: Drain
    holds: IHolds
    space: Space
    budget: Budget
    disk: Callable[[], Awaitable[tuple[int, int]]]
    census: Census
    readiness: Readiness
    queues: Mapping[str, RemoteQueue]
    lags: LagMeter | None


class Overview:
    """Makes the documents."""

    def __init__(self, parts: OverviewSources, operators: Operators) -> None:
        self._parts = parts
        self._operators = operators
        self._began = parts.clock.seconds()

    async def status(self) -> dict[str, Any]:
        """The daemon as a whole."""
        parts, counts, counted = self._parts, self._parts.counts, await self._counted()
        wrong = await parts.readiness.wrong()
        return {
            "version": parts.version,
            "started_at": written(parts.started_at),
            "uptime": round(parts.clock.seconds() - self._began, 3),
            "ready": not wrong,
            "wrong": dict(wrong),
            "draining": parts.drain.since is not None,
            "uploads": None if counted is None else {state.value: counted.uploads[state] for state in UploadState},
            "counted_at": None if counted is None else written(counted.at),
            "since_start": {
                "created": counts.created,
                "finished": counts.finished,
                "gone": sum(counts.gone.values()),
            },
            "appending": parts.holds.count,
            "spool": await self._spool(),
            "remotes": await self._remotes(counted),
        }

    async def remotes(self) -> dict[str, Any]:
        """Each remote."""
        return {"remotes": await self._remotes(await self._counted())}

    async def drain(self) -> dict[str, Any]:
        """Whether no upload may begin, and how much is left of the uploads that have begun."""
        since, left = self._parts.drain.since, await self._operators.left()
        return {
            "draining": since is not None,
            "since": written(since),
            "unfinished": left.unfinished,
            "appending": left.appending,
            "replicas": dict(left.replicas),
        }

    async def _spool(self) -> dict[str, Any]:
        parts = self._parts
        try:
            free, used = await parts.disk()
        except OSError:
            free = used = None  # type: ignore[assignment]
        return {"free": free, "used": used, "reserve": parts.space.reserve, "queued": parts.budget.used}

    async def _remotes(self, counted: Count | None) -> list[dict[str, Any]]:
        return [await self._remote(name, queue, counted) for name, queue in self._parts.queues.items()]

    async def _remote(self, name: str, queue: RemoteQueue, counted: Count | None) -> dict[str, Any]:
        behind = await self._behind(name)
        return {
            "name": name,
            "required": queue.remote.required,
            "state": "down" if queue.down else "up",
            "next_try": queue.pause if queue.down else None,
            "active": queue.active,
            "queued": queue.queued,
            "lag": None if behind is None else {"bytes": behind.size, "seconds": behind.seconds},
            "replicas": None
            if counted is None
            else {state.value: counted.replicas[name, state] for state in ReplicaState},
            "since_start": {
                "parts": queue.counts.parts,
                "bytes": queue.counts.bytes,
                "stored": queue.counts.stored,
                "parked": queue.counts.parked,
                "retries": queue.counts.retries,
                "outages": queue.counts.opened,
                "failures": dict(queue.counts.failures),
            },
        }

    async def _behind(self, name: str) -> MeasuredLag | None:
        try:
            return None if self._parts.lags is None else await self._parts.lags.of(name)
        except CatalogUnavailable:
            return None

    async def _counted(self) -> Count | None:
        try:
            return await self._parts.census.known()
        except CatalogUnavailable:
            return None


AT_ONCE = 100


class DeadEvents:
    """``hooks``: whose events are in the outbox. ``wake``: those that were dead wait again."""

    def __init__(self, outbox: IOutbox, hooks: Sequence[str], wake: Callable[[], None]) -> None:
        self._outbox = outbox
        self._hooks = hooks
        self._wake = wake

    async def summary(self) -> dict[str, Any]:
        """How many wait and are dead, for each hook."""
        found = {}
        for hook in self._hooks:
            depth = await self._outbox.depth(hook)
            found[hook] = {"waiting": depth.waiting, "dead": depth.dead, "oldest": written(depth.oldest)}
        return {"hooks": found}

    async def listed(self, hook: str, after: str) -> dict[str, Any]:
        """The next `AT_ONCE` dead ones behind the number ``after``. Raises NotFound, BadRequest."""
        self._check(hook)
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            raise BadRequest("after is the number of an event.")
        events = await self._outbox.dead(hook, int(after), AT_ONCE)
        more = events[-1].seq if len(events) == AT_ONCE else None
        return {"dead": [_shown(event) for event in events], "next": more}

    async def replay(self, hook: str) -> dict[str, Any]:
        """All of them wait again. Raises NotFound."""
        self._check(hook)
        count = await self._outbox.replay(hook, None)
        self._wake()
        return {"replayed": count}

    def _check(self, hook: str) -> None:
        if hook not in self._hooks:
            raise NotFound("There is no such hook.")


def _shown(event: OutboxEvent) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "upload": event.fact.upload_id,
        "event": event.fact.kind.value,
        "time": written(event.fact.at),
        "attempts": event.attempts,
        "error": event.error,
        "dead_since": written(event.dead_at),
    }


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

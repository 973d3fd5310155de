"""Progress events: hooks hear now and then how far a running upload is.

Invariants: nothing here is durable, and nothing waits for it. Of one upload at most one event goes in each interval,
and one at a time; at most `MOST` are under way in all, more are left out. Uploads whose event failed get at most half
of these places, and the longer it took the more seldom; those of one client get three quarters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from resumable.aio.deferreds import TaskGroup, Timer
from resumable.hooks.ask import check_stop, refused
from resumable.hooks.calls import Count, HookCalls, count_nothing
from resumable.hooks.interfaces import Event, EventKind, IWatcher
from resumable.hooks.turns import Shares, event_owner
from resumable.model.hooks import Arrived, IProgress
from resumable.protocol.errors import Refused

log = Logger()
Look = Callable[[], Arrived | None]

MOST = 32
"""Events under way at once, of all uploads."""

EARLY = 0.001
"""A timer may be early by so much: times are no exact numbers."""

MANY = 10_000
"""Uploads whose last event is known to have failed, at most."""

REST = 5
"""An upload whose event failed is left alone for so many times as long as that took."""

LEAST_REST = 5.0
"""Seconds of that at least."""


@frozen
class Watcher:
    """A hook that hears of progress. ``name``: in logs and metrics. ``target``: its kind and place, for logs."""

    name: str
    hook: IWatcher
    target: str = ""


@implementer(IProgress)
class ProgressEvents:
    """``stop`` is called with an upload's id and the answer to its client, when a hook wants the upload ended.

    ``interval``: seconds between two events of one upload. ``timeout``: of one event.
    """

    def __init__(
        self,
        watchers: Sequence[Watcher],
        stop: Callable[[str, Refused], None],
        *,
        clock: IReactorTime,
        wall: Callable[[], float],
        interval: float = 1.0,
        timeout: float = 10.0,
        count: Count = count_nothing,
    ) -> None:
        self._watchers = tuple(watchers)
        self._stop = stop
        self._clock = clock
        self._wall = wall
        self._interval = interval
        self._told: OrderedDict[str, float] = OrderedDict()  # when, the first of them first
        self._waiting: dict[str, Look] = {}  # uploads of which more has come in the same interval
        self._timer = Timer(clock, self._interval_over)
        self._busy: dict[str, int] = {}  # uploads with events under way, and how many
        self._resting: dict[str, float] = {}  # uploads whose last event failed: until then
        self._repeating = 0  # events under way of such uploads
        self._under_way = TaskGroup(lambda failure: log.failure("a progress event failed unexpectedly", failure))
        self._shares = Shares(MOST)
        self._calls = {
            each.name: HookCalls(each.name, each.target, clock=clock, timeout=timeout, count=count) for each in watchers
        }

    def arrived(self, upload_id: str, look: Look) -> None:
        """See `IProgress.arrived`."""
        if not self._watchers or upload_id in self._waiting:
            return
        if upload_id in self._told:
            self._waiting[upload_id] = look
        else:
            self._note(upload_id, look)

    def _rearm(self) -> None:
        """One timer for all uploads: they wait equally long, so the first of them is the next."""
        if self._told and not self._timer.pending:
            at = next(iter(self._told.values())) + self._interval
            self._timer.set(max(0.0, at - self._clock.seconds()))

    def _interval_over(self) -> None:
        again = []
        while self._told and next(iter(self._told.values())) + self._interval <= self._clock.seconds() + EARLY:
            upload_id, _ = self._told.popitem(last=False)
            if (look := self._waiting.pop(upload_id, None)) is not None:
                again.append((upload_id, look))
        for upload_id, look in again:
            self._note(upload_id, look)
        self._rearm()

    def _note(self, upload_id: str, look: Look) -> None:
        arrived = look() if self._may(upload_id) else None
        if arrived is None:
            return
        now = self._wall()
        self._told[upload_id] = self._clock.seconds()
        self._rearm()
        owner = event_owner(arrived.upload.identity, "" if arrived.request is None else arrived.request.address)
        if self._shares.next([owner]) is None:
            return
        # bytes that arrived and were lost come again, so their number alone is no key
        key = f"evt_{upload_id}_progress_{arrived.received}_{int(1000 * now)}"
        event = Event(key, EventKind.PROGRESS, now, arrived.upload, arrived.request, {"received": arrived.received})
        self._busy[upload_id] = len(self._watchers)
        repeats = upload_id in self._resting
        for watcher in self._watchers:
            self._repeating += repeats
            self._shares.take(owner)
            telling = Deferred.fromCoroutine(self._tell(watcher, event))
            self._under_way.start(telling.addBoth(self._done, upload_id, owner, repeats))

    def _may(self, upload_id: str) -> bool:
        """Whether there is a place for it now."""
        if upload_id in self._busy or len(self._under_way) + len(self._watchers) > MOST:
            return False
        until = self._resting.get(upload_id)
        return until is None or (until <= self._clock.seconds() and self._repeating < MOST // 2)

    async def stop(self) -> None:
        """Cancel the events that are under way, and begin no more."""
        self._watchers = ()
        self._waiting.clear()
        self._timer.clear()
        self._under_way.cancel()
        await self._under_way.ended()

    def _done(self, result: object, upload_id: str, owner: str, repeats: bool) -> object:
        self._shares.give_back(owner)
        self._repeating -= repeats
        self._busy[upload_id] -= 1
        if not self._busy[upload_id]:
            del self._busy[upload_id]
        return result

    def _rest(self, upload_id: str, seconds: float) -> None:
        if len(self._resting) >= MANY:
            del self._resting[next(iter(self._resting))]
        self._resting[upload_id] = self._clock.seconds() + seconds

    async def _tell(self, watcher: Watcher, event: Event) -> None:
        began = self._clock.seconds()
        try:
            said = await self._calls[watcher.name].call_and_log(watcher.hook.watch, event, check_stop)
        except CancelledError:
            return
        except Exception:
            self._rest(event.upload.id, max(REST * (self._clock.seconds() - began), LEAST_REST))
            return
        self._resting.pop(event.upload.id, None)
        if said is not None:
            context = {"hook": watcher.name, "target": watcher.target, "upload": event.upload.id}
            log.info("hook {hook} ({target}) ends upload {upload}", **context)
            self._stop(event.upload.id, refused(said))

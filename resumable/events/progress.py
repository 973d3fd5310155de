"""How running uploads get on, told now and then.

One reason to change: how often, and to whom. Invariants: nothing here is durable, and nothing waits for it; of one
upload at most one event goes in each interval, and at most `MOST` are under way in all: more are left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from resumable.events.bounded import in_time
from resumable.events.counts import Count, count_nothing
from resumable.events.guards import log_failure, refused
from resumable.events.interfaces import Event, EventKind, IWatcher
from resumable.events.verdicts import check_stop
from resumable.hooks import IProgress, RequestView, UploadView
from resumable.protocol.errors import Refused

MOST = 32


@frozen
class Watcher:
    """A hook, its name for logs and figures, and what it is, for logs."""

    name: str
    hook: IWatcher
    target: str = ""


@implementer(IProgress)
class Progress:
    """``stop`` is called with an upload's id and what its client is told, when a hook wants it ended.

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
        self._timeout = timeout
        self._count = count
        self._told: OrderedDict[str, float] = OrderedDict()
        self._under_way: set[Deferred[None]] = set()

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return bool(self._watchers)

    def due(self, upload_id: str) -> bool:
        """See IProgress."""
        if not self._watchers or len(self._under_way) + len(self._watchers) > MOST:
            return False
        now = self._clock.seconds()
        while self._told and next(iter(self._told.values())) + self._interval <= now:
            self._told.popitem(last=False)
        return upload_id not in self._told

    def note(self, upload: UploadView, request: RequestView | None = None) -> None:
        """See IProgress."""
        if not self.due(upload.id):
            return
        self._told[upload.id] = self._clock.seconds()
        key = f"evt_{upload.id}_progress_{upload.offset}"
        event = Event(key, EventKind.PROGRESS, self._wall(), upload, request)
        for watcher in self._watchers:
            telling = Deferred.fromCoroutine(self._tell(watcher, event))
            self._under_way.add(telling)
            telling.addBoth(self._done, telling)

    async def stop(self) -> None:
        """Cancel what is under way, and tell nothing more."""
        self._watchers = ()
        for each in tuple(self._under_way):
            each.cancel()
        await DeferredList(tuple(self._under_way))

    def _done(self, result: object, telling: Deferred[None]) -> object:
        self._under_way.discard(telling)
        return result

    async def _tell(self, watcher: Watcher, event: Event) -> None:
        kind, began = event.kind.value, self._clock.seconds()
        try:
            said = check_stop(await in_time(self._clock, self._timeout, watcher.hook.watch, event))
        except CancelledError:
            return
        except Exception as error:
            self._count(watcher.name, kind, "failed", self._clock.seconds() - began)
            log_failure(watcher.name, watcher.target, kind, event.upload.id, error)
            return
        self._count(watcher.name, kind, "refused" if said else "ok", self._clock.seconds() - began)
        if said is not None:
            self._stop(event.upload.id, refused(said))

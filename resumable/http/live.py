"""Documents that are watched: who watches which, when they are looked at, and what each watcher is sent.

One ticker looks at all of them: what several watch is looked up and encoded once. Invariants: the ticker runs only
while somebody watches; all watchers together are sent about `EVENTS` events a second, and looking takes one part in
`SHARE` of the time at most. A watcher that reads slowly holds one event, and gets the newest document when it has read
that. No stream outlives `LIFE`, as its client's access may have ended; at a stop all end at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from resumable.aio.deferreds import Timer
from resumable.http import events
from resumable.http.request import StreamingRequest
from resumable.protocol.errors import TusError

log = Logger()

EVERY: Final = 0.5
"""Seconds between two looks, at the least."""
EVENTS: Final = 1000
"""Events a second, about, to all watchers: where there are more than 500 of them, each gets fewer than two."""
SHARE: Final = 20
SLOWEST: Final = 10.0
"""Seconds between two looks, at the most, beside the time that looking takes."""
BEAT: Final = 15.0
"""Seconds of silence after which a watcher is sent a heartbeat. Proxies cut silent connections off after 60, or 30."""
LIFE: Final = 3600.0

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
S = TypeVar("S", contravariant=True)


class Topic(Protocol[S]):
    """One document, as events."""

    over: bool
    """It won't change again."""

    def update(self, found: S | None) -> bytes | None:
        """It is this now; None: it is there no more. The events that tell what has changed; None: nothing has."""

    def whole(self, seen: bytes) -> bytes:
        """The events that tell all of it. ``seen``: the id of the last event that the watcher has had."""


class WatchedKind(Generic[K, V]):
    """Documents of one kind. ``look``: answers them as they are, by their keys. ``topic``: begins to follow one."""

    def __init__(
        self, look: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], topic: Callable[[K, V], Topic[V]]
    ) -> None:
        self.look = look
        self.topic = topic
        self.rooms: dict[K, Room] = {}
        self.looking = False
        self.due = 0.0


class Room:
    """A topic and its watchers. ``version`` counts its changes; ``change`` tells the last one."""

    def __init__(self, topic: Topic[Any]) -> None:
        self.topic = topic
        self.watchers: set[EventStream] = set()
        self.version = 0
        self.change = b""
        self._whole: tuple[int, bytes, bytes] | None = None

    def whole(self, seen: bytes = b"") -> bytes:
        """See `Topic.whole`; made once for each version."""
        if self._whole is None or self._whole[:2] != (self.version, seen):
            self._whole = (self.version, seen, self.topic.whole(seen))
        return self._whole[2]


@implementer(IPushProducer)
class EventStream:
    """One client's stream. ``ended`` fires when nothing more is to be sent."""

    def __init__(self, request: StreamingRequest, room: Room, now: float) -> None:
        self.ended: Deferred[None] = Deferred()
        self.room = room
        self.until = now + LIFE
        self.written = now
        self._request = request
        self._seen = -1
        self._paused = False

    def begin(self, seen: bytes) -> None:
        """Send the head and the document as it is."""
        self._request.write(events.RETRY + self.room.whole(seen))
        self._seen = self.room.version
        self._request.registerProducer(self, True)  # type: ignore[no-untyped-call]
        self._end_with_topic()

    def tell(self, now: float) -> None:
        """Send what has changed; all of it, if some changes were missed."""
        room = self.room
        if not (self._paused or self.ended.called) and self._seen != room.version:
            missed = self._seen != room.version - 1
            self._seen, self.written = room.version, now
            self._request.push(room.whole() if missed else room.change)
            self._end_with_topic()

    def beat(self, now: float) -> None:
        """Show that the connection lives, unless something else has; end a stream that has lasted too long."""
        if now >= self.until:
            self.end()
        elif not self._paused and now - self.written >= BEAT:
            self.written = now
            self._request.push(events.HEARTBEAT)

    def _end_with_topic(self) -> None:
        if self.room.topic.over and not self._paused:
            self.end()

    def end(self) -> None:
        """Nothing more is sent."""
        if not self.ended.called:
            self.ended.callback(None)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if not self.ended.called:
            self.tell(self.written)
            self._end_with_topic()

    def stopProducing(self) -> None:
        self._paused = True
        self.end()


class Live:
    """The streams of one process."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._ticking = Timer(clock, self._tick)
        self._sources: set[WatchedKind[Any, Any]] = set()
        self._count = 0
        self._beaten = 0.0

    @property
    def watchers(self) -> int:
        """How many there are."""
        return self._count

    async def stream(self, request: StreamingRequest, source: WatchedKind[K, V], key: K, first: V) -> bytes:
        """Answer with events until the client has gone or nothing more comes. ``first``: the document as it is."""
        seen = (request.requestHeaders.getRawHeaders(b"last-event-id") or [b""])[0]
        request.set_field(b"cache-control", b"no-store")
        if seen == events.LAST:  # "Clients ... can be told to stop reconnecting using the HTTP 204 No Content"
            request.setResponseCode(204)
            return b""
        request.setResponseCode(200)
        request.set_field(b"content-type", events.CONTENT_TYPE)
        request.set_field(b"x-content-type-options", b"nosniff")
        request.set_field(b"x-accel-buffering", b"no")
        room = source.rooms.get(key)
        if room is None:
            room = source.rooms[key] = Room(source.topic(key, first))
        watcher = EventStream(request, room, self._clock.seconds())
        await self._watch(request, source, key, watcher, seen)
        return b""

    async def _watch(
        self, request: StreamingRequest, source: WatchedKind[K, V], key: K, watcher: EventStream, seen: bytes
    ) -> None:
        stops, room = request.channel.site.at_stop, watcher.room
        room.watchers.add(watcher)
        self._sources.add(source)
        self._count += 1
        stops.add(watcher.end)
        if not self._ticking.pending:
            self._beaten = self._clock.seconds()
            self._ticking.set(EVERY)
        try:
            watcher.begin(seen)
            if not request.channel.site.stopping:
                await watcher.ended
        finally:
            stops.discard(watcher.end)
            room.watchers.discard(watcher)
            self._count -= 1
            if not room.watchers and source.rooms.get(key) is room:
                del source.rooms[key]
            if not source.rooms:
                self._sources.discard(source)
            if not self._sources:
                self._ticking.clear()
            if not request.gone:
                request.unregisterProducer()  # type: ignore[no-untyped-call]

    def _tick(self) -> None:
        """Look at all that is due."""
        now = self._clock.seconds()
        self._ticking.set(max(EVERY, self._count / EVENTS))
        for source in [each for each in self._sources if not each.looking and each.due <= now]:
            source.looking = True
            Deferred.fromCoroutine(self._look(source))
        if now - self._beaten >= BEAT / 5:
            self._beaten = now
            for room in [room for source in self._sources for room in source.rooms.values()]:
                for watcher in list(room.watchers):
                    watcher.beat(now)

    async def _look(self, source: WatchedKind[Any, Any]) -> None:
        """Look at what is watched of one kind. What can't be looked at now is looked at later."""
        began, rooms = self._clock.seconds(), dict(source.rooms)
        try:
            found = await source.look(list(rooms))
            for key, room in rooms.items():
                self._show(room, found.get(key))
        except TusError as error:
            log.debug("watched documents can't be looked at now: {reason}", reason=str(error))
        except Exception:
            log.failure("watched documents can't be looked at")
        finally:
            now = self._clock.seconds()
            source.due = now + min(SLOWEST, SHARE * (now - began))
            source.looking = False

    def _show(self, room: Room, found: Any) -> None:
        if room.topic.over:
            return
        change = room.topic.update(found)
        if change is not None:
            room.version += 1
            room.change = change
            now = self._clock.seconds()
            for watcher in list(room.watchers):
                watcher.tell(now)

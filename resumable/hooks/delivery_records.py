"""The outbox records which events have arrived, have failed, or are dead.

Invariant: an event whose record fails is left as it was, and comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred

from resumable.aio.deferreds import TaskGroup
from resumable.hooks.due_events import DueEvents
from resumable.model.outbox import IOutbox, OutboxEvent

T = TypeVar("T")


class DeliveryRecords:
    """Records for one deliverer. ``due`` forgets each event that is recorded, or comes again.

    ``work`` gets the work under way. ``changed`` is called after it, ``on_failure`` with the error of a failed record.
    """

    def __init__(
        self,
        outbox: IOutbox,
        due: DueEvents,
        work: TaskGroup,
        changed: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._outbox = outbox
        self._due = due
        self._work = work
        self._changed = changed
        self._on_failure = on_failure
        self._arrived: list[tuple[OutboxEvent, Deferred[OutboxEvent | None]]] = []
        self._is_recording = False

    def arrived(self, event: OutboxEvent) -> Deferred[OutboxEvent | None]:
        """Fires once that is recorded, or can't be; with the event of its upload that may go now."""
        recorded: Deferred[OutboxEvent | None] = Deferred()
        self._arrived.append((event, recorded))
        if not self._is_recording:
            self._is_recording = True
            self._work.start(Deferred.fromCoroutine(self._record()).addBoth(self._recorded))
        return recorded

    async def failed(self, event: OutboxEvent, reason: str, retry_at: float) -> None:
        """The event failed, and comes again at that time of day."""
        await self._change(lambda: self._outbox.failed(event.seq, reason, retry_at))
        self._due.release([event])

    async def dead(self, event: OutboxEvent, reason: str, at: float) -> OutboxEvent | None:
        """The event is dead since that time of day. Returns the event of its upload that may go now."""
        behind = await self._gone([event], lambda: self._outbox.bury(event.seq, reason, at))
        return behind.get(event.fact.upload_id)

    async def _record(self) -> None:
        """One commit for all events that arrived while the last commit was on its way."""
        while self._arrived:
            batch, self._arrived = self._arrived, []
            events = [event for event, _ in batch]
            behind = await self._gone(events, partial(self._outbox.delivered, [event.seq for event in events]))
            for event, recorded in batch:
                recorded.callback(behind.get(event.fact.upload_id))

    def _recorded(self, result: T) -> T:
        self._is_recording = False
        self._changed()
        return result

    async def _gone(
        self, events: Sequence[OutboxEvent], change: Callable[[], Deferred[Sequence[OutboxEvent]]]
    ) -> dict[str, OutboxEvent]:
        """Record with ``change`` that these events won't go again. Returns the events behind them, by upload."""
        found = await self._change(change)
        if found is None:
            self._due.release(events)
            return {}
        behind = {event.fact.upload_id: event for event in found}
        self._due.replace(events, behind)
        return behind

    async def _change(self, change: Callable[[], Deferred[T]]) -> T | None:
        """None: the change can't be recorded."""
        try:
            return await change()
        except Exception as error:
            self._on_failure(error)
            return None

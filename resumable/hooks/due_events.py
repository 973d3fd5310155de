"""The events that may go to one hook next, taken from the outbox, and the record there of each delivery.

Invariants: however many events of one owner wait in the outbox, new ones of others are found behind them, and the
owner's newest; however many owners there are, a few thousand events are here. Of one upload at most one event is here
or under way. An event that could go is behind all that was read, or its owner is known to have left some from there on.
An event whose record fails is left as it was, and comes again.
`resumable.hooks.turns` gives the order in which they go.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from resumable.aio.deferreds import TaskGroup
from resumable.hooks.turns import EventTurns, owner_of
from resumable.model.outbox import IOutbox, OutboxEvent

T = TypeVar("T")

FETCH = 64
"""Events taken from the outbox at once: more is more memory, less is more questions to the catalog. So many new ones
of one owner are here, at most, half of them the oldest and half the newest, and as many that have failed."""

SLOW = 16
"""So many events of an owner that hangs are here, at most: they go slowly."""

READ_AHEAD = 2048
"""In one look back at most so many events are read, once a second. With more than so many here each owner keeps one;
with twice as many no more are read."""

NOBODY = "\0"
"""Stands for an owner that has no event here."""

LATE = 10
"""Where several workers write, a commit may be so many seconds late: events of lower numbers then come after it."""

HANGING = 4096
"""So many owners are remembered as hanging, at most."""


class DueEvents:
    """The events of one deliverer that are here; ``turns`` holds them.

    ``places``: how many go at once. ``wall`` gives the time of day for the outbox, ``clock`` measures.
    """

    def __init__(
        self, deliverer: str, outbox: IOutbox, places: int, clock: IReactorTime, wall: Callable[[], float]
    ) -> None:
        self.turns = EventTurns(places)
        self._deliverer = deliverer
        self._outbox = outbox
        self._clock = clock
        self._wall = wall
        self._taken: dict[str, OutboxEvent] = {}  # by upload: it is here, under way, or not yet recorded
        self._overtaken: dict[str, OutboxEvent] = {}  # by upload: older than the taken one, replayed since
        self._stale_new = self._stale_failed = True  # there may be such events that were not looked for since
        self._looked = 0.0  # when failed ones, or many new ones, were last read
        self._read = OutboxPosition()
        self._were = deque([0], LATE)  # how far it was read, each second
        self._was_at = 0.0  # when that was last noted

    def hung(self, event: OutboxEvent) -> None:
        """The event got no answer in time: its owner hangs, until one of their events gets an answer."""
        owner = owner_of(event)
        if owner not in self.turns.hanging:
            if len(self.turns.hanging) >= HANGING:
                self._answers(next(iter(self.turns.hanging)))
            self._line_up(self.turns.hangs(owner))

    def answered(self, event: OutboxEvent) -> None:
        """The event got an answer, were it an error: its owner hangs no longer."""
        if self.turns.hanging:
            self._answers(owner_of(event))

    def _answers(self, owner: str) -> None:
        if owner in self.turns.hanging:
            self._line_up(self.turns.answers(owner))

    def _line_up(self, events: Iterable[OutboxEvent]) -> None:
        for event in events:
            self.add(event)

    def _most(self, owner: str) -> int:
        """How many events of the owner may be here, of those that have failed and of the others."""
        if len(self._taken) > READ_AHEAD:
            return 1
        return SLOW if owner in self.turns.hanging else FETCH

    def look(self, *, anew: bool = False) -> None:
        """The outbox may hold more, behind all that was read; ``anew``: anywhere."""
        self._stale_new = self._stale_failed = True
        self._read.anew |= anew

    def look_back(self) -> None:
        """The outbox may hold more, also behind the place to which it was read `LATE` seconds ago."""
        self.look()
        self._read.leave(NOBODY, self._were[0] + 1)
        if self._is_later_than(self._was_at):
            self._was_at = self._clock.seconds()
            self._were.append(self._read.reached)

    def release(self, events: Iterable[OutboxEvent]) -> None:
        """These events are neither here nor under way any more: they, or others of their uploads, may be due."""
        for event in events:
            self._pass_over(event)
        self._stale_failed = True

    def _pass_over(self, event: OutboxEvent) -> None:
        self._forget(event)
        self._read.leave(owner_of(event), event.seq)

    def _forget(self, event: OutboxEvent) -> None:
        del self._taken[event.fact.upload_id]
        overtaken = self._overtaken.pop(event.fact.upload_id, None)
        if overtaken is not None:
            self._read.leave(owner_of(overtaken), overtaken.seq)

    def replace(self, arrived: Iterable[OutboxEvent], behind: Mapping[str, OutboxEvent]) -> None:
        """Forget these for good. The events ``behind`` them, by upload, are taken; each has to be added, or sent."""
        for event in arrived:
            self._forget(event)
        self._taken.update(behind)
        self._stale_failed = True

    def drop(self) -> None:
        """Let all that wait here be chosen anew, and no owner hang."""
        self.release(self.turns.clear())

    @property
    def looks_again(self) -> bool:
        """Whether the outbox has to be asked again in a second."""
        return not self.turns.one_at_a_time and (self._stale_failed or self._has_older())

    def _has_older(self) -> bool:
        """Whether some owner may have new events in the outbox that are older than theirs here."""
        return any(map(self._has_older_in_outbox, self._read.left))

    def _has_older_in_outbox(self, owner: str) -> bool:
        fresh = self.turns.fresh(owner)
        return owner not in fresh or fresh.of(owner)[0].seq > self._read.left[owner]

    @property
    def is_wanting(self) -> bool:
        """Whether `fetch` would ask the outbox for something."""
        new, failed, _ = self._wanted()
        return bool(new or failed)

    def _wanted(self) -> tuple[int, int, bool]:
        """How many new events to fetch, how many that have failed, and whether the new ones are read from further back.

        While they go one at a time, each is chosen when its turn comes."""
        if len(self._taken) >= 2 * READ_AHEAD:
            return 0, 0, False
        most = 1 if self.turns.one_at_a_time else FETCH
        if self.turns.failed:  # perhaps all of one owner, that hang, before those of others
            failed = READ_AHEAD if self._stale_failed and self._is_later() and self.turns.no_failed_may_go else 0
        else:  # while there are some here, each that arrives is no reason to look
            failed = most if self._stale_failed and (self._is_later() or not self.turns.new) else 0
        waits = self.turns.somebody_waits
        if self._is_to_go_back(waits):
            return READ_AHEAD if waits else most, failed, True
        return most if self._stale_new and not (self.turns.one_at_a_time and waits) else 0, failed, False

    def _is_later(self) -> bool:
        return self._is_later_than(self._looked)

    def _is_later_than(self, at: float) -> bool:
        return self._clock.seconds() >= at + 1

    def _is_to_go_back(self, somebody_waits: bool) -> bool:
        """Whether events that were passed over have to be read; else, those behind all that were read."""
        if self._read.anew:
            return self._stale_new
        return self._has_older() and ((self._is_later() and not self.turns.one_at_a_time) or not somebody_waits)

    async def fetch(self) -> list[OutboxEvent]:
        """Take events that are due; each still has to be added. Fails as `IOutbox.due` does."""
        new, failed, goes_back = self._wanted()
        taken = frozenset(self._taken)  # an event that is released meanwhile may still be in the answer
        read, after = self._read, 0
        if new:
            if taken:  # else nothing here hides anything
                after = read.after(self._has_older_in_outbox) if goes_back else read.reached
            new += sum(event.seq > after for event in self._taken.values())
            self._read = OutboxPosition()
        failed = failed and failed + len(taken)
        self._stale_new &= not new
        if failed or new >= READ_AHEAD:
            self._looked = self._clock.seconds()
        self._stale_failed &= not failed
        try:
            found = await self._outbox.due(self._deliverer, self._wall(), new, failed, after)
        except Exception:
            self._read.anew = True
            raise
        count = sum(not event.attempts for event in found)
        self._stale_new |= count >= new > 0
        self._stale_failed |= len(found) - count >= failed > 0
        if new:
            self._read.go_on(read, after, found[count - 1].seq if count else after, full=count >= new)
        return self._chosen(found, taken)

    def _chosen(self, found: Sequence[OutboxEvent], taken: frozenset[str]) -> list[OutboxEvent]:
        """Take these, except those of uploads that were taken, and failed ones of owners that have enough of them."""
        chosen, counts = [], Counter[str]()
        for event in found:
            if event.fact.upload_id in taken:
                here = self._taken.get(event.fact.upload_id)
                if here is None:  # its upload became free meanwhile
                    self._read.leave(owner_of(event), event.seq)
                elif event.seq < here.seq:  # it was replayed, and goes once that one is neither here nor under way
                    self._overtaken[event.fact.upload_id] = event
                continue
            if event.attempts:
                owner = owner_of(event)
                if counts[owner] + self.turns.failed.count(owner) >= self._most(owner):
                    continue
                counts[owner] += 1
            self._taken[event.fact.upload_id] = event
            chosen.append(event)
        return chosen

    def add(self, event: OutboxEvent) -> None:
        """Let the event wait for its turn. Of an owner with too many, one between oldest and newest is passed over."""
        owner = owner_of(event)
        if event.attempts:
            self.turns.failed.add(owner, event)
            return
        kind = self.turns.fresh(owner)
        kind.add(owner, event)
        count = kind.count(owner)
        if count > self._most(owner):
            self._pass_over(kind.leave(owner, count // 2))


class OutboxPosition:
    """How far the outbox was read for new events: up to ``reached``, without those that some owners have ``left``.

    ``left``: by owner, the number from which on there may be such. ``anew``: it has to be read from the start."""

    def __init__(self) -> None:
        self.reached = 0
        self.left: dict[str, int] = {}
        self.anew = False

    def leave(self, owner: str, seq: int) -> None:
        """The owner may have some from this number on."""
        self.left[owner] = min(seq, self.left.get(owner, seq))

    def after(self, wanted_of: Callable[[str], bool]) -> int:
        """The number behind which to read again, for the owners that ``wanted_of`` names."""
        return 0 if self.anew else min((seq - 1 for owner, seq in self.left.items() if wanted_of(owner)), default=0)

    def go_on(self, before: OutboxPosition, after: int, last: int, *, full: bool) -> None:
        """Add the position ``before`` all from ``after`` to ``last`` was read, and if that wasn't ``full``, all behind.

        Events that were left since then stay so: they may have come too late to be found."""
        reached = 0 if before.anew else before.reached
        for owner, seq in before.left.items():
            if seq <= after or (full and seq > last):
                self.leave(owner, seq)
            elif full and last < reached:
                self.leave(owner, last + 1)
        self.reached = max(reached, last)


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

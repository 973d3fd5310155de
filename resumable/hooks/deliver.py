"""Events are delivered to one hook, until each has arrived or is dead.

Invariants: an event is forgotten only after its hook has said that it arrived, so each arrives at least once, across
crashes too. The same row of the outbox always gives the same event, and no other row of this catalog gives one with its
id. Of one upload at most one event is under way, the oldest; an event that fails holds up its own upload alone, however
many fail and however slowly (see `resumable.hooks.turns`). When events of several uploads could not reach the hook, and
there was no answer since, only one at a time goes, with pauses, the one that failed least often: a receiver that is
down costs little, however much waits for it. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import TaskGroup, Timer
from resumable.hooks.calls import Count, HookCalls, count_nothing, reason_of
from resumable.hooks.due_events import DeliveryRecords, DueEvents
from resumable.hooks.interfaces import Event, EventKind, HookFailed, IHook
from resumable.hooks.retry_policy import LONGEST_OUTAGE_PAUSE, Outage, RetryPolicy, SendingRate
from resumable.hooks.turns import Turn, owner_of
from resumable.model.errors import CatalogUnavailable
from resumable.model.hooks import from_data
from resumable.model.outbox import IOutbox, OutboxEvent
from resumable.model.telemetry import REQUEST

log = Logger()

T = TypeVar("T")

LONGEST_SLEEP = 60.0
"""The outbox is looked at again after this, even if a wall clock that was set back says later."""

LONGEST_RETRY_AFTER = 86400.0
"""A hook that asks for a longer pause gets this one."""

CATALOG_PAUSE = 5.0
"""After this the outbox is asked again, when the catalog has failed."""

MAX_ERROR = 300
"""Characters of a failure's reason that are kept in the outbox."""


class Deliverer:
    """Delivers the events of one hook. ``wall`` gives the time of day for the outbox, ``clock`` measures.

    ``target``: the hook's kind and place, for the log."""

    def __init__(
        self,
        name: str,
        hook: IHook,
        outbox: IOutbox,
        *,
        clock: IReactorTime,
        wall: Callable[[], float],
        rng: Random,
        policy: RetryPolicy | None = None,
        kinds: frozenset[EventKind] = frozenset(EventKind),
        count: Count = count_nothing,
        target: str = "",
    ) -> None:
        self.name = name
        self._target = target
        self._hook = hook
        self._outbox = outbox
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._policy = policy or RetryPolicy()
        self._kinds = kinds
        self._calls = HookCalls(name, target, clock=clock, timeout=self._policy.timeout, count=count)
        self._running = False
        self._rests_until = 0.0  # after a change that the outbox could not record
        self._sending = TaskGroup(self._failed_unexpectedly)
        self._catalog_work = TaskGroup(self._failed_unexpectedly)
        self._is_fetching = False
        self._alarm = Timer(clock, self.wake)
        self._alarm_at = 0.0
        self._next_turn = Timer(clock, self._turn)
        self._due = DueEvents(name, outbox, self._policy.concurrency, clock, wall)
        self._turns = self._due.turns
        self._records = DeliveryRecords(outbox, self._due, self._catalog_work, self._soon, self._rest)
        self._outage = Outage()
        self._rate = SendingRate(self._policy)

    def start(self) -> None:
        """Deliver the events that wait, and those that come."""
        self._running = True
        self._soon()

    def wake(self, *, replayed: bool = False) -> None:
        """Look for new events: a change with facts was committed, or dead events were ``replayed``."""
        self._due.look(anew=replayed)
        self._soon()

    def look_back(self) -> None:
        """As `wake`, where several workers write: also for events that came later than some with higher numbers. To be
        called each second at least."""
        self._due.look_back()
        self._soon()

    async def stop(self, grace: float = 5.0) -> None:
        """Begin nothing more; events under way get ``grace`` seconds, then they are cancelled and come again later."""
        self._running = False
        self._alarm.clear()
        self._next_turn.clear()
        self._due.drop()
        cut_off = Timer(self._clock, self._sending.cancel)
        cut_off.set(grace)
        await self._sending.ended()
        cut_off.clear()
        await self._catalog_work.ended()

    def _failed_unexpectedly(self, failure: Failure) -> None:
        log.failure("delivery to hook {hook} failed unexpectedly", failure, hook=self.name)

    def _soon(self) -> None:
        """One pass for all that want one now: there may be thousands of wakes, and hooks that answer at once."""
        if self._running and not self._next_turn.pending:
            self._next_turn.set(0)

    def _turn(self) -> None:
        """Send the events that may go; fetch more."""
        room = 1 if self._turns.one_at_a_time else self._policy.concurrency
        while len(self._sending) < room and (turn := self._turns.next()) is not None:
            wait = self._rate.take(self._clock.seconds())
            if wait > 0:
                self._sleep(wait)
                break
            self._start(turn)
        # also without room: new events are to be here when there is some
        if not self._is_fetching and self._clock.seconds() < self._rests_until:
            self._sleep(self._rests_until - self._clock.seconds())
        elif not self._is_fetching and self._due.is_wanting:
            self._is_fetching = True
            self._catalog_work.start(Deferred.fromCoroutine(self._fetch()).addBoth(self._fetched))
        if self._due.looks_again:
            self._sleep(1.0)

    def _sleep(self, seconds: float) -> None:
        """Wake after that time, or before: waking too early does no harm."""
        now = self._clock.seconds()
        at = now + min(max(seconds, 0.0), LONGEST_SLEEP)
        if self._running and not (self._alarm.pending and self._alarm_at <= at):
            self._alarm_at = at
            self._alarm.set(at - now)

    async def _fetch(self) -> None:
        pause: float | None
        try:
            for event in await self._due.fetch():
                self._line_up(event)
            if self._due.is_wanting:
                return
            coming = await self._outbox.next_due(self.name, self._wall())
            pause = None if coming is None else coming - self._wall()
        except Exception as error:
            self._log_outbox(error)
            pause = CATALOG_PAUSE
        self._sleep(LONGEST_SLEEP if pause is None else pause)

    def _fetched(self, result: T) -> T:
        self._is_fetching = False
        if len(self._turns) or self._due.is_wanting:
            self._soon()
        return result

    def _line_up(self, event: OutboxEvent) -> None:
        """Let it wait for its turn; one of a kind that the hook doesn't want counts as arrived."""
        if self._wants(event):
            self._due.add(event)
        else:
            self._records.arrived(event).addCallback(self._line_up_behind)

    def _line_up_behind(self, behind: OutboxEvent | None) -> None:
        if behind is not None:
            self._line_up(behind)

    def _wants(self, event: OutboxEvent) -> bool:
        return EventKind(event.fact.kind.value) in self._kinds

    def _start(self, turn: Turn) -> None:
        event = self._turns.take(turn)
        self._sending.start(Deferred.fromCoroutine(self._send(event)).addBoth(self._sent, event))

    def _sent(self, result: T, event: OutboxEvent) -> T:
        self._turns.ended(event)
        self._soon()
        return result

    async def _send(self, event: OutboxEvent) -> None:
        """Send the event, and those behind it in its place, as an answer to one promises answers to them."""
        following: OutboxEvent | None = event
        while following is not None:
            following = await self._deliver(following)

    async def _deliver(self, event: OutboxEvent) -> OutboxEvent | None:
        """Deliver one event. Returns the event that follows at once, if there is one."""
        message = message_of(event)
        REQUEST.set("" if message.request is None else message.request.id)
        try:
            await self._calls.call(self._hook.deliver, message, _nothing)
        except CancelledError:
            self._due.release([event])
            return None
        except Exception as error:
            await self._failed(event, message, error)
            return None
        self._reached()
        self._due.answered(event)
        try:
            behind = await self._records.arrived(event)
        except CancelledError:
            return None
        if behind is None or (self._running and self._follows(behind) and not self._rate.take(self._clock.seconds())):
            return behind
        self._line_up(behind)
        return None

    def _follows(self, event: OutboxEvent) -> bool:
        """Whether it may go in the place of the one before it: one whose owner hangs waits for its turn."""
        return self._wants(event) and owner_of(event) not in self._turns.hanging

    def _reached(self) -> None:
        """The hook has answered, were it with an error."""
        self._turns.one_at_a_time = False
        if self._outage.over():
            self._rate.not_before = 0.0
            log.info("hook {hook} ({target}) is back", hook=self.name, target=self._target)

    def _unreached(self, event: OutboxEvent) -> None:
        was_on = self._outage.is_on
        pause = self._outage.unreached(event.fact.upload_id, self._policy, self._rng)
        if not self._outage.is_on:
            return
        self._rate.not_before = self._clock.seconds() + pause
        self._turns.one_at_a_time = True
        self._due.drop()  # from now on the next one is chosen each time
        if not was_on:
            log.error("hook {hook} ({target}) can't be reached", hook=self.name, target=self._target)

    async def _failed(self, event: OutboxEvent, message: Event, error: Exception) -> None:
        policy, now, failed = self._policy, self._wall(), error if isinstance(error, HookFailed) else None
        unreached = failed is not None and failed.unreached
        if unreached:
            self._unreached(event)
        else:
            self._reached()
            hangs = failed is not None and failed.unanswered
            (self._due.hung if hangs else self._due.answered)(event)
        is_outage = unreached and self._outage.is_on
        if not event.attempts and not is_outage:
            self._calls.log_failure(message, error)
        reason = reason_of(error)[:MAX_ERROR]
        if now - event.fact.at >= policy.give_up_after and event.attempts + 1 >= policy.least_attempts:
            said = {"hook": self.name, "target": self._target, "kind": event.fact.kind.value, "reason": reason}
            log.error("hook {hook} ({target}): event given up: {reason}", upload=event.fact.upload_id, **said)
            self._line_up_behind(await self._records.dead(event, reason, now))
            return
        asked = (failed.retry_after if failed is not None else None) or 0.0
        pause = max(policy.pause(event.attempts, self._rng), min(asked, LONGEST_RETRY_AFTER))
        if is_outage:
            pause = min(pause, LONGEST_OUTAGE_PAUSE)  # it isn't this event that has to wait
        await self._records.failed(event, reason, now + pause)

    def _rest(self, error: Exception) -> None:
        """The outbox could not record a change: neither it nor the hook is called for a while."""
        self._log_outbox(error)
        self._rate.not_before = self._rests_until = self._clock.seconds() + CATALOG_PAUSE

    def _log_outbox(self, error: Exception) -> None:
        if isinstance(error, CatalogUnavailable):
            log.debug("the outbox of hook {hook} is not available: {reason}", hook=self.name, reason=str(error))
        else:
            log.failure("the outbox of hook {hook} failed unexpectedly", Failure(error), hook=self.name)


def message_of(event: OutboxEvent) -> Event:
    """The event as the hook gets it."""
    fact = event.fact
    upload, request, details = from_data(fact.upload_id, fact.data)
    key = f"evt_{fact.upload_id}_{fact.kind.value}_{event.seq}"
    return Event(key, EventKind(fact.kind.value), fact.at, upload, request, details, event.seq)


def _nothing(answer: object) -> None:
    """A hook's answer to an event counts for nothing: it has arrived."""

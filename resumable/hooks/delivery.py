"""Letters are brought to one deliverer, until each has arrived or is dead.

One reason to change: when a letter goes, and what follows when it does not arrive.

Invariants: a letter is forgotten only after its hook has said that it arrived, so each arrives at least once, across
crashes too. Of one upload at most one letter is under way, the oldest; a letter that fails holds up its own upload
alone, however many fail and however slowly (see `resumable.hooks.pacing`). When letters of several uploads could not
reach the hook and there was no answer since, only one at a time goes, with pauses, the one that failed least often: a
receiver that is down costs little, however much waits for it. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.hooks.bounded import in_time
from resumable.hooks.counts import Count, count_nothing
from resumable.hooks.due_events import DueEvents
from resumable.hooks.guards import log_failure
from resumable.hooks.interfaces import EventKind, HookFailed, IHook
from resumable.hooks.letterbox import event_of, owner_of
from resumable.hooks.pacing import LONGEST_OUTAGE_PAUSE, Delivery, Outage, Pace
from resumable.hooks.turns import Turn
from resumable.model.errors import CatalogUnavailable
from resumable.model.outbox import IOutbox, Letter
from resumable.model.telemetry import REQUEST

log = Logger()

T = TypeVar("T")

LONGEST_SLEEP = 60.0
"""The outbox is looked at again after this, whatever a wall clock that was set back says."""

CATALOG_PAUSE = 5.0
MAX_ERROR = 300


class Courier:
    """Serves one deliverer. ``wall`` tells the time of day for the outbox, ``clock`` measures.

    ``target``: what the hook is, for the log."""

    def __init__(
        self,
        name: str,
        hook: IHook,
        outbox: IOutbox,
        *,
        clock: IReactorTime,
        wall: Callable[[], float],
        rng: Random,
        delivery: Delivery | None = None,
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
        self._delivery = delivery or Delivery()
        self._kinds = kinds
        self._count = count
        self._running = False
        self._rests_until = 0.0  # the outbox: a change could not be recorded
        self._sending: set[Deferred[None]] = set()
        self._arrived: list[tuple[Letter, Deferred[Letter | None]]] = []
        self._fetching: Deferred[None] | None = None
        self._recording: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._next_turn: IDelayedCall | None = None
        self._due = DueEvents(name, outbox, self._delivery.concurrency, clock, wall)
        self._turns = self._due.turns
        self._outage = Outage()
        self._pace = Pace(self._delivery)

    def start(self) -> None:
        """Deliver what waits, and what comes."""
        self._running = True
        self._soon()

    def wake(self, *, replayed: bool = False) -> None:
        """There may be new letters: a change with facts was committed, or dead ones were ``replayed``."""
        self._due.look(anew=replayed)
        self._soon()

    async def stop(self, grace: float = 5.0) -> None:
        """Begin nothing more; what is under way gets ``grace`` seconds, then it is cancelled and comes again later."""
        self._running = False
        for call in (self._timer, self._next_turn):
            if call is not None and call.active():
                call.cancel()
        self._due.drop()
        if self._sending:
            over = self._clock.callLater(grace, self._cancel)
            await DeferredList(tuple(self._sending))
            if over.active():
                over.cancel()
        for each in (self._fetching, self._recording):
            if each is not None:
                await DeferredList([each])

    def _cancel(self) -> None:
        for each in tuple(self._sending):
            each.cancel()

    def _soon(self) -> None:
        """A turn, once for all that asks for it now: there may be thousands of wakes, and hooks that answer at once."""
        if self._running and self._next_turn is None:
            self._next_turn = self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        """Start what may start; fetch what isn't here."""
        self._next_turn = None
        room = 1 if self._turns.one_at_a_time else self._delivery.concurrency
        while len(self._sending) < room and (turn := self._turns.next()) is not None:
            wait = self._pace.take(self._clock.seconds())
            if wait > 0:
                self._sleep(wait)
                break
            self._start(turn)
        # also without room: what is new is to be here when there is some
        if self._fetching is None and self._clock.seconds() < self._rests_until:
            self._sleep(self._rests_until - self._clock.seconds())
        elif self._fetching is None and any(self._due.wanted()):
            fetching = self._fetching = Deferred.fromCoroutine(self._fetch())
            fetching.addBoth(self._fetched)
        if self._due.looks_again:
            self._sleep(1.0)

    def _sleep(self, seconds: float) -> None:
        """Wake after that time, if not before: waking too early does no harm."""
        seconds = min(max(seconds, 0.0), LONGEST_SLEEP)
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= self._clock.seconds() + seconds:
                return
            self._timer.cancel()
        if self._running:
            self._timer = self._clock.callLater(seconds, self.wake)

    async def _fetch(self) -> None:
        pause: float | None
        try:
            fresh = await self._due.fetch()
            for letter in fresh:
                self._line_up(letter)
            if any(self._due.wanted()):
                return
            coming = await self._outbox.next_due(self.name, self._wall())
            pause = None if coming is None else coming - self._wall()
        except Exception as error:
            self._log_outbox(error)
            pause = CATALOG_PAUSE
        self._sleep(LONGEST_SLEEP if pause is None else pause)

    def _fetched(self, result: object) -> object:
        self._fetching = None
        if len(self._turns) or any(self._due.wanted()):
            self._soon()
        return result

    def _line_up(self, letter: Letter) -> None:
        """It waits for its turn; one that nobody wants is taken for arrived."""
        if self._wants(letter):
            self._due.add(letter)
        else:
            self._arrive(letter).addCallback(self._line_up_behind)

    def _line_up_behind(self, behind: Letter | None) -> None:
        if behind is not None:
            self._line_up(behind)

    def _wants(self, letter: Letter) -> bool:
        return EventKind(letter.fact.kind.value) in self._kinds

    def _start(self, turn: Turn) -> None:
        letter = self._turns.take(turn)
        sending = Deferred.fromCoroutine(self._send(letter))
        self._sending.add(sending)
        sending.addBoth(self._sent, sending, letter)

    def _sent(self, result: object, sending: Deferred[None], letter: Letter) -> object:
        self._turns.ended(letter)
        self._sending.discard(sending)
        self._soon()
        return result

    async def _send(self, letter: Letter) -> None:
        """Those behind it follow in its place, as an answer to one promises answers to them."""
        following: Letter | None = letter
        while following is not None:
            following = await self._deliver(following)

    async def _deliver(self, letter: Letter) -> Letter | None:
        """What is to follow at once."""
        kind, event, began = letter.fact.kind.value, event_of(letter), self._clock.seconds()
        REQUEST.set("" if event.request is None else event.request.id)
        try:
            await in_time(self._clock, self._delivery.timeout, self._hook.deliver, event)
        except CancelledError:
            self._due.release([letter])
            return None
        except Exception as error:
            self._count(self.name, kind, "failed", self._clock.seconds() - began)
            await self._failed(letter, error)
            return None
        self._count(self.name, kind, "ok", self._clock.seconds() - began)
        self._reached()
        self._due.answered(letter)
        try:
            behind = await self._arrive(letter)
        except CancelledError:
            return None
        if behind is None or (self._running and self._follows(behind) and not self._pace.take(self._clock.seconds())):
            return behind
        self._line_up(behind)
        return None

    def _follows(self, letter: Letter) -> bool:
        """Whether it may go in the place of the one before it: one whose owner hangs waits for its turn."""
        return self._wants(letter) and owner_of(letter) not in self._turns.hanging

    def _reached(self) -> None:
        """It has answered, whatever it said."""
        self._turns.one_at_a_time = False
        if self._outage.over():
            self._pace.not_before = 0.0
            log.info("hook {hook} ({target}) is back", hook=self.name, target=self._target)

    def _unreached(self, letter: Letter) -> None:
        was_on = self._outage.is_on
        pause = self._outage.unreached(letter.fact.upload_id, self._delivery, self._rng)
        if not self._outage.is_on:
            return
        self._pace.not_before = self._clock.seconds() + pause
        self._turns.one_at_a_time = True
        self._due.drop()  # from now on the next one is chosen each time
        if not was_on:
            log.error("hook {hook} ({target}) can't be reached", hook=self.name, target=self._target)

    async def _failed(self, letter: Letter, error: Exception) -> None:
        delivery, now = self._delivery, self._wall()
        unreached = isinstance(error, HookFailed) and error.unreached
        if unreached:
            self._unreached(letter)
        else:
            self._reached()
            hangs = isinstance(error, HookFailed) and error.unanswered
            (self._due.hung if hangs else self._due.answered)(letter)
        if not letter.attempts and not (unreached and self._outage.is_on):
            log_failure(self.name, self._target, letter.fact.kind.value, letter.fact.upload_id, error)
        reason = (error.reason if isinstance(error, HookFailed) else type(error).__name__)[:MAX_ERROR]
        if now - letter.fact.at >= delivery.give_up_after and letter.attempts + 1 >= delivery.least_attempts:
            said = {"hook": self.name, "target": self._target, "kind": letter.fact.kind.value, "reason": reason}
            log.error("hook {hook} ({target}): event given up: {reason}", upload=letter.fact.upload_id, **said)
            behind = await self._gone([letter], lambda: self._outbox.bury(letter.seq, reason, now))
            self._line_up_behind(behind.get(letter.fact.upload_id))
        else:
            asked = (error.retry_after if isinstance(error, HookFailed) else None) or 0.0
            pause = max(delivery.pause(letter.attempts, self._rng), min(asked, 86400.0))
            if unreached and self._outage.is_on:
                pause = min(pause, LONGEST_OUTAGE_PAUSE)  # it isn't this letter that has to wait
            await self._to_outbox(lambda: self._outbox.failed(letter.seq, reason, now + pause))
            self._due.release([letter])

    def _arrive(self, letter: Letter) -> Deferred[Letter | None]:
        """Fires once that is recorded, or can't be; with the letter of its upload that may go now."""
        recorded: Deferred[Letter | None] = Deferred()
        self._arrived.append((letter, recorded))
        if self._recording is None:
            recording = self._recording = Deferred.fromCoroutine(self._record())
            recording.addBoth(self._recorded)
        return recorded

    async def _record(self) -> None:
        """One commit for all that arrived while the last one was on its way."""
        while self._arrived:
            batch, self._arrived = self._arrived, []
            letters = [letter for letter, _ in batch]
            behind = await self._gone(letters, partial(self._outbox.delivered, [letter.seq for letter in letters]))
            for letter, recorded in batch:
                recorded.callback(behind.get(letter.fact.upload_id))

    async def _gone(
        self, letters: Sequence[Letter], change: Callable[[], Deferred[Sequence[Letter]]]
    ) -> Mapping[str, Letter]:
        """They have arrived, or are dead, which ``change`` records. What is behind them, by upload."""
        found = await self._to_outbox(change)
        if found is None:
            self._due.release(letters)
            return {}
        behind = {letter.fact.upload_id: letter for letter in found}
        self._due.replace(letters, behind)
        return behind

    def _recorded(self, result: object) -> object:
        self._recording = None
        self._soon()
        return result

    async def _to_outbox(self, change: Callable[[], Deferred[T]]) -> T | None:
        """A change that can't be recorded (None) leaves the letter as it was: it comes again, after a pause for all."""
        try:
            return await change()
        except Exception as error:
            self._log_outbox(error)
            self._pace.not_before = self._rests_until = self._clock.seconds() + CATALOG_PAUSE
            return None

    def _log_outbox(self, error: Exception) -> None:
        if isinstance(error, CatalogUnavailable):
            log.error("the outbox of hook {hook} is not available: {reason}", hook=self.name, reason=str(error))
        else:
            log.failure("the outbox of hook {hook} failed unexpectedly", Failure(error), hook=self.name)

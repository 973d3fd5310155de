"""Calls of hooks: each is bounded in time, measured and counted, and its failures are logged.

Invariants: the Deferred of `in_time` fires in time, even if the hook swallows its cancellation; it fails with
CancelledError only if it was cancelled itself. There are as many counters as the code knows hooks, kinds and outcomes;
nothing of a request makes one more. Times are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.hooks.interfaces import Event, HookFailed, Question, Refuse
from resumable.model.telemetry import Tally

log = Logger()

A = TypeVar("A")
M = TypeVar("M", Event, Question)
R = TypeVar("R")


def in_time(clock: IReactorTime, seconds: float, call: Callable[[A], object], argument: A) -> Deferred[object]:
    """The answer of ``call``, now or later; fails with HookFailed if that takes more than ``seconds``."""
    cancelled = False

    def cancel(_: object) -> None:
        nonlocal cancelled
        cancelled = True
        asking.cancel()

    def gave_up(failure: Failure) -> Failure:
        if cancelled or not failure.check(CancelledError):
            return failure
        return Failure(HookFailed("it gave up", unanswered=True))

    answer: Deferred[object] = Deferred(cancel)
    asking: Deferred[object] = maybeDeferred(call, argument)
    asking.addErrback(gave_up)
    asking.addCallbacks(answer.callback, answer.errback)
    return answer.addTimeout(seconds, clock, _too_long)


def _too_long(result: object, seconds: float) -> Failure:
    return Failure(HookFailed(f"it took more than {seconds:g} s", unanswered=True))


SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Count = Callable[[str, str, str, float], None]
"""Called with the hook's name, the kind of event or question, ``ok``, ``refused`` or ``failed``, and seconds."""


def count_nothing(hook: str, kind: str, outcome: str, seconds: float) -> None:
    """A `Count` that drops everything."""


class HookCounts:
    """Since the start. ``calls`` by hook, kind and outcome; ``seconds`` by hook."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, ...]] = Counter()
        self.seconds: dict[str, Tally] = {}

    def add(self, hook: str, kind: str, outcome: str, seconds: float) -> None:
        """One more."""
        self.calls[hook, kind, outcome] += 1
        self.seconds.setdefault(hook, Tally(SECONDS)).add(seconds)


REASONS = 20
"""So many different reasons of one hook are logged, at most, until it works again."""


class HookCalls:
    """Calls of one hook. ``timeout``: of one call. ``target``: the hook's kind and place, for the log."""

    def __init__(
        self, name: str, target: str, *, clock: IReactorTime, timeout: float, count: Count = count_nothing
    ) -> None:
        self._name = name
        self._target = target
        self._clock = clock
        self._timeout = timeout
        self._count = count
        self._reasons: set[str] = set()  # of failures since it worked

    async def call(self, method: Callable[[M], object], message: M, check: Callable[[object], R]) -> R:
        """The hook's answer, through ``check``. Raises as either does; HookFailed if the hook is too late."""
        kind, began = message.kind.value, self._clock.seconds()
        try:
            said = check(await in_time(self._clock, self._timeout, method, message))
        except CancelledError:
            raise
        except Exception:
            self._count(self._name, kind, "failed", self._clock.seconds() - began)
            raise
        outcome = "refused" if isinstance(said, Refuse) else "ok"
        self._count(self._name, kind, outcome, self._clock.seconds() - began)
        return said

    async def call_and_log(self, method: Callable[[M], object], message: M, check: Callable[[object], R]) -> R:
        """As `call`, but logs each reason of a failure once until the hook has worked again.

        Clients that try again and again don't fill the log."""
        try:
            said = await self.call(method, message, check)
        except CancelledError:
            raise
        except Exception as error:
            reason = reason_of(error)
            if reason not in self._reasons and len(self._reasons) < REASONS:
                self._reasons.add(reason)
                self.log_failure(message, error)
            raise
        if self._reasons:
            self._reasons.clear()
            log.info("hook {hook} ({target}) works again", hook=self._name, target=self._target)
        return said

    def log_failure(self, message: Event | Question, error: Exception) -> None:
        """Once, with its context; a traceback only for errors that a hook should not raise."""
        context = {"hook": self._name, "target": self._target, "kind": message.kind.value, "upload": message.upload.id}
        if isinstance(error, HookFailed):
            log.error("hook {hook} ({target}) failed at {kind} of {upload}: {reason}", **context, reason=error.reason)
        else:
            log.failure("hook {hook} ({target}) failed unexpectedly at {kind} of {upload}", Failure(error), **context)


def reason_of(error: Exception) -> str:
    """The reason of the hook's failure, without possible secrets."""
    return error.reason if isinstance(error, HookFailed) else type(error).__name__

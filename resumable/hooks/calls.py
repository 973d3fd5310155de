"""Hooks are waited for no longer than they may take.

One reason to change: how a hook that doesn't answer is left behind.

Invariant: what `in_time` answers fires in time, even if the hook swallows its cancellation; it fails with
CancelledError only if it was cancelled itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.hooks.interfaces import HookFailed
from resumable.model.tally import Tally

log = Logger()

A = TypeVar("A")
R = TypeVar("R")


def in_time(clock: IReactorTime, seconds: float, call: Callable[[A], object], argument: A) -> Deferred[object]:
    """What ``call`` answers, now or later; HookFailed if that takes more than ``seconds``."""
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


def count_nothing(hook: str, kind: str, outcome: str, seconds: float) -> None: ...


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
"""Different reasons of one hook that are told, at most, until it works again."""


def log_failure(hook: str, target: str, kind: str, upload_id: str, error: BaseException) -> None:
    """Once, with its context; a traceback only for what a hook should not raise."""
    context: dict[str, Any] = {"hook": hook, "target": target, "kind": kind, "upload": upload_id}
    if isinstance(error, HookFailed):
        log.error("hook {hook} ({target}) failed at {kind} of {upload}: {reason}", **context, reason=error.reason)
    else:
        log.failure("hook {hook} ({target}) failed unexpectedly at {kind} of {upload}", Failure(error), **context)


class Complaints:
    """What is logged of hooks that fail: each reason once until the hook has worked again.

    Clients that try again and again don't fill the log."""

    def __init__(self) -> None:
        self._told: dict[str, set[str]] = {}

    def failed(self, hook: str, target: str, kind: str, upload_id: str, error: Exception) -> None:
        """It did."""
        reason = error.reason if isinstance(error, HookFailed) else type(error).__name__
        told = self._told.setdefault(hook, set())
        if reason not in told and len(told) < REASONS:
            told.add(reason)
            log_failure(hook, target, kind, upload_id, error)

    def worked(self, hook: str, target: str) -> None:
        """It did what it was asked."""
        if self._told.pop(hook, None) is not None:
            log.info("hook {hook} ({target}) works again", hook=hook, target=target)

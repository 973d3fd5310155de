"""Hooks are waited for no longer than they may take.

One reason to change: how a hook that doesn't answer is left behind.

Invariant: what `in_time` answers fires in time, even if the hook swallows its cancellation; it fails with
CancelledError only if it was cancelled itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from resumable.hooks.interfaces import HookFailed

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

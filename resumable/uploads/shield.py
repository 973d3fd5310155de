"""Work that a client's disconnect must not cancel.

Klein cancels a route's Deferred when the connection goes away; what was received must be committed all the same.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.model.errors import BodyLost
from resumable.protocol.errors import TusError

T = TypeVar("T")

log = Logger()


def shielded(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """A Deferred of the work's outcome whose cancellation leaves the work alone.

    A failure that nobody waits for any more is logged, unless it only says that the body or the request was bad.
    """
    outer: Deferred[T] = Deferred(lambda _: None)

    def done(outcome: T | Failure) -> None:
        if not outer.called:
            outer.callback(outcome)
        elif isinstance(outcome, Failure) and not outcome.check(TusError, BodyLost):
            log.failure("work failed after its client had gone", outcome)

    Deferred.fromCoroutine(work).addBoth(done)
    return outer

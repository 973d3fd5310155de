"""Answers that are kept for a moment, and asked for once however many wait for the same.

Invariants: failures are never kept; at most ``most`` answers are, and the longest unused goes first. A caller that
gives up waiting takes nothing from the others.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

V = TypeVar("V")


def fingerprint(salt: bytes, *parts: bytes) -> bytes:
    """A key for credentials that can't be told from it. ``salt``: random, of this process."""
    keyed = hmac.new(salt, digestmod=hashlib.sha256)
    for part in parts:
        keyed.update(len(part).to_bytes(8, "big") + part)
    return keyed.digest()


class Remembered(Generic[V]):
    """``seconds``: how long an answer counts. ``most``: answers kept."""

    def __init__(self, clock: IReactorTime, seconds: float, most: int = 4096) -> None:
        self._clock = clock
        self._seconds = seconds
        self._most = most
        self._kept: OrderedDict[bytes, tuple[float, V]] = OrderedDict()
        self._waiting: dict[bytes, list[Deferred[V]]] = {}

    def ask(self, key: bytes, make: Callable[[], Deferred[V]]) -> Deferred[V]:
        """The answer kept for ``key``, or what ``make`` answers or fails with."""
        kept = self._kept.get(key)
        if kept is not None and self._clock.seconds() < kept[0]:
            self._kept.move_to_end(key)
            return succeed(kept[1])
        answer: Deferred[V] = Deferred()
        waiting = self._waiting.setdefault(key, [])
        waiting.append(answer)
        if len(waiting) == 1:
            make().addCallbacks(self._made, self._failed, callbackArgs=(key,), errbackArgs=(key,))
        return answer

    def _made(self, value: V, key: bytes) -> None:
        if self._seconds > 0:
            self._kept[key] = (self._clock.seconds() + self._seconds, value)
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        for answer in self._waiting.pop(key):
            answer.callback(value)

    def _failed(self, failure: Failure, key: bytes) -> None:
        for answer in self._waiting.pop(key):
            answer.errback(Failure(failure.value))  # each is cleaned on its own

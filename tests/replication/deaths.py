"""A death at one step of a run: things whose methods are steps, counted together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

REMOTE = {
    "initiate_upload",
    "write_chunk",
    "write_whole",
    "finalize_upload",
    "abort_upload",
    "get_upload_progress",
    "confirmed_parts",
    "delete_object",
}


CATALOG = {"advance", "store", "park", "ended", "save_journal", "hasten"}


class Death:
    """Counts the steps of one run, and ends it at one of them: before it has its effect, or after."""

    def __init__(self, step: int, after: bool) -> None:
        self.dead = False
        self._left = step
        self._after = after

    def step(self, act: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        if self.dead:
            return Deferred()
        self._left -= 1
        if self._left:
            return act().addBoth(self._heard)
        if not self._after:
            self.dead = True
            return Deferred()
        return act().addBoth(self._die)

    def _heard(self, result: Any) -> Any:
        return Deferred() if self.dead and not _cancelled(result) else result

    def _die(self, result: Any) -> Any:
        self.dead = True
        return self._heard(result)


def _cancelled(result: Any) -> bool:
    """By `Rig.bury`, or by replication while it lived."""
    return isinstance(result, Failure) and result.check(CancelledError) is not None


class Mortal:
    """Something whose methods are steps."""

    def __init__(self, inner: Any, names: set[str], death: Death) -> None:
        self._inner = inner
        self._names = names
        self._death = death
        directlyProvides(self, *providedBy(inner))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in self._names:
            return method
        return lambda *args: self._death.step(lambda: maybeDeferred(method, *args))

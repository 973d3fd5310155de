"""Turns of the reactor, for tests over loopback connections."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater


def turn() -> Deferred[None]:
    """Fires in the reactor's next turn."""
    return deferLater(reactor, 0, lambda: None)


async def until(wanted: Callable[[], bool]) -> None:
    """Let the reactor turn until it is so."""
    for _ in range(200_000):
        if wanted():
            return
        await turn()
    raise AssertionError("it never came to that")

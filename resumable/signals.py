"""What signals make the daemon do: SIGTERM stops it, SIGHUP has it read files anew. twistd takes care of the others.

Changes when a signal gets another meaning. Invariant: no SIGHUP ends the daemon, however early it comes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


def heed(reactor: Any, reload: Callable[[], None]) -> None:
    """From now on SIGHUP calls ``reload`` in the reactor; from when that runs, SIGTERM ends in success."""
    signal.signal(signal.SIGHUP, lambda number, frame: reactor.callFromThread(reload))
    reactor.callWhenRunning(_stop_on_sigterm, reactor)


def _stop_on_sigterm(reactor: Any) -> None:
    """A stop that was asked for is a success: twistd's own handler would end with status 143."""

    def stop(number: int, frame: object) -> None:
        reactor.callFromThread(lambda: reactor.running and reactor.stop())

    signal.signal(signal.SIGTERM, stop)

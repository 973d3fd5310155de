"""What signals make the daemon do: SIGTERM and SIGINT stop it, SIGHUP has it read files anew.

Changes when a signal gets another meaning. Invariant: no SIGHUP ends the daemon, however early it comes; asked twice to
stop, it stops once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


def heed(reactor: Any, reload: Callable[[], None]) -> None:
    """From now on SIGHUP calls ``reload`` in the reactor; from when that runs, SIGTERM ends in success.

    Until it runs, SIGINT ends the process at once, as SIGTERM does: Python's own exception would leave threads behind,
    which keep it alive.
    """
    signal.signal(signal.SIGHUP, lambda number, frame: reactor.callFromThread(reload))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    reactor.callWhenRunning(_stop_once, reactor)


def _stop_once(reactor: Any) -> None:
    """A stop by SIGTERM is a success: twistd's own handler would end with status 143. SIGINT is twistd's to handle, and
    is left alone where the parent ignores it, or a debugger has it."""

    def stop(number: int, frame: FrameType | None) -> None:
        # the reactor raises when it is stopped twice
        for each in (signal.SIGTERM, *interrupts):
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            reactor.sigInt(number, frame)
        else:
            reactor.callFromThread(reactor.stop)

    interrupts = [signal.SIGINT] if signal.getsignal(signal.SIGINT) is signal.SIG_DFL else []
    for each in (signal.SIGTERM, *interrupts):
        signal.signal(each, stop)

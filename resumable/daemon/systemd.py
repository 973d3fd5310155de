"""Tells the service manager how the daemon is doing.

Invariants: without a service manager nothing happens; a message that can't be sent is logged once and never keeps the
daemon from its work; the watchdog gets its messages only from the reactor.
Spec: sd_notify(3), sd_watchdog_enabled(3), systemd.service(5).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

STARTING = 900
"""Seconds that bringing the upload directory in order may take, whatever TimeoutStartSec says."""

log = Logger()


class ServiceManager:
    """``environment``: how it is reached. ``pid``: this process. ``monotonic``: CLOCK_MONOTONIC in seconds."""

    def __init__(
        self,
        environment: Mapping[str, str],
        clock: IReactorTime,
        pid: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._environment = environment
        self._pid = pid
        self._monotonic = monotonic
        self._failed = False
        self._watchdog = LoopingCall(self._tell, "WATCHDOG=1")
        self._watchdog.clock = clock

    def starting(self) -> None:
        """Before anything that takes long."""
        self._tell(f"EXTEND_TIMEOUT_USEC={STARTING * 1_000_000}", "STATUS=bringing the upload directory in order")

    def ready(self) -> None:
        """Uploads are taken; from now on the watchdog hears regularly that the reactor runs."""
        self._tell("READY=1", "STATUS=uploads are taken")
        interval = self._watchdog_interval()
        if interval is not None and not self._watchdog.running:
            self._watchdog.start(interval).addErrback(lambda failure: log.failure("the watchdog is not told", failure))

    def reloading(self) -> None:
        """Until the next `ready`."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._monotonic() * 1_000_000)}", "STATUS=reading files anew")

    def stopping(self, seconds: float) -> None:
        """The daemon commits the received bytes, in so many seconds at most."""
        self._tell(
            "STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}", "STATUS=committing what was received"
        )

    def stopped(self) -> None:
        """Send nothing more."""
        if self._watchdog.running:
            self._watchdog.stop()

    def _watchdog_interval(self) -> float | None:
        """Half the time after which the service manager gives up on the daemon; None if it never does."""
        told = self._environment.get("WATCHDOG_USEC", "")
        meant = self._environment.get("WATCHDOG_PID", str(self._pid()))
        if not (told.isascii() and told.isdigit() and int(told) and meant == str(self._pid())):
            return None
        return int(told) / 2_000_000

    def _tell(self, *lines: str) -> None:
        address = self._environment.get("NOTIFY_SOCKET", "")
        if not address:
            return
        name: Any = f"\0{address[1:]}" if address.startswith("@") else address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), name)
        except (OSError, ValueError) as error:
            if not self._failed:
                log.warn("the service manager can't be told: {reason}", reason=str(error), socket=address)
            self._failed = True

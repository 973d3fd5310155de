"""Whether the database can be used, as all connections of this process find it: told at the beginning and the end, and
now and then meanwhile, with the reason by then; and counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from twisted.logger import Logger

from resumable.model.errors import CatalogUnavailable

FORGOTTEN: Final = 60.0
"""Seconds without a failure after which the next one begins another outage: what failed before may not have been used
since."""
AGAIN: Final = 60.0
"""Seconds after which a failure is told though none has ended: the reason may be another by now."""


class CatalogOutage:
    """One for all connections of a process, which tell it in whatever thread. ``seconds``: a clock.

    It begins when the first of them fails, and ends when each that has failed works again.
    """

    log = Logger()

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._failing: set[object] = set()
        self._began = self._last = self._told = 0.0
        self._count = 0

    def failed(self, connection: object, told: CatalogUnavailable) -> None:
        """The connection, whichever object stands for it, can't be used."""
        with self._lock:
            before, self._last = self._last, self._seconds()
            begins = not self._failing or self._last - before > FORGOTTEN
            if begins:
                self._began, self._count = self._last, 0
            tells = begins or self._last - self._told > AGAIN
            if tells:
                self._told = self._last
            self._failing.add(connection)
            self._count += 1
        if tells:
            self.log.error("the catalog failed: {reason}", reason=str(told), no_space=told.no_space)

    def worked(self, connection: object) -> None:
        """It has been used."""
        if connection not in self._failing:
            return
        with self._lock:
            self._failing.discard(connection)
            ends, lasted, count = not self._failing, self._seconds() - self._began, self._count
        if ends:
            self.log.warn("the catalog works again, after {count} failures", count=count, seconds=round(lasted, 1))

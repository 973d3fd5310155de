"""How often the log says that something is wrong.

Changes when what counts as trouble does. Invariant: the number of counters is bounded, whatever is logged: parts of the
program are modules of ours, everything else is by package. Called from any thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from threading import Lock
from typing import Final

from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

LEVELS: Final = (LogLevel.warn, LogLevel.error, LogLevel.critical)
MOST: Final = 200
OTHER: Final = "other"


@implementer(ILogObserver)
class Troubles:
    """An observer of the log."""

    def __init__(self) -> None:
        self._lock = Lock()
        # From the start on there is something that the first trouble can be seen to be more than.
        self._counts: Counter[tuple[str, ...]] = Counter({(level.name, OTHER): 0 for level in LEVELS})

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if level not in LEVELS:
            return
        key = (level.name, part_of(str(event.get("log_namespace") or OTHER)))
        with self._lock:
            if key not in self._counts and len(self._counts) >= MOST:
                key = (level.name, OTHER)
            self._counts[key] += 1

    def counts(self) -> Mapping[tuple[str, ...], int]:
        """How many there were, by level and part."""
        with self._lock:
            return dict(self._counts)


def part_of(namespace: str) -> str:
    """``uploads.context`` for a module of ours, ``twisted`` for any of Twisted's."""
    top, _, rest = namespace.partition(".")
    return ".".join(rest.split(".")[:2]) if top == "resumable" and rest else top

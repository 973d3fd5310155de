"""What came of hooks that were told or asked.

One reason to change: something else that is counted of them. Invariant: there are as many counters as hooks, kinds and
outcomes are known to the code; nothing of a request makes one more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from resumable.model.telemetry import Tally

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Count = Callable[[str, str, str, float], None]
"""Called with the hook's name, the kind of event or question, ``ok``, ``refused`` or ``failed``, and seconds."""


def count_nothing(hook: str, kind: str, outcome: str, seconds: float) -> None: ...


class HookCounts:
    """Since the start. ``calls`` by hook, kind and outcome; ``seconds`` by hook."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, ...]] = Counter()
        self.seconds: dict[str, Tally] = {}

    def add(self, hook: str, kind: str, outcome: str, seconds: float) -> None:
        """One more."""
        self.calls[hook, kind, outcome] += 1
        self.seconds.setdefault(hook, Tally(SECONDS)).add(seconds)

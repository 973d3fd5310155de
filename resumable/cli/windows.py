"""Windows of time of each day, in which something may be done: ``22:00-06:00``.

Invariants: times are those of this machine's clock and zone; a window whose end isn't after its start goes on over
midnight. Whoever waits asks again: a clock may be set while they do. Pure but for the zone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from typing import Final

from attrs import frozen

_WINDOW: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")
_DAY: Final = 24 * 60


@frozen
class DayWindow:
    """From ``start`` until before ``end``, minutes of the day; 24:00 is a good end."""

    start: int
    end: int

    def holds(self, minute: int) -> bool:
        """Whether that minute of the day is in it."""
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


def day_window(text: str) -> DayWindow:
    """Reads ``22:00-06:00``. Raises ValueError, whose text continues the word "expected"."""
    match = _WINDOW.fullmatch(text.strip())
    if match:
        hour, minute, to_hour, to_minute = map(int, match.groups())
        start, end = hour * 60 + minute, to_hour * 60 + to_minute
        if minute < 60 and to_minute < 60 and start < _DAY and end <= _DAY and start != end:
            return DayWindow(start, end)
    raise ValueError("a window of the day like 22:00-06:00")


def seconds_until(windows: Sequence[DayWindow], now: float) -> float:
    """Seconds from ``now`` (since the epoch) until one of them is open: 0 in one of them, or without any."""
    local = datetime.fromtimestamp(now)
    if not windows or any(window.holds(local.hour * 60 + local.minute) for window in windows):
        return 0.0
    days = (local.date() + timedelta(days=ahead) for ahead in (0, 1))
    starts = [datetime.combine(day, time(*divmod(window.start, 60))).timestamp() for day in days for window in windows]
    return min(start - now for start in starts if start > now)

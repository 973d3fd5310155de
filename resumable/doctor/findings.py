"""A finding of the doctor, and numbers as people read them.

Invariants: a finding that is not "ok" says what to change; what wasn't looked at is never "ok". A number is never
shown more exactly than it is known.
Units as `resumable.model.values` reads them.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Level = Literal["ok", "warn", "bad", "skip"]
"""``skip``: it wasn't looked at."""


@frozen
class Finding:
    """``name``: the check, in a word or two. ``what``: one sentence about the installation. ``advice``: what to change,
    empty where all is well.
    """

    name: str
    level: Level
    what: str
    advice: str = ""


def unseen(name: str, why: str, advice: str) -> Finding:
    """The finding about what wasn't looked at. ``why``: continues the sentence; ``advice``: what helps."""
    return Finding(name, "skip", f"not looked at: {why}", advice)


_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))
_FRACTIONS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def size_text(count: int) -> str:
    """Bytes: ``17 B``, ``1.5 KiB``, ``64 MiB``."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{_short(value)} {unit}"


def age_text(seconds: float) -> str:
    """A time that has passed, in its largest unit: ``40s``, ``5m``, ``3h``, ``12d``."""
    for length, unit in _STEPS:
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return "0s"


def span_text(seconds: float) -> str:
    """A time that something took: ``12 µs``, ``1.8 ms``, ``3 s``."""
    for length, unit in _FRACTIONS:
        if seconds >= length:
            return f"{_short(seconds / length)} {unit}"
    return f"{seconds / 1e-6:.1g} µs" if seconds > 0 else "0 s"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:.0f}"

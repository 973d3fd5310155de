"""Speeds and times as people read them. Pure."""

from __future__ import annotations

from resumable.doctor.findings import size_text

_DAY = 86400


def speed_text(speed: float | None) -> str:
    """Bytes per second, as ``12 MiB/s``; empty while it isn't known."""
    return "" if speed is None else f"{size_text(int(speed))}/s"


def clock_text(seconds: float) -> str:
    """A time that something takes: ``0:07``, ``1:02:03``, ``3 d 4 h``."""
    whole = max(0, round(seconds))
    if whole >= _DAY:
        return f"{whole // _DAY} d {whole % _DAY // 3600} h"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def took_text(seconds: float) -> str:
    """A time that something has taken, in words: ``0.4 s``, ``52 s``, ``1:02:03``."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 60 else clock_text(seconds)


def percent(done: int, total: int | None) -> int:
    """Whole per cent; 100 only when all is done."""
    return 100 if total is not None and done >= total else 0 if not total else done * 100 // total

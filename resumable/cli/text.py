"""Text for terminals: what others have chosen, made harmless and fitted, and speeds and times as people read them.

Invariant: no character of a name can move the cursor, colour the terminal or end a line. Pure.
"""

from __future__ import annotations

import unicodedata

from resumable.doctor.findings import size_text

_DAY = 86400


def plain(value: object) -> str:
    """A value's text, without characters that a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def columns(text: str) -> int:
    """How many columns of a terminal it takes: wide characters take two, combining ones none (UAX 11)."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else _breadth(char) for char in text)


def _breadth(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def fitted(text: str, width: int) -> str:
    """At most so many columns of it: what is left out is left out in the middle, so that an extension stays."""
    if columns(text) <= width:
        return text
    before, after = (width - 1) // 2, width // 2
    head, tail = "", ""
    for char in text:
        if columns(head + char) > before:
            break
        head += char
    for char in reversed(text):
        if columns(char + tail) > after:
            break
        tail = char + tail
    return f"{head}…{tail}"


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

"""Range: which bytes of a download a client asks for.

Invariant: a `Span` lies within the download and is not empty. One range is served as it is. Several ranges, another
unit and a malformed field are ignored, and all bytes are served: that is always a correct answer, costs no more than
any download, and needs no bounds. Spec: RFC 9110 section 14.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from resumable.protocol.errors import RangeNotSatisfiable
from resumable.protocol.fields import Fields

# "ranges-specifier = range-unit "=" range-set", with one int-range or suffix-range; a list may have empty elements.
_ONE: Final = re.compile(r"bytes=[ \t,]*([0-9]*)-([0-9]*)[ \t,]*", re.IGNORECASE | re.ASCII)
_DIGITS: Final = 19
"""Positions with more digits than this are past any end."""


@dataclass(frozen=True, slots=True)
class Span:
    """``size`` bytes from ``start`` on, of ``total``."""

    start: int
    size: int
    total: int

    @property
    def content_range(self) -> str:
        """The value of Content-Range."""
        return f"bytes {self.start}-{self.start + self.size - 1}/{self.total}"


def wanted(fields: Fields, total: int) -> Span | None:
    """The one range that is asked for, of ``total`` bytes; None: serve all of them. Raises RangeNotSatisfiable."""
    values = fields.values("range")
    match = _ONE.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return _suffix(last, total)
    start = _position(first)
    end = total - 1 if not last else _position(last)
    if end < start and last:
        # 14.1.1: "An int-range is invalid if the last-pos value is present and less than first-pos."
        return None
    if start >= total:
        raise RangeNotSatisfiable(total)
    return Span(start, min(end, total - 1) - start + 1, total)


def _suffix(digits: str, total: int) -> Span | None:
    if not digits:
        return None
    length = min(_position(digits), total)
    if length:
        return Span(total - length, length, total)
    # 14.1.2: a suffix-range is satisfiable "if the suffix-length is non-zero": of nothing it is all there is
    if _position(digits):
        return None
    raise RangeNotSatisfiable(total)


def _position(digits: str) -> int:
    """The number; one with more digits than any file has bytes is not converted."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _DIGITS else int("9" * _DIGITS)

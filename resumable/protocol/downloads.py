"""Downloads: whether a client has the present state already, or still had it, and which range of bytes it asks for.

Invariants: conditions are checked in the order of RFC 9110 section 13.2.2; one that is malformed or given twice never
makes an answer shorter than it would be without. A `Span` lies within the download and is not empty. One range is
served as it is. Several ranges, another unit and a malformed field are ignored, and all bytes are served: that is
always a correct answer, costs no more than any download, and needs no bounds. Spec: RFC 9110 sections 13 and 14.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from resumable.protocol.errors import PreconditionFailed, RangeNotSatisfiable
from resumable.protocol.fields import Fields

_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_TAGS: Final = re.compile(rf"[ \t,]*{_TAG.pattern}(?:[ \t]*,[ \t,]*{_TAG.pattern})*[ \t,]*")
# "ranges-specifier = range-unit "=" range-set", with one int-range or suffix-range; a list may have empty elements.
_RANGE: Final = re.compile(r"bytes=[ \t,]*([0-9]*)-([0-9]*)[ \t,]*", re.IGNORECASE | re.ASCII)
_DIGITS: Final = 19
"""Positions with more digits than this are past any end."""


@dataclass(frozen=True, slots=True)
class Validators:
    """They tell one state of a download from another. ``etag``: strong, with its quotes. ``modified``: in whole
    seconds since the epoch."""

    etag: str
    modified: int


def not_modified(fields: Fields, now: Validators) -> bool:
    """Whether the client has this state already, so that the answer is 304. Raises PreconditionFailed."""
    _check_still(fields, now)
    given = fields.values("if-none-match")
    if given:
        # 13.1.2: "A recipient MUST use the weak comparison function"
        return _names(given, now.etag, weak=True)
    since = _date(fields, "if-modified-since")
    return since is not None and now.modified <= since


def allows_range(fields: Fields, now: Validators) -> bool:
    """Whether a Range counts: If-Range is absent, or names the present state (13.1.5)."""
    given = fields.values("if-range")
    if not given:
        return True
    if len(given) > 1:
        return False
    if given[0].startswith(('"', "W/")):
        return given[0] == now.etag
    # A date counts only if it is a strong validator: a finished upload never changes, so ours is.
    return _date(fields, "if-range") == now.modified


def _check_still(fields: Fields, now: Validators) -> None:
    given = fields.values("if-match")
    if given:
        # 13.1.1: "the strong comparison function"
        if not _names(given, now.etag, weak=False):
            raise PreconditionFailed("If-Match names another state of the upload than this one.")
        return
    since = _date(fields, "if-unmodified-since")
    if since is not None and now.modified > since:
        raise PreconditionFailed("The upload was finished after If-Unmodified-Since.")


def _names(lines: Sequence[str], etag: str, *, weak: bool) -> bool:
    """Whether the list has ``*`` or this tag. A malformed list names nothing."""
    value = ", ".join(lines)
    if value.strip(" \t") == "*":
        return True
    if _TAGS.fullmatch(value) is None:
        return False
    return any(tag == etag and (weak or not prefix) for prefix, tag in _TAG.findall(value))


def _date(fields: Fields, name: str) -> int | None:
    """The HTTP-date of a field; None if it is absent, none, or given several times."""
    values = fields.values(name)
    if len(values) != 1:
        return None
    try:
        return int(parsedate_to_datetime(values[0]).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


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


def wanted_range(fields: Fields, total: int) -> Span | None:
    """The one range that is asked for, of ``total`` bytes; None: serve all of them. Raises RangeNotSatisfiable."""
    values = fields.values("range")
    match = _RANGE.fullmatch(values[0]) if len(values) == 1 else None
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

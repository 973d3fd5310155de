"""Conditional requests: whether a client has the present state of a download already, or still had it.

Invariant: conditions are checked in the order of RFC 9110 section 13.2.2; one that is malformed or given twice never
makes an answer shorter than it would be without. Spec: RFC 9110 section 13.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from resumable.protocol.errors import PreconditionFailed
from resumable.protocol.fields import Fields

_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_TAGS: Final = re.compile(rf"[ \t,]*{_TAG.pattern}(?:[ \t]*,[ \t,]*{_TAG.pattern})*[ \t,]*")


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

"""The pause that an answer asks for.

One reason to change: what RFC 9110 says of Retry-After, https://www.rfc-editor.org/rfc/rfc9110#name-retry-after. Pure.

Invariant: what can't be read is no pause, and none is longer than an hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the store asks us to wait, at most an hour; a date counts from the answer's own Date."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), 3600.0)
    try:
        pause = (parsedate_to_datetime(value) - parsedate_to_datetime(headers["date"])).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return min(max(pause, 0.0), 3600.0)

"""How times and bytes are written in every JSON document of ours.

One reason to change: that form, which clients of all of them read. Pure. Spec: RFC 3339, RFC 4648 section 4.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime


def time(seconds: float) -> str:
    """Seconds since the epoch in UTC, to the millisecond: ``2026-01-31T23:59:59.000Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text(value: bytes) -> str | dict[str, str]:
    """A client's bytes; what is no UTF-8 stays in Base64, and is marked as such."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}

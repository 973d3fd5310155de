"""Which client's request something is done for, wherever that is.

Reason to change: how this is known. Invariant: a coroutine keeps what was set when it began, whatever runs between its
steps (PEP 567, which Twisted's coroutines follow); work that belongs to no request sets it to nothing.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

REQUEST: Final[ContextVar[str]] = ContextVar("request", default="")
"""The request's X-Request-ID; empty for none."""

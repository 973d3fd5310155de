"""Wires of the blocking face, which `tests/client/conftest.py` closes after each test."""

from __future__ import annotations

from resumable.client.links import Connector, tls_context
from resumable.client.pace import TokenBucket
from resumable.client.wire import Wire

_made: list[Wire] = []


def a_wire(timeout: float = 60.0, proxy: str | None = "", bucket: TokenBucket | None = None) -> Wire:
    _made.append(Wire(Connector(timeout, proxy, lambda: tls_context(None, False)), timeout, bucket))
    return _made[-1]


def close_wires() -> None:
    while _made:
        _made.pop().close()

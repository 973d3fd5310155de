"""Whether endpoints can be reached from this machine alone.

Invariant: one that isn't surely so counts as open to others: a Unix socket or a socket of systemd has a proxy before
it, as a rule. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final

from resumable.listening.endpoints import split_endpoint
from resumable.networks import belongs

_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
#: Kinds of endpoints that have an interface.
_WITH_INTERFACE: Final = ("tcp", "tcp4", "tcp6", "ssl")


def only_loopback(endpoints: Sequence[str]) -> bool:
    """Whether each of these endpoint strings listens on an address of the loopback interface."""
    return bool(endpoints) and all(map(_is_loopback, endpoints))


def _is_loopback(endpoint: str) -> bool:
    kind, _, named = split_endpoint(endpoint)
    host = named.get("interface", "")
    return kind in _WITH_INTERFACE and (host == "localhost" or belongs(host, _LOOPBACK))

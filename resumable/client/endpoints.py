"""Where one connects to what listens on an endpoint.

Changes when daemons listen on another kind of endpoint. Source: twisted.internet.endpoints.
"""

from __future__ import annotations

from typing import Final

from resumable.listening.ports import split_endpoint

_WILDCARDS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def where(endpoint: str) -> str | None:
    """As `resumable.client.line.Line` takes it; None: that can't be told."""
    kind, arguments, named = split_endpoint(endpoint)
    if kind == "unix":
        path = named.get("address") or (arguments or [""])[0]
        return f"unix:{path}" if path else None
    port = named.get("port") or (arguments or [""])[0]
    if kind not in ("tcp", "tcp4", "tcp6", "ssl") or not port.isdigit() or port == "0":
        return None
    interface = named.get("interface", "::" if kind == "tcp6" else "")
    host = _WILDCARDS.get(interface, interface)
    scheme = "https" if kind == "ssl" else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

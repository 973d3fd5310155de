"""The server's address as a client sees it: what an absolute Location is made of.

Forwarding fields (RFC 7239 Forwarded, X-Forwarded-*) are believed from trusted addresses only; anything malformed in
them is ignored, a malformed Host is the client's mistake.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from resumable.http.streaming import StreamingRequest
from resumable.protocol.errors import BadRequest

Network = IPv4Network | IPv6Network

_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PAIR = re.compile(r'\s*([A-Za-z]+)=(?:"([^"\\]*)"|([^\s;,"]*))\s*')


class Origin:
    """Makes Locations. ``public_url``, if given, is the address of the upload collection seen from outside."""

    def __init__(self, base_path: str, public_url: str | None, trusted_proxies: Sequence[Network]) -> None:
        self._base_path = base_path
        self._public_url = public_url
        self._trusted = tuple(trusted_proxies)

    def location(self, request: StreamingRequest, upload_id: str) -> str:
        """The absolute URL of an upload; a bare path for a client of HTTP/1.0 that names no host.

        Raises BadRequest for a malformed Host.
        """
        if self._public_url is not None:
            return self._public_url + upload_id
        scheme = "https" if request.isSecure() else "http"  # type: ignore[no-untyped-call]
        host = self._host(request)
        if self._trusted and self._is_trusted(request):
            scheme, host = self._forwarded(request, scheme, host)
        if not host:
            return self._base_path + upload_id
        return f"{scheme}://{host}{self._base_path}{upload_id}"

    @staticmethod
    def check_host(request: StreamingRequest) -> None:
        """Raises BadRequest for a Host that is malformed or repeated."""
        hosts = request.requestHeaders.getRawHeaders(b"host") or ()
        if len(hosts) > 1 or (hosts and not _HOST.fullmatch(hosts[0])):
            raise BadRequest("Host is malformed.")

    @staticmethod
    def _host(request: StreamingRequest) -> str:
        hosts = request.requestHeaders.getRawHeaders(b"host")
        return hosts[0].decode("ascii") if hosts else ""

    def _is_trusted(self, request: StreamingRequest) -> bool:
        address = request.getClientAddress()  # type: ignore[no-untyped-call]
        host = getattr(address, "host", None)
        if host is None:
            # a unix socket: only what runs on this machine can have connected
            return True
        try:
            peer = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if peer.version == 6 and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self._trusted)

    def _forwarded(self, request: StreamingRequest, scheme: str, host: str) -> tuple[str, str]:
        """Scheme and host as the proxy nearest to the client saw them."""
        said = _first_element(request, b"forwarded")
        if said is not None:
            pairs = {name.lower(): quoted or plain for name, quoted, plain in _PAIR.findall(said)}
            proto, outer = pairs.get("proto"), pairs.get("host")
        else:
            proto = _first_element(request, b"x-forwarded-proto")
            outer = _first_element(request, b"x-forwarded-host")
        if proto is not None and proto.lower() in ("http", "https"):
            scheme = proto.lower()
        if outer is not None and _HOST.fullmatch(outer.encode("latin-1")):
            host = outer
        return scheme, host


def _first_element(request: StreamingRequest, name: bytes) -> str | None:
    """The first element of a list field: what the first proxy said."""
    values = request.requestHeaders.getRawHeaders(name)
    if not values:
        return None
    return values[0].decode("latin-1").partition(",")[0].strip()

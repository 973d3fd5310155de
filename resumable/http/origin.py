"""The server's address as a client sees it: what an absolute Location is made of.

Invariant: only elements of forwarding fields that a trusted address has added count, however many elements and lines a
client has sent before; anything malformed in them is ignored. Spec: RFC 7239
(Forwarded); X-Forwarded-Proto, -Host, -Port and -Prefix, which have none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from resumable.http.h1 import valid_host
from resumable.http.request import StreamingRequest
from resumable.networks import Network, belongs, plain

_PORT = re.compile(r":[0-9]{1,5}$")
_USUAL = ("80", "443")
"""Ports that no URL needs, whichever of its proxies a request has come to by http and by https."""
_PREFIX = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~-]+)+")
_LONGEST_PREFIX = 1024
_PAIR = re.compile(r'[ \t]*(?:([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))[ \t]*)?')
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9A-Za-z._-]+)?")


class Origin:
    """Makes Locations. ``public_url``, if given, is the address of the upload collection seen from outside.

    ``absolute``: with scheme and host, else a path.
    """

    def __init__(
        self, base_path: str, public_url: str | None, trusted_proxies: Sequence[Network], absolute: bool = True
    ) -> None:
        self._base_path = base_path
        self._public_url = public_url
        self._trusted = tuple(trusted_proxies)
        self._absolute = absolute
        # Two slashes in front would make the first segment a host.
        self._path = None if public_url is None else "/" + urlsplit(public_url).path.lstrip("/")

    def location(self, request: StreamingRequest, upload_id: str) -> str:
        """The URL of an upload; of an absolute one only the path for a client of HTTP/1.0 that names no host."""
        path = self.path(request) + upload_id
        if not self._absolute:
            return path
        if self._public_url is not None:
            return self._public_url + upload_id
        scheme, host = self.place(request)
        return f"{scheme}://{host}{path}" if host else path

    def path(self, request: StreamingRequest) -> str:
        """The path of the upload collection that the client used."""
        return self.prefix(request) + self._base_path if self._path is None else self._path

    def prefix(self, request: StreamingRequest) -> str:
        """The prefix that a trusted proxy has taken off the client's path: ``/a`` or ``/a/b``; empty for none."""
        if not self._trusted or not self._is_trusted(request):
            return ""
        said = _last(request, b"x-forwarded-prefix").removesuffix("/")
        return said if len(said) <= _LONGEST_PREFIX and _PREFIX.fullmatch(said) else ""

    def place(self, request: StreamingRequest) -> tuple[str, str]:
        """Scheme and host (with its port) that the client used; no host if it named none."""
        if self._public_url is not None:
            scheme, _, rest = self._public_url.partition("://")
            return scheme, rest.partition("/")[0]
        scheme = "https" if request.isSecure() else "http"  # type: ignore[no-untyped-call]
        hosts = request.requestHeaders.getRawHeaders(b"host")
        host = hosts[0].decode("ascii") if hosts else ""
        if self._trusted and self._is_trusted(request):
            scheme, host = self._forwarded(request, scheme, host)
        return scheme, host

    def peer(self, request: StreamingRequest) -> str:
        """The client's IP address; empty for one on a unix socket that no proxy speaks for."""
        direct: str = getattr(request.getClientAddress(), "host", None) or ""  # type: ignore[no-untyped-call]
        if self._trusted and self._is_trusted(request):
            node = self._believed(_lines(request, b"forwarded")).get("for")
            fors = {_address(node)} if node else set()
            addresses = [_address(each) for line in _lines(request, b"x-forwarded-for") for each in line.split(",")]
            if addresses:
                foreign = (each for each in reversed(addresses) if each is None or not self._trusts(each))
                fors.add(next(foreign, addresses[0]))
            if len(fors) == 1:
                return fors.pop() or direct
        address = direct.partition("%")[0]
        return (_address(address) or address) if address.startswith("::ffff:") else address  # IPv4 within IPv6

    def _is_trusted(self, request: StreamingRequest) -> bool:
        host = getattr(request.getClientAddress(), "host", None)  # type: ignore[no-untyped-call]
        # None is a unix socket: only what runs on this machine can have connected
        return host is None or self._trusts(host)

    def _trusts(self, address: str) -> bool:
        return belongs(address, self._trusted)

    def _forwarded(self, request: StreamingRequest, scheme: str, host: str) -> tuple[str, str]:
        """Scheme and host as the outermost trusted proxy saw them.

        Where Forwarded and its elder sisters contradict each other, one of them is a client's: neither counts.
        """
        said = self._believed(_lines(request, b"forwarded"))
        protos = {proto.lower() for proto in (said.get("proto"), _last(request, b"x-forwarded-proto")) if proto}
        hosts = {outer.lower() for outer in (said.get("host"), _last(request, b"x-forwarded-host")) if outer}
        if len(protos) == 1 and protos <= {"http", "https"}:
            scheme = protos.pop()
        if len(hosts) == 1 and valid_host(next(iter(hosts)).encode("latin-1")):
            host = hosts.pop()
        port = _last(request, b"x-forwarded-port")
        if (
            host
            and not said.get("host")
            and not _PORT.search(host)
            and port not in _USUAL
            and _PORT.fullmatch(f":{port}")
        ):
            host += f":{port}"
        return scheme, host

    def _believed(self, lines: Sequence[str]) -> dict[str, str]:
        """The parameters of Forwarded that trusted proxies have added; the outermost proxy's word goes before others'.

        Each proxy adds its element at the end, so it's read from there, as long as an element is for a trusted proxy.
        """
        believed: dict[str, str] = {}
        for line in reversed(lines):
            elements = _elements(line)
            if elements is None:
                break
            for element in reversed(elements):
                believed |= element
                node = _NODE.fullmatch(element.get("for", ""))
                if node is None or not self._trusts(node[1] or node[2]):
                    return believed
        return believed


def _address(node: str) -> str | None:
    """The IP address in an element of X-Forwarded-For or a node of Forwarded, which may have a port; None without."""
    match = _NODE.fullmatch(node.strip())
    try:
        return str(plain(ip_address((match[1] or match[2]) if match else node.strip())))
    except ValueError:
        return None


def _lines(request: StreamingRequest, name: bytes) -> list[str]:
    return [value.decode("latin-1") for value in request.requestHeaders.getRawHeaders(name, ())]


def _last(request: StreamingRequest, name: bytes) -> str:
    """The last element of a list field: the nearest proxy has added it. Who added the others isn't known."""
    return next(reversed(_lines(request, name)), "").rpartition(",")[2].strip()


def _elements(line: str) -> list[dict[str, str]] | None:
    """The elements of a Forwarded line, names in lower case; None if it is malformed (RFC 7239, section 4)."""
    elements: list[dict[str, str]] = [{}]
    position = 0
    while True:
        pair = _PAIR.match(line, position)
        assert pair is not None, "it matches the empty text too"
        name, quoted, plain = pair.groups()
        if name:
            if name.lower() in elements[-1]:
                return None
            elements[-1][name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position = pair.end()
        if position == len(line):
            return [element for element in elements if element]
        if line[position] == ",":
            elements.append({})
        elif line[position] != ";":
            return None
        position += 1

"""The head of an HTTP/2 request, turned into a `RequestHead` as HTTP/1.1 has it.

Invariants: heads that h1/head.py would refuse are refused here too; a malformed head is refused with its request, and
harms no other request on the connection. Pure functions. h2 could check heads as well, but it takes them apart byte by
byte, and ends the connection for each error.
Spec: RFC 9113 sections 8.1 to 8.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from twisted.web.http_headers import Headers, InvalidHeaderName

from resumable.http.h1.head import (
    MAX_FIELDS,
    MAX_HEAD,
    MAX_LINE,
    MAX_TRAILERS,
    Fields,
    RefusedRequest,
    RequestHead,
    check_target,
    content_length,
)

__all__ = ["Fields", "head_of", "trailers_of"]

VERSION = b"HTTP/2"

_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"/[\x21-\x7e]*|\*")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?![ \t])[^\0\r\n]*(?<![ \t])")
_KNOWN: Final = frozenset((b":method", b":scheme", b":authority", b":path"))
_OF_CONNECTIONS: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)


def size_of(fields: Fields) -> int:
    """Bytes that they would take in a head of HTTP/1.1."""
    return sum(len(name) + len(value) + 4 for name, value in fields)


def head_of(fields: Fields, ended: bool) -> RequestHead:
    """The request with these fields; ``ended``: it has no body. Raises Refused."""
    if len(fields) > MAX_FIELDS:
        raise RefusedRequest(431, f"The request has more than {MAX_FIELDS} header fields.")
    said, others = _pseudo_fields(fields)
    method, target = said[b":method"], said.get(b":path", b"")
    if method == b"CONNECT" or not _METHOD.fullmatch(method):
        raise RefusedRequest(400, "The request's method is none that is known here.")
    if len(target) > MAX_LINE:
        raise RefusedRequest(414, f"The request's path is longer than {MAX_LINE} bytes.")
    if not _TARGET.fullmatch(target):
        raise RefusedRequest(400, "The request's path is malformed.")
    check_target(method, target)
    if size_of(fields) > MAX_HEAD:
        raise RefusedRequest(431, f"The request's head is longer than {MAX_HEAD} bytes.")
    headers = Headers()
    for name, value in others:
        _check(name, value)
        try:
            headers.addRawHeader(name, value)
        except InvalidHeaderName:
            raise RefusedRequest(400, "A header field has a malformed name.") from None
    _set_host(headers, said)
    length = content_length(headers)
    if ended:
        if length:
            raise RefusedRequest(400, "The request ends before the body that its Content-Length announces.")
        length = 0
    return RequestHead(method, target, VERSION, headers, length)


def _pseudo_fields(fields: Fields) -> tuple[Mapping[bytes, bytes], Fields]:
    """Those, and the others. RFC 9113 section 8.3: they come first, once each, and are those that a request has."""
    said: dict[bytes, bytes] = {}
    for name, value in fields:
        if not name.startswith(b":"):
            break
        if name not in _KNOWN or name in said or not _VALUE.fullmatch(value):
            raise RefusedRequest(400, "A pseudo-header field is unknown, malformed or given more than once.")
        said[name] = value
    others = fields[len(said) :]
    if b":method" not in said or (said[b":method"] != b"CONNECT" and not said.keys() >= {b":scheme", b":path"}):
        raise RefusedRequest(400, "A pseudo-header field is missing.")
    return said, others


def _check(name: bytes, value: bytes) -> None:
    """RFC 9113 sections 8.2.1 and 8.2.2."""
    if not _NAME.fullmatch(name):
        raise RefusedRequest(400, "A header field has a malformed name.")
    if not _VALUE.fullmatch(value):
        raise RefusedRequest(400, "A header field has a malformed value.")
    if name in _OF_CONNECTIONS or (name == b"te" and value.lower() != b"trailers"):
        raise RefusedRequest(400, "A header field is there that HTTP/2 doesn't have.")


def _set_host(headers: Headers, said: Mapping[bytes, bytes]) -> None:
    """RFC 9113 section 8.3.1: ``:authority`` takes the place of Host; where both are given they agree."""
    hosts = set(headers.getRawHeaders(b"Host", ()))
    if b":authority" in said:
        hosts.add(said[b":authority"])
    if len(hosts) != 1 or len(headers.getRawHeaders(b"Host", ())) > 1:
        raise RefusedRequest(400, "A request needs exactly one host.")
    headers.setRawHeaders(b"Host", list(hosts))


def trailers_of(fields: Fields) -> Mapping[str, str]:
    """Trailer fields by name; a repeated one is joined with commas. Raises Refused."""
    if size_of(fields) > MAX_TRAILERS:
        raise RefusedRequest(400, f"The trailer section is longer than {MAX_TRAILERS} bytes.")
    trailers: dict[str, str] = {}
    for raw, value in fields:
        _check(raw, value)
        name, text = raw.decode("latin-1"), value.decode("latin-1")
        trailers[name] = f"{trailers[name]}, {text}" if name in trailers else text
    return trailers

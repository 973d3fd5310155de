"""What an HTTP/2 request says, in the terms of HTTP/1.1 that everything behind a connection knows.

Changes when the grammar that we accept changes. Invariant: what framing.py would refuse is refused here too. `Machine`
has looked at it before: pseudo-header fields, Host and :authority, forbidden characters and fields. Pure functions.
Spec: RFC 9113 sections 8.1 to 8.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from twisted.web.http_headers import Headers, InvalidHeaderName

from resumable.http.framing import (
    MAX_FIELDS,
    MAX_HEAD,
    MAX_LINE,
    MAX_TRAILERS,
    Fields,
    Head,
    Refused,
    check_target,
    content_length,
)

__all__ = ["Fields", "head_of", "trailers_of"]

VERSION = b"HTTP/2"

_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"/[\x21-\x7e]*|\*")


def head_of(fields: Fields, ended: bool) -> Head:
    """The request with these fields; ``ended``: it has no body. Raises Refused."""
    if len(fields) > MAX_FIELDS:
        raise Refused(431, f"The request has more than {MAX_FIELDS} header fields.")
    said = {name: value for name, value in fields if name.startswith(b":")}
    method, target = said[b":method"], said.get(b":path", b"")
    if method == b"CONNECT" or not _METHOD.fullmatch(method):
        raise Refused(400, "The request's method is none that is known here.")
    if len(target) > MAX_LINE:
        raise Refused(414, f"The request's path is longer than {MAX_LINE} bytes.")
    if not _TARGET.fullmatch(target):
        raise Refused(400, "The request's path is malformed.")
    check_target(method, target)
    if sum(len(name) + len(value) + 4 for name, value in fields) > MAX_HEAD:
        raise Refused(431, f"The request's head is longer than {MAX_HEAD} bytes.")
    headers = Headers()
    for name, value in fields:
        if not name.startswith(b":"):
            try:
                headers.addRawHeader(name, value)
            except InvalidHeaderName:
                raise Refused(400, "A header field has a malformed name.") from None
    if b":authority" in said:
        headers.setRawHeaders(b"Host", [said[b":authority"]])
    if len(headers.getRawHeaders(b"Host", ())) != 1:
        raise Refused(400, "A request needs exactly one Host field.")
    length = content_length(headers)
    if ended:
        if length:
            raise Refused(400, "The request ends before the body that its Content-Length announces.")
        length = 0
    return Head(method, target, VERSION, headers, length)


def trailers_of(fields: Fields) -> Mapping[str, str]:
    """Trailer fields by name; a repeated one is joined with commas. Raises Refused."""
    if sum(len(name) + len(value) + 4 for name, value in fields) > MAX_TRAILERS:
        raise Refused(400, f"The trailer section is longer than {MAX_TRAILERS} bytes.")
    trailers: dict[str, str] = {}
    for raw, value in fields:
        name, text = raw.decode("latin-1"), value.decode("latin-1")
        trailers[name] = f"{trailers[name]}, {text}" if name in trailers else text
    return trailers

"""Cross-origin requests (Fetch standard, "CORS protocol"): what lets a page of another origin upload from a browser."""

from __future__ import annotations

import re
from collections.abc import Sequence

from resumable.http.streaming import StreamingRequest

METHODS = b"POST, GET, HEAD, PATCH, DELETE, OPTIONS"
EXPOSED = (
    b"Location, Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, Upload-Concat, Upload-Expires, "
    b"Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, Content-Disposition, Retry-After"
)
ACCEPTED = (
    b"Authorization, Content-Type, Tus-Resumable, Upload-Length, Upload-Defer-Length, Upload-Offset, Upload-Metadata, "
    b"Upload-Concat, Upload-Checksum, X-HTTP-Method-Override, X-Requested-With, X-Request-ID"
)
MAX_AGE = b"86400"

_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")


class Cors:
    """Who may upload from a browser. ``origins``: exact origins, ``*`` for any; none switches it off."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def apply(self, request: StreamingRequest) -> None:
        """The fields of every answer to a request that carries an Origin; errors included."""
        origin = request.requestHeaders.getRawHeaders(b"origin")
        if not origin or not self._origins:
            return
        if self._any:
            request.set_field(b"access-control-allow-origin", b"*")
        else:
            request.responseHeaders.addRawHeader(b"vary", b"Origin")
            if origin[0] not in self._origins:
                return
            request.set_field(b"access-control-allow-origin", origin[0])
        request.set_field(b"access-control-expose-headers", EXPOSED)

    def preflight(self, request: StreamingRequest) -> None:
        """The fields that only an answer to OPTIONS has. Any well-formed list of asked-for header names is allowed."""
        if not request.responseHeaders.hasHeader(b"access-control-allow-origin"):
            return
        asked = request.requestHeaders.getRawHeaders(b"access-control-request-headers", [b""])[0]
        accepted = ACCEPTED
        if len(asked) <= 1024 and _NAMES.fullmatch(asked):
            accepted += b", " + asked
        request.set_field(b"access-control-allow-methods", METHODS)
        request.set_field(b"access-control-allow-headers", accepted)
        request.set_field(b"access-control-max-age", MAX_AGE)

"""Cross-origin requests: what lets a page of another origin upload from a browser.

Changes when browsers' rules do. Invariant: an origin that isn't listed, byte for byte as browsers write it, learns
nothing of an answer. Spec: Fetch standard, "CORS protocol" (3.2) and "CORS protocol and HTTP caches" (3.2.5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from resumable.http.streaming import StreamingRequest

METHODS = b"POST, GET, HEAD, PATCH, DELETE, OPTIONS"
EXPOSED = (
    b"Location, Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, Upload-Concat, Upload-Expires, "
    b"Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, Content-Disposition, "
    b"Retry-After, WWW-Authenticate"
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
        """The fields of every answer, errors included."""
        if not self._origins:
            return
        # Answers to requests without an Origin too: a cache must not give one of those to a page.
        request.responseHeaders.addRawHeader(b"vary", b"Origin")
        origins = request.requestHeaders.getRawHeaders(b"origin")
        if not origins:
            return
        if self._any:
            request.set_field(b"access-control-allow-origin", b"*")
        elif len(origins) == 1 and origins[0] in self._origins:
            request.set_field(b"access-control-allow-origin", origins[0])
        else:
            return
        request.set_field(b"access-control-expose-headers", EXPOSED)

    def preflight(self, request: StreamingRequest) -> None:
        """The fields that only an answer to OPTIONS has. Any well-formed list of asked-for header names is allowed."""
        if not request.responseHeaders.hasHeader(b"access-control-allow-origin"):
            return
        asked = b",".join(request.requestHeaders.getRawHeaders(b"access-control-request-headers", ()))
        accepted = ACCEPTED
        if len(asked) <= 1024 and _NAMES.fullmatch(asked):
            accepted += b", " + asked
        request.set_field(b"access-control-allow-methods", METHODS)
        request.set_field(b"access-control-allow-headers", accepted)
        request.set_field(b"access-control-max-age", MAX_AGE)

"""Cross-origin requests: what lets a page of another origin upload from a browser.

Changes when browsers' rules do. Invariant: an origin that isn't listed, byte for byte as browsers write it, learns
nothing of an answer. Spec: Fetch standard, "CORS protocol" (3.2) and "CORS protocol and HTTP caches" (3.2.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from resumable.http.cross_origin import METHODS, CrossOrigin, Matcher
from resumable.http.request import StreamingRequest

EXPOSED = (
    b"Location, Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, Upload-Concat, Upload-Expires, "
    b"Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, Content-Disposition, "
    b"Content-Range, Accept-Ranges, ETag, Last-Modified, Retry-After, WWW-Authenticate, X-Request-ID"
)
OVERRIDE = b"X-HTTP-Method-Override"
ACCEPTED = (
    b"Authorization, Content-Type, Tus-Resumable, Upload-Length, Upload-Defer-Length, Upload-Offset, Upload-Metadata, "
    b"Upload-Concat, Upload-Checksum, Range, If-Range, If-Match, If-None-Match, If-Modified-Since, "
    b"If-Unmodified-Since, X-Requested-With, X-Request-ID"
)

_ALLOW = b"access-control-allow-origin"
_EXPOSE = b"access-control-expose-headers"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Cors:
    """Who may upload from a browser, and what such a page may send and read."""

    def __init__(self, rules: CrossOrigin) -> None:
        self._on = bool(rules.origins)
        self._any = "*" in rules.origins
        self._matcher = Matcher(rules.origins)
        self._credentials = rules.credentials
        self._exposed = _listed(EXPOSED, rules.exposed)
        self._methods = ", ".join(rules.methods).encode()
        # With it a page could use the methods that it may not.
        self._overrides = set(rules.methods) == set(METHODS)
        self._accepted = _listed(
            b", ".join([ACCEPTED, OVERRIDE] if self._overrides else [ACCEPTED]), rules.headers or ()
        )
        self._echoes = rules.headers is None
        self._max_age = b"%d" % rules.max_age

    def apply(self, request: StreamingRequest) -> None:
        """The fields of every answer, errors included."""
        if not self._on:
            return
        # Answers to requests without an Origin too: a cache must not give one of those to a page.
        request.responseHeaders.addRawHeader(b"vary", b"Origin")
        origins = request.requestHeaders.getRawHeaders(b"origin", ())
        for name, value in self._allowing(origins) if origins else ():
            request.set_field(name, value)

    def refusal(self, origins: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """The same for what never became a request; ``origins``: what was found in it, which may have been cut off."""
        return [(b"vary", b"Origin"), *self._allowing(origins)] if self._on else []

    def _allowing(self, origins: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        if self._any:
            return [(_ALLOW, b"*"), (_EXPOSE, self._exposed)]
        if len(origins) != 1 or not self._matcher.matches(origins[0]):
            return []
        credentials = [(b"access-control-allow-credentials", b"true")] if self._credentials else []
        return [(_ALLOW, origins[0]), *credentials, (_EXPOSE, self._exposed)]

    def preflight(self, request: StreamingRequest) -> None:
        """The fields that only an answer to OPTIONS has."""
        if not self._on:
            return
        if request.requestHeaders.hasHeader(b"access-control-request-method"):
            # By the book nobody keeps answers to OPTIONS; there are networks of caches that can be told to.
            request.set_field(b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
        if not request.responseHeaders.hasHeader(_ALLOW):
            return
        request.set_field(b"access-control-allow-methods", self._methods)
        request.set_field(b"access-control-allow-headers", self._accepted + self._asked(request))
        request.set_field(b"access-control-max-age", self._max_age)

    def _asked(self, request: StreamingRequest) -> bytes:
        """Those header names that the page has asked for and may have, if they are a well-formed list."""
        asked = b",".join(request.requestHeaders.getRawHeaders(b"access-control-request-headers", ()))
        if not self._echoes or not asked or len(asked) > 1024:
            return b""
        names = [name.strip(b" \t") for name in asked.split(b",")]
        if not all(map(_NAME.fullmatch, names)):
            return b""
        if not self._overrides:
            names = [name for name in names if name.lower() != OVERRIDE.lower()]
        return b"".join(b", " + name for name in names)


def expose(request: StreamingRequest, names: Iterable[str]) -> None:
    """Let the page read these fields of this answer too, if it may read any."""
    listed = request.responseHeaders.getRawHeaders(_EXPOSE)
    if listed:
        request.set_field(_EXPOSE, _listed(listed[0], names))


def _listed(first: bytes, more: Iterable[str]) -> bytes:
    return b", ".join([first, *(name.encode("latin-1") for name in more)])

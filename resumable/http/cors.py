"""Cross-origin requests: which pages of other origins may upload from a browser, and how browsers are told.

Invariants: an origin that isn't listed learns nothing of an answer. An origin is matched as a whole, byte for byte as
browsers write it, in time that is linear in its length. No page that anybody can make may come with cookies. Patterns
have one ``*`` in place of regular expressions, in which a dot or an anchor that was forgotten lets strangers in.
Spec: Fetch standard, 3.2 (CORS protocol) and 3.2.5 (HTTP caches); RFC 6454, section 6.2 (how an origin is written).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from resumable.http.request import StreamingRequest

METHODS = ("POST", "GET", "HEAD", "PATCH", "DELETE", "OPTIONS")

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_SCHEME = r"([a-z][a-z0-9+.-]*)://"
_ORIGIN = re.compile(_SCHEME + r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_PATTERN = re.compile(_SCHEME + r"([a-z0-9_*.-]+|\[[0-9a-f:.]+\])(:(?:[0-9]{1,5}|\*))?")
_REST = re.compile(r"[a-z0-9_-]*(\.[a-z0-9_-]+){2,}|[a-z0-9_-]*\.localhost")
_BETWEEN = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_LONGEST = 253  # octets of a name in the DNS

EXPOSED = (
    b"Location, Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, Upload-Concat, Upload-Expires, "
    b"Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, Upload-Complete, "
    b"Upload-Incomplete, Upload-Limit, Upload-Draft-Interop-Version, Content-Disposition, Content-Range, "
    b"Accept-Ranges, Content-Digest, Repr-Digest, Want-Content-Digest, Want-Repr-Digest, ETag, Last-Modified, "
    b"Retry-After, WWW-Authenticate, X-Request-ID"
)
OVERRIDE = b"X-HTTP-Method-Override"
ACCEPTED = (
    b"Authorization, Content-Type, Tus-Resumable, Upload-Length, Upload-Defer-Length, Upload-Offset, Upload-Metadata, "
    b"Upload-Concat, Upload-Checksum, Upload-Complete, Upload-Incomplete, Upload-Draft-Interop-Version, "
    b"Content-Disposition, Content-Encoding, Content-Digest, Repr-Digest, Want-Content-Digest, Want-Repr-Digest, "
    b"Range, If-Range, If-Match, If-None-Match, If-Modified-Since, "
    b"If-Unmodified-Since, X-Requested-With, X-Request-ID"
)

_ALLOW = b"access-control-allow-origin"
_EXPOSE = b"access-control-expose-headers"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@frozen
class CrossOrigin:
    """The operator's rules. ``origins``: as `parse_origins` gives them. ``headers`` None: a page may send those that it
    asks for. ``exposed``: fields that a page may read beside those of tus. ``max_age``: seconds that a browser may
    remember a preflight for.
    """

    origins: tuple[str, ...] = ("*",)
    credentials: bool = False
    methods: tuple[str, ...] = METHODS
    headers: tuple[str, ...] | None = None
    exposed: tuple[str, ...] = ()
    max_age: float = 86400


def parse_origins(items: Sequence[str]) -> tuple[str, ...]:
    """Origins and patterns in lower case without a default port; ``("*",)`` for all, ``()`` for none.

    Raises ValueError, whose message names the forms that are allowed.
    """
    cleaned = [item.lower().removesuffix("/") for item in items]
    if cleaned == ["none"]:
        return ()
    if cleaned == ["*"]:
        return ("*",)
    if not cleaned:
        raise ValueError("origins like https://example.org, or one of * and none alone")
    return tuple(item if item == "null" else _checked(item) for item in cleaned)


def _checked(item: str) -> str:
    match = _PATTERN.fullmatch(item)
    if match is None:
        raise ValueError(
            "origins like https://example.org, patterns like https://*.example.org or http://localhost:*,"
            " or one of * and none alone; names beyond ASCII as xn--..."
        )
    scheme, host, port = match.groups()
    _, star, rest = host.partition("*")
    if star and not _REST.fullmatch(rest):
        raise ValueError("one * at most in a name, and two parts or more after it, as in https://*.example.org")
    return item.removesuffix(_DEFAULT_PORTS.get(scheme, "")) if port else item


def cross_origin_rules(values: Mapping[str, Any]) -> CrossOrigin:
    """From the values of the options, by their flags with underscores. Raises ValueError for a contradiction."""
    origins: tuple[str, ...] = values["cors_origin"]
    if values["cors_credentials"]:
        if not origins or "*" in origins:
            raise ValueError(
                "--cors-credentials needs --cors-origin with the origins that may come with cookies, not *:"
                " every page on the web could act for whoever is logged in"
            )
        if "null" in origins:
            raise ValueError("--cors-credentials can't be had with --cors-origin null: every page can make itself null")
    return CrossOrigin(
        origins,
        values["cors_credentials"],
        values["cors_methods"],
        values["cors_headers"],
        values["cors_expose"],
        values["cors_max_age"],
    )


class Matcher:
    """Whether an origin is one of those that were named."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._exact = frozenset(origin.encode() for origin in origins if "*" not in origin)
        self._patterns = [_Pattern.of(origin) for origin in origins if "*" in origin and origin != "*"]

    def matches(self, origin: bytes) -> bool:
        """``origin``: the field's value as it came."""
        if origin in self._exact:
            return True
        if not self._patterns:
            return False
        seen = _ORIGIN.fullmatch(origin.decode("latin-1"))
        return seen is not None and any(each.matches(*seen.groups()) for each in self._patterns)


@frozen
class _Pattern:
    """``host``: what stands before and after its ``*``, the whole name without one; ``port`` None: any."""

    scheme: str
    host: tuple[str, ...]
    port: str | None

    @classmethod
    def of(cls, text: str) -> _Pattern:
        match = _PATTERN.fullmatch(text)
        assert match is not None, "it was checked when it was parsed"
        scheme, host, port = match.groups()
        return cls(scheme, tuple(host.split("*")), None if port == ":*" else port or "")

    def matches(self, scheme: str, host: str, port: str | None) -> bool:
        if scheme != self.scheme or self.port not in (None, port or ""):
            return False
        if len(self.host) == 1:
            return host == self.host[0]
        before, after = self.host
        if len(host) > _LONGEST or not (host.startswith(before) and host.endswith(after)):
            return False
        return _BETWEEN.fullmatch(host[len(before) : len(host) - len(after)]) is not None


class Cors:
    """Sets the fields that tell browsers which pages may upload, and which fields they may send and read."""

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
        request.set_field(b"vary", b"Origin")
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

"""Which pages of other origins may do what, as an operator says it.

Changes when the words for it do. Invariants: an origin is matched as a whole, byte for byte as browsers write it, in
time that is linear in its length; nobody's cookies count for everybody's pages. Patterns have one ``*`` in place of
regular expressions, in which a dot or an anchor that was forgotten lets strangers in.
Spec: Fetch standard, 3.2 (CORS protocol); RFC 6454, section 6.2 (how an origin is written).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

METHODS = ("POST", "GET", "HEAD", "PATCH", "DELETE", "OPTIONS")

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_SCHEME = r"([a-z][a-z0-9+.-]*)://"
_ORIGIN = re.compile(_SCHEME + r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_PATTERN = re.compile(_SCHEME + r"([a-z0-9_*.-]+|\[[0-9a-f:.]+\])(:(?:[0-9]{1,5}|\*))?")
_REST = re.compile(r"[a-z0-9_-]*(\.[a-z0-9_-]+){2,}|[a-z0-9_-]*\.localhost")
_BETWEEN = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_LONGEST = 253  # octets of a name in the DNS


@frozen
class CrossOrigin:
    """``origins``: as `parse` gives them. ``headers`` None: a page may send those that it asks for. ``exposed``: fields
    that a page may read beside those of tus. ``max_age``: seconds that a browser may remember a preflight for.
    """

    origins: tuple[str, ...] = ("*",)
    credentials: bool = False
    methods: tuple[str, ...] = METHODS
    headers: tuple[str, ...] | None = None
    exposed: tuple[str, ...] = ()
    max_age: float = 86400


def parse(items: Sequence[str]) -> tuple[str, ...]:
    """Origins and patterns in lower case without a default port; ``("*",)`` for all, ``()`` for none.

    Raises ValueError with what is expected.
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


def rules(values: Mapping[str, Any]) -> CrossOrigin:
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

"""How a client sends: one frozen value, whose mistakes are told before any request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from attrs import field, frozen

from resumable.client.exceptions import BadOption

PROTOCOLS: Final = ("auto", "tus", "draft")
CHECKSUMS: Final = ("auto", "sha256", "crc32c", "sha1")
Token = str | Path | Callable[[], str]


@frozen(kw_only=True)
class ClientOptions:
    """See docs/client.md for each. Sizes in bytes, times in seconds. Raises BadOption.

    ``token``: text, a file that is read again at each request, or a callable; ``proxy``: None is the environment's, ""
    is none; ``retry_for``: since bytes last moved; ``chunk_size`` None: all that is left in one request; ``may_send``:
    answers 0, or for how many seconds nothing may be sent; ``buffer``: what is kept of a stream until it is
    acknowledged.
    """

    protocol: str = "auto"
    headers: Mapping[str, str] = field(factory=dict)
    token: Token | None = None
    user: tuple[str, str] | None = None
    ca_file: str | Path | None = None
    insecure: bool = False
    proxy: str | None = None
    timeout: float = 60.0
    retry_for: float = 3600.0
    chunk_size: int | None = None
    checksum: str | None = None
    announce: bool = False
    verify: bool = True
    parts: int = 1
    limit_rate: float | None = None
    may_send: Callable[[], float] | None = None
    on_changed: str = "error"
    poll_status: float | None = None
    wait_stored: bool = False
    buffer: int = 8 << 20

    def __attrs_post_init__(self) -> None:
        """Look at all of them."""
        _one_of("protocol", self.protocol, PROTOCOLS)
        _one_of("on_changed", self.on_changed, ("error", "restart"))
        if self.checksum is not None:
            _one_of("checksum", self.checksum, CHECKSUMS)
        _at_least("retry_for", self.retry_for, 0)
        _at_least("parts", self.parts, 1)
        _at_least("buffer", self.buffer, 1)
        for name in ("timeout", "chunk_size", "limit_rate", "poll_status"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadOption(f"{name} must be more than 0, not {value}")
        for key, value in self.headers.items():
            _header(key, value)

    def bearer(self) -> str | None:
        """The token of now. Raises BadOption."""
        if self.token is None or isinstance(self.token, str):
            found = self.token
        elif callable(self.token):
            found = self.token()
        else:
            try:
                found = self.token.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise BadOption(f"the token can't be read from {self.token}: {error}") from error
        if found is not None:
            _header("token", found)
        return found


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BadOption(f"{name} must be one of {', '.join(known)}, not {value!r}")


def _at_least(name: str, value: float, least: int) -> None:
    if math.isnan(value) or value < least:
        raise BadOption(f"{name} must be {least} or more, not {value}")


def _header(name: str, value: str) -> None:
    if not name or not all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in name):
        raise BadOption(f"{name!r} is no name of a header field")
    if any(c in "\r\n\0" for c in value) or not value.isascii():
        raise BadOption(f"the value of {name} has characters that a header field can't have")


def web_address(url: str) -> str:
    """The address, if it is one of http or https. Raises BadOption."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or any(c.isspace() or ord(c) < 32 for c in url):
        raise BadOption(f"{url!r} is no address: write http://HOST:PORT/PATH or https://...")
    return url

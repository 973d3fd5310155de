"""URLs that carry their signature.

One reason to change: what Google wants signed. Pure: who signs is passed in.

Invariant: the only header that is signed is Host, so that a reader may ask for ranges; no token is in the URL.
Source: https://docs.cloud.google.com/storage/docs/access-control/signed-urls and
.../storage/docs/authentication/canonical-requests
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from attrs import frozen

ALGORITHM = "GOOG4-RSA-SHA256"
LONGEST = 7 * 86400
"""Seconds that a URL may be good for."""


@frozen
class Unsigned:
    """A URL for a GET of an object. ``url``: encoded, without a query. ``now``: seconds since the epoch."""

    url: str
    query: Sequence[tuple[str, str]]
    now: float
    lifetime: float

    def text(self, email: str) -> bytes:
        """What this service account has to sign, with RSA and SHA-256."""
        parts = urlsplit(self.url)
        canonical = f"GET\n{parts.path}\n{self._query(email)}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        return f"{ALGORITHM}\n{self._time()}\n{self._scope()}\n{digest}".encode()

    def signed(self, email: str, signature: bytes) -> str:
        """The URL with the account's signature of `text`."""
        return f"{self.url}?{self._query(email)}&X-Goog-Signature={signature.hex()}"

    def _query(self, email: str) -> str:
        named = [
            *self.query,
            ("X-Goog-Algorithm", ALGORITHM),
            ("X-Goog-Credential", f"{email}/{self._scope()}"),
            ("X-Goog-Date", self._time()),
            ("X-Goog-Expires", str(max(1, min(LONGEST, int(self.lifetime))))),
            ("X-Goog-SignedHeaders", "host"),
        ]
        return "&".join(sorted(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in named))

    def _time(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).strftime("%Y%m%dT%H%M%SZ")

    def _scope(self) -> str:
        return f"{self._time()[:8]}/auto/storage/goog4_request"

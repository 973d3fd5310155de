"""Files of a page that a browser loads, which are in the package: read once, and named by what is in them.

Invariants: a name that has the digest of its file is kept by every cache for good, and no other name is. While servers
of two releases answer at one address, each of them answers for the other's names with its own file. Spec: RFC 9110
sections 8.8.3 (ETag) and 13.1.2 (If-None-Match), RFC 8246 (immutable).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final

from attrs import frozen

from resumable.http.request import StreamingRequest

KINDS: Final = {
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "txt": b"text/plain; charset=utf-8",
    "svg": b"image/svg+xml",
}
"""The types of files, by the ends of their names."""
FOREVER: Final = b"public, max-age=31536000, immutable"
CHECKED: Final = b"no-cache"
"""Caches ask each time whether they still have the newest."""
_NAMED: Final = re.compile(r"([a-z]+)\.([0-9a-f]{12})\.([a-z]+)")
Fields = Sequence[tuple[bytes, bytes]]


@frozen
class Asset:
    """One file. ``kind``: its media type; ``digest``: 12 hexadecimal digits of its SHA-256."""

    kind: bytes
    body: bytes
    digest: str

    @classmethod
    def of(cls, ending: str, body: bytes) -> Asset:
        """A file whose name ends so."""
        return cls(KINDS[ending], body, hashlib.sha256(body).hexdigest()[:12])

    def respond(self, request: StreamingRequest, caching: bytes, fields: Fields = ()) -> bytes:
        """Set the status, 200 or 304, and the fields; answers the body. ``fields``: more of them."""
        etag = f'"{self.digest}"'.encode()
        known = b",".join(request.requestHeaders.getRawHeaders(b"if-none-match", ()))
        fresh = etag in [each.strip().removeprefix(b"W/") for each in known.split(b",")]
        request.setResponseCode(304 if fresh else 200)
        for name, value in (
            (b"etag", etag),
            (b"cache-control", caching),
            (b"content-type", self.kind),
            (b"x-content-type-options", b"nosniff"),
            *fields,
        ):
            request.set_field(name, value)
        return b"" if fresh else self.body


class Assets:
    """The files in a directory of the package ``package``. ``names``: file names such as ``page.js``."""

    def __init__(self, package: str, directory: str, names: Sequence[str]) -> None:
        place = files(package) / directory
        self._by_name: Mapping[str, Asset] = {
            name: Asset.of(name.rpartition(".")[2], (place / name).read_bytes()) for name in names
        }

    def __getitem__(self, name: str) -> Asset:
        return self._by_name[name]

    def address(self, name: str) -> str:
        """The name that the file has in its page: ``page.js`` is ``page.0123456789ab.js``."""
        stem, _, ending = name.rpartition(".")
        return f"{stem}.{self._by_name[name].digest}.{ending}"

    def find(self, address: str) -> tuple[Asset, bytes] | None:
        """The file at this address, and how long caches may keep it; None: there is none."""
        match = _NAMED.fullmatch(address)
        asset = self._by_name.get(f"{match[1]}.{match[3]}") if match else None
        if match is None or asset is None:
            return None
        return asset, FOREVER if match[2] == asset.digest else CHECKED

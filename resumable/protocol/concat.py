"""The concatenation extension: Upload-Concat, and which upload a URL in it names.

Invariant: a value that leaves here may be echoed as a header and stored, as it names uploads by their paths alone; an
id that leaves here is valid. Spec: tus 1.0.0, Concatenation; RFC 3986 section 4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from resumable.protocol.errors import BadRequest
from resumable.protocol.fields import shown
from resumable.protocol.names import valid_id

PARTIAL: Literal["partial"] = "partial"

_FINAL = "final;"
_AUTHORITY = re.compile(r"https?://[^/?#\\]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FinalUpload:
    """A request to concatenate the uploads at ``urls``, in this order; one may be named several times.

    The URLs are relative and have no query: a host or a token in a client's URL is neither kept nor echoed.
    """

    urls: tuple[str, ...]

    @property
    def header(self) -> str:
        """The value of Upload-Concat for this request."""
        return _FINAL + " ".join(self.urls)


def parse(value: str) -> Literal["partial"] | FinalUpload:
    """An Upload-Concat value; BadRequest if it is malformed or names no upload."""
    # "If the upload is a partial one, the header value MUST be partial."
    if value == PARTIAL:
        return PARTIAL
    # "its value MUST be final followed by a semicolon and a space-separated list of partial upload URLs"
    if not value.startswith(_FINAL):
        raise BadRequest(f"Upload-Concat must be 'partial' or 'final;' and a list of URLs, not {shown(value)}.")
    if not (value.isascii() and value.isprintable()):
        raise BadRequest("Upload-Concat: URLs consist of printable ASCII characters.")
    urls = tuple(_path(url) for url in value[len(_FINAL) :].split(" ") if url)
    if not urls:
        raise BadRequest("Upload-Concat: 'final;' names no partial upload.")
    return FinalUpload(urls)


def _path(url: str) -> str:
    """A URL without its host, because a client may know us by a proxy's name, and without its query, which may sign the
    URL and never names an upload."""
    authority = _AUTHORITY.match(url)
    return (url[authority.end() :] if authority else url).partition("?")[0]


def upload_id(url: str, base_path: str, *others: str) -> str:
    """The id of the upload at ``url``; BadRequest unless that is directly under ``base_path`` or one of ``others``.

    "The partial uploads URLs MAY be absolute or relative": an absolute URL of any host, an absolute path, or an id
    alone.
    """
    if valid_id(url):
        return url
    parent, _, segment = _path(url).rpartition("/")
    # A base path may end in a slash or not; doubled slashes, dots and escapes match neither it nor an id.
    if valid_id(segment) and any(parent == base.rstrip("/") for base in (base_path, *others)):
        return segment
    raise BadRequest(f"Upload-Concat: {shown(_path(url))} is not the URL of an upload here.")

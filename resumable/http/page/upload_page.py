"""The page for uploads in a browser, at the address of the upload collection.

It is the same for everybody, and holds nothing that isn't public; what somebody may upload is decided when they do.
Invariants: only a GET or HEAD that prefers HTML gets it, so clients of the protocols see no difference. Nothing that it
loads comes from elsewhere, and no code is written in the page itself. Its files' names have dots, so none is an
upload's id. All addresses are relative: it works behind any prefix. Its sources are in web/page.
Spec: Content Security Policy Level 3, RFC 9110 section 12.5.1 (Accept).
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from resumable.http.assets import CHECKED, Asset, Assets
from resumable.http.request import StreamingRequest

LICENSES: Final = "licenses.txt"
_FILES: Final = ("page.js", "page.css", "icon.svg", LICENSES)
POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
).encode()
_FIELDS: Final = (
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"vary", b"Accept"),
)


class UploadPage:
    """The page of a site. ``base_path`` begins and ends with a slash. ``status_path``, ``downloads``, ``extensions``:
    see `TusRoutes`; the page asks for nothing that isn't there."""

    def __init__(self, base_path: str, *, status_path: str | None, downloads: bool, extensions: Sequence[str]) -> None:
        self._assets = Assets("resumable.http.page", "assets", _FILES)
        self._from_root = base_path.lstrip("/").encode()
        self._last = base_path.strip("/").rpartition("/")[2].encode()
        said = {
            "status": status_path or "",
            "downloads": "yes" if downloads else "",
            "extensions": " ".join(extensions),
            "script": self._assets.address("page.js"),
            "style": self._assets.address("page.css"),
            "icon": self._assets.address("icon.svg"),
            "licenses": self._assets.address(LICENSES),
        }
        text = Assets("resumable.http.page", "assets", ["index.html"])["index.html"].body.decode()
        for name, value in said.items():
            text = text.replace(f"{{{name}}}", html.escape(value))
        self._index = Asset.of("html", text.encode())

    def answer(self, request: StreamingRequest, rest: Sequence[bytes]) -> bytes | None:
        """The answer, if this request is one for the page. ``rest``: the segments of the path below the base path."""
        if request.method not in (b"GET", b"HEAD") or len(rest) > 1:
            return None
        if rest and rest[0]:
            found = self._assets.find(rest[0].decode("latin-1"))
            return None if found is None else found[0].respond(request, found[1])
        if not prefers_html(request):
            return None
        if not rest:  # without the slash the page's own addresses would lead elsewhere
            return _redirect(request, self._last + b"/")
        return self._index.respond(request, CHECKED, _FIELDS)

    def lead_here(self, request: StreamingRequest) -> bytes | None:
        """The answer to a browser at ``/``, if this is one; the base path is another."""
        if request.method not in (b"GET", b"HEAD") or not prefers_html(request):
            return None
        return _redirect(request, self._from_root)


def prefers_html(request: StreamingRequest) -> bool:
    """Whether the request names HTML, and nothing that it would rather have: browsers do when somebody goes to an
    address, and neither clients of the protocols nor curl do."""
    said = b",".join(request.requestHeaders.getRawHeaders(b"accept", ())).decode("latin-1")
    wanted = parse_accept_header(said, MIMEAccept)
    best = max((quality for _, quality in wanted), default=0.0)
    return any(kind == "text/html" and 0 < quality == best for kind, quality in wanted)


def _redirect(request: StreamingRequest, where: bytes) -> bytes:
    """303 to a relative address, which holds behind any prefix too. A query is kept: it may be a signed one."""
    _, mark, query = request.uri.partition(b"?")
    request.setResponseCode(303)
    request.set_field(b"location", where + mark + query)
    request.set_field(b"cache-control", CHECKED)
    request.set_field(b"vary", b"Accept")
    return b""

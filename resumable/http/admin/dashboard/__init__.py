"""The dashboard: a page for operators, on their own listener. Its files are static, and hold nothing secret.

Invariants: the page runs no code and shows no style that isn't in its files, and asks nobody but the server it came
from; no other page can show it in a frame. What it shows it gets from the admin API, which asks who it is.
"""

from __future__ import annotations

from typing import Final

from twisted.web.resource import Resource

from resumable.http import errors
from resumable.http.assets import CHECKED, Assets
from resumable.http.request import StreamingRequest
from resumable.protocol.errors import MethodNotAllowed, NotFound, TusError

NAMES: Final = (
    "index.html",
    "style.css",
    "api.js",
    "charts.js",
    "detail.js",
    "dom.js",
    "format.js",
    "health.js",
    "main.js",
    "table.js",
)
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FIELDS: Final = (
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Dashboard(Resource):
    """``/``, which leads to the page, and everything under ``/dashboard/``."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._assets = Assets(__name__, "assets", NAMES)

    def render(self, request: StreamingRequest) -> bytes:
        try:
            return self._answer(request)
        except TusError as error:
            return errors.respond(request, error)

    def _answer(self, request: StreamingRequest) -> bytes:
        if request.method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed(["GET", "HEAD"])
        if request.path in (b"/", b"/dashboard"):
            request.setResponseCode(308)
            request.set_field(b"location", b"/dashboard/")
            return b""
        name = request.path.removeprefix(b"/dashboard/").decode("latin-1") or "index.html"
        if name not in NAMES:
            raise NotFound("There is nothing at this address.")
        return self._assets[name].respond(request, CHECKED, _FIELDS)

"""The resources of an embedded server: its uploads, and its admin API.

Invariant: no upload is taken whose body was collected by the channel first: nothing of it would be safe before its end,
and each interruption would begin at zero. Such requests are refused, and the log says what to write instead.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from resumable.embed.shared_request import EmbeddedRequest, RequestOwner
from resumable.http import errors
from resumable.http.h1 import problem
from resumable.http.request import StreamingRequest
from resumable.http.site import hand_over
from resumable.protocol.errors import TusError

log = Logger()

BUFFERED = (
    "uploads are refused: this site collects whole bodies before it passes them on, so no interrupted upload could go "
    "on. Make the site with `server.site(root)` in place of `twisted.web.server.Site(root)`, or give the upload server "
    "a port of its own: UploadServer(port=...)"
)
OTHER_SITE = "uploads are refused: the site knows nothing of this upload server. Make it with `server.site(root)`"
OTHER_PATH = (
    "uploads are refused: their resource is at {found}, and the server's base path is {path}. Write "
    "UploadServer(base_path={found!r})"
)
RETRY_AFTER = 5


class UploadResource(Resource):
    """The uploads of ``server``, for the place in a tree, or the route, that is its base path."""

    isLeaf = True

    def __init__(self, server: RequestOwner) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._server = server
        self._told: set[str] = set()

    def render(self, request: IRequest) -> bytes | int:
        if not isinstance(request, StreamingRequest):
            return self._refuse(request, BUFFERED)
        segments = [unquote_to_bytes(segment) for segment in request.path[1:].split(b"/")]
        base = self._server.base
        if segments[: len(base)] != base:
            found = b"/".join([b"", *request.prepath]).decode("latin-1").rstrip("/") + "/"
            return self._refuse(request, OTHER_PATH, found=found, path=self._server.settings.base_path)
        if not isinstance(request, EmbeddedRequest) or request.owner is not self._server:
            return self._refuse(request, OTHER_SITE)
        root = self._server.tree
        if root is None:
            return unavailable(request)
        request.prepath, request.postpath = [], segments
        return root.render(request)

    def _refuse(self, request: IRequest, reason: str, **fields: str) -> bytes:
        """A mistake of the program's author: the log tells it, once."""
        if reason not in self._told:
            self._told.add(reason)
            log.critical(reason, **fields)
        body = problem(500, "The upload server is not set up correctly; its log says what to change.")
        return answer(request, 500, body)


class AdminResource(Resource):
    """The admin API of ``server``, for those with the token of its ``admin_token_file``; at any place in a tree."""

    isLeaf = True

    def __init__(self, server: RequestOwner) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._server = server

    def render(self, request: IRequest) -> bytes | int:
        if not isinstance(request, StreamingRequest):
            return answer(request, 500, problem(500, "The admin API needs a site made with server.site(root)."))
        tree = self._server.admin_tree
        if tree is None:
            return unavailable(request)
        try:
            above = len(request.prepath)
            request.postpath = [*request.prepath, *request.postpath]
            return hand_over(tree, request, above)
        except TusError as error:
            return errors.respond(request, error)


def unavailable(request: IRequest) -> bytes:
    """The answer before the start, and after the stop."""
    request.setHeader(b"retry-after", b"%d" % RETRY_AFTER)
    return answer(request, 503, problem(503, "The upload server does not run now; try again later."))


def answer(request: IRequest, status: int, body: bytes) -> bytes:
    """For any request."""
    request.setResponseCode(status)
    request.setHeader(b"content-type", errors.CONTENT_TYPE)
    request.setHeader(b"cache-control", b"no-store")
    return body

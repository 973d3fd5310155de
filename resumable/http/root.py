"""The resource tree: the upload collection under its base path, ``/healthz`` and ``/readyz``, and the admin API where
an operator wants it here.

Invariants: one address has one spelling. What isn't found is answered with a problem document too, so that no page of
the framework's own ever goes out. Spec: RFC 3986 section 6, RFC 9110 section 9.1.
"""

from __future__ import annotations

from typing import Final

from klein.resource import KleinResource
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from resumable.http import errors
from resumable.http.admin.readiness import Readiness, alive
from resumable.http.request import StreamingRequest
from resumable.http.tus import TusRoutes
from resumable.protocol.errors import MethodNotAllowed, NotFound, TusError

ADMIN: Final = b"admin"


class Root(Resource):
    """Sends a request to its part of the tree. ``base_path`` begins and ends with a slash."""

    isLeaf = True

    def __init__(self, tus: TusRoutes, base_path: str, readiness: Readiness) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tus = tus
        self._readiness = readiness
        self._base = [segment.encode() for segment in base_path.strip("/").split("/") if segment]
        #: The admin API under `ADMIN`, where it was asked for.
        self.admin: KleinResource | None = None

    def render(self, request: StreamingRequest) -> bytes | int:
        try:
            return self._route(request)
        except TusError as error:
            return errors.respond(request, error)

    def _route(self, request: StreamingRequest) -> bytes | int:
        path: list[bytes] = request.postpath or []
        depth = len(self._base)
        if self.admin is not None and path[:1] == [ADMIN]:
            return hand_over(self.admin, request, 1)
        self._tus.cors.apply(request)
        if path in ([b"healthz"], [b"readyz"]):
            if request.method not in (b"GET", b"HEAD"):
                raise MethodNotAllowed(["GET", "HEAD"])
            return alive(request) if path == [b"healthz"] else self._ready(request)
        if path[:depth] != self._base:
            raise NotFound("There is nothing at this address.")
        self._tus.prepare(request)
        return hand_over(self._tus.tree, request, depth)

    def _ready(self, request: StreamingRequest) -> int:
        def answer(body: bytes) -> None:
            request.write(body)
            request.finish()

        def failed(failure: Failure) -> None:
            request.processingFailed(failure)

        Deferred.fromCoroutine(self._readiness.respond(request)).addCallback(answer).addErrback(failed)
        return NOT_DONE_YET


def hand_over(tree: KleinResource, request: StreamingRequest, prefix: int = 0) -> bytes | int:
    """Have ``tree`` answer; ``prefix``: how many segments of the path lead to it. Raises NotFound."""
    path: list[bytes] = request.postpath or []
    try:
        b"/".join(path).decode("utf-8")
    except UnicodeDecodeError:
        raise NotFound("There is nothing at this address.") from None
    rest = path[prefix:] or [b""]
    if (len(rest) > 1 and not rest[0]) or any(b"/" in segment for segment in rest):
        # The router would take doubled and escaped slashes for one.
        raise NotFound("There is nothing at this address.")
    request.prepath, request.postpath = path[:prefix], rest
    if request.method != request.method.upper():
        request.method = b"~" + request.method  # they are case-sensitive, which the router doesn't know
    return tree.render(request)  # type: ignore[return-value]


class TreeRoot(Resource):
    """The root of a site that has one tree only."""

    isLeaf = True

    def __init__(self, tree: KleinResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tree = tree

    def render(self, request: StreamingRequest) -> bytes | int:
        try:
            return hand_over(self._tree, request)
        except TusError as error:
            return errors.respond(request, error)

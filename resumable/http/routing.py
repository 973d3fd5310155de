"""A request on its way to one of our trees of routes.

Changes when the router's ideas of a path or a method do. Invariant: one address has one spelling, and no page of the
framework's own ever goes out. Spec: RFC 3986 section 6, RFC 9110 section 9.1.
"""

from __future__ import annotations

from urllib.parse import unquote

from klein.resource import KleinResource
from twisted.web.resource import Resource

from resumable.http import errors
from resumable.http.request import StreamingRequest
from resumable.protocol.errors import NotFound, TusError


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


def target_of(request: StreamingRequest) -> tuple[str, str]:
    """The path that is routed, decoded, however the client has spelt it; and the query as it came."""
    path, _, query = request.uri.decode("latin-1").partition("?")
    return unquote(path), query


class Trunk(Resource):
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

"""A site: the tree of its resources, and the factory of its connections, which has the settings that they share.

The tree has the upload collection under its base path, with the page for people where there is one, ``/healthz`` and
``/readyz``, and the admin API where an operator wants it here. Invariants: one address has one spelling. What isn't
found is answered with a problem document too, so that no page of the framework's own ever goes out.
Spec: RFC 3986 section 6, RFC 9110 section 9.1.

HTTP/2 is chosen by TLS (`StreamingSite.acceptableProtocols`), or by the client's first bytes (`StreamingChannel`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from klein.resource import KleinResource
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site

from resumable.http import errors
from resumable.http.admin.overview import Readiness, alive
from resumable.http.channel import StreamingChannel
from resumable.http.connections import Connections
from resumable.http.h1 import Fields
from resumable.http.h2.limits import HeldBytes
from resumable.http.page.upload_page import UploadPage
from resumable.http.request import RequestObserver, StreamingRequest
from resumable.http.tus import TusRoutes
from resumable.protocol.errors import MethodNotAllowed, NotFound, TusError
from resumable.protocol.names import valid_id

ADMIN: Final = b"admin"


class Root(Resource):
    """Sends a request to its part of the tree. ``base_path`` begins and ends with a slash. ``page`` None: there is no
    page for uploads from a browser."""

    isLeaf = True

    def __init__(self, tus: TusRoutes, base_path: str, readiness: Readiness, page: UploadPage | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tus = tus
        self._readiness = readiness
        self._page = page
        self._base = [segment.encode() for segment in base_path.strip("/").split("/") if segment]
        self._collection = b"/".join([b"", *self._base, b""])
        #: The base path is one that other resources share, or it's written in another way than requests spell it.
        self._special = b"%" in self._collection or self._base[:1] in ([ADMIN], [b"healthz"], [b"readyz"])
        #: The admin API under `ADMIN`, where it was asked for.
        self.admin: KleinResource | None = None

    def render(self, request: StreamingRequest) -> bytes | int:
        try:
            upload_id = self._upload_id(request.path)
            if not upload_id and self._page is not None:
                page = self._page_answer(self._page, request)
                if page is not None:
                    return page
            if upload_id is not None:
                self._tus.cors.apply(request)
                self._tus.prepare(request)
                return NOT_DONE_YET if self._tus.answer(request, upload_id) else self._route(request)
            path = request.postpath
            if self.admin is not None and path[:1] == [ADMIN]:
                return hand_over(self.admin, request, 1)
            self._tus.cors.apply(request)
            if path in ([b"healthz"], [b"readyz"]):
                return self._health(request, path[0])
            if path[: len(self._base)] != self._base:
                raise NotFound("There is nothing at this address.")
            self._tus.prepare(request)
            return self._route(request)
        except TusError as error:
            return errors.respond(request, error)

    def _upload_id(self, path: bytes) -> str | None:
        """Empty at the collection's address, the id at an upload's; None where another spelling of an address, or
        another address, needs a closer look."""
        size = len(self._collection)
        if path[:size] != self._collection or self._special:
            return None
        upload_id = path[size:].decode("latin-1")
        return upload_id if not upload_id or valid_id(upload_id) else None

    def _page_answer(self, page: UploadPage, request: StreamingRequest) -> bytes | None:
        """The answer, if this request is one for the page or its files, or for ``/``, which leads there."""
        path, size = request.postpath, len(self._base)
        if path[:size] == self._base:
            return page.answer(request, path[size:])
        return page.lead_here(request) if path == [b""] else None

    def _route(self, request: StreamingRequest) -> bytes | int:
        """Have the router answer."""
        return hand_over(self._tus.tree, request, len(self._base))

    def _health(self, request: StreamingRequest, name: bytes) -> bytes | int:
        """The answer to ``healthz`` or ``readyz``."""
        if request.method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed(["GET", "HEAD"])
        return alive(request) if name == b"healthz" else self._ready(request)

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
    path = request.postpath
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
    """The root of a site that has one tree only, and the dashboard where there is one."""

    isLeaf = True

    def __init__(self, tree: KleinResource, dashboard: Resource | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tree = tree
        self._dashboard = dashboard

    def render(self, request: StreamingRequest) -> bytes | int:
        try:
            if self._dashboard is not None and request.postpath[0] in (b"", b"dashboard"):
                return self._dashboard.render(request)  # type: ignore[no-any-return]
            return hand_over(self._tree, request)
        except TusError as error:
            return errors.respond(request, error)


class StreamingSite(Connections, Site):
    """Makes connections, and keeps them as `Connections` says.

    ``network_timeout``: seconds for which a client may be silent in a head, a wanted body or between requests, or take
    no byte of an answer that waits.
    ``min_rate``: bytes a second that a wanted body must bring, and that must be taken of an answer, on the average of a
    ``network_timeout``; 0: any.
    ``linger``, ``linger_bytes``: seconds for which, and bytes up to which a body is read and dropped after an early
    answer.
    ``max_body_buffer``: bytes of the largest read, and so those that one paused body may hold in memory.
    ``direct_from``: bytes that one read must bring for the rest of a body to go the direct way (`spool.direct`);
    None: it never does.
    ``refusal_fields``: from the values of Origin, the fields of a refusal that is sent before there is a request.
    ``http2``: offer HTTP/2 over TLS. ``h2c``: speak it with each client that begins with it, without TLS too.
    ``max_connections``: when there are more, an idle one is closed, or the new one is turned away.
    ``held``: bytes of paused bodies of HTTP/2 in memory.
    ``watch``: sees each request. ``received``: bytes that have come in, on all connections.
    """

    protocol = StreamingChannel  # type: ignore[assignment]
    requestFactory: type[StreamingRequest] = StreamingRequest
    displayTracebacks = False
    noisy = False

    def __init__(
        self,
        resource: IResource,
        *,
        reactor: IReactorTime,
        network_timeout: float = 60,
        min_rate: int = 100,
        linger: float = 10,
        linger_bytes: int = 16 << 20,
        max_body_buffer: int = 1 << 20,
        direct_from: int | None = 1 << 18,
        refusal_fields: Callable[[Sequence[bytes]], Fields] = lambda origins: (),
        watch: RequestObserver | None = None,
        http2: bool = True,
        h2c: bool = False,
        max_connections: int = sys.maxsize,
    ) -> None:
        super().__init__(resource, reactor=reactor, parsePOSTFormSubmission=False)  # type: ignore[no-untyped-call]
        self.network_timeout = network_timeout
        self.min_rate = min_rate
        self.linger = linger
        self.linger_bytes = linger_bytes
        self.max_body_buffer = max_body_buffer
        self.direct_from = direct_from or sys.maxsize
        self.refusal_fields = refusal_fields
        self.watch = watch or RequestObserver()
        self.http2 = http2
        self.h2c = h2c
        self.held = HeldBytes()
        self.received = 0
        self.begin(reactor, max(0.01, min(1.0, network_timeout / 10, linger / 10)), max_connections)

    # Twisted's own would keep a timer for its dates.

    def startFactory(self) -> None:
        pass

    def stopFactory(self) -> None:
        pass

    def log(self, request: HTTPRequest) -> None:
        """The answer is complete, or nobody is there to read it."""
        assert isinstance(request, StreamingRequest)
        self.watch.done(request, max(0.0, self.seconds() - request.began))

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel = StreamingChannel(addr)
        channel.factory = channel.site = self
        channel.requestFactory = self.requestFactory
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may agree upon, the best first."""
        return [b"h2", b"http/1.1"] if self.http2 else [b"http/1.1"]

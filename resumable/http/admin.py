"""What is for operators only, on a listener of its own: figures, how the daemon is, events that were given up.

Changes when operators may ask something else. Invariant: none of this is ever part of the public tree.
"""

from __future__ import annotations

from typing import Final, Protocol
from urllib.parse import parse_qs

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from resumable.http import errors
from resumable.http.dead import DeadEvents
from resumable.http.readiness import Readiness, alive
from resumable.http.streaming import StreamingRequest
from resumable.protocol.errors import NotFound

#: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class Figures(Protocol):
    """Whoever knows the figures."""

    async def render(self) -> bytes:
        """All of them, as they are now, in the text format of Prometheus."""


class Admin:
    """The operators' tree; `resource` is what a site serves."""

    app = Klein()

    def __init__(self, figures: Figures, readiness: Readiness, dead: DeadEvents | None = None) -> None:
        self._figures = figures
        self._readiness = readiness
        self._dead = dead
        self.resource: Resource = self.app.resource()

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def refuse(self, request: StreamingRequest, failure: Failure) -> bytes:
        return errors.respond(request, errors.as_tus_error(failure, request))

    @app.route("/metrics", methods=["GET", "HEAD"])
    async def metrics(self, request: StreamingRequest) -> bytes:
        document = await self._figures.render()
        request.set_field(b"content-type", CONTENT_TYPE)
        request.set_field(b"cache-control", b"no-store")
        request.set_field(b"content-length", b"%d" % len(document))
        return document

    @app.route("/healthz", methods=["GET", "HEAD"])
    def health(self, request: StreamingRequest) -> bytes:
        return alive(request)

    @app.route("/readyz", methods=["GET", "HEAD"])
    async def ready(self, request: StreamingRequest) -> bytes:
        return await self._readiness.respond_fully(request)

    @app.route("/hooks", methods=["GET"])
    async def hooks(self, request: StreamingRequest) -> bytes:
        return _json(request, await self._events.summary())

    @app.route("/hooks/<hook>/dead", methods=["GET"])
    async def dead(self, request: StreamingRequest, hook: str) -> bytes:
        query = parse_qs(request.uri.partition(b"?")[2].decode("latin-1"))
        return _json(request, await self._events.listed(hook, query.get("after", ["0"])[-1]))

    @app.route("/hooks/<hook>/replay", methods=["POST"])
    async def replay(self, request: StreamingRequest, hook: str) -> bytes:
        return _json(request, await self._events.replay(hook))

    @property
    def _events(self) -> DeadEvents:
        if self._dead is None:
            raise NotFound("There are no hooks.")
        return self._dead


def _json(request: StreamingRequest, document: bytes) -> bytes:
    request.set_field(b"content-type", b"application/json")
    request.set_field(b"cache-control", b"no-store")
    request.set_field(b"content-length", b"%d" % len(document))
    return document

"""What is for operators only: figures, how the daemon is, and the admin API.

Changes when operators may ask something else; the API's description (openapi.py) and docs/api.md change with it.
Invariant: everybody is asked for their clearance, before anything is looked up; what isn't understood is refused.
"""

from __future__ import annotations

from typing import Final, Protocol

from attrs import frozen
from klein import Klein
from klein.resource import KleinResource
from twisted.python.failure import Failure

from resumable.auth.interfaces import Action
from resumable.http import answers, errors, query, status
from resumable.http.admin.clearance import Clearance
from resumable.http.admin.dead import DeadEvents
from resumable.http.admin.openapi import description
from resumable.http.admin.overview import Overview
from resumable.http.admin.readiness import Readiness, alive
from resumable.http.request import StreamingRequest
from resumable.http.routing import Trunk
from resumable.protocol.errors import BadRequest, NotFound
from resumable.protocol.names import valid_id
from resumable.uploads.operators import Operators

#: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class Figures(Protocol):
    """Whoever knows the figures."""

    async def render(self) -> bytes:
        """All of them, as they are now, in the text format of Prometheus."""


@frozen
class Desk:
    """What operators' requests come to. ``dead`` is None without hooks."""

    figures: Figures
    readiness: Readiness
    operators: Operators
    overview: Overview
    dead: DeadEvents | None = None


class Admin:
    """The operators' tree for those whom ``clearance`` lets in. `resource`: for a site, `tree`: below another."""

    app = Klein()

    def __init__(self, desk: Desk, clearance: Clearance) -> None:
        self._desk = desk
        self._operators = desk.operators
        self._clearance = clearance
        self.tree: KleinResource = self.app.resource()
        self.resource = Trunk(self.tree)

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def refuse(self, request: StreamingRequest, failure: Failure) -> bytes:
        return errors.respond(request, errors.as_tus_error(failure, request))

    async def _asked(self, request: StreamingRequest, action: Action, *parameters: str) -> dict[str, str]:
        """The query's parameters, once it is known that whoever asks may do that."""
        await self._clearance.check(request, action)
        return query.fields(request, *parameters)

    # How it is

    @app.route("/metrics", methods=["GET"])
    async def metrics(self, request: StreamingRequest) -> bytes:
        await self._clearance.check(request, Action.STATUS)
        document = await self._desk.figures.render()
        request.set_field(b"content-type", CONTENT_TYPE)
        request.set_field(b"cache-control", b"no-store")
        request.set_field(b"content-length", b"%d" % len(document))
        return document

    @app.route("/healthz", methods=["GET"])
    def health(self, request: StreamingRequest) -> bytes:
        return alive(request)

    @app.route("/readyz", methods=["GET"])
    async def ready(self, request: StreamingRequest) -> bytes:
        await self._clearance.check(request, Action.STATUS)
        return await self._desk.readiness.respond_fully(request)

    @app.route("/v1/status", methods=["GET"])
    async def status(self, request: StreamingRequest) -> bytes:
        await self._asked(request, Action.LIST)
        return answers.respond(request, await self._desk.overview.status())

    @app.route("/v1/openapi.json", methods=["GET"])
    async def description(self, request: StreamingRequest) -> bytes:
        await self._asked(request, Action.LIST)
        return answers.respond(request, description())

    # Uploads

    @app.route("/v1/uploads", methods=["GET"])
    async def uploads(self, request: StreamingRequest) -> bytes:
        wanted = query.wanted(await self._asked(request, Action.LIST, *query.FILTERS))
        page = await self._operators.page(wanted.filter, wanted.place, wanted.limit, wanted.newest, status.line)
        return answers.respond_page(request, "uploads", page.shown, query.cursor(page.place))

    @app.route("/v1/uploads/<upload_id>", methods=["GET"])
    async def upload(self, request: StreamingRequest, upload_id: str) -> bytes:
        await self._asked(request, Action.LIST)
        return answers.respond(request, status.full(await self._operators.show(_checked(upload_id))))

    @app.route("/v1/uploads/<upload_id>", methods=["DELETE"])
    async def remove(self, request: StreamingRequest, upload_id: str) -> bytes:
        await self._asked(request, Action.ADMIN)
        await self._operators.remove(_checked(upload_id))
        return answers.nothing(request)

    @app.route("/v1/uploads/<upload_id>/stop", methods=["POST"])
    async def stop(self, request: StreamingRequest, upload_id: str) -> bytes:
        await self._asked(request, Action.ADMIN)
        await self._operators.stop(_checked(upload_id))
        return answers.nothing(request)

    @app.route("/v1/uploads/<upload_id>/retry", methods=["POST"])
    async def retry(self, request: StreamingRequest, upload_id: str) -> bytes:
        given = await self._asked(request, Action.ADMIN, "remote")
        count = await self._operators.retry(_checked(upload_id), given.get("remote"))
        return answers.respond(request, {"restarted": count})

    # Remotes

    @app.route("/v1/remotes", methods=["GET"])
    async def remotes(self, request: StreamingRequest) -> bytes:
        await self._asked(request, Action.LIST)
        return answers.respond(request, await self._desk.overview.remotes())

    @app.route("/v1/retry", methods=["POST"])
    async def retry_all(self, request: StreamingRequest) -> bytes:
        given = await self._asked(request, Action.ADMIN, "remote")
        if "remote" not in given:
            raise BadRequest("remote: which one is missing.")
        done = await self._operators.retry_all(given["remote"])
        return answers.respond(request, {"restarted": done.count, "more": done.more})

    # Drain

    @app.route("/v1/drain", methods=["GET"])
    async def drained(self, request: StreamingRequest) -> bytes:
        await self._asked(request, Action.LIST)
        return answers.respond(request, await self._desk.overview.drain())

    @app.route("/v1/drain", methods=["PUT"])
    async def drain(self, request: StreamingRequest) -> bytes:
        await self._asked(request, Action.ADMIN)
        self._operators.begin_drain()
        self._desk.readiness.look_again()
        return answers.respond(request, await self._desk.overview.drain())

    @app.route("/v1/drain", methods=["DELETE"])
    async def fill(self, request: StreamingRequest) -> bytes:
        await self._asked(request, Action.ADMIN)
        self._operators.end_drain()
        self._desk.readiness.look_again()
        return answers.respond(request, await self._desk.overview.drain())

    # Hooks

    @app.route("/v1/hooks", methods=["GET"])
    async def hooks(self, request: StreamingRequest) -> bytes:
        await self._asked(request, Action.LIST)
        dead = self._desk.dead
        return answers.respond(request, {"hooks": {}} if dead is None else await dead.summary())

    @app.route("/v1/hooks/<hook>/dead", methods=["GET"])
    async def dead(self, request: StreamingRequest, hook: str) -> bytes:
        given = await self._asked(request, Action.LIST, "after")
        return answers.respond(request, await self._events.listed(hook, given.get("after", "0")))

    @app.route("/v1/hooks/<hook>/replay", methods=["POST"])
    async def replay(self, request: StreamingRequest, hook: str) -> bytes:
        await self._asked(request, Action.ADMIN)
        return answers.respond(request, await self._events.replay(hook))

    @property
    def _events(self) -> DeadEvents:
        if self._desk.dead is None:
            raise NotFound("There are no hooks.")
        return self._desk.dead


def _checked(upload_id: str) -> str:
    """Raises NotFound for what is no id."""
    if not valid_id(upload_id):
        raise NotFound("There is no such upload.")
    return upload_id

"""The admin API: metrics, the daemon's state, and operations on uploads, remotes and hooks. And its authorisation.

The API's description (openapi.py) and docs/api.md change with it. Invariants: `AdminAuth` is asked about each request
before anything is looked up, and a query that isn't understood is refused. An address proves nothing, not even a
loopback one: behind a local proxy everybody has that. A page of another site, which a browser of an operator's may have
open, changes nothing and reads nothing. A wrong token counts against its sender's rate, as any refused request does.
Spec: RFC 6750 (bearer tokens), RFC 6454 (Origin), Fetch Metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from hmac import compare_digest
from typing import Any, Final, Protocol

from attrs import frozen
from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from resumable.auth.secret import Secret
from resumable.http import errors, events, status, watched
from resumable.http.admin import query
from resumable.http.admin.dashboard import Dashboard
from resumable.http.admin.history import History
from resumable.http.admin.openapi import description
from resumable.http.admin.overview import DeadEvents, Overview, Readiness, alive
from resumable.http.admission import Admission
from resumable.http.live import Live
from resumable.http.request import StreamingRequest
from resumable.http.routed import RequestFields
from resumable.http.site import TreeRoot
from resumable.model.principal import Action
from resumable.protocol.errors import BadRequest, Forbidden, NotFound, Unauthorized
from resumable.protocol.names import valid_id
from resumable.uploads.operators import Operators

#: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

CHALLENGE: Final = 'Bearer realm="resumable"'
_OURS: Final = (None, b"none", b"same-origin")

_app = Klein()

Handler = Callable[..., Coroutine[Deferred[Any], Any, object]]


class MetricsSource(Protocol):
    """Knows the metrics."""

    async def render(self) -> bytes:
        """All metrics, as they are now, in the text format of Prometheus."""


@frozen
class AdminServices:
    """The objects that serve operators. ``dead`` is None without hooks, ``live`` where nothing is sent as events.
    ``history``: the last hour. ``dashboard``: the page, where the API has a site of its own."""

    metrics: MetricsSource
    readiness: Readiness
    operators: Operators
    overview: Overview
    dead: DeadEvents | None = None
    live: Live | None = None
    history: History | None = None
    dashboard: Dashboard | None = None


def _route(
    method: str, path: str, action: Action, *parameters: str, watch: Handler | None = None
) -> Callable[[Handler], Handler]:
    """A route of the API. Its handler runs for principals that may do ``action``, if the query is understood.

    The handler gets the path's segments by name, and ``given``, the query, if the query may have ``parameters``. It
    answers the document that is sent as JSON, bytes that are JSON already, or None for 204. ``watch``: answers those
    who ask for events; it gets the Live and the request too.
    """

    def register(handle: Handler) -> Handler:
        @_app.route(path, methods=[method])
        @wraps(handle)
        async def answer(admin: Admin, request: StreamingRequest, **segments: Any) -> bytes:
            await admin.auth.check(request, action)
            given = query.fields(request, *parameters)
            if "upload_id" in segments and not valid_id(segments["upload_id"]):
                raise NotFound("There is no such upload.")
            if parameters:
                segments["given"] = given
            live = admin.live
            if watch is not None and live is not None and _wants_events(request):
                return await watch(admin, live, request, **segments)  # type: ignore[return-value]
            document = await handle(admin, **segments)
            if document is not None:
                return status.respond(request, document)
            request.setResponseCode(204)
            request.set_field(b"cache-control", b"no-store")
            return b""

        return handle

    return register


def _wants_events(request: StreamingRequest) -> bool:
    return events.asked_for(request.method, RequestFields(request).values("accept"))


async def _watch_daemon(admin: Admin, live: Live, request: StreamingRequest) -> bytes:
    return await live.stream(request, admin.daemon, None, await admin.overview.status())


async def _watch_uploads(admin: Admin, live: Live, request: StreamingRequest, given: dict[str, str]) -> bytes:
    wanted = query.wanted(given)
    return await live.stream(request, admin.lists, wanted, await watched.page_of(admin.operators, wanted))


async def _watch_upload(admin: Admin, live: Live, request: StreamingRequest, upload_id: str) -> bytes:
    return await live.stream(request, admin.statuses, upload_id, await admin.operators.show(upload_id))


class Admin:
    """The routes of the admin API. ``resource`` is for a site of its own, ``tree`` for below another resource."""

    app = _app

    def __init__(self, services: AdminServices, auth: AdminAuth) -> None:
        self.auth = auth
        self._services = services
        self.live = services.live
        self.operators = services.operators
        self.overview = services.overview
        self.daemon = watched.daemon(lambda: services.overview.status())
        self.lists = watched.lists(services.operators)
        self.statuses = watched.operator_statuses(services.operators)
        self.tree: KleinResource = self.app.resource()
        self.resource = TreeRoot(self.tree, services.dashboard)

    @_app.handle_errors(Exception)  # type: ignore[arg-type]
    def refuse(self, request: StreamingRequest, failure: Failure) -> bytes:
        """The answer to a request that failed."""
        return errors.respond(request, errors.as_tus_error(failure, request))

    # The daemon. These three have answers of their own, and take any query.

    @_app.route("/metrics", methods=["GET"])
    async def metrics(self, request: StreamingRequest) -> bytes:
        """Metrics for Prometheus."""
        await self.auth.check(request, Action.STATUS)
        document = await self._services.metrics.render()
        request.set_field(b"content-type", CONTENT_TYPE)
        request.set_field(b"cache-control", b"no-store")
        request.set_field(b"content-length", b"%d" % len(document))
        return document

    @_app.route("/healthz", methods=["GET"])
    def health(self, request: StreamingRequest) -> bytes:
        """200 while the event loop turns."""
        return alive(request)

    @_app.route("/readyz", methods=["GET"])
    async def ready(self, request: StreamingRequest) -> bytes:
        """Whether the daemon should be sent requests, and if not, why."""
        await self.auth.check(request, Action.STATUS)
        return await self._services.readiness.respond_fully(request)

    @_route("GET", "/v1/status", Action.LIST, watch=_watch_daemon)
    async def status(self) -> object:
        """The daemon as a whole."""
        return await self.overview.status()

    @_route("GET", "/v1/history", Action.LIST)
    async def history(self) -> object:
        """The last hour in figures."""
        if self._services.history is None:
            raise NotFound("There is no history.")
        return self._services.history.document()

    @_route("GET", "/v1/openapi.json", Action.LIST)
    async def description(self) -> object:
        """The description of this API."""
        return description()

    # Uploads

    @_route("GET", "/v1/uploads", Action.LIST, *query.FILTERS, watch=_watch_uploads)
    async def uploads(self, given: dict[str, str]) -> object:
        """Uploads that match, page by page."""
        wanted = query.wanted(given)
        page = await self.operators.page(wanted.filter, wanted.place, wanted.limit, wanted.newest, status.line)
        return status.page("uploads", page.shown, query.cursor(page.place))

    @_route("GET", "/v1/uploads/<upload_id>", Action.LIST, watch=_watch_upload)
    async def upload(self, upload_id: str) -> object:
        """One upload, even if it is gone."""
        return status.full(await self.operators.show(upload_id))

    @_route("DELETE", "/v1/uploads/<upload_id>", Action.ADMIN)
    async def remove(self, upload_id: str) -> None:
        """End any upload, as its client could."""
        await self.operators.remove(upload_id)

    @_route("POST", "/v1/uploads/<upload_id>/stop", Action.ADMIN)
    async def stop(self, upload_id: str) -> None:
        """End an upload that isn't finished, and its request."""
        await self.operators.stop(upload_id)

    @_route("POST", "/v1/uploads/<upload_id>/retry", Action.ADMIN, "remote")
    async def retry(self, upload_id: str, given: dict[str, str]) -> object:
        """Try the upload's parked replicas again."""
        return {"restarted": await self.operators.retry(upload_id, given.get("remote"))}

    # Remotes

    @_route("GET", "/v1/remotes", Action.LIST)
    async def remotes(self) -> object:
        """Each remote."""
        return await self.overview.remotes()

    @_route("POST", "/v1/retry", Action.ADMIN, "remote")
    async def retry_all(self, given: dict[str, str]) -> object:
        """Try again all replicas that were parked for a remote."""
        if "remote" not in given:
            raise BadRequest("remote: which one is missing.")
        done = await self.operators.retry_all(given["remote"])
        return {"restarted": done.count, "more": done.more}

    # Drain

    @_route("GET", "/v1/drain", Action.LIST)
    async def drained(self) -> object:
        """The work that a drain still waits for."""
        return await self.overview.drain()

    @_route("PUT", "/v1/drain", Action.ADMIN)
    async def drain(self) -> object:
        """Let no upload begin."""
        await self.operators.begin_drain()
        self._services.readiness.look_again()
        return await self.overview.drain()

    @_route("DELETE", "/v1/drain", Action.ADMIN)
    async def fill(self) -> object:
        """Let uploads begin again."""
        await self.operators.end_drain()
        self._services.readiness.look_again()
        return await self.overview.drain()

    # Hooks

    @_route("GET", "/v1/hooks", Action.LIST)
    async def hooks(self) -> object:
        """Events on their way, by hook."""
        dead = self._services.dead
        return {"hooks": {}} if dead is None else await dead.summary()

    @_route("GET", "/v1/hooks/<hook>/dead", Action.LIST, "after")
    async def dead(self, hook: str, given: dict[str, str]) -> object:
        """Events that were given up."""
        return await self._dead_events.listed(hook, given.get("after", "0"))

    @_route("POST", "/v1/hooks/<hook>/replay", Action.ADMIN)
    async def replay(self, hook: str) -> object:
        """Send a hook's dead events again."""
        return await self._dead_events.replay(hook)

    @property
    def _dead_events(self) -> DeadEvents:
        if self._services.dead is None:
            raise NotFound("There are no hooks.")
        return self._services.dead


class AdminAuth(Protocol):
    """Asked about each request."""

    async def check(self, request: StreamingRequest, action: Action) -> None:
        """STATUS: to see metrics, LIST: to see uploads, ADMIN: to change something.

        Raises Unauthorized, Forbidden, TooManyRequests, Unavailable.
        """


class SocketAuth:
    """The permissions of a Unix socket have let them in."""

    async def check(self, request: StreamingRequest, action: Action) -> None:
        """See `AdminAuth.check`."""
        check_page(request)


class TokenAuth:
    """Metrics for anybody, everything else for clients with the token; None: for nobody."""

    def __init__(self, token: Secret | None, admission: Admission) -> None:
        self._token = token
        self._admission = admission

    async def check(self, request: StreamingRequest, action: Action) -> None:
        """See `AdminAuth.check`."""
        if action is Action.STATUS:
            return
        check_page(request, bearer=True)
        if self._token is None:
            raise Forbidden("The admin API is on Unix sockets, and elsewhere with --admin-token-file only.")
        lines = request.requestHeaders.getRawHeaders(b"authorization", [])
        scheme, _, given = (lines[0] if len(lines) == 1 else b"").partition(b" ")
        if scheme.lower() != b"bearer" or not compare_digest(given.strip(), self._token.reveal()):
            self._admission.refused(request)
            raise Unauthorized("The admin API needs the token of --admin-token-file.", [CHALLENGE])


class PrincipalAuth:
    """On a port for uploads: admins, as the rules of access tell them."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def check(self, request: StreamingRequest, action: Action) -> None:
        """See `AdminAuth.check`."""
        check_page(request)
        await self._admission.admit(request, Action.LIST if action is Action.STATUS else action)


def check_page(request: StreamingRequest, bearer: bool = False) -> None:
    """That no page of another site asks, as browsers tell. Raises Forbidden.

    ``bearer``: nobody is let in without a token, which no browser adds by itself; so a page may ask that comes from
    here: it is the dashboard. Its Host proves nothing (DNS rebinding), the token does.
    """
    headers = request.requestHeaders
    origins, hosts = headers.getRawHeaders(b"origin", []), headers.getRawHeaders(b"host", [])
    own = [scheme + host.lower() for host in hosts for scheme in (b"http://", b"https://")] if bearer else []
    if (
        len(origins) > 1
        or any(each.lower() not in own for each in origins)
        or any(line.lower() not in _OURS for line in headers.getRawHeaders(b"sec-fetch-site", []))
    ):
        raise Forbidden("The admin API is not for pages in a browser.")

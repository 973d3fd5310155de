"""The routes of clients, of tus 1.0 and the draft, each declared with what is checked before its handler runs.

A handler makes a typed request of header fields, and fields of an answer of what it gets. What is decided about an
upload is decided elsewhere: `protocol` has the wording of the spec, `uploads` the use cases. Invariant: a route can't
be declared without the action that `Admission` is asked about. Spec: tus 1.0.0.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from attrs import frozen
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from resumable.http import cors, errors, events, status, watched
from resumable.http.admission import Admission
from resumable.http.cors import Cors
from resumable.http.download import Downloads
from resumable.http.draft import Conversation, DraftRequests, DraftSettings
from resumable.http.h1 import Fields, valid_host
from resumable.http.handling import handle
from resumable.http.live import Live
from resumable.http.origin import Origin
from resumable.http.request import StreamingRequest
from resumable.http.routed import Call, RequestFields
from resumable.http.twisted_web import canonical
from resumable.model.principal import Action
from resumable.model.upload import Upload
from resumable.protocol import concat, digests, tus
from resumable.protocol.draft import NEWEST, is_draft
from resumable.protocol.errors import BadRequest, Forbidden, NotFound, TusError, Unauthorized
from resumable.protocol.names import valid_id
from resumable.protocol.requests import Append
from resumable.uploads.append import Lagging
from resumable.uploads.context import HookContext
from resumable.uploads.status import NotFinished
from resumable.uploads.uploads import CreationCut, Uploads, shielded

_COLLECTION = "/"
_UPLOAD = "/<upload_id>"
_BODILESS = (204, 205)
_TUS = ("tus", "1.0.0")
_SAYS_TUS = frozenset({canonical(b"tus-resumable")})
_EITHER = ("HEAD", "DELETE")
"""Methods whose requests may not say which protocol they are of."""


Handler = Callable[["TusRoutes", Call], Coroutine[Deferred[Any], Any, int | bytes]]
DraftHandler = Callable[[DraftRequests, Conversation], Coroutine[Deferred[Any], Any, int]]
Served = Callable[[StreamingRequest, str], Coroutine[Deferred[Any], Any, bytes]]
H = TypeVar("H", bound=Handler)


@frozen
class _Route:
    """See `_route`."""

    handle: Handler
    method: str
    path: str | None
    action: Action
    version: bool
    hooks: bool
    untagged: Handler | None
    draft: DraftHandler | None


_ROUTES: list[_Route] = []


def _route(
    method: str,
    path: str | None,
    action: Action,
    *,
    version: bool = True,
    hooks: bool = False,
    untagged: Handler | None = None,
    draft: DraftHandler | None = None,
) -> Callable[[H], H]:
    """A route. Its handler runs for those who may do ``action``; it answers the body, or the status of a success
    without a body.

    ``path`` None: the address of an upload's status. ``version``: Tus-Resumable is checked. ``hooks``: hooks are shown
    the request. ``untagged``: handles requests without Tus-Resumable where there are downloads, for those who may READ.
    ``draft``: handles requests of the draft.
    """

    def register(handle: H) -> H:
        _ROUTES.append(_Route(handle, method, path, action, version, hooks, untagged, draft))
        return handle

    return register


class TusRoutes:
    """The upload collection and its uploads. ``max_size`` None: unlimited. ``downloads`` None: there are none.

    ``extensions``: those of tus that there are. ``status_path``: the last segment of the address of an upload's
    status; None: it has none. ``admission`` None: everybody is admitted, and there are no hooks. ``draft``
    None: it isn't spoken. ``live``: sends statuses as events to those who ask for that; None: as JSON only.
    """

    def __init__(
        self,
        uploads: Uploads,
        *,
        origin: Origin,
        cors: Cors,
        base_path: str,
        max_size: int | None,
        downloads: Downloads | None,
        status_path: str | None = "status",
        extensions: Sequence[str] = tus.EXTENSIONS,
        admission: Admission | None = None,
        draft: DraftSettings | None = None,
        live: Live | None = None,
    ) -> None:
        self._uploads = uploads
        self._live = live
        self._watched = {
            show: watched.client_statuses(uploads, show) for show in (status.document, status.full)
        }  # by whether they are for operators
        self._origin = origin
        self._admission = admission or Admission(origin)
        self.cors = cors
        self._base_path = base_path
        self._downloads = downloads
        self._extensions = frozenset(extensions)
        self._algorithms = tuple(uploads.algorithms) if "checksum" in extensions else ()
        self._capabilities = [
            (name.encode(), value.encode())
            for name, value in tus.capabilities(max_size, self._algorithms, extensions).items()
        ]
        self._draft = None if draft is None else DraftRequests(uploads, draft, self._location)
        self._instead = "" if draft is None else " A request of the IETF draft has Upload-Complete."
        if draft is not None:
            # "The Upload-Limit header field MUST be included in the response to an OPTIONS request"
            limit = draft.limits.field(NEWEST, draft.max_age)
            self._capabilities.append((b"upload-limit", limit.encode()))
        # RFC 9530, 4: what the client is asked to send
        wanted = digests.WANTED.encode()
        self._capabilities += [(b"want-content-digest", wanted), (b"want-repr-digest", wanted)]
        there = {
            Action.READ: downloads is not None,
            Action.CREATE: "creation" in extensions,
            Action.TERMINATE: "termination" in extensions,
            Action.STATUS: status_path is not None,
        }
        self.tree = self._klein([route for route in _ROUTES if there.get(route.action, True)], status_path).resource()

    def _klein(self, routes: Sequence[_Route], status_path: str | None) -> Klein:
        """The router of those that aren't switched off."""
        app = Klein()
        self._direct: dict[tuple[str | None, bytes], Served] = {}
        app.url_map.strict_slashes = app.url_map.merge_slashes = False
        app.handle_errors(Exception)(self.refuse)  # type: ignore[arg-type]
        status_address = f"{_UPLOAD}/{status_path}"
        for route in routes:
            path = status_address if route.path is None else route.path
            served = self._served(route)
            app.route(path, methods=[route.method], endpoint=f"{route.method} {path}")(served)
            self._direct[route.path, route.method.encode()] = served
        for path in (_COLLECTION, _UPLOAD, *([status_address] if status_path is not None else [])):
            app.route(path, methods=["OPTIONS"], endpoint=f"OPTIONS {path}")(self.capabilities)
            self._direct[path, b"OPTIONS"] = self.capabilities
        return app

    def answer(self, request: StreamingRequest, upload_id: str) -> bool:
        """Answer as the router would, without it, if a route takes this method at the upload's address; ``upload_id``
        empty: the collection's. A route's address of neither kind is for the router alone."""
        served = self._direct.get((_UPLOAD if upload_id else _COLLECTION, request.method))
        if served is None:
            return False
        handle(request, served(request, upload_id), self.refuse)
        return True

    def _served(self, route: _Route) -> Served:
        """What is called for the route: checks, then the handler, then the end of its answer."""
        untagged = route.untagged if self._downloads is not None else None

        async def serve(request: StreamingRequest, upload_id: str = "") -> bytes:
            call = Call(request, RequestFields(request), upload_id)
            handle, action = route.handle, route.action
            if not call.fields.has_any(_SAYS_TUS):
                if self._draft is not None and route.draft is not None:
                    marked = is_draft(call.fields)
                    if marked and route.action is not Action.READ:
                        return await self._serve_draft(self._draft, route, call)
                    if marked or route.method in _EITHER:
                        return await self._serve_found(self._draft, route, call, marked)
                if untagged is not None:
                    handle, action = untagged, Action.READ
            if route.version and handle is route.handle:
                request.speaks = ("tus", None)
                tus.check_version(call.fields, self._instead)
                request.speaks = _TUS
            if action is Action.CREATE:
                call.creation = tus.parse_creation(call.fields, request.body.length, self._algorithms)
                tus.check_creation_extensions(call.creation, self._extensions)
            await self._admit(route, call, action)
            answer = await handle(self, call)
            return answer if isinstance(answer, bytes) else _succeed(request, answer, call.hooks)

        return serve

    async def _admit(self, route: _Route, call: Call, action: Action) -> None:
        """Let the request in, to an upload that may be there. Raises NotFound, and what `Admission.admit` does."""
        request, upload_id = call.request, call.upload_id
        if action is not Action.CREATE and not valid_id(upload_id):  # it never gets near a path
            raise NotFound("There is no such upload.")
        if not self._admission.open:
            call.principal = await self._admission.admit(request, action, upload_id or None, call.creation)
        self._show_hooks(route, call)

    def _show_hooks(self, route: _Route, call: Call) -> None:
        if route.hooks and self._admission.has_hooks:
            call.hooks = self._admission.hook_context(call.request)

    async def _serve_draft(self, drafts: DraftRequests, route: _Route, call: Call, admitted: bool = False) -> bytes:
        """The answer to a request of the draft. A GET of it asks for the offset, as a HEAD does."""
        assert route.draft is not None, "else it isn't called"
        talk = drafts.begin(call)
        talk.resumes = route.action not in (Action.CREATE, Action.TERMINATE)
        try:
            if route.action is Action.CREATE:
                drafts.parse_creation(talk)
            if admitted:
                self._show_hooks(route, call)  # once more: now it is known that this is the draft
            else:
                await self._admit(route, call, Action.INSPECT if route.action is Action.READ else route.action)
            answer = await route.draft(drafts, talk)
        except Exception:
            if call.request.gone:
                raise
            refusal = drafts.refused(talk)
            if refusal is None:
                return b""
            raise refusal from None
        return _succeed(call.request, answer, call.hooks)

    async def _serve_found(self, drafts: DraftRequests, route: _Route, call: Call, marked: bool) -> bytes:
        """A GET of the draft; or, not ``marked``, a HEAD or DELETE that doesn't say which protocol it is of: that by
        which the upload was made. What can be downloaded is answered as a download."""
        reads = self._downloads is not None and route.method != "DELETE"
        try:
            await self._admit(route, call, Action.READ if reads else route.action)
        except (Unauthorized, Forbidden):
            if not reads or route.action is Action.READ:
                raise
            await self._admit(route, call, route.action)
            reads = False
        upload = await self._uploads.find(call.upload_id)
        if upload is not None and not (marked or upload.draft):
            upload = None
        if upload is None or (upload.finished and reads):
            if not reads:
                tus.check_version(call.fields, self._instead)  # refuses it
            if upload is not None:
                drafts.describe(drafts.begin(call), upload)
            return await (self.download(call) if route.method == "GET" else self._probe(call))
        # it ends what is under way, so those who may only read are no longer enough
        return await self._serve_draft(drafts, route, call, admitted=not reads)

    def prepare(self, request: StreamingRequest) -> None:
        """Before any route: what every answer says, and the method that counts. Raises BadRequest."""
        if request.method != b"OPTIONS":
            request.set_field(b"tus-resumable", b"1.0.0")
        hosts = request.requestHeaders.getRawHeaders(b"host", ())
        if len(hosts) > 1 or not all(map(valid_host, hosts)):
            raise BadRequest("Host is malformed.")
        if request.requestHeaders.hasHeader(b"x-http-method-override"):
            request.method = tus.method(RequestFields(request), request.method.decode("latin-1")).encode()

    def refusal_fields(self, origins: Sequence[bytes]) -> Fields:
        """The fields of every answer to what never became a request; ``origins``: what its Origin fields said."""
        return [(b"tus-resumable", b"1.0.0"), *self.cors.refusal(origins)]

    def refuse(self, request: StreamingRequest, failure: Failure) -> bytes:
        """The answer to a request that failed."""
        error = errors.as_tus_error(failure, request)
        # After a pause that took too long; or whoever sent a checksum when bytes had been committed is to notice.
        if isinstance(error, Lagging) or (isinstance(error, BadRequest) and request.body.trailers):
            request.close_after_answer()
        return errors.respond(request, errors.to_head(error) if request.method == b"HEAD" else error)

    async def capabilities(self, request: StreamingRequest, upload_id: str = "") -> bytes:
        """OPTIONS, which anybody may ask for, of any address."""
        for name, value in self._capabilities:
            request.set_field(name, value)
        self.cors.preflight(request)
        return _succeed(request, 200)

    @_route("POST", _COLLECTION, Action.CREATE, hooks=True, draft=DraftRequests.create)
    async def create(self, call: Call) -> int:
        """Make an upload, with as much of its body as has come."""
        request, creation, principal = call.request, call.creation, call.principal
        assert creation is not None, "it is parsed before anybody is asked about it"
        try:
            if isinstance(creation.concat, concat.FinalUpload):
                outside = self._origin.path(request)
                partials = [concat.upload_id(url, self._base_path, outside) for url in creation.concat.urls]
                await self._admission.own(principal, partials)
                if "concatenation-unfinished" not in self._extensions:
                    await self._uploads.check_finished(partials)
                upload = await self._uploads.concatenate(creation, partials, principal, call.hooks)
            else:
                upload = await self._uploads.create(creation, request.body, principal, call.hooks)
        except CreationCut as cut:
            self._describe(request, cut.upload)
            request.set_field(b"location", self._location(call, cut.upload))
            raise cut.error from cut
        request.set_field(b"location", self._location(call, upload))
        if creation.has_body or (upload.is_final and upload.finished):
            request.set_field(b"upload-offset", b"%d" % upload.offset)
        if creation.concat_header is not None:
            request.set_field(b"upload-concat", creation.concat_header.encode("latin-1"))
        self._expiry(request, upload)
        return 201

    @_route("PATCH", _UPLOAD, Action.APPEND, hooks=True, draft=DraftRequests.append)
    async def append(self, call: Call) -> int:
        """Take bytes. A malformed header is refused after the upload has been looked up: 404 and 410 go first."""
        wanted: Append | TusError
        try:
            wanted = tus.parse_append(call.fields, call.request.body.length, self._algorithms)
            tus.check_append_extensions(wanted, self._extensions)
        except TusError as error:
            wanted = error
        request = call.request
        upload = await self._uploads.append(call.upload_id, wanted, request.body, call.principal, call.hooks)
        request.set_field(b"upload-offset", b"%d" % upload.offset)
        self._expiry(request, upload)
        return 204

    async def _probe(self, call: Call) -> bytes:
        """A HEAD of a client that doesn't speak tus: as its GET, without the body."""
        try:
            return await self.download(call)
        except NotFinished:
            tus.check_version(call.fields, self._instead)  # refuses it
            raise

    # Declared before GET, whose rule in the router takes HEAD too.
    @_route("HEAD", _UPLOAD, Action.INSPECT, untagged=_probe, draft=DraftRequests.inspect)
    async def inspect(self, call: Call) -> int:
        """How far an upload is."""
        upload = await self._uploads.inspect(call.upload_id)
        self._describe(call.request, upload)
        if self._uploads.complete(upload):
            call.set_digest(upload)
        call.request.set_field(b"cache-control", b"no-store")
        return 200

    @_route("GET", _UPLOAD, Action.READ, version=False, draft=DraftRequests.inspect)
    async def download(self, call: Call) -> bytes:
        """The file."""
        assert self._downloads is not None, "else it has no route"
        await shielded(self._downloads.answer(call.request, call.fields, call.upload_id))
        return b""

    @_route("DELETE", _UPLOAD, Action.TERMINATE, hooks=True, draft=DraftRequests.terminate)
    async def terminate(self, call: Call) -> int:
        """End an upload."""
        await self._uploads.terminate(call.upload_id, call.hooks)
        return 204

    @_route("GET", None, Action.STATUS, version=False)
    async def status(self, call: Call) -> bytes:
        """How far an upload is in both tiers, as JSON, or as events whenever that changes."""
        found = await self._uploads.status(call.upload_id)
        show = status.full if call.principal.is_admin else status.document
        if self._live is not None and events.asked_for(call.request.method, call.fields.values("accept")):
            return await self._live.stream(call.request, self._watched[show], call.upload_id, found)
        return status.respond(call.request, show(found))

    def _location(self, call: Call, upload: Upload) -> bytes:
        """The address of a new upload, with what its client has to bring along."""
        location, carry = self._origin.location(call.request, upload.id), call.principal.carry
        return (f"{location}?{carry}" if carry else location).encode()

    def _describe(self, request: StreamingRequest, upload: Upload) -> None:
        """Everything HEAD tells of an upload."""
        if not upload.is_final or (upload.finished and not self._uploads.withheld(upload)):
            request.set_field(b"upload-offset", b"%d" % upload.offset)
        if upload.length is not None:
            request.set_field(b"upload-length", b"%d" % upload.length)
        elif not upload.is_final:
            request.set_field(b"upload-defer-length", b"1")
        if upload.metadata:
            request.set_field(b"upload-metadata", upload.metadata.encode("latin-1"))
        if upload.concat:
            request.set_field(b"upload-concat", upload.concat.encode("latin-1"))
        self._expiry(request, upload)

    def _expiry(self, request: StreamingRequest, upload: Upload) -> None:
        expires = self._uploads.expires_at(upload)
        if expires is not None:
            request.set_field(b"upload-expires", tus.http_date(expires).encode())


def _succeed(request: StreamingRequest, code: int, hooks: HookContext | None = None) -> bytes:
    """The end of a success: with ``code`` and no body, unless hooks want it otherwise."""
    body = b""
    if hooks is not None:
        said = hooks.answer
        body = said.body
        for name, value in said.headers.items():
            request.set_field(name.encode("latin-1"), value.encode("latin-1"))
        cors.expose(request, said.headers)
        code = said.status or code
        if body and code in _BODILESS:
            code = 200
    request.setResponseCode(code)
    if code != 204 and request.method != b"HEAD":
        request.set_field(b"content-length", b"%d" % len(body))
    return body

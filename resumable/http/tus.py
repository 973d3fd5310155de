"""tus 1.0 over HTTP: its routes, each declared with what is checked before its handler runs.

A handler makes a typed request of header fields, and fields of an answer of what it gets. What is decided about an
upload is decided elsewhere: `protocol` has the wording of the spec, `uploads` the use cases. Invariant: a route can't
be declared without the action that `Admission` is asked about. Spec: tus 1.0.0.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from attrs import define, frozen
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from resumable.http import cors, errors, status
from resumable.http.admission import Admission
from resumable.http.cors import Cors
from resumable.http.download import Downloads
from resumable.http.h1 import Fields, valid_host
from resumable.http.handling import handle
from resumable.http.origin import Origin
from resumable.http.request import StreamingRequest
from resumable.http.twisted_web import canonical
from resumable.model.principal import NOBODY, Action, Principal
from resumable.model.upload import Upload
from resumable.protocol import concat, tus
from resumable.protocol.errors import BadRequest, NotFound, TusError
from resumable.protocol.names import valid_id
from resumable.uploads.append import Lagging
from resumable.uploads.context import HookContext
from resumable.uploads.status import NotFinished
from resumable.uploads.uploads import CreationCut, Uploads, shielded

_COLLECTION = "/"
_UPLOAD = "/<upload_id>"
_BODILESS = (204, 205)


_spelt: dict[str, bytes] = {}


class RequestFields:
    """A request's header, as it is now, for `protocol`: see `resumable.protocol.fields.Fields`."""

    __slots__ = ("_lines",)

    def __init__(self, request: StreamingRequest) -> None:
        self._lines = dict(request.requestHeaders.getAllRawHeaders())

    def values(self, name: str) -> Sequence[str]:
        """See `Fields.values`."""
        spelt = _spelt.get(name)
        if spelt is None:  # the names are ours, so there are few
            spelt = _spelt[name] = canonical(name.encode())
        lines = self._lines.get(spelt)
        return [line.decode("latin-1").strip(" \t") for line in lines] if lines else ()


@define
class Call:
    """One request on its route. ``upload_id`` is empty at the collection. ``creation``: what a POST asks for."""

    request: StreamingRequest
    fields: RequestFields
    upload_id: str
    creation: tus.Creation | None = None
    principal: Principal = NOBODY
    hooks: HookContext | None = None


Handler = Callable[["TusRoutes", Call], Coroutine[Deferred[Any], Any, int | bytes]]
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


_ROUTES: list[_Route] = []


def _route(
    method: str,
    path: str | None,
    action: Action,
    *,
    version: bool = True,
    hooks: bool = False,
    untagged: Handler | None = None,
) -> Callable[[H], H]:
    """A route. Its handler runs for those who may do ``action``; it answers the body, or the status of a success
    without a body.

    ``path`` None: the address of an upload's status. ``version``: Tus-Resumable is checked. ``hooks``: hooks are shown
    the request. ``untagged``: handles requests without Tus-Resumable where there are downloads, for those who may READ.
    """

    def register(handle: H) -> H:
        _ROUTES.append(_Route(handle, method, path, action, version, hooks, untagged))
        return handle

    return register


class TusRoutes:
    """The upload collection and its uploads. ``max_size`` None: unlimited. ``downloads`` None: there are none.

    ``extensions``: those of tus that there are. ``status_path``: the last segment of the address of an upload's
    status; None: it has none. ``admission`` None: everybody is admitted, and there are no hooks.
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
    ) -> None:
        self._uploads = uploads
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
            if untagged is not None and not call.fields.values("tus-resumable"):
                handle, action = untagged, Action.READ
            elif route.version:
                tus.check_version(call.fields)
            if action is Action.CREATE:
                call.creation = tus.parse_creation(call.fields, request.body.length, self._algorithms)
                tus.check_creation_extensions(call.creation, self._extensions)
            elif not valid_id(upload_id):  # it never gets near a path
                raise NotFound("There is no such upload.")
            if not self._admission.open:
                call.principal = await self._admission.admit(request, action, upload_id or None, call.creation)
            if route.hooks and self._admission.has_hooks:
                call.hooks = self._admission.hook_context(request)
            answer = await handle(self, call)
            return answer if isinstance(answer, bytes) else _succeed(request, answer, call.hooks)

        return serve

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

    @_route("POST", _COLLECTION, Action.CREATE, hooks=True)
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
            self._locate(request, cut.upload, principal)
            raise cut.error from cut
        self._locate(request, upload, principal)
        if creation.has_body or (upload.is_final and upload.finished):
            request.set_field(b"upload-offset", b"%d" % upload.offset)
        if creation.concat_header is not None:
            request.set_field(b"upload-concat", creation.concat_header.encode("latin-1"))
        self._expiry(request, upload)
        return 201

    @_route("PATCH", _UPLOAD, Action.APPEND, hooks=True)
    async def append(self, call: Call) -> int:
        """Take bytes. A malformed header is refused after the upload has been looked up: 404 and 410 go first."""
        wanted: tus.Append | TusError
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
            tus.check_version(call.fields)  # refuses it
            raise

    # Declared before GET, whose rule in the router takes HEAD too.
    @_route("HEAD", _UPLOAD, Action.INSPECT, untagged=_probe)
    async def inspect(self, call: Call) -> int:
        """How far an upload is."""
        self._describe(call.request, await self._uploads.inspect(call.upload_id))
        call.request.set_field(b"cache-control", b"no-store")
        return 200

    @_route("GET", _UPLOAD, Action.READ, version=False)
    async def download(self, call: Call) -> bytes:
        """The file."""
        assert self._downloads is not None, "else it has no route"
        await shielded(self._downloads.answer(call.request, call.fields, call.upload_id))
        return b""

    @_route("DELETE", _UPLOAD, Action.TERMINATE, hooks=True)
    async def terminate(self, call: Call) -> int:
        """End an upload."""
        await self._uploads.terminate(call.upload_id, call.hooks)
        return 204

    @_route("GET", None, Action.STATUS, version=False)
    async def status(self, call: Call) -> bytes:
        """How far an upload is in both tiers, as JSON."""
        found = await self._uploads.status(call.upload_id)
        return status.respond(call.request, status.full(found) if call.principal.is_admin else status.document(found))

    def _locate(self, request: StreamingRequest, upload: Upload, principal: Principal) -> None:
        """The address of a new upload, with what its client has to bring along."""
        location = self._origin.location(request, upload.id)
        request.set_field(b"location", (f"{location}?{principal.carry}" if principal.carry else location).encode())

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

"""tus 1.0 over HTTP: a Klein resource tree for its verbs.

Reason to change: how a typed request comes out of a header, or an answer goes into one. What is decided about an
upload is decided elsewhere: `protocol` for the wording of the spec, `uploads` for the use cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from klein import Klein
from twisted.python.failure import Failure
from werkzeug.exceptions import MethodNotAllowed as NoSuchMethod

from resumable.auth.interfaces import Action
from resumable.http import errors, status
from resumable.http.cors import Cors
from resumable.http.download import Downloads
from resumable.http.entry import ANYBODY, Entrant, Entry
from resumable.http.fields import RequestFields
from resumable.http.h1.head import Fields
from resumable.http.origin import Origin
from resumable.http.request import StreamingRequest
from resumable.http.visits import Visits, answered
from resumable.model.upload import Upload
from resumable.protocol import concat, tus
from resumable.protocol.errors import BadRequest, MethodNotAllowed, NotFound, TusError
from resumable.protocol.names import valid_id
from resumable.uploads.append import Lagging
from resumable.uploads.questions import HookContext
from resumable.uploads.status import NotFinished
from resumable.uploads.uploads import CreationCut, Uploads, shielded

#: What there is at the URL of an upload, unless some of it is switched off.
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH")


class TusResource:
    """The upload collection and its uploads. ``max_size`` None: unlimited. ``downloads`` None: there are none.

    ``extensions``: those of tus that there are. ``status_path``: the last segment of the address of an upload's
    status; None: it has none. ``entry``: who is asked about each request; None: nobody.
    """

    app = Klein()
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False

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
        entry: Entry | None = None,
        visits: Visits | None = None,
    ) -> None:
        self._uploads = uploads
        self._origin = origin
        self._entry = entry or Entry(origin)
        self._visits = visits
        self.cors = cors
        self._base_path = base_path
        self._downloads = downloads
        self._status_path = status_path
        self._extensions = frozenset(extensions)
        self._algorithms = tuple(uploads.algorithms) if "checksum" in extensions else ()
        self._capabilities = [
            (name.encode(), value.encode())
            for name, value in tus.capabilities(max_size, self._algorithms, extensions).items()
        ]
        there = {"GET": downloads is not None, "POST": "creation" in extensions, "DELETE": "termination" in extensions}
        self._off = {method for method, on in there.items() if not on}

    def prepare(self, request: StreamingRequest) -> None:
        """Before any route: what every answer says, and the method that counts. Raises BadRequest."""
        if request.method != b"OPTIONS":
            request.set_field(b"tus-resumable", b"1.0.0")
        Origin.check_host(request)
        if request.requestHeaders.hasHeader(b"x-http-method-override"):
            request.method = tus.method(RequestFields(request), request.method.decode("latin-1")).encode()

    def refusal_fields(self, origins: Sequence[bytes]) -> Fields:
        """What every answer says where there never was a request; ``origins``: what its Origin fields said."""
        return [(b"tus-resumable", b"1.0.0"), *self.cors.refusal(origins)]

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def refuse(self, request: StreamingRequest, failure: Failure) -> bytes:
        error = errors.as_tus_error(failure, request)
        if isinstance(failure.value, NoSuchMethod):
            error = self._no_such_method(failure.value.valid_methods or ())
        # After a pause that took too long; or whoever sent a checksum when bytes had been committed is to notice.
        if isinstance(error, Lagging) or (isinstance(error, BadRequest) and request.body.trailers):
            request.close_after_answer()
        return errors.respond(request, errors.to_head(error) if request.method == b"HEAD" else error)

    @app.route("/", methods=["OPTIONS"])
    @app.route("/<upload_id>", methods=["OPTIONS"])
    def capabilities(self, request: StreamingRequest, upload_id: str = "") -> bytes:
        for name, value in self._capabilities:
            request.set_field(name, value)
        self.cors.preflight(request)
        return answered(request, None, 200)

    @app.route("/", methods=["POST"])
    async def create(self, request: StreamingRequest) -> bytes:
        if "POST" in self._off:
            raise self._no_such_method(["OPTIONS"])
        fields = RequestFields(request)
        tus.check_version(fields)
        creation = tus.parse_creation(fields, request.body.length, self._algorithms)
        tus.check_creation(creation, self._extensions)
        entrant = ANYBODY if self._entry.open else await self._entry.admit(request, Action.CREATE, creation=creation)
        visit = self._visit(request)
        try:
            if isinstance(creation.concat, concat.FinalUpload):
                outside = self._origin.path(request)
                partials = [concat.upload_id(url, self._base_path, outside) for url in creation.concat.urls]
                await self._entry.own(entrant, partials)
                if "concatenation-unfinished" not in self._extensions:
                    await self._uploads.check_finished(partials)
                upload = await self._uploads.concatenate(creation, partials, entrant.caller, visit)
            else:
                upload = await self._uploads.create(creation, request.body, entrant.caller, visit)
        except CreationCut as cut:
            self._describe(request, cut.upload)
            self._locate(request, cut.upload, entrant)
            raise cut.error from cut
        self._locate(request, upload, entrant)
        if creation.has_body or (upload.is_final and upload.finished):
            request.set_field(b"upload-offset", b"%d" % upload.offset)
        if creation.concat_header is not None:
            request.set_field(b"upload-concat", creation.concat_header.encode("latin-1"))
        self._expiry(request, upload)
        return answered(request, visit, 201)

    @app.route("/<upload_id>", methods=["PATCH"])
    async def append(self, request: StreamingRequest, upload_id: str) -> bytes:
        fields = RequestFields(request)
        tus.check_version(fields)
        wanted: tus.Append | TusError
        try:
            wanted = tus.parse_append(fields, request.body.length, self._algorithms)
            tus.check_append(wanted, self._extensions)
        except TusError as error:
            wanted = error
        entrant = ANYBODY if self._entry.open else await self._entry.admit(request, Action.APPEND, _valid(upload_id))
        visit = self._visit(request)
        upload = await self._uploads.append(_valid(upload_id), wanted, request.body, entrant.caller, visit)
        request.set_field(b"upload-offset", b"%d" % upload.offset)
        self._expiry(request, upload)
        return answered(request, visit, 204)

    @app.route("/<upload_id>", methods=["GET", "HEAD"])
    async def look(self, request: StreamingRequest, upload_id: str) -> bytes:
        if request.method == b"GET":
            if self._downloads is None:
                raise self._no_such_method(_METHODS)
            if not self._entry.open:
                await self._entry.admit(request, Action.READ, _valid(upload_id))
            await shielded(self._downloads.answer(request, _valid(upload_id)))
            return b""
        fields = RequestFields(request)
        if self._downloads is not None and not fields.values("tus-resumable"):
            if not self._entry.open:
                await self._entry.admit(request, Action.READ, _valid(upload_id))
            with suppress(NotFinished):
                await shielded(self._downloads.answer(request, _valid(upload_id)))
                return b""
        tus.check_version(fields)
        if not self._entry.open:
            await self._entry.admit(request, Action.INSPECT, _valid(upload_id))
        self._describe(request, await self._uploads.inspect(_valid(upload_id)))
        request.set_field(b"cache-control", b"no-store")
        return answered(request, None, 200)

    @app.route("/<upload_id>", methods=["DELETE"])
    async def terminate(self, request: StreamingRequest, upload_id: str) -> bytes:
        if "DELETE" in self._off:
            raise self._no_such_method(_METHODS)
        tus.check_version(RequestFields(request))
        if not self._entry.open:
            await self._entry.admit(request, Action.TERMINATE, _valid(upload_id))
        visit = self._visit(request)
        await self._uploads.terminate(_valid(upload_id), visit)
        return answered(request, visit, 204)

    @app.route("/<upload_id>/<leaf>", methods=None)
    async def status(self, request: StreamingRequest, upload_id: str, leaf: str) -> bytes:
        if leaf != self._status_path:
            raise NotFound("There is nothing at this address.")
        if request.method == b"OPTIONS":
            return self.capabilities(request)
        if request.method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed(["GET", "HEAD", "OPTIONS"])
        entrant = ANYBODY if self._entry.open else await self._entry.admit(request, Action.STATUS, _valid(upload_id))
        found = await self._uploads.status(_valid(upload_id))
        return status.respond(request, found, fully=entrant.is_admin)

    def _no_such_method(self, valid: Iterable[str]) -> MethodNotAllowed:
        return MethodNotAllowed(sorted(set(valid) - self._off))

    def _locate(self, request: StreamingRequest, upload: Upload, entrant: Entrant) -> None:
        """The address of a new upload, with what its client has to bring along."""
        location = self._origin.location(request, upload.id)
        carry = entrant.identity.carry
        request.set_field(b"location", (f"{location}?{carry}" if carry else location).encode())

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

    def _visit(self, request: StreamingRequest) -> HookContext | None:
        """What hooks are shown of it; None where there are none."""
        return None if self._visits is None else self._visits.of(request)


def _valid(upload_id: str) -> str:
    """An id that can be an id; NotFound for anything else, so that it never gets near a path."""
    if not valid_id(upload_id):
        raise NotFound("There is no such upload.")
    return upload_id

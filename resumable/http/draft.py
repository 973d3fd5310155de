"""The IETF draft over HTTP: what its requests do, and what its clients are told, before the answer and in it.

Invariants: a 104 (Upload Resumption Supported) goes only to a client that speaks a known version, and never through a
proxy that may take it for the answer; a client that can resume is never told a failure of ours, or that a newer request
has come: its connection ends (HTTP/2: its stream), so that it asks how far it is. iOS takes a 5xx for the end of the
upload. Spec: draft-ietf-httpbis-resumable-upload, 4 to 8.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import replace

from attrs import field, frozen
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.http import errors
from resumable.http.routed import Call
from resumable.http.twisted_web import canonical
from resumable.model.upload import IInterim, Upload
from resumable.protocol import draft
from resumable.protocol.draft import VERSION_FIELD, DraftDialect, Limits
from resumable.protocol.errors import Held, Refused, TusError, UsedUp
from resumable.protocol.requests import Append
from resumable.uploads.uploads import CreationCut, Uploads

log = Logger()

PACE = 1.0
"""Seconds, at least, between two 104s that tell how far an upload is."""

_PROXIES = frozenset(
    map(canonical, (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip"))
)
"""Fields that proxies add. nginx takes a 104 for the answer."""


_SAID = {
    (dialect.inverted, complete): (name.lower().encode(), value.encode())
    for dialect in draft.DIALECTS.values()
    for complete in (False, True)
    for name, value in (draft.said_complete(dialect, complete),)
}
_VERSION = VERSION_FIELD.lower().encode()
_SPEAKS = {version: ("draft", None if version is None else str(version)) for version in (None, *draft.DIALECTS)}


class Interim(enum.Enum):
    """Who gets 104s of those that ask for them. AUTO: who isn't behind a proxy that shows."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@frozen
class DraftSettings:
    """The operator's rules for the draft. ``max_age``: seconds after which an idle upload expires; None: never."""

    limits: Limits = field(factory=Limits)
    interim: Interim = Interim.AUTO
    max_age: float | None = None

    def limit(self, dialect: DraftDialect, max_size: int | None, max_age: float | None) -> bytes:
        """The value of Upload-Limit. ``max_size``: the upload's own."""
        limits = self.limits
        if max_size is not None and (limits.max_size is None or max_size < limits.max_size):
            limits = replace(limits, max_size=max_size)
        return limits.field(dialect, max_age).encode()


@implementer(IInterim)
class Conversation:
    """One request of the draft, in its client's dialect. ``resumes``: its client knows where its upload is, and can go
    on with it, whatever happens to this request. It sends the 104s.
    """

    __slots__ = ("_requests", "_told_at", "call", "dialect", "resumes")

    def __init__(self, call: Call, requests: DraftRequests) -> None:
        self.call = call
        self.dialect = dialect = draft.dialect_of(call.fields)
        self.resumes = False
        self._requests = requests
        self._told_at = 0.0
        request, version = call.request, dialect.version
        request.responseHeaders.removeHeader(b"tus-resumable")
        request.speaks = _SPEAKS[version]
        if version is not None:
            request.set_field(_VERSION, b"%d" % version)

    def created(self, upload: Upload) -> None:
        # "The 104 response MUST include the Location and the Upload-Limit", and the version while this is a draft.
        requests = self._requests
        fields = [(b"Location", requests.location(self.call, upload)), (b"Upload-Limit", requests.limit(self, upload))]
        if self._inform(*fields):
            self.resumes = True

    def committed(self, offset: int) -> None:
        if self.call.request.site.seconds() - self._told_at >= PACE:
            self._inform((b"Upload-Offset", b"%d" % offset))  # "MUST NOT include Location"

    def _inform(self, *fields: tuple[bytes, bytes]) -> bool:
        request = self.call.request
        if request.gone:
            return False
        self._told_at = request.site.seconds()
        return request.interim(104, [(_VERSION, b"%d" % (self.dialect.version or 0)), *fields])

    @property
    def interim(self) -> IInterim | None:
        """Tells the client what happens before the answer; None: it takes no 104s, or may not get them."""
        way = self._requests.settings.interim
        if self.dialect.version is None or way is Interim.NEVER:
            return None
        return None if way is Interim.AUTO and self.call.fields.has_any(_PROXIES) else self

    def say_complete(self, complete: bool) -> None:
        """The answer tells whether the upload is complete."""
        self.call.request.set_field(*_SAID[self.dialect.inverted, complete])

    def refuse(self, error: TusError) -> bool:
        """Add what the draft wants to a refusal; False: the client isn't told at all, see the top."""
        if _is_failure(error) and self.resumes and self.dialect.version is not None:
            return False
        settings = self._requests.settings
        self.say_complete(False)
        self.call.request.set_field(b"upload-limit", settings.limit(self.dialect, None, settings.max_age))
        return True


def _is_failure(error: TusError) -> bool:
    """Whether the same request may work later; not what was decided by a hook or a quota, though that may be 5xx."""
    if isinstance(error, errors.BodyCut):
        return error.status != 400  # else it is malformed
    return isinstance(error, Held) or (error.status >= 500 and not isinstance(error, Refused | UsedUp))


class DraftRequests:
    """What clients of the draft may do."""

    def __init__(
        self,
        uploads: Uploads,
        settings: DraftSettings,
        location: Callable[[Call, Upload], bytes],
    ) -> None:
        """``location``: the address of the upload that a request makes."""
        self._uploads = uploads
        self.settings = settings
        self.location = location

    def begin(self, call: Call) -> Conversation:
        """A request of the draft has come."""
        return Conversation(call, self)

    def refused(self, talk: Conversation) -> TusError | None:
        """The refusal for the exception being handled; None: the client isn't told, and its request has ended."""
        request = talk.call.request
        error = errors.as_tus_error(Failure(), request)
        if talk.refuse(error):
            return error
        level = LogLevel.debug if error.status < 500 else LogLevel.info
        said = "a client that can resume is not told: {reason}"
        log.emit(level, said, reason=error.detail, status=error.status, request=request.known_as)
        request.hang_up()
        return None

    def parse_creation(self, talk: Conversation) -> None:
        """Raises TusError."""
        call = talk.call
        call.creation = draft.parse_creation(call.fields, talk.dialect, call.request.body.length, self.settings.limits)

    async def create(self, talk: Conversation) -> int:
        """Make an upload, with as much of its content as has come."""
        call = talk.call
        creation = call.creation
        assert creation is not None, "it is parsed before anybody is asked about it"
        try:
            upload = await self._uploads.create(creation, call.request.body, call.principal, call.hooks, talk.interim)
        except CreationCut as cut:
            call.request.set_field(b"location", self.location(call, cut.upload))
            raise cut.error from cut
        call.request.set_field(b"location", self.location(call, upload))
        return 200 if self._say(talk, upload) else 201

    async def append(self, talk: Conversation) -> int:
        """Take bytes. A malformed header is refused after the upload has been looked up."""
        call = talk.call
        wanted: Append | TusError
        try:
            wanted = draft.parse_append(call.fields, talk.dialect, call.request.body.length, self.settings.limits)
        except TusError as error:
            wanted = error
        upload = await self._uploads.append(
            call.upload_id, wanted, call.request.body, call.principal, call.hooks, talk.interim
        )
        return 200 if self._say(talk, upload) else 204

    async def inspect(self, talk: Conversation) -> int:
        """How far an upload is; ends what is under way."""
        self.describe(talk, await self._uploads.look(talk.call.upload_id))
        talk.call.request.set_field(b"cache-control", b"no-store")
        return 204

    async def terminate(self, talk: Conversation) -> int:
        """End an upload."""
        await self._uploads.terminate(talk.call.upload_id, talk.call.hooks)
        return 204

    def describe(self, talk: Conversation, upload: Upload) -> None:
        """Everything that the draft tells of an upload."""
        request = talk.call.request
        if upload.length is not None:
            request.set_field(b"upload-length", b"%d" % upload.length)
        if self._say(talk, upload):
            request.set_field(b"upload-limit", self.limit(talk, upload))
            talk.call.set_digest(upload)

    def limit(self, talk: Conversation, upload: Upload) -> bytes:
        """The value of Upload-Limit for this upload."""
        expires = self._uploads.expires_at(upload)
        max_age = None if expires is None else expires - self._uploads.wall()
        return self.settings.limit(talk.dialect, upload.max_size, max_age)

    def _say(self, talk: Conversation, upload: Upload) -> bool:
        """What an answer tells of the upload that it is about; whether that is complete. Then it has no limits."""
        request, complete = talk.call.request, self._uploads.complete(upload)
        request.set_field(b"upload-offset", b"%d" % upload.offset)
        talk.say_complete(complete)
        if not complete:
            request.set_field(b"upload-limit", self.limit(talk, upload))
        return complete

"""Hooks as the use cases see them: the views that hooks get, their decisions, and the interface to ask them.

Nothing here does any work. Invariants: a decision that `IHooks.before` grants has been checked, and can do no harm to
the protocol; `as_data` and `from_data` are each other's inverse, so that an event shows an upload as it was when its
fact was written. Sizes are bytes.
"""

from __future__ import annotations

import enum
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import Interface, implementer

from resumable.model.upload import Upload
from resumable.protocol import metadata
from resumable.protocol.errors import BadRequest, Refused


class QuestionKind(enum.Enum):
    """Something that is about to happen, and doesn't if a hook says no."""

    CREATE = "before-create"
    APPEND = "before-append"
    FINISH = "before-finish"
    TERMINATE = "before-terminate"


@frozen
class UploadView:
    """An upload as it was then. ``metadata`` is decoded, ``raw_metadata`` the header verbatim; ``id`` is the one that
    it gets unless a hook changes it (before-create), else the one that it has. ``digest``: of all its bytes, see
    `Upload`; None: it wasn't known."""

    id: str
    length: int | None = None
    offset: int = 0
    metadata: Mapping[str, bytes] = field(factory=dict)
    raw_metadata: str | None = None
    partial: bool = False
    partials: tuple[str, ...] = ()
    identity: str | None = None
    digest: str | None = None


@frozen
class RequestView:
    """The request that caused an event or a question. ``headers``, by lower-case name, are those that the operator
    chose; ``id`` is its X-Request-ID, empty if it has none. ``protocol``: "tus" or "draft", None where that wasn't
    kept; ``protocol_version``: the one that its client names, of the draft the interop version."""

    method: str
    uri: str
    address: str = ""
    headers: Mapping[str, tuple[str, ...]] = field(factory=dict)
    id: str = ""
    protocol: str | None = None
    protocol_version: str | None = None


@frozen
class Answer:
    """A hook's answer to the client. Parts that are None or empty are as without a hook."""

    status: int | None = None
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""


@frozen
class Changes:
    """Changes to a new upload; None leaves a value as it is. ``metadata`` replaces all of it.

    ``key``: its name in the remotes, verbatim, and its file's place here, if files get one. ``remotes``: only these.
    """

    id: str | None = None
    metadata: Mapping[str, bytes] | None = None
    key: str | None = None
    remotes: tuple[str, ...] | None = None
    max_size: int | None = None


@frozen
class Granted:
    """Every hook has agreed. ``raw_metadata``: the header for ``changes.metadata``. ``answer``: headers to add to the
    success, and perhaps a 2xx status and a body."""

    changes: Changes = field(factory=Changes)
    answer: Answer = field(factory=Answer)
    raw_metadata: str | None = None


class IHooks(Interface):
    """The guards: all hooks that are asked before something is done."""

    def asks(kind: QuestionKind) -> bool:
        """Whether a guard wants such questions; if not, nothing needs to be gathered for one."""

    def before(kind: QuestionKind, upload: UploadView, request: RequestView | None = None) -> Deferred[Granted]:
        """Ask all guards. Fails with Refused, which carries the hook's answer; with Unavailable when one has failed.
        Changes are granted before-create only."""


@frozen
class Arrived:
    """The progress of a running upload: ``received`` bytes have arrived, of which ``upload.offset`` are safe."""

    upload: UploadView
    received: int
    request: RequestView | None = None


class IProgress(Interface):
    """All hooks that get the progress of running uploads."""

    def arrived(upload_id: str, look: Callable[[], Arrived | None]) -> None:
        """Bytes of the upload came. ``look`` gives its progress, now and a little later; None: it has ended, or isn't
        to be shown yet. Called for each piece of a body: it costs next to nothing, blocks nobody and never raises.
        """


@implementer(IHooks, IProgress)
class NoHooks:
    """A daemon without hooks."""

    def asks(self, kind: QuestionKind) -> bool:
        return False

    def before(self, kind: QuestionKind, upload: UploadView, request: RequestView | None = None) -> Deferred[Granted]:
        return succeed(Granted())

    def arrived(self, upload_id: str, look: Callable[[], Arrived | None]) -> None: ...


def view(upload: Upload) -> UploadView:
    """The upload as hooks see it."""
    return UploadView(
        upload.id,
        upload.length,
        upload.offset,
        _decoded(upload.metadata),
        upload.metadata,
        upload.is_partial,
        upload.partials,
        upload.owner,
        upload.digest,
    )


def as_data(upload: UploadView, request: RequestView | None = None) -> dict[str, object]:
    """The ``data`` of a fact, in JSON's types. Members added to it (``remote``, ``reason``, ...) are details."""
    found: dict[str, object] = {"length": upload.length, "offset": upload.offset}
    if upload.raw_metadata is not None:
        found["metadata"] = upload.raw_metadata
    if upload.partial:
        found["partial"] = True
    if upload.partials:
        found["partials"] = list(upload.partials)
    if upload.identity is not None:
        found["identity"] = upload.identity
    if upload.digest is not None:
        found["digest"] = upload.digest
    if request is not None:
        found["request"] = request_as_data(request)
    return found


def request_as_data(request: RequestView) -> dict[str, object]:
    """The request in JSON's types, for `request_from_data`."""
    return {
        "method": request.method,
        "uri": request.uri,
        "address": request.address,
        "headers": {name: list(values) for name, values in request.headers.items()},
        "id": request.id,
        "protocol": request.protocol,
        "protocol_version": request.protocol_version,
    }


def request_from_data(data: Mapping[str, Any]) -> RequestView:
    """The request of `request_as_data`."""
    headers = {name: tuple(values) for name, values in data["headers"].items()}
    named = data.get("protocol"), data.get("protocol_version")  # an older release has kept neither
    return RequestView(data["method"], data["uri"], data["address"], headers, data.get("id", ""), *named)


def refusal_as_data(refused: Refused) -> dict[str, object]:
    """The refusal in JSON's types, for `refusal_from_data`."""
    return {"status": refused.status, "headers": dict(refused.headers), "body": b64encode(refused.body).decode()}


def refusal_from_data(data: Mapping[str, Any]) -> Refused:
    """The refusal of `refusal_as_data`."""
    return Refused(data["status"], data["headers"], b64decode(data["body"]))


def from_data(upload_id: str, data: Mapping[str, Any]) -> tuple[UploadView, RequestView | None, dict[str, Any]]:
    """The upload, the request and the details in a fact's ``data``; a member that is missing has its default."""
    rest = dict(data)
    raw = rest.pop("metadata", None)
    upload = UploadView(
        upload_id,
        rest.pop("length", None),
        rest.pop("offset", 0),
        _decoded(raw),
        raw,
        rest.pop("partial", False),
        tuple(rest.pop("partials", ())),
        rest.pop("identity", None),
        rest.pop("digest", None),
    )
    request = rest.pop("request", None)
    return upload, None if request is None else request_from_data(request), rest


def _decoded(raw: str | None) -> Mapping[str, bytes]:
    try:
        return metadata.parse(raw or "")
    except BadRequest:  # kept by a version that took more
        return {}

"""Hooks as the use cases see them: what they are shown, what they may decide, how they are asked.

One reason to change: something else that a hook may know of an upload, or decide. Nothing here does any work.

Invariants: what `IHooks.before` grants has been checked, and can do no harm to the protocol; `as_data` and `from_data`
are each other's inverse, so that an event tells of an upload as it was when its fact was written. Sizes are bytes.
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
    """What is about to happen, and doesn't if a hook says no."""

    CREATE = "before-create"
    APPEND = "before-append"
    FINISH = "before-finish"
    TERMINATE = "before-terminate"


@frozen
class UploadView:
    """An upload as it was then. ``metadata`` is decoded, ``raw_metadata`` the header verbatim; ``id`` is the one that
    it gets unless a hook changes it (before-create), else the one that it has."""

    id: str
    length: int | None = None
    offset: int = 0
    metadata: Mapping[str, bytes] = field(factory=dict)
    raw_metadata: str | None = None
    partial: bool = False
    partials: tuple[str, ...] = ()
    identity: str | None = None


@frozen
class RequestView:
    """The request that caused it. ``headers``, by lower-case name, are those that the operator chose; ``id`` is its
    X-Request-ID, empty if it has none."""

    method: str
    uri: str
    address: str = ""
    headers: Mapping[str, tuple[str, ...]] = field(factory=dict)
    id: str = ""


@frozen
class Answer:
    """What goes to the client. None and empty: what would go without a hook."""

    status: int | None = None
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""


@frozen
class Changes:
    """What a new upload gets instead of what it would; None leaves it. ``metadata`` replaces all of it.

    ``key``: its name in the remotes, as it is, and its file's place here, if files get one. ``remotes``: only these.
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
    """Everybody who wants to be asked."""

    def asks(kind: QuestionKind) -> bool:
        """Whether there is anybody; if not, nothing needs to be gathered for a question."""

    def before(kind: QuestionKind, upload: UploadView, request: RequestView | None = None) -> Deferred[Granted]:
        """Ask all of them. Fails with Refused, which carries the hook's answer; with Unavailable when one has failed.
        Changes are granted before-create only."""


@frozen
class Arrived:
    """How a running upload gets on: ``received`` bytes have arrived, of which ``upload.offset`` are safe."""

    upload: UploadView
    received: int
    request: RequestView | None = None


class IProgress(Interface):
    """Those who want to know how running uploads get on."""

    def arrived(upload_id: str, look: Callable[[], Arrived | None]) -> None:
        """Bytes of the upload came. ``look`` tells how far it is, now and a little later; None: it has ended, or nobody
        is to know of it yet. Called for each piece of a body: it costs next to nothing, blocks nobody and never raises.
        """


@implementer(IHooks, IProgress)
class NoHooks:
    """There are none."""

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
    )


def as_data(upload: UploadView, request: RequestView | None = None) -> dict[str, object]:
    """For a fact's ``data``, in JSON's types. What is added to it (``remote``, ``reason``, ...) are details."""
    found: dict[str, object] = {"length": upload.length, "offset": upload.offset}
    if upload.raw_metadata is not None:
        found["metadata"] = upload.raw_metadata
    if upload.partial:
        found["partial"] = True
    if upload.partials:
        found["partials"] = list(upload.partials)
    if upload.identity is not None:
        found["identity"] = upload.identity
    if request is not None:
        found["request"] = request_as_data(request)
    return found


def request_as_data(request: RequestView) -> dict[str, object]:
    """In JSON's types, for `request_from_data`."""
    return {
        "method": request.method,
        "uri": request.uri,
        "address": request.address,
        "headers": {name: list(values) for name, values in request.headers.items()},
        "id": request.id,
    }


def request_from_data(data: Mapping[str, Any]) -> RequestView:
    """The request that was shown then."""
    headers = {name: tuple(values) for name, values in data["headers"].items()}
    return RequestView(data["method"], data["uri"], data["address"], headers, data.get("id", ""))


def refusal_as_data(refused: Refused) -> dict[str, object]:
    """In JSON's types, for `refusal_from_data`."""
    return {"status": refused.status, "headers": dict(refused.headers), "body": b64encode(refused.body).decode()}


def refusal_from_data(data: Mapping[str, Any]) -> Refused:
    """What was answered then."""
    return Refused(data["status"], data["headers"], b64decode(data["body"]))


def from_data(upload_id: str, data: Mapping[str, Any]) -> tuple[UploadView, RequestView | None, dict[str, Any]]:
    """The upload, the request and what else there is; whatever is missing has its default."""
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
    )
    request = rest.pop("request", None)
    return upload, None if request is None else request_from_data(request), rest


def _decoded(raw: str | None) -> Mapping[str, bytes]:
    try:
        return metadata.parse(raw or "")
    except BadRequest:  # kept by a version that took more
        return {}

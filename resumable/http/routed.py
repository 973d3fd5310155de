"""One request on its route: its header as `protocol` reads it, and what is known of it by then."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from resumable.http.request import StreamingRequest
from resumable.http.twisted_web import canonical
from resumable.model.principal import NOBODY, Principal
from resumable.model.upload import Upload
from resumable.protocol import digests
from resumable.protocol.requests import Creation
from resumable.uploads.context import HookContext

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

    def has_any(self, names: frozenset[bytes]) -> bool:
        """Whether there is one of these fields; ``names`` as `canonical` spells them."""
        return not names.isdisjoint(self._lines)


@define
class Call:
    """One request on its route. ``upload_id`` is empty at the collection. ``creation``: what a POST asks for."""

    request: StreamingRequest
    fields: RequestFields
    upload_id: str
    creation: Creation | None = None
    principal: Principal = NOBODY
    hooks: HookContext | None = None

    def set_digest(self, upload: Upload) -> None:
        """The answer tells the digest of a complete upload, the one that the client wants (RFC 9530, 3 and 4)."""
        whole = None if upload.digest is None else digests.chosen(self.fields, "want-repr-digest", upload.digest)
        if whole is not None:
            self.request.set_field(b"repr-digest", whole.encode())

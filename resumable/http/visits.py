"""What hooks are shown of a request, and what they add to its answer.

Reason to change: either of these. Invariant: of the client's headers hooks see those only that the operator has chosen,
and of its URL no token.
"""

from __future__ import annotations

from collections.abc import Sequence

from resumable.auth.interfaces import uri_of
from resumable.auth.signed import without_token
from resumable.http import cors
from resumable.http.origin import Origin
from resumable.http.request import StreamingRequest
from resumable.http.routing import target_of
from resumable.model.hooks import RequestView
from resumable.uploads.questions import HookContext

_BODILESS = (204, 205)


class Visits:
    """``forward``: lower-case names of the headers that hooks see."""

    def __init__(self, origin: Origin, forward: Sequence[str] = ()) -> None:
        self._origin = origin
        self._forward = [(name, name.encode("latin-1")) for name in forward]

    def of(self, request: StreamingRequest) -> HookContext:
        """The request as hooks see it."""
        given = ((name, request.requestHeaders.getRawHeaders(raw)) for name, raw in self._forward)
        headers = {name: tuple(map(text_of, lines)) for name, lines in given if lines}
        method, uri = request.method.decode("latin-1"), without_token(uri_of(*target_of(request)))
        return HookContext(RequestView(method, uri, self._address(request), headers, request.known_as))

    def _address(self, request: StreamingRequest) -> str:
        """Whose request it is; with the port, where that is known."""
        peer = self._origin.peer(request)
        client = request.getClientAddress()  # type: ignore[no-untyped-call]
        if not peer or getattr(client, "host", None) != peer:
            return peer
        return f"[{peer}]:{client.port}" if ":" in peer else f"{peer}:{client.port}"


def text_of(line: bytes) -> str:
    """A field's value: UTF-8 where it can be that, as a receiver in any other language would take it."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def answered(request: StreamingRequest, visit: HookContext | None, status: int) -> bytes:
    """The end of a success: with ``status`` and no body, unless hooks want it otherwise."""
    body = b""
    if visit is not None:
        said = visit.answer
        body = said.body
        for name, value in said.headers.items():
            request.set_field(name.encode("latin-1"), value.encode("latin-1"))
        cors.expose(request, said.headers)
        status = said.status or status
        if body and status in _BODILESS:
            status = 200
    request.setResponseCode(status)
    if status != 204 and request.method != b"HEAD":
        request.set_field(b"content-length", b"%d" % len(body))
    return body

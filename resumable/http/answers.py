"""JSON as an answer to operators, and how times are written in it.

Changes when the form of these answers does. Invariant: nothing of it is kept by a cache, or taken for something else by
a browser. Times are RFC 3339 in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from resumable.http.request import StreamingRequest
from resumable.model.values import json_time


def respond(request: StreamingRequest, document: object) -> bytes:
    """Set status 200 and the fields; answers the body."""
    return _respond(request, json.dumps(document, indent=2).encode() + b"\n")


def respond_page(request: StreamingRequest, name: str, lines: Sequence[bytes], following: str | None) -> bytes:
    """The same for a page of documents that are encoded already, each in a line of its own."""
    page = b'{"%s": [\n%s\n], "next": %s}\n'
    return _respond(request, page % (name.encode(), b",\n".join(lines), json.dumps(following).encode()))


def _respond(request: StreamingRequest, body: bytes) -> bytes:
    request.setResponseCode(200)
    request.set_field(b"content-type", b"application/json")
    request.set_field(b"content-length", b"%d" % len(body))
    request.set_field(b"cache-control", b"no-store")
    request.set_field(b"x-content-type-options", b"nosniff")
    return body


def nothing(request: StreamingRequest) -> bytes:
    """204: it is done, and there is nothing to tell."""
    request.setResponseCode(204)
    request.set_field(b"cache-control", b"no-store")
    return b""


def written(seconds: float | None) -> str | None:
    """A time since the epoch, or None."""
    return None if seconds is None else json_time(seconds)

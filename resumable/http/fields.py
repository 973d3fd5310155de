"""A request's header for `protocol`. Changes when what `protocol` asks of one does."""

from __future__ import annotations

from collections.abc import Sequence

from resumable.http.request import StreamingRequest


class RequestFields:
    """See `resumable.protocol.fields.Fields`."""

    __slots__ = ("_headers",)

    def __init__(self, request: StreamingRequest) -> None:
        self._headers = request.requestHeaders

    def values(self, name: str) -> Sequence[str]:
        raw = self._headers.getRawHeaders(name.encode())
        return [value.decode("latin-1").strip(" \t") for value in raw] if raw else ()

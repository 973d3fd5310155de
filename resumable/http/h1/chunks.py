"""A chunked body: where its data is, and the trailers behind it.

Invariant: a body that two servers could read differently is refused, so that no request can be smuggled past a proxy.
No I/O. Spec: RFC 9112 section 7.1 (chunked transfer coding).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from twisted.web.http_headers import Headers, InvalidHeaderName

from resumable.http.h1.head import MAX_TRAILERS, RefusedRequest, field_of

MAX_CHUNK_LINE = 1_024

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class ChunkReader:
    """Finds the data in a chunked body (RFC 9112 section 7.1).

    ``left`` is how many bytes of the current chunk's data are still to come: whoever feeds it may take bytes that lie
    wholly within them past it, and lower ``left``. ``trailers`` are the trailer section's raw lines.
    """

    __slots__ = ("_in_chunk", "_in_trailers", "_line", "_trailers_size", "left", "trailers")

    def __init__(self) -> None:
        self.left = 0
        self.trailers: list[bytes] = []
        self._trailers_size = 0
        self._in_chunk = self._in_trailers = False
        self._line = b""  # the beginning of a line that isn't complete

    def feed(self, data: bytes, pieces: list[bytes]) -> bytes | None:
        """Append to ``pieces`` the body's bytes in ``data``.

        Returns None, and at the end of the body the bytes that follow it. Raises RefusedRequest; the bytes before
        the malformed place are in ``pieces`` by then.
        """
        if self._line:
            data, self._line = self._line + data, b""
        at, size = 0, len(data)
        while at < size:
            if self._in_trailers:
                end = self._trailer(data, at)
                if end == at + 2:
                    return data[end:]
            elif self._in_chunk:
                piece = data[at : at + self.left]
                if piece:
                    pieces.append(piece)
                self.left -= len(piece)
                end = at + len(piece)
                if not self.left:
                    end = self._chunk_end(data, end)
            else:
                end = self._chunk_line(data, at)
            if end <= at:
                break
            at = end
        self._line = data[at:]
        return None

    # Each of these answers where to go on; where it was if a line isn't complete.

    def _chunk_line(self, data: bytes, at: int) -> int:
        match = _CHUNK_LINE.match(data, at)
        if match is None:
            if data.find(b"\n", at) >= 0 or len(data) - at > MAX_CHUNK_LINE:
                raise RefusedRequest(400, "The size of a chunk is malformed.")
            return at
        if match.end() - at > MAX_CHUNK_LINE:
            raise RefusedRequest(400, "The size line of a chunk is too long.")
        self.left = int(match[1], 16)
        self._in_chunk, self._in_trailers = self.left > 0, self.left == 0
        return match.end()

    def _chunk_end(self, data: bytes, at: int) -> int:
        found = data[at : at + 2]
        if found == b"\r\n":
            self._in_chunk = False
            return at + 2
        if found not in (b"", b"\r"):
            raise RefusedRequest(400, "A chunk does not end with CR LF.")
        return at

    def _trailer(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at)
        if self._trailers_size + (end if end >= 0 else len(data)) - at > MAX_TRAILERS:
            raise RefusedRequest(400, f"The trailer section is longer than {MAX_TRAILERS} bytes.")
        if end < 0:
            return at
        if end > at:
            self.trailers.append(data[at:end])
            self._trailers_size += end + 2 - at
        return end + 2


def parse_trailers(lines: Sequence[bytes]) -> Mapping[str, str]:
    """Trailer fields by lower-case name; a repeated one is joined with commas. Raises RefusedRequest."""
    trailers = Headers()
    for line in lines:
        if line.translate(None, b"\0\r\n") != line:
            raise RefusedRequest(400, "A trailer field contains a NUL, a bare CR or a bare LF.")
        try:
            trailers.addRawHeader(*field_of(line))
        except InvalidHeaderName:
            raise RefusedRequest(400, "A trailer field has a malformed name.") from None
    return {
        name.decode("ascii").lower(): b", ".join(values).decode("latin-1")
        for name, values in trailers.getAllRawHeaders()
    }

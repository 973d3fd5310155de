"""How HTTP/1 requests are framed: their heads, the length of their bodies, chunks, and which requests are refused.

Invariant: a head or a body that two servers could read differently is refused, so that no request can be smuggled past
a proxy. No I/O: functions and one reader over bytes. Specs: RFC 9112 (HTTP/1.1 messages; section 7.1, chunked transfer
coding), RFC 9110 section 5 (fields), RFC 9457 (problem details).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from attrs import frozen
from twisted.web.http_headers import Headers, InvalidHeaderName

Fields = Sequence[tuple[bytes, bytes]]

MAX_HEAD = 16_384
MAX_LINE = 8_192
MAX_FIELDS = 500
MAX_TRAILERS = 16_384
MAX_CHUNK_LINE = 1_024
_MAX_DIGITS = 18
_NO_MEMBERS: Mapping[str, object] = {}
CR, LF = b"\r\n"
"""Numbers: to look for one in bytes takes a fifth of the time that it takes to look for bytes."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) (HTTP/1\.[01])")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD = re.compile(rb"\r\n([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\r\n]*)")
_PATH = re.compile(rb"/[^#]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)((?:[/?][^#]*)?)", re.IGNORECASE)
valid_host = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?").fullmatch
"""A match if the value is a host with or without a port (RFC 9110 section 7.2); else None."""
_ORIGIN = re.compile(rb"(?i:\r\norigin):[ \t]*([^\r\n]*)(?=\r\n)")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class RefusedRequest(Exception):
    """A request that is answered by the connection itself, with ``status``, and never reaches a resource.

    ``retry_after``: seconds after which it may be tried again, if that makes sense.
    """

    def __init__(self, status: int, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields: Fields = [] if retry_after is None else [(b"Retry-After", b"%d" % retry_after)]


@frozen
class RequestHead:
    """The request line and the fields of one request. ``length`` is the body's, in bytes; None when it is chunked."""

    method: bytes
    target: bytes
    version: bytes
    headers: Headers
    length: int | None

    @property
    def persistent(self) -> bool:
        """Whether the connection may stay open after the answer. HTTP/1.0 connections never do."""
        said = self.headers.getRawHeaders(b"Connection")
        if self.version != b"HTTP/1.1" or said is None:
            return self.version == b"HTTP/1.1"
        return b"close" not in (token.strip() for token in b",".join(said).lower().split(b","))


def end_of_head(data: bytes) -> int:
    """Where the CR LF CR LF stands that ends the head; -1 when more bytes must come.

    Raises RefusedRequest as soon as a head can't become a good one.
    """
    found = data.find(b"\r\n\r\n")
    if found >= 0:
        return found
    end = data.find(b"\n")
    if end > 0 and data[end - 1 : end] == b"\r":
        _request_line(data[: end - 1])
    elif end >= 0:
        raise RefusedRequest(400, "The request line does not end with CR LF.")
    elif len(data) > MAX_LINE:
        raise RefusedRequest(414, f"The request line is longer than {MAX_LINE} bytes.")
    if len(data) > MAX_HEAD:
        raise RefusedRequest(431, f"The request's head is longer than {MAX_HEAD} bytes.")
    return -1


def parse_head(head: bytes, headers_of: Callable[[Fields], Headers]) -> RequestHead:
    """The request whose head is ``head`` (without the CR LF CR LF that ends it). Raises RefusedRequest."""
    end = head.find(b"\r\n")
    line = head if end < 0 else head[:end]
    method, target, version = _request_line(line)
    if len(head) > MAX_HEAD:
        raise RefusedRequest(431, f"The request's head is longer than {MAX_HEAD} bytes.")
    breaks = head.count(b"\r\n")
    if breaks >= MAX_FIELDS:
        raise RefusedRequest(431, f"The request has more than {MAX_FIELDS} header fields.")
    if 0 in head or head.count(b"\n") != breaks or head.count(b"\r") != breaks:
        raise RefusedRequest(400, "The request's head contains a NUL, a bare CR or a bare LF.")
    fields = _FIELD.findall(head, len(line))
    if len(fields) != breaks:  # one for each CR LF, if all are well-formed
        raise _refused_field(head.split(b"\r\n")[1:])
    headers = headers_of([(name, value.strip(b" \t")) for name, value in fields])
    hosts = len(headers.getRawHeaders(b"Host", ()))
    if hosts > 1 or (not hosts and (version == b"HTTP/1.1" or _ABSOLUTE.match(target))):
        raise RefusedRequest(400, "A request needs exactly one Host field.")
    target = _origin_form(target, headers)
    return RequestHead(method, target, version, headers, _body_length(headers, version))


def content_length(headers: Headers) -> int | None:
    """The value of Content-Length, in bytes; None without. Raises RefusedRequest."""
    lengths = headers.getRawHeaders(b"Content-Length")
    if lengths is None:
        return None
    if len(lengths) != 1:
        raise RefusedRequest(400, "Content-Length is given more than once.")
    if not lengths[0].isdigit() or len(lengths[0]) > _MAX_DIGITS:
        raise RefusedRequest(400, f"Content-Length must be a number of 1 to {_MAX_DIGITS} digits.")
    return int(lengths[0])


def take_expectation(headers: Headers) -> bool:
    """Whether ``100 Continue`` is awaited. The field is taken away: only a delivered body earns the answer."""
    expectations = headers.getRawHeaders(b"Expect")
    if expectations is None:
        return False
    headers.removeHeader(b"Expect")
    if [expectation.lower() for expectation in expectations] != [b"100-continue"]:
        raise RefusedRequest(417, "The only expectation known here is 100-continue.")
    return True


def problem(
    status: int, detail: str, title: str = "", kind: str | None = None, members: Mapping[str, object] = _NO_MEMBERS
) -> bytes:
    """A problem+json document (RFC 9457), filled up to 256 bytes: tusgo panics on shorter ones. ``title``: of a status
    that HTTP doesn't know. ``kind``: the URI of the kind of problem, which adds ``members``."""
    document = {
        "type": kind or "about:blank",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return json.dumps(document).encode().ljust(255) + b"\n"


def origins_in(data: bytes) -> Sequence[bytes]:
    """The values of the Origin fields in a head that may be cut off or malformed."""
    return [value.rstrip(b" \t") for value in _ORIGIN.findall(data.partition(b"\r\n\r\n")[0] + b"\r\n")]


def refusal(refused: RefusedRequest, fields: Fields, data: bytes) -> bytes:
    """A whole response with these ``fields`` too, the last one of its connection; ``data`` begins the request."""
    body = problem(refused.status, refused.detail)
    first = f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}\r\n"
    last = f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    lines = b"".join(b"%s: %s\r\n" % field for field in [*refused.fields, *fields])
    return first.encode() + lines + last.encode() + (b"" if data.startswith(b"HEAD ") else body)


def _request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    if len(line) > MAX_LINE:
        raise RefusedRequest(414, f"The request line is longer than {MAX_LINE} bytes.")
    if LF in line:
        raise RefusedRequest(400, "The request line does not end with CR LF.")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise RefusedRequest(400, "The request line is malformed.")
    method, target, version = match.groups()
    check_target(method, target)
    return method, target, version


def check_target(method: bytes, target: bytes) -> None:
    """RFC 9112 section 3.2: a path, a whole URL, or the asterisk of OPTIONS; the other forms are for proxies.

    A proxy that looks for the paths of its rules in another form may let requests through. Raises RefusedRequest.
    """
    if not (_PATH.fullmatch(target) or _ABSOLUTE.fullmatch(target) or (method, target) == (b"OPTIONS", b"*")):
        raise RefusedRequest(400, "The request's target is neither a path nor an http URL.")


def _refused_field(lines: Sequence[bytes]) -> RefusedRequest:
    """The refusal of the first of these lines that is no field."""
    for line in lines:
        try:
            name, _ = field_of(line)
        except RefusedRequest as refused:
            return refused
        if not _NAME.fullmatch(name):
            break
    return RefusedRequest(400, "A header field has a malformed name.")


def _origin_form(target: bytes, headers: Headers) -> bytes:
    """RFC 9112 section 3.2.2: a server accepts the absolute form, whose authority takes the place of Host."""
    absolute = None if target.startswith(b"/") else _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return target
    headers.setRawHeaders(b"Host", [absolute[1]])
    rest = absolute[2]
    return rest if rest.startswith(b"/") else b"/" + rest


def field_of(line: bytes) -> tuple[bytes, bytes]:
    """Name and value of one line. Raises RefusedRequest; the name's characters are still to be looked at."""
    if line[:1] in (b" ", b"\t"):
        raise RefusedRequest(400, "A header field is folded over several lines.")
    name, colon, value = line.partition(b":")
    if not colon:
        raise RefusedRequest(400, "A header line has no colon.")
    return name, value.strip(b" \t")


def _body_length(headers: Headers, version: bytes) -> int | None:
    """RFC 9112 section 6.3, without its leniencies: equal Content-Lengths and overridden ones are refused, too."""
    length = content_length(headers)
    codings = headers.getRawHeaders(b"Transfer-Encoding")
    if codings is not None:
        if length is not None:
            raise RefusedRequest(400, "Content-Length and Transfer-Encoding exclude each other.")
        if version == b"HTTP/1.0":
            raise RefusedRequest(400, "HTTP/1.0 has no Transfer-Encoding.")
        if len(codings) != 1:
            raise RefusedRequest(400, "Transfer-Encoding is given more than once.")
        if codings[0].lower() != b"chunked":
            raise RefusedRequest(501, "The only Transfer-Encoding known here is chunked.")
        return None
    return length or 0


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

"""The bytes of an HTTP/2 connection, cut into frames; and the head of a request in them, as HTTP/1.1 has it.

Invariants: no byte of a body waits for the rest of its frame, nor is one lost because bytes behind it are malformed;
bytes that came together are passed on together, and copied once. Frames other than DATA are whole. Heads that h1.py
would refuse are refused here too; a malformed head is refused with its request, and harms no other request on the
connection. h2 could check heads as well, but it takes them apart byte by byte, and ends the connection for each error.
Spec: RFC 9113 sections 3.4, 4, 6 and 8.1 to 8.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Final, NamedTuple

from h2.errors import ErrorCodes
from twisted.web.http_headers import Headers, InvalidHeaderName

from resumable.http.h1 import (
    MAX_FIELDS,
    MAX_HEAD,
    MAX_LINE,
    MAX_TRAILERS,
    Fields,
    RefusedRequest,
    RequestHead,
    check_target,
    content_length,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME: Final = 65_536
"""Bytes of the largest payload that we take. Larger ones would keep a client from serving its other streams."""
SHORT: Final = 64
"""Bytes of a body that a frame has to bring to be more than a frame."""
MAX_BLOCK: Final = 65_536
"""Bytes of one header block with all its CONTINUATION frames, before it is decoded."""

_HEADER: Final = Struct(">BHBBI")
_STREAM: Final = 0x7FFF_FFFF
_DATA, _HEADERS, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 8, 9
_END_STREAM, _END_HEADERS, _PADDED = 1, 4, 8

VERSION = b"HTTP/2"

_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"/[\x21-\x7e]*|\*")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?![ \t])[^\0\r\n]*(?<![ \t])")
_KNOWN: Final = frozenset((b":method", b":scheme", b":authority", b":path"))
_OF_CONNECTIONS: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)


class Violation(Exception):
    """The client breaks the rules of HTTP/2; the connection ends with ``code``."""

    def __init__(self, code: ErrorCodes) -> None:
        super().__init__(code.name)
        self.code = code


class Data(NamedTuple):
    """Bytes of a body. They took ``size`` of the windows; ``ends``: nothing follows.

    ``short``: how many frames that were shorter than `SHORT` have begun since the last DATA.
    """

    stream: int
    payload: bytes
    size: int
    ends: bool
    short: int


def window_update(stream: int, size: int) -> bytes:
    """A frame that allows so many bytes more; stream 0 is the connection."""
    return _HEADER.pack(0, 4, _WINDOW_UPDATE, 0, stream) + size.to_bytes(4, "big")


class FrameReader:
    """Cuts one connection's bytes, the preface included."""

    def __init__(self) -> None:
        self._preface = len(PREFACE)
        self._rest = b""  # the beginning of a frame
        self._stream = 0  # of the DATA frame that is arriving
        self._left = 0  # bytes of it to come
        self._ends = False
        self._short = 0
        self._pieces: list[memoryview] = []  # of that stream, from this read
        self._block: int | None = None  # bytes of a header block that isn't complete

    def feed(self, data: bytes) -> Iterator[bytes | Data]:
        """Whole frames, and the bytes of DATA frames, in order. Raises Violation after those before the wrong one."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, size = 0, len(data)
        if self._preface:
            at = min(self._preface, size)
            self._preface -= at
            yield data[:at]
        view = memoryview(data)
        while at < size:
            if self._left:
                piece = view[at : at + self._left]
                self._pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._ends and not self._left:
                    yield self._joined()
                continue
            if size - at < _HEADER.size:
                break
            high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
            length, stream = high << 16 | low, stream & _STREAM
            plain = kind == _DATA and length > 0 and not flags & _PADDED
            if self._pieces and not (plain and stream == self._stream):
                yield self._joined()
            self._check(kind, length)
            if plain:
                self._stream, self._left, self._ends = stream, length, bool(flags & _END_STREAM)
                self._short += length < SHORT
                at += _HEADER.size
                continue
            end = at + _HEADER.size + length
            if end > size:
                break
            if kind == _DATA:
                yield self._padded(data[at + _HEADER.size : end], flags, stream)
            else:
                self._count(kind, length, flags)
                yield data[at:end]
            at = end
        self._rest = data[at:]
        if self._pieces:
            yield self._joined()

    def _check(self, kind: int, length: int) -> None:
        if length > MAX_FRAME:
            raise Violation(ErrorCodes.FRAME_SIZE_ERROR)
        if self._block is not None:
            if kind != _CONTINUATION:
                raise Violation(ErrorCodes.PROTOCOL_ERROR)
            if self._block + length > MAX_BLOCK:
                raise Violation(ErrorCodes.ENHANCE_YOUR_CALM)

    def _count(self, kind: int, length: int, flags: int) -> None:
        if kind in (_HEADERS, _CONTINUATION):
            self._block = None if flags & _END_HEADERS else (self._block or 0) + length

    def _joined(self) -> Data:
        payload, short = b"".join(self._pieces), self._short
        self._pieces.clear()
        self._short = 0
        return Data(self._stream, payload, len(payload), self._ends and not self._left, short)

    @staticmethod
    def _padded(body: bytes, flags: int, stream: int) -> Data:
        """A DATA frame with padding, or an empty one."""
        payload = body
        if flags & _PADDED:
            padding = body[0] if body else len(body)
            if padding >= len(body):
                raise Violation(ErrorCodes.PROTOCOL_ERROR)
            payload = body[1 : len(body) - padding]
        return Data(stream, payload, len(body), bool(flags & _END_STREAM), int(len(payload) < SHORT))


def size_of(fields: Fields) -> int:
    """Bytes that they would take in a head of HTTP/1.1."""
    return sum(len(name) + len(value) + 4 for name, value in fields)


def head_of(fields: Fields, ended: bool) -> RequestHead:
    """The request with these fields; ``ended``: it has no body. Raises Refused."""
    if len(fields) > MAX_FIELDS:
        raise RefusedRequest(431, f"The request has more than {MAX_FIELDS} header fields.")
    said, others = _pseudo_fields(fields)
    method, target = said[b":method"], said.get(b":path", b"")
    if method == b"CONNECT" or not _METHOD.fullmatch(method):
        raise RefusedRequest(400, "The request's method is none that is known here.")
    if len(target) > MAX_LINE:
        raise RefusedRequest(414, f"The request's path is longer than {MAX_LINE} bytes.")
    if not _TARGET.fullmatch(target):
        raise RefusedRequest(400, "The request's path is malformed.")
    check_target(method, target)
    if size_of(fields) > MAX_HEAD:
        raise RefusedRequest(431, f"The request's head is longer than {MAX_HEAD} bytes.")
    headers = Headers()
    for name, value in others:
        _check(name, value)
        try:
            headers.addRawHeader(name, value)
        except InvalidHeaderName:
            raise RefusedRequest(400, "A header field has a malformed name.") from None
    _set_host(headers, said)
    length = content_length(headers)
    if ended:
        if length:
            raise RefusedRequest(400, "The request ends before the body that its Content-Length announces.")
        length = 0
    return RequestHead(method, target, VERSION, headers, length)


def _pseudo_fields(fields: Fields) -> tuple[Mapping[bytes, bytes], Fields]:
    """Those, and the others. RFC 9113 section 8.3: they come first, once each, and are those that a request has."""
    said: dict[bytes, bytes] = {}
    for name, value in fields:
        if not name.startswith(b":"):
            break
        if name not in _KNOWN or name in said or not _VALUE.fullmatch(value):
            raise RefusedRequest(400, "A pseudo-header field is unknown, malformed or given more than once.")
        said[name] = value
    others = fields[len(said) :]
    if b":method" not in said or (said[b":method"] != b"CONNECT" and not said.keys() >= {b":scheme", b":path"}):
        raise RefusedRequest(400, "A pseudo-header field is missing.")
    return said, others


def _check(name: bytes, value: bytes) -> None:
    """RFC 9113 sections 8.2.1 and 8.2.2."""
    if not _NAME.fullmatch(name):
        raise RefusedRequest(400, "A header field has a malformed name.")
    if not _VALUE.fullmatch(value):
        raise RefusedRequest(400, "A header field has a malformed value.")
    if name in _OF_CONNECTIONS or (name == b"te" and value.lower() != b"trailers"):
        raise RefusedRequest(400, "A header field is there that HTTP/2 doesn't have.")


def _set_host(headers: Headers, said: Mapping[bytes, bytes]) -> None:
    """RFC 9113 section 8.3.1: ``:authority`` takes the place of Host; where both are given they agree."""
    hosts = set(headers.getRawHeaders(b"Host", ()))
    if b":authority" in said:
        hosts.add(said[b":authority"])
    if len(hosts) != 1 or len(headers.getRawHeaders(b"Host", ())) > 1:
        raise RefusedRequest(400, "A request needs exactly one host.")
    headers.setRawHeaders(b"Host", list(hosts))


def trailers_of(fields: Fields) -> Mapping[str, str]:
    """Trailer fields by name; a repeated one is joined with commas. Raises Refused."""
    if size_of(fields) > MAX_TRAILERS:
        raise RefusedRequest(400, f"The trailer section is longer than {MAX_TRAILERS} bytes.")
    trailers: dict[str, str] = {}
    for raw, value in fields:
        _check(raw, value)
        name, text = raw.decode("latin-1"), value.decode("latin-1")
        trailers[name] = f"{trailers[name]}, {text}" if name in trailers else text
    return trailers

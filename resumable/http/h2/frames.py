"""The bytes of an HTTP/2 connection, cut into frames.

Invariants: no byte of a body waits for the rest of its frame, nor is one lost because bytes behind it are malformed;
bytes that came together are passed on together, and copied once. Frames other
than DATA are whole. Spec: RFC 9113 sections 3.4, 4 and 6.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from h2.errors import ErrorCodes

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME: Final = 65_536
"""Bytes of the largest payload that we take. Larger ones would keep a client from serving its other streams."""
MAX_BLOCK: Final = 65_536
"""Bytes of one header block with all its CONTINUATION frames, before it is decoded."""

_HEADER: Final = Struct(">BHBBI")
_STREAM: Final = 0x7FFF_FFFF
_DATA, _HEADERS, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 8, 9
_END_STREAM, _END_HEADERS, _PADDED = 1, 4, 8


class Violation(Exception):
    """The client breaks the rules of HTTP/2; the connection ends with ``code``."""

    def __init__(self, code: ErrorCodes) -> None:
        super().__init__(code.name)
        self.code = code


class Data(NamedTuple):
    """Bytes of a body. They took ``size`` of the windows; ``ends``: nothing follows."""

    stream: int
    payload: bytes
    size: int
    ends: bool


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
        payload = b"".join(self._pieces)
        self._pieces.clear()
        return Data(self._stream, payload, len(payload), self._ends and not self._left)

    @staticmethod
    def _padded(body: bytes, flags: int, stream: int) -> Data:
        """A DATA frame with padding, or an empty one."""
        payload = body
        if flags & _PADDED:
            padding = body[0] if body else len(body)
            if padding >= len(body):
                raise Violation(ErrorCodes.PROTOCOL_ERROR)
            payload = body[1 : len(body) - padding]
        return Data(stream, payload, len(body), bool(flags & _END_STREAM))

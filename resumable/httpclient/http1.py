"""Answers of HTTP/1.1: heads, and where bodies end. Pure.

Invariants: a head has at most `HEAD_SIZE` bytes. Of a body, nothing is held. An answer whose end can't be known for
sure is refused, or ends with its connection.
Spec: RFC 9112, sections 2 to 7.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

HEAD_SIZE = 64 << 10
"""Bytes of a head, of an interim one too, and of the trailer."""
LINE_SIZE = 4 << 10
"""Bytes of the line before a chunk."""

Fields = Sequence[tuple[bytes, bytes]]

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: (.*))?", re.DOTALL)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?", re.DOTALL)


class BadAnswer(Exception):
    """What came is no answer of HTTP/1.1."""


@frozen
class AnswerHead:
    """``minor``: of the version. ``fields``: names as they came, and values without the space around them."""

    minor: int
    status: int
    phrase: bytes
    fields: Fields

    def values(self, name: bytes) -> list[bytes]:
        """All values of the field, in lower case, those in one line apart from each other."""
        lines = [value for each, value in self.fields if each.lower() == name]
        return [value.strip().lower() for line in lines for value in line.split(b",") if value.strip()]

    @property
    def keeps_open(self) -> bool:
        """Whether another request may follow. Section 9.3; not where two fields tell of the body's end: section 6.1."""
        said = self.values(b"connection")
        if self.values(b"transfer-encoding") and (not self.minor or self.values(b"content-length")):
            return False
        return b"close" not in said and (self.minor > 0 or b"keep-alive" in said)

    def body_size(self, method: bytes) -> int | None:
        """The body's bytes: `CHUNKED`, or None where it ends with the connection. Section 6.3. Raises BadAnswer."""
        if method == b"HEAD" or self.status in (204, 304):
            return 0
        codings = self.values(b"transfer-encoding")
        if codings == [b"chunked"]:
            return CHUNKED
        if codings and codings != [b"identity"]:
            raise BadAnswer("a body in a coding that was not asked for")
        sizes = set(self.values(b"content-length"))
        if not sizes and not any(name.lower() == b"content-length" for name, _ in self.fields):
            return None
        if not sizes:
            raise BadAnswer("the body's length is empty")
        (size, *others) = sizes
        if others or not size.isdigit() or len(size) > 18:
            raise BadAnswer("the body's length can't be read")
        return int(size)


CHUNKED = -1
"""The size of a body that is the sum of its chunks'."""


def parse_head(block: bytes) -> AnswerHead:
    """The head without the empty line at its end. Raises BadAnswer."""
    first, *lines = block.replace(b"\r\n", b"\n").split(b"\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise BadAnswer("the first line is none of HTTP/1.1")
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t") and fields:  # section 5.2: replace each such line's start with a space
            fields[-1] = (fields[-1][0], fields[-1][1] + b" " + line.strip())
        elif colon and _NAME.fullmatch(name):
            fields.append((name, value.strip(b" \t\r")))
        else:
            raise BadAnswer("a line of the head can't be read")
    return AnswerHead(int(status[1]), int(status[2]), status[3] or b"", fields)


class HeadReader:
    """Gathers the head of one answer, and passes interim ones by."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> tuple[AnswerHead, bytes] | None:
        """The head, and what came behind it; None: more is needed. Raises BadAnswer."""
        self._held = data = self._held + data if self._held else data
        while found := _HEAD_END.search(data):
            if found.start() > HEAD_SIZE:
                break
            head, data = parse_head(data[: found.start()]), data[found.end() :]
            if head.status == 101:
                raise BadAnswer("another protocol was not asked for")
            if head.status >= 200:
                return head, data
            self._held = data
        if len(data) > HEAD_SIZE:
            raise BadAnswer("the head is too long")
        return None


class ChunkedAnswer:
    """The bodies of chunks, without their frames. ``over``: the last chunk has come, and the trailer. Section 7.1."""

    def __init__(self) -> None:
        self.over = False
        self._held = b""
        self._left = 0
        self._between = False  # the end of a chunk's body is still to come
        self._trailer = -1  # bytes of it so far; -1: it has not begun

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body in it. Raises BadAnswer, also for bytes behind the end."""
        data, self._held = self._held + data, b""
        pieces = []
        while data:
            if self.over:
                raise BadAnswer("there are bytes behind the last chunk")
            if self._left:
                pieces.append(data[: self._left])
                data = data[self._left :]
                self._left -= len(pieces[-1])
                self._between = not self._left
                continue
            line, end, rest = data.partition(b"\n")
            if len(line) > LINE_SIZE:
                raise BadAnswer("a line between chunks is too long")
            if not end:
                self._held = data
                break
            data = rest
            self._line(line.removesuffix(b"\r"))
        return b"".join(pieces)

    def _line(self, line: bytes) -> None:
        if self._between:
            if line:
                raise BadAnswer("a chunk is longer than it says")
            self._between = False
        elif self._trailer >= 0:
            self._trailer += len(line) + 2
            if self._trailer > HEAD_SIZE:
                raise BadAnswer("the trailer is too long")
            self.over = not line
        else:
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise BadAnswer("the size of a chunk can't be read")
            self._left = int(size[1], 16)
            if not self._left:
                self._trailer = 0

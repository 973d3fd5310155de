"""Answers of HTTP/1.1, as RFC 9112 wants them read, however they are cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.httpclient.http1 import (
    CHUNKED,
    HEAD_SIZE,
    LINE_SIZE,
    AnswerHead,
    BadAnswer,
    ChunkedAnswer,
    HeadReader,
    parse_head,
)


def head(text: str) -> AnswerHead:
    return parse_head(text.replace("\n", "\r\n").encode())


@pytest.mark.parametrize(
    ("line", "minor", "status", "phrase"),
    [
        ("HTTP/1.1 200 OK", 1, 200, b"OK"),
        ("HTTP/1.0 404 Not Found", 0, 404, b"Not Found"),
        ("HTTP/1.1 503", 1, 503, b""),
        ("HTTP/1.1 200 ", 1, 200, b""),
    ],
)
def test_the_first_line_has_version_status_and_phrase(line: str, minor: int, status: int, phrase: bytes) -> None:
    assert head(line) == AnswerHead(minor, status, phrase, [])


@pytest.mark.parametrize(
    "text",
    [
        "HTTP/2 200 OK", "HTTP/1.2 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 099 OK", "HTTP/1.1  200 OK", "ICY 200 OK", "",
        "HTTP/1.1 200 OK\nno colon", "HTTP/1.1 200 OK\n: no name", "HTTP/1.1 200 OK\na b: c", "HTTP/1.1 200 OK\na : c",
        "HTTP/1.1 200 OK\n folded: first",
    ],
)  # fmt: skip
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(BadAnswer):
        head(text)


def test_fields_come_in_order_without_the_space_around_their_values() -> None:
    read = head('HTTP/1.1 200 OK\nETag: \t "a: b" \nX-Empty:\nx-more: 1\n  2\n\t3\nX-More: 4')
    assert read.fields == [(b"ETag", b'"a: b"'), (b"X-Empty", b""), (b"x-more", b"1 2 3"), (b"X-More", b"4")]
    assert read.values(b"x-more") == [b"1 2 3", b"4"]


@pytest.mark.parametrize(
    ("method", "text", "size"),
    [
        (b"GET", "HTTP/1.1 200 OK\nContent-Length: 7", 7),
        (b"GET", "HTTP/1.1 200 OK\nContent-Length: 7\nContent-Length: 7, 7", 7),
        (b"GET", "HTTP/1.1 200 OK\nTransfer-Encoding: Chunked", CHUNKED),
        (b"GET", "HTTP/1.1 200 OK\nContent-Length: 7\nTransfer-Encoding: chunked", CHUNKED),
        (b"GET", "HTTP/1.1 200 OK", None),
        (b"HEAD", "HTTP/1.1 200 OK\nContent-Length: 7", 0),
        (b"GET", "HTTP/1.1 204 OK\nContent-Length: 7", 0),
        (b"GET", "HTTP/1.1 304 OK\nTransfer-Encoding: chunked", 0),
    ],
)
def test_where_a_body_ends_is_known_from_the_head(method: bytes, text: str, size: int | None) -> None:
    assert head(text).body_size(method) == size


@pytest.mark.parametrize(
    "field",
    [
        "Content-Length: 7\nContent-Length: 8", "Content-Length: -7", "Content-Length: +7", "Content-Length: 0x7",
        "Content-Length:",
        "Content-Length: 7 7", "Content-Length: " + "9" * 19, "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
    ],
)  # fmt: skip
def test_a_body_whose_end_is_not_sure_is_refused(field: str) -> None:
    with pytest.raises(BadAnswer):
        head(f"HTTP/1.1 200 OK\n{field}").body_size(b"GET")


@pytest.mark.parametrize(
    ("text", "open_"),
    [
        ("HTTP/1.1 200 OK", True),
        ("HTTP/1.1 200 OK\nConnection: x, Close", False),
        ("HTTP/1.0 200 OK", False),
        ("HTTP/1.0 200 OK\nConnection: keep-alive", True),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", True),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 7", False),
        ("HTTP/1.0 200 OK\nConnection: keep-alive\nTransfer-Encoding: chunked", False),
    ],
)
def test_a_connection_stays_open_where_the_other_side_says_so(text: str, open_: bool) -> None:
    assert head(text).keeps_open is open_


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@given(at=st.lists(st.integers(0, 200), max_size=5), ends=st.sampled_from([b"\r\n", b"\n"]))
def test_a_head_is_read_however_it_is_cut_and_interim_ones_are_passed_by(at: list[int], ends: bytes) -> None:
    lines = [
        b"HTTP/1.1 100 Continue",
        b"",
        b"HTTP/1.1 103 Hints",
        b"Link: a",
        b"",
        b"HTTP/1.1 200 OK",
        b"A: b",
        b"",
        b"",
    ]
    reader, pieces = HeadReader(), cut(ends.join(lines), at)
    found = None
    while found is None:
        found = reader.feed(pieces.pop(0))
    assert found == (AnswerHead(1, 200, b"OK", [(b"A", b"b")]), b"") and not b"".join(pieces)


def test_the_body_behind_a_head_is_handed_on() -> None:
    found = HeadReader().feed(b"HTTP/1.1 200 OK\r\n\r\nthe\r\n\r\nbody")
    assert found is not None and found[1] == b"the\r\n\r\nbody"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * HEAD_SIZE,
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * HEAD_SIZE + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
    ],
)
def test_no_head_is_waited_for_without_end(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        HeadReader().feed(data)


def chunked(pieces: list[bytes], trailer: bytes = b"") -> bytes:
    return b"".join(b"%x;a=b\r\n%b\r\n" % (len(each), each) for each in pieces if each) + b"0\r\n" + trailer + b"\r\n"


@given(
    pieces=st.lists(st.binary(max_size=20), max_size=4),
    at=st.lists(st.integers(0, 300), max_size=8),
    trailer=st.sampled_from([b"", b"X-Sum: a\r\nB: c\r\n"]),
)
def test_chunks_are_put_together_however_they_are_cut(pieces: list[bytes], at: list[int], trailer: bytes) -> None:
    reader = ChunkedAnswer()
    got = [reader.feed(piece) for piece in cut(chunked(pieces, trailer), at)]
    assert b"".join(got) == b"".join(pieces) and reader.over


def test_the_end_of_chunks_has_to_come() -> None:
    reader = ChunkedAnswer()
    reader.feed(chunked([b"abc"])[:-1])
    assert not reader.over


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n", b"-1\r\n", b"\r\n", b"3\r\nabcd\r\n", b"1" * 17 + b"\r\n", b"1;" + b"a" * LINE_SIZE, b"0\r\n\r\nmore",
        b"0\r\n" + b"a: b\r\n" * HEAD_SIZE,
    ],
)  # fmt: skip
def test_chunks_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        ChunkedAnswer().feed(data)

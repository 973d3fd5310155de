"""Heads that are no request of HTTP/1.1, and their answers."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.http.http1_client import GET, Client, answer, problem_of

# What is refused


def head(*lines: bytes, start: bytes = b"PATCH /files/1 HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([start, host, *lines, b"", b""])


REFUSED: Iterable[tuple[bytes, int, str]] = [
    (head(b"Content-Length: 5", b"Content-Length: 5"), 400, "more than once"),
    (head(b"Content-Length: 5", b"Content-Length: 6"), 400, "more than once"),
    (head(b"Content-Length: 5, 5"), 400, "number"),
    (head(b"Content-Length: +5"), 400, "number"),
    (head(b"Content-Length: -5"), 400, "number"),
    (head(b"Content-Length: 0x5"), 400, "number"),
    (head(b"Content-Length: 5_0"), 400, "number"),
    (head(b"Content-Length:"), 400, "number"),
    (head("Content-Length: ٣".encode()), 400, "number"),
    (head(b"Content-Length: " + b"9" * 5000), 400, "number"),
    (head(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400, "exclude"),
    (head(b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400, "exclude"),
    (head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400, "more than once"),
    (head(b"Transfer-Encoding: identity"), 501, "chunked"),
    (head(b"Transfer-Encoding: gzip, chunked"), 501, "chunked"),
    (head(b"Transfer-Encoding: xchunked"), 501, "chunked"),
    (head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0"), 400, "HTTP/1.0"),
    (head(b"Content-Length : 5"), 400, "name"),
    (head(b"Content Length: 5"), 400, "name"),
    (head(b"\xe9: 5"), 400, "name"),
    (head(b": 5"), 400, "name"),
    (head(b"no colon"), 400, "colon"),
    (head(b"X: a", b" folded"), 400, "folded"),
    (head(b"\tX: a"), 400, "folded"),
    (head(b"X: a\0b"), 400, "NUL"),
    (head(b"X: a\nContent-Length: 5"), 400, "bare"),
    (head(b"X: a\rContent-Length: 5"), 400, "bare"),
    (head(b"X: a", host=b"X-No: host"), 400, "Host"),
    (head(b"Host: b"), 400, "Host"),
    (b"GET /\r\n", 400, "request line"),
    (b"GET / HTTP/0.9\r\n", 400, "request line"),
    (b"GET / HTTP/2.0\r\n", 400, "request line"),
    (b"GET  / HTTP/1.1\r\n", 400, "request line"),
    (b"GET /a b HTTP/1.1\r\n", 400, "request line"),
    (b"G@T / HTTP/1.1\r\n", 400, "request line"),
    (b"/ HTTP/1.1\r\n", 400, "request line"),
    (b"GET /\xe9 HTTP/1.1\r\n", 400, "request line"),
    (b"GET /\0 HTTP/1.1\r\n", 400, "request line"),
    (b"GET / HTTP/1.1\n", 400, "CR LF"),
    (b"\n", 400, "CR LF"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\n", 400, "CR LF"),
    (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n", 414, "longer"),
    (b"x" * 9_000, 414, "longer"),
    (head(b"X: " + b"x" * 17_000), 431, "longer"),
    (b"GET / HTTP/1.1\r\nX: " + b"x" * 17_000, 431, "longer"),
    (head(*[b"X: y"] * 501), 431, "fields"),
]


@pytest.mark.parametrize(("stream", "status", "reason"), REFUSED)
@pytest.mark.parametrize("cut", [None, 1])
def test_a_malformed_request_is_refused_with_the_reason(
    stream: bytes, status: int, reason: str, cut: int | None
) -> None:
    client = Client(lambda request: answer(request, 200, b"smuggled"))
    stream += GET
    if cut is None:
        received = client.send(stream)
    else:
        received = client.send(*(stream[at : at + cut] for at in range(0, len(stream), cut)))
    answered, _, document = problem_of(received)
    assert (answered, document["status"]) == (status, status)
    assert reason in document["detail"]
    assert client.tree.requests == []
    assert client.send(GET) == b""
    client.advance(11)
    assert client.wire.disconnecting


def test_T2_a_refusal_before_there_is_a_request_carries_the_fields_of_every_answer() -> None:
    client = Client(refusal_fields=lambda _: [(b"Tus-Resumable", b"1.0.0")])
    answer = client.send(b"nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nTus-Resumable: 1.0.0\r\n" in answer.partition(b"\r\n\r\n")[0] + b"\r\n"


def test_a_malformed_request_after_a_good_one_is_refused_after_its_answer() -> None:
    client = Client()
    assert client.send(GET + b"BAD\r\n\r\n") == b""
    answer(client.request, 200, b"x")
    received = client.received()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 Bad Request\r\n" in received

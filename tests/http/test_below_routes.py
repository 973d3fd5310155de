"""Answers that no route of ours has made: a page may read them like any other, and none is a line in the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from tests.http.visitor import Reply, ask, connect, request

ORIGIN = "https://app.example"
PAGE = f"Origin: {ORIGIN}"


def refused(*fields: str, first: str = "GET /files/ HTTP/1.1", host: str = "Host: t", **options: Any) -> Reply:
    """The answer to what never becomes a request."""
    channel, wire = connect(**options)
    channel.dataReceived("\r\n".join([first, host, *fields, "", ""]).encode("latin-1"))
    return Reply(wire.value())


def readable(reply: Reply, origin: str) -> bool:
    return reply.get("Access-Control-Allow-Origin") == origin and "Upload-Offset" in (
        reply.get("Access-Control-Expose-Headers") or ""
    )


BELOW: list[tuple[int, dict[str, Any]]] = [
    (400, {"first": "GET *files/x HTTP/1.1"}),
    (400, {"first": "GET / HTTP/3.0"}),
    (400, {"host": "X: y"}),
    (400, {"host": "Content-Length: 5\r\nHost: t\r\nContent-Length: 6"}),
    (414, {"first": f"GET /{'x' * 9000} HTTP/1.1"}),
    (417, {"host": "Host: t\r\nExpect: miracles"}),
    (431, {"host": "Host: t\r\nUpload-Metadata: " + "x" * 17_000}),
    (431, {"host": "Host: t" + "\r\nX: y" * 501}),
    (501, {"host": "Host: t\r\nTransfer-Encoding: gzip"}),
    (404, {"first": "POST /elsewhere HTTP/1.1"}),
    (404, {"first": "GET /files/%ff HTTP/1.1"}),
    (405, {"first": "PUT /files/ HTTP/1.1"}),
    (405, {"first": "POST /healthz HTTP/1.1"}),
    (405, {"first": "DELETE /readyz HTTP/1.1"}),
]


def test_the_refusal_of_a_head_has_no_body() -> None:
    reply = refused("Upload-Metadata: " + "x" * 17_000, first="HEAD /files/x HTTP/1.1")
    assert reply.status == 431 and reply.body == b""


@pytest.mark.parametrize("origins", [("*",), (ORIGIN, "https://*.example.org")])
@pytest.mark.parametrize(("status", "said"), BELOW)
def test_a_page_may_read_answers_from_below_the_routes(
    status: int, said: dict[str, Any], origins: Sequence[str]
) -> None:
    """any answer from below the routes (framing 400, 431, 503 when full, 404 beside the base path) | the same CORS
    fields as an answer of a route"""
    reply = refused(PAGE, origins=origins, **said)
    assert reply.status == status
    assert readable(reply, "*" if origins == ("*",) else ORIGIN)
    assert "origin" in (reply.get("Vary") or "").lower()
    assert reply.get("Content-Type") == "application/problem+json" and len(reply.body) >= 256
    if status == 405:
        assert reply.get("Allow")


@pytest.mark.parametrize(("status", "said"), BELOW)
def test_a_page_that_is_not_listed_reads_none_of_them(status: int, said: dict[str, Any]) -> None:
    for fields in (("Origin: https://evil.example",), (PAGE, "Origin: https://evil.example"), ()):
        reply = refused(*fields, origins=(ORIGIN,), **said)
        assert (reply.status, reply.get("Access-Control-Allow-Origin")) == (status, None)
        assert reply.get("Vary") == "Origin"
    assert not any("access-control" in name.lower() for name, _ in refused(PAGE, origins=(), **said).fields)


def test_a_head_that_is_cut_off_where_its_origin_would_come_is_answered_to_any_page_that_may_be_anyone() -> None:
    channel, wire = connect()
    channel.dataReceived(b"POST /files/ HTTP/1.1\r\nHost: t\r\nX: " + b"x" * 17_000)
    reply = Reply(wire.value())
    assert reply.status == 431 and readable(reply, "*")


def test_a_slow_head_is_told_so_by_408() -> None:
    clock = Clock()
    channel, wire = connect(clock=clock, origins=(ORIGIN,))
    channel.dataReceived(f"POST /files/ HTTP/1.1\r\n{PAGE}\r\nHost".encode())
    clock.pump([1.0] * 62)
    reply = Reply(wire.value())
    assert reply.status == 408 and readable(reply, ORIGIN)


def test_an_origin_in_the_body_is_none() -> None:
    channel, wire = connect(origins=(ORIGIN,))
    channel.dataReceived(f"PATCH /files/x HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n\r\n{PAGE}\r\n".encode())
    assert Reply(wire.value()).get("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/elsewhere", "/files/x/y/z", "/files/x/y"])
@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT"])
def test_no_answer_makes_twisted_write_to_the_log(path: str, method: str) -> None:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        channel, wire = connect(download=False)
        for _ in range(3):
            wire.clear()
            channel.dataReceived(request("Host: t", method=method, path=path))
            reply = Reply(wire.value())
            assert (reply.body == b"") == (method == "HEAD") and int(reply.get("Content-Length") or 0) > 0
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert not events


TARGETS = [
    "*files/ID", "Xfiles/ID", "files/ID", "*", "?x", "", "example.org:443", "ftp://t/files/ID", "http:/files/ID",
    "http://", "http:///files/ID", "http://user@t/files/ID", "httpx://t/files/ID", "//t#/files/ID", "/files/ID#part",
    "/files/ID?x#part", "http://t/files/ID#part", "mailto:x", "\\files\\ID", "%2Ffiles/ID", ".", "/files/\xe9", "/a\0",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "PATCH", "CONNECT"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_is_no_path_and_no_url_is_400(target: str, method: str) -> None:
    """request target that is not origin-form, absolute-form or `OPTIONS *`; ... | 400"""
    for first in (f"{method} {target} HTTP/1.1", f"{method} {target} HTTP/1.0"):
        reply = refused(first=first)
        assert reply.status == 400 and len(reply.body) >= 256


@pytest.mark.parametrize("host", ["", "Host: t\r\nHost: t"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_url_as_target_needs_one_host(host: str, version: str) -> None:
    """...; absolute-form with no or two Host fields | 400"""
    assert refused(first=f"GET http://t/healthz HTTP/{version}", host=host or "X: y").status == 400
    assert refused(first=f"GET http://t/healthz HTTP/{version}").status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/files/", 405), ("/files", 405), ("//files/", 404), ("/x/../files/", 404), ("/./files/", 404),
        ("/files/../files/", 404), ("/files//", 404), ("/%66iles/", 405), ("/files%2F", 404), ("/files/;x", 404),
        ("/files;x/", 404), ("/FILES/", 404), ("/files/%00", 404), ("/files/%2e%2e/healthz", 404), ("/\\files/", 404),
        ("http://t/files/", 405), ("http://t//files/", 404), ("HTTP://t?x", 404),
    ],
)  # fmt: skip
def test_an_address_has_one_spelling(path: str, status: int) -> None:
    assert ask("Host: t", method="GET", path=path).status == status


def test_the_asterisk_is_for_options() -> None:
    assert ask("Host: t", method="OPTIONS", path="*").status == 200
    assert ask("Host: t", "X-HTTP-Method-Override: PATCH", method="OPTIONS", path="*").status == 200

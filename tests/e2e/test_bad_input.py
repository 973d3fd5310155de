"""Bad input gets a 4xx that says what was wrong: never a 5xx, a traceback, a path, a hang, or anything on the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from .corpus import CORPUS, Case
from .daemon import BOUND, Daemon
from .tus import Tus, head_bytes, patch_head
from .wire import Answer, Wire

FLAGS = ("--max-size", str(2**30), "--network-timeout", "10")


@pytest.fixture(scope="module")
def paths(daemon: Daemon) -> Mapping[str, str]:
    """The uploads that the corpus speaks of."""
    tus = daemon.attach(Tus(daemon.port))
    gone, part = tus.create(5), tus.partial(b"abc")
    tus.delete(gone)
    found = {
        "open": tus.create(100, None, b"0123456789"),
        "done": tus.create(3, None, b"abc"),
        "gone": gone,
        "part": part,
        "final": tus.concat(part),
    }
    tus.assembled(found["final"])
    return {**found, "id": found["open"].removeprefix("/files/")}


def filled(request: str, paths: Mapping[str, str]) -> bytes:
    for name, path in paths.items():
        request = request.replace("{" + name + "}", path)
    return request.encode("latin-1")


def check_refusal(case: Case, answer: Answer, has_body: bool, home: Path) -> None:
    wanted = case.status if isinstance(case.status, tuple) else (case.status,)
    assert answer.status in wanted, answer
    assert 400 <= answer.status < 500 or answer.status == 501
    if answer.status == 405:
        assert answer["allow"]
    if not has_body:
        return
    assert len(answer.body) >= 256
    problem = answer.problem
    assert problem["status"] == answer.status and problem["title"] and problem["type"]
    says = case.says if isinstance(case.says, tuple) else (case.says,)
    assert any(word in problem["detail"].lower() for word in says), problem
    text = answer.body.decode()
    for leak in ("Traceback", ".py", "sqlite", str(home), "/tmp", "Error("):
        assert leak not in text, text


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name.encode("ascii", "backslashreplace").decode())
def test_bad_input_is_refused_with_a_reason(case: Case, daemon: Daemon, tus: Tus, paths: Mapping[str, str]) -> None:
    fresh = {"fresh": tus.create(100)} if "{fresh}" in case.request else {}
    request = filled(case.request, {**paths, **fresh})
    method = request.split(b" ")[0].decode("latin-1")
    with Wire(daemon.port, timeout=BOUND) as wire:
        wire.offer(request)
        answer = wire.answer(method)
        check_refusal(case, answer, method != "HEAD", daemon.home)
        if case.closes or answer.get("connection") == "close":
            assert answer["connection"] == "close"
            assert wire.ended(), "something came after the last answer"
        else:
            assert wire.send(head_bytes("GET", "/healthz")).answer().status == 200
    assert tus.offset(paths["open"]) == 10
    if fresh:
        assert tus.offset(fresh["fresh"]) < 100
        tus.delete(fresh["fresh"])


SMUGGLED = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        {"Content-Length": "4", "Transfer-Encoding": "chunked"},
        {"Transfer-Encoding": "chunked", "Content-Length": str(len(SMUGGLED) + 5)},
        {"Content-Length": "4\r\nContent-Length: 100"},
        {"Transfer-Encoding": "xchunked"},
        {"Transfer-Encoding ": "chunked"},
        {"Content-Length": "+4"},
        {"X": "y\nContent-Length: 4"},
    ],
)
def test_no_second_request_hides_in_a_body(fields: dict[str, str | None], tus: Tus, paths: Mapping[str, str]) -> None:
    """A body that another server might have ended elsewhere: what follows is never taken for a request."""
    with tus.wire() as wire:
        head = patch_head(paths["open"], 10, 0, {"Content-Length": None, **fields})
        wire.offer(head + b"0\r\n\r\n" + SMUGGLED.encode() * 2)
        answer = wire.answer()
        assert answer.status in (400, 501)
        assert wire.ended()


def test_what_follows_a_refused_body_is_no_request(tus: Tus, paths: Mapping[str, str]) -> None:
    """The rest of a body that was refused early looks like requests: it is dropped."""
    body = SMUGGLED.encode() * 5000
    with tus.wire() as wire:
        wire.offer(patch_head(paths["open"], 11, len(body)) + body)
        assert wire.answer().status == 409
        assert wire.ended()


def test_afterwards_the_service_is_as_it_was(daemon: Daemon, tus: Tus, paths: Mapping[str, str]) -> None:
    assert tus.content(tus.create(3, None, b"abc")) == b"abc"
    tus.finish(paths["open"], b"0123456789" + b"y" * 90)
    known = {path.rsplit("/", 1)[-1] for path in paths.values()}
    assert daemon.stop() == 0  # while it runs, nobody else can read the catalog
    with sqlite3.connect(daemon.upload_dir / ".resumable" / "catalog.sqlite3") as catalog:
        there = {row[0] for row in catalog.execute("SELECT id FROM uploads WHERE gone IS NULL")}
    catalog.close()
    files = {path.name for path in daemon.upload_dir.iterdir()}
    assert len(there - known) == 1, "the corpus has left uploads behind"
    assert files - there == {".resumable"}
    assert {path.name for path in daemon.home.iterdir()} == {"uploads", "daemon.log"}

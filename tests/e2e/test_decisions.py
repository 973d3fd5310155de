"""What happens where the protocol is silent or two rules meet: one test for each row of the decisions on requests.

Each docstring is the row. The rows on a full disk and on stopping are in test_disk_full and test_crash, those on holds
in test_holds.
"""

from __future__ import annotations

import re
import sqlite3

import pytest

from .daemon import Daemon, eventually
from .tus import OCTETS, Tus, check, checksum, chunk, head_bytes, last_chunk, metadata, patch_head

MAX = 2**20
FLAGS = ("--max-size", str(MAX))
NOWHERE = "/files/" + "0" * 32


def test_options(tus: Tus) -> None:
    """OPTIONS | 200 with Tus-Version, Tus-Extension (no blanks), Tus-Max-Size, Tus-Checksum-Algorithm; any
    Tus-Resumable ignored"""
    for version in (None, "0.0.1"):
        answer = tus.options({"Tus-Resumable": version})
        assert answer.status == 200
        for name in ("tus-version", "tus-extension", "tus-max-size", "tus-checksum-algorithm"):
            assert answer[name] and " " not in answer[name]


def test_no_version(tus: Tus) -> None:
    """missing or unsupported Tus-Resumable (any verb but OPTIONS and GET) | 412 with Tus-Version, nothing processed"""
    path = tus.create(6, None, b"abc")
    for version in (None, "0.2.2", "1.0", "1.0.0, 1.0.0"):
        for method in ("POST", "HEAD", "PATCH", "DELETE"):
            fields = {"Tus-Resumable": version, "Upload-Offset": "3", "Content-Type": OCTETS, "Content-Length": "0"}
            answer = tus.ask(method, None if method == "POST" else path, fields)
            assert answer.status == 412 and answer["tus-version"] == "1.0.0"
    assert tus.offset(path) == 3
    tus.finish(path, b"abcdef")
    with tus.wire() as wire:
        got = wire.send(head_bytes("GET", path, {"Tus-Resumable": "0.2.2"})).answer()
        assert (got.status, got.body) == (200, b"abcdef")


def test_a_head_of_a_downloader(tus: Tus) -> None:
    """HEAD without Tus-Resumable | of a finished upload: the header fields that GET would send (downloaders, `curl
    -I`); of an unfinished one: 412"""
    path = tus.create(6, {"Upload-Metadata": metadata(filename="a.png", filetype="image/png")}, b"abc")
    assert tus.ask("HEAD", path, {"Tus-Resumable": None}).status == 412
    tus.finish(path, b"abcdef")
    plain, got = tus.ask("HEAD", path, {"Tus-Resumable": None}), tus.get(path)
    changing = {"date", "x-request-id", "connection"}
    assert plain.status == got.status == 200 and plain["content-length"] == "6"
    assert [each for each in plain.fields if each[0] not in changing] == [
        each for each in got.fields if each[0] not in changing
    ]
    assert tus.head(path).offset == 6


def test_request_targets(tus: Tus) -> None:
    """request target that is not origin-form, absolute-form or `OPTIONS *`; absolute-form with no or two Host fields |
    400"""
    path = tus.create(3, None, b"abc")
    targets = [
        f"*{path[1:]}",
        f"X{path[1:]}",
        path[1:],
        "*",
        "t:80",
        f"ftp://t{path}",
        f"{path}#x",
        f"http://u@t{path}",
    ]
    cases = [(target, f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n") for target in targets]
    cases += [(host, f"GET http://t{path} HTTP/1.1\r\n{host}\r\n") for host in ("", "Host: t\r\nHost: t\r\n")]
    for case, said in cases:
        with tus.wire() as wire:
            answer = wire.send(said).answer()
            assert answer.status == answer.problem["status"] == 400, case
            assert len(answer.body) >= 256 and answer["tus-resumable"] == "1.0.0"
            assert wire.ended()
    for said in (f"GET http://t{path} HTTP/1.1\r\nHost: u\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n"):
        with tus.wire() as wire:
            assert wire.send(said).answer().status == 200


def test_pages_can_read_answers_from_below_the_routes(tus: Tus) -> None:
    """any answer from below the routes (framing 400, 431, 503 when full, 404 beside the base path) | the same CORS
    fields as an answer of a route"""
    page = {"Origin": "https://page.example"}
    route = tus.post(None, page)
    cases: list[tuple[int, str, dict[str, str | None]]] = [
        (400, "/files/", {"Host": None}),
        (431, "/files/", {"Upload-Metadata": "a " + "A" * 17_000}),
        (501, "/files/", {"Transfer-Encoding": "gzip"}),
        (404, "/elsewhere", {}),
        (405, "/healthz", {}),
    ]
    for status, target, fields in cases:
        with tus.wire() as wire:
            answer = wire.send(head_bytes("DELETE", target, {**page, **fields})).answer()
            assert (answer.status, answer.problem["status"]) == (status, status) and len(answer.body) >= 256
            for name in ("access-control-allow-origin", "access-control-expose-headers", "vary"):
                assert answer[name] == route[name], (status, name)


def test_malformed_offset_or_length(tus: Tus) -> None:
    """PATCH without or with malformed Upload-Offset; both Upload-Length and Upload-Defer-Length, or neither, or
    malformed | 400"""
    path = tus.create(3)
    assert tus.patch(path, 0, b"abc", {"Upload-Offset": None}).status == 400
    assert tus.patch(path, 0, b"abc", {"Upload-Offset": "x"}).status == 400
    assert tus.post(3, {"Upload-Defer-Length": "1"}).status == 400
    assert tus.post(None).status == 400
    assert tus.post(None, {"Upload-Length": "3,3"}).status == 400
    assert tus.offset(path) == 0


def test_content_type(tus: Tus) -> None:
    """wrong Content-Type on PATCH, or on a POST that has a body | 415 (a POST with Content-Length 0, or with neither
    length nor transfer coding, has no body)"""
    path = tus.create(3)
    assert tus.patch(path, 0, b"abc", {"Content-Type": "text/plain"}).status == 415
    assert tus.post(3, {"Content-Type": "text/plain"}, b"abc").status == 415
    assert tus.post(3, {"Content-Type": "text/plain"}, [b"abc"]).status == 415
    assert tus.post(3, {"Content-Type": "text/plain"}).status == 201
    assert tus.post(3, {"Content-Type": "text/plain", "Content-Length": None}).status == 201


def test_offset_mismatch(tus: Tus) -> None:
    """offset mismatch | 409 with the current Upload-Offset"""
    answer = tus.patch(tus.create(6, None, b"ab"), 5, b"x")
    assert (answer.status, answer.offset) == (409, 2)


def test_length_on_patch(tus: Tus) -> None:
    """Upload-Length on PATCH | same as known: fine; different: 400; below what is there or declared: 413; over the
    maximum: 413; nothing recorded on refusal"""
    path = tus.create(6, None, b"ab")
    assert tus.patch(path, 2, b"c", {"Upload-Length": "6"}).status == 204
    assert tus.patch(path, 3, b"d", {"Upload-Length": "7"}).status == 400
    deferred = tus.create(None, None, b"abc")
    for length, body in (("2", b""), ("4", b"de"), (str(MAX + 1), b"d"), (str(2**63), b"d")):
        answer = tus.patch(deferred, 3, body, {"Upload-Length": length})
        assert answer.status == (400 if length == str(2**63) else 413), length
        found = tus.head(deferred)
        assert found.offset == 3 and found["upload-defer-length"] == "1"
    assert tus.patch(deferred, 3, b"d", {"Upload-Length": "4"}).status == 204


@pytest.mark.parametrize("size", [1, 100_000])
def test_declared_past_the_length(size: int, tus: Tus) -> None:
    """declared Content-Length runs past the length or the maximum | 413 before the body is read, nothing stored"""
    path = tus.create(10)
    deferred = tus.create(None)
    for target, length in ((path, 10 + size), (deferred, MAX + size)):
        with tus.wire() as wire:
            answer = check("PATCH", wire.send(patch_head(target, 0, length, {"Expect": "100-continue"})).answer())
            assert (answer.status, answer.interim) == (413, ())
        assert tus.offset(target) == 0
    assert tus.patch(path, 0, b"x" * (10 + size)).status == 413
    assert tus.offset(path) == 0


@pytest.mark.parametrize("size", [11, 100_000])
def test_chunks_past_the_length(size: int, tus: Tus) -> None:
    """chunked body runs past the length or the maximum | 413 with the committed Upload-Offset; the rest dropped; that
    request does not finish the upload. So a chunked append commits no byte at or past the length before its end is
    seen"""
    path = tus.create(10)
    answer = tus.patch(path, 0, [b"x" * 5, b"x" * (size - 5)])
    assert answer.status == 413
    assert answer.offset == tus.offset(path) < 10
    assert tus.get(path).status == 404
    tus.finish(path, b"x" * answer.offset + b"y" * (10 - answer.offset))
    deferred = tus.create(None)
    answer = tus.patch(deferred, 0, [b"x" * MAX, b"x" * size])
    assert answer.status == 413
    assert answer.offset == tus.offset(deferred) <= MAX


def test_patch_on_a_final(tus: Tus) -> None:
    """PATCH on a final upload | 403, before the offset is looked at"""
    final = tus.concat(tus.partial(b"abc"))
    tus.assembled(final)
    for fields in ({}, {"Upload-Offset": None}, {"Upload-Offset": "x"}, {"Content-Type": None}):
        assert tus.patch(final, 0, b"x", fields).status == 403


def test_empty_patch_at_the_end(tus: Tus) -> None:
    """PATCH at the end of a finished upload, empty body | 204"""
    path = tus.create(3, None, b"abc")
    for body in (b"", [b""][:0]):
        answer = tus.patch(path, 3, body)
        assert (answer.status, answer.offset) == (204, 3)
    assert tus.patch(tus.create(0), 0).status == 204
    assert tus.patch(path, 3, b"d").status == 413


def test_metadata(tus: Tus) -> None:
    """malformed Upload-Metadata (bad key, bad base64, duplicate key) | 400; an empty header is no metadata; valid
    metadata is echoed verbatim"""
    for wrong in ("\xe9 YQ==", "a YQ=", "a !!!!", "a YQ==,a Yg=="):
        assert tus.post(1, {"Upload-Metadata": wrong}).status == 400, wrong
    assert "upload-metadata" not in tus.head(tus.create(1, {"Upload-Metadata": ""}))
    value = "b Yg==,a YQ==,empty ,bare"
    assert tus.head(tus.create(1, {"Upload-Metadata": value}))["upload-metadata"] == value


def test_checksums(tus: Tus) -> None:
    """unknown checksum algorithm, or a value that isn't base64 | 400 before the body; a mismatch is 460, nothing kept:
    also where the value has another length than the algorithm's, as it then can't match"""
    path = tus.create(100_000)
    for value, status in (("xxh3 AAAA", 400), ("sha1 AAA", 400), ("sha1 ****", 400), ("sha1 AAAA", 460)):
        fields = {"Upload-Checksum": value, "Expect": "100-continue"}
        with tus.wire() as wire:
            answer = check("PATCH", wire.send(patch_head(path, 0, 100_000, fields)).answer())
            assert (answer.status, answer.interim) == (status, ())
        announced = {"Trailer": "Upload-Checksum"}
        assert tus.patch(path, 0, [b"x"], announced, {"Upload-Checksum": value}).status == status
        assert tus.post(1, {"Upload-Checksum": value}, b"x").status == status
        assert tus.offset(path) == 0
    for size in (10, 100_000):
        body = b"x" * size
        for digest in (checksum("sha256", body + b"y"), checksum("sha512", body).replace("sha512", "sha256")):
            assert tus.patch(path, 0, body, {"Upload-Checksum": digest}).status == 460
            assert tus.offset(path) == 0
    posted = tus.post(10, {"Upload-Checksum": checksum("md5", b"y")}, b"x" * 10)
    assert posted.status == 460
    if "location" in posted:
        assert tus.offset(tus.path(posted)) == 0


def test_head(tus: Tus) -> None:
    """HEAD of an upload that exists | 200, or 423 with Retry-After. Never 429, 5xx, 507"""
    for path in (tus.create(3), tus.create(None), tus.create(0), tus.partial(b"a"), tus.concat(tus.partial(b"a"))):
        assert tus.head(path).status == 200
        assert tus.head(path + "/").status == 200


def test_gone_and_unknown(tus: Tus, daemon: Daemon) -> None:
    """expired or terminated, still remembered; unknown | 410; 404"""
    path = tus.create(3)
    tus.delete(path)
    daemon.restart()
    for method in ("HEAD", "PATCH", "DELETE", "GET"):
        typed = {"Upload-Offset": "0", "Content-Type": OCTETS}
        assert tus.ask(method, path, typed).status == 410
        assert tus.ask(method, NOWHERE, typed).status == 404


def test_concat_in_the_201(tus: Tus) -> None:
    """201 of a partial or final upload | carries Upload-Concat (T62)"""
    part = tus.post(0, {"Upload-Concat": "partial"})
    assert part["upload-concat"] == "partial"
    value = f"final;{tus.path(part)}"
    assert tus.post(None, {"Upload-Concat": value})["upload-concat"] == value


def test_unknown_methods(tus: Tus) -> None:
    """method not known here | 405 with Allow"""
    path = tus.create(1)
    for method in ("PUT", "BREW", "PROPFIND", "POST", "TRACE", "CONNECT", "patch"):
        answer = tus.ask(method, path)
        assert answer.status == 405, method
        assert {"HEAD", "PATCH", "DELETE"} <= set(answer["allow"].split(", "))
    for method in ("PATCH", "HEAD", "DELETE", "PUT"):
        answer = tus.ask(method, "/files/")
        assert answer.status == 405, method
        assert {"POST", "OPTIONS"} <= set(answer["allow"].split(", "))


def test_errors(tus: Tus) -> None:
    """errors | problem+json: type, title, status, detail; at least 256 bytes or none at all; no traces, no paths"""
    answers = [tus.get(NOWHERE), tus.post(None), tus.patch(tus.create(1), 1, b""), tus.ask("PUT"), tus.get("/files/x")]
    for answer in answers:
        assert set(answer.problem) >= {"type", "title", "status", "detail"}
        assert len(answer.body) >= 256
    with tus.wire() as wire:
        answer = wire.send(head_bytes("GET", "/elsewhere", {})).answer()
        assert answer.status == 404 and answer.problem["status"] == 404 and len(answer.body) >= 256


def test_an_early_answer_arrives(tus: Tus) -> None:
    """rejected before the body ends | the answer at once; the rest drained up to a bound, then closed; never a reset
    that eats the answer; no 100 after a final status"""
    path = tus.create(10)
    size = 8 * 2**20
    for framing in ({"Content-Length": str(size)}, {"Transfer-Encoding": "chunked"}):
        fields = {"Upload-Offset": "5", "Content-Type": OCTETS, **framing}
        body = b"x" * size if "Content-Length" in framing else chunk(b"x" * size) + last_chunk()
        with tus.wire() as wire:
            wire.offer(
                head_bytes("PATCH", path, fields) + body
            )  # a blocking client reads nothing before it has sent all
            answer = check("PATCH", wire.answer())
            assert (answer.status, answer.offset, answer.interim) == (409, 0, ())
            assert answer["connection"] == "close"
            assert wire.ended()
    fields = {"Upload-Offset": "5", "Content-Type": OCTETS, "Content-Length": "10", "Expect": "100-continue"}
    with tus.wire() as wire:
        assert wire.send(head_bytes("PATCH", path, fields)).answer().status == 409
        wire.offer(b"x" * 10)
        assert wire.ended(), "a 100 or a second answer came after the final status"


def test_ids(tus: Tus, daemon: Daemon) -> None:
    """ids | 128 random bits or more, URL-safe"""
    paths = [tus.create(1) for _ in range(50)]
    ids = [path.removeprefix("/files/") for path in paths]
    assert len(set(ids)) == 50
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)
    assert len({each[:4] for each in ids}) > 40 and len({each[-4:] for each in ids}) > 40


def test_a_daemon_of_the_same_directory_remembers_for_as_long_as_it_was_told() -> None:
    """expired or terminated, still remembered (`--remember`, 7 days); unknown | 410; 404"""
    with Daemon("--remember", "0") as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(3, {"Upload-Metadata": metadata(a="b")}, b"abc")
        tus.delete(path)
        daemon.restart()  # the first round of the janitor is at the start
        assert eventually(lambda: tus.head(path).status == 404)
        assert daemon.stop() == 0
        with sqlite3.connect(daemon.upload_dir / ".resumable" / "catalog.sqlite3") as catalog:
            assert catalog.execute("SELECT count(*) FROM uploads").fetchone() == (0,)
        catalog.close()


def test_a_checksum_that_comes_too_late(tus: Tus) -> None:
    """a trailer that wasn't announced on an append that has committed is 400 and the connection closed"""
    path = tus.create(200_001)
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, None) + chunk(bytes(200_000)))
        assert eventually(lambda: tus.offset(path) == 200_000)
        late = last_chunk({"Upload-Checksum": checksum("sha1", bytes(200_001))})
        answer = check("PATCH", wire.send(chunk(b"\0") + late).answer())
        assert answer.status == 400 and "Upload-Checksum" in answer.problem["detail"]
        assert wire.ended()
    assert tus.offset(path) == 200_000

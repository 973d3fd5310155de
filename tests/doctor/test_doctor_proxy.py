"""What the look through a proxy says of each way to spoil an upload, and that it waits for nobody without a bound.

The same through real proxies is in tests/e2e/test_proxy_checks.py.
"""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor

from resumable.doctor.findings import Finding
from resumable.doctor.proxy import SENT, check_heads, check_proxy
from resumable.doctor.visitor import Unanswered, Visitor
from tests.doctor.front import TUS, Front, said

MADE = said(201, TUS, "Location: {url}one")
KEPT = said(200, TUS, f"Upload-Offset: {SENT}", "Upload-Metadata: {metadata}")
GOOD = {"POST": MADE, "HEAD": KEPT, "DELETE": said(204, TUS)}


async def look(front: Front) -> dict[str, Finding]:
    found = await check_proxy(reactor, front.url.rstrip("/"), {"Authorization": "Bearer x"}, patience=0.2)
    assert len({each.name for each in found}) == len(found)
    assert all(each.advice or each.level == "ok" for each in found)
    return {each.name: each for each in found}


@pytest_twisted.ensureDeferred
async def test_all_is_well_where_bytes_arrive_before_the_end(front) -> None:
    it = await front(**GOOD)
    found = await look(it)
    assert {each.level for each in found.values()} == {"ok"}
    assert set(found) == {"Location", "proxy buffering", "long metadata"}
    assert all(b"authorization: bearer x" in head.lower() for head in it.asked)
    methods = [head.split(b" ")[0] for head in it.asked]
    assert methods == [b"POST", b"PATCH", b"HEAD", b"DELETE", b"POST", b"HEAD", b"DELETE"]
    assert {head.split(b" ")[1] for head in it.asked if b"DELETE" in head} == {b"/files/one"}, "what was made is ended"


@pytest.mark.parametrize(
    ("head", "how"),
    [
        (said(502), "answered with 502 by somebody in front of the server"),
        (said(500, TUS), "answered with 500 by the server"),
        (said(200, TUS, "Upload-Offset: 0"), "answered without them"),
        (b"", "not answered"),
    ],
    ids=range(4),
)
@pytest_twisted.ensureDeferred
async def test_metadata_that_does_not_come_back_is_found_and_its_upload_removed(front, head: bytes, how: str) -> None:
    it = await front(POST=MADE, HEAD=head, DELETE=said(204, TUS))
    (found,) = await check_heads(Visitor(reactor, {}), it.url)
    assert (found.name, found.level) == ("long metadata", "bad")
    assert how in found.what and "14" in found.what and "proxy_buffer_size" in found.advice
    assert [head.split(b" ")[0] for head in it.asked] == [b"POST", b"HEAD", b"DELETE"]


@pytest.mark.parametrize(
    ("post", "level"),
    [(said(400), "warn"), (said(431), "warn"), (b"", "warn"), (said(403, TUS), "skip"), (said(201, TUS), "skip")],
    ids=range(5),
)
@pytest_twisted.ensureDeferred
async def test_metadata_that_cannot_be_sent_is_tried_shorter(front, post: bytes, level: str) -> None:
    it = await front(POST=post)
    (found,) = await check_heads(Visitor(reactor, {}), it.url)
    assert (found.level, bool(found.advice)) == (level, level != "ok")
    sizes = [len(head) // 1000 for head in it.asked]
    assert sizes == [14, 7]


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_takes_shorter_ones_gets_a_warning(front) -> None:
    it = await front(**GOOD)
    it.longest = 8_000
    (found,) = await check_heads(Visitor(reactor, {}), it.url)
    assert found.level == "warn" and "14000 bytes" in found.what and "large_client_header_buffers" in found.advice
    assert [head.split(b" ")[0] for head in it.asked] == [b"POST", b"POST", b"HEAD", b"DELETE"]


@pytest_twisted.ensureDeferred
async def test_bytes_that_never_arrive_were_collected(front) -> None:
    it = await front(**{**GOOD, "HEAD": said(200, TUS, "Upload-Offset: 0")})
    found = (await look(it))["proxy buffering"]
    assert found.level == "bad" and "collected" in found.what and "proxy_request_buffering off" in found.advice


@pytest_twisted.ensureDeferred
async def test_a_limit_of_the_proxy_is_told_apart_from_the_servers(front) -> None:
    it = await front(**GOOD, PATCH=said(413))
    found = await look(it)
    assert found["proxy body limit"].level == "warn"
    it.answers["PATCH"] = said(413, TUS)
    found = await look(it)
    assert "proxy body limit" not in found and found["proxy buffering"].what == "the server answers PATCH with 413"


@pytest_twisted.ensureDeferred
async def test_a_server_with_a_smaller_maximum_is_asked_for_less(front) -> None:
    it = await front(POST=said(413, TUS))
    await look(it)
    lengths = [line for head in it.asked for line in head.lower().split(b"\r\n") if line.startswith(b"upload-length")]
    assert lengths == [b"upload-length: 2147483648", b"upload-length: 262144"]


@pytest.mark.parametrize(
    ("location", "level"),
    [
        ("{url}one", "ok"),
        ("/files/one", "ok"),
        ("one?token=x", "ok"),
        ("https://127.0.0.1/files/one", "bad"),
        ("http://inner:8080/files/one", "bad"),
        ("//evil.example/files/one", "bad"),
        ("/uploads/one", "bad"),
        ("{url}more/one", "bad"),
        ("http://[broken/files/one", "bad"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_location_has_to_lead_to_where_the_client_is(front, location: str, level: str) -> None:
    it = await front(**GOOD)
    it.answers["POST"] = said(201, TUS, f"Location: {location}")
    found = await look(it)
    assert found["Location"].level == level
    assert found["proxy buffering"].level == "ok", "the rest is looked at all the same"


@pytest.mark.parametrize("status", [200, 301, 401, 403, 404, 405, 418, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["POST", "PATCH", "HEAD"])
@pytest_twisted.ensureDeferred
async def test_who_refuses_what_is_named(front, method: str, status: int) -> None:
    if method != "POST" and status == 200:
        return
    it = await front(**GOOD)
    it.answers[method] = said(status)
    found = (await look(it))["proxy buffering"]
    assert found.level == "bad"
    assert found.what == f"somebody in front of the server answers {method} with {status}"


@pytest.mark.parametrize("delete", [said(405), b"garbage\r\n\r\n"])
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_removed_is_named(front, delete: bytes) -> None:
    it = await front(**GOOD)
    it.answers["DELETE"] = delete
    found = await look(it)
    assert found["DELETE"].level == "warn" and "/files/one" in found["DELETE"].what


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 100_000])
@pytest_twisted.ensureDeferred
async def test_garbage_is_a_finding(front, answer: bytes) -> None:
    it = await front(**GOOD)
    it.answers["POST"] = answer
    assert (await look(it))["proxy buffering"].level == "bad"
    it.answers.update({**GOOD, "PATCH": answer})
    assert (await look(it))["proxy buffering"].level == "ok", "what has arrived counts"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/files/", "ftp://example.org/", "nonsense", "http://[::1", "http://ü/"]
)
@pytest_twisted.ensureDeferred
async def test_a_url_where_nobody_is_is_a_finding(url: str) -> None:
    (found,) = await check_proxy(reactor, url, patience=0.2)
    assert found.level == "bad" and "\n" not in found.what


@pytest_twisted.ensureDeferred
async def test_silence_ends(front) -> None:
    it = await front()
    visitor = Visitor(reactor, {}, timeout=0.05)
    with pytest.raises(Unanswered, match=r"no answer within 0\.05 s"):
        await visitor.ask("POST", it.url, {})
    assert await visitor.cut("PATCH", it.url, {}, 100, b"abc", 0.05) is None

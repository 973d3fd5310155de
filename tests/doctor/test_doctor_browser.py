"""What the look from another origin says of each way to keep pages out."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor

from resumable.doctor.outside import check_origin
from tests.doctor.front import TUS, said

ORIGIN = "https://app.example"
ALLOW = f"Access-Control-Allow-Origin: {ORIGIN}"
METHODS = "Access-Control-Allow-Methods: POST, PATCH"
HEADERS = "Access-Control-Allow-Headers: Content-Type, Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset"
EXPOSE = "Access-Control-Expose-Headers: Location, Upload-Offset, Upload-Length, Tus-Resumable"
GOOD = {"OPTIONS": said(204, ALLOW, METHODS, HEADERS), "POST": said(412, TUS, ALLOW, EXPOSE)}


@pytest.mark.parametrize("origin", [ORIGIN, "*"])
@pytest_twisted.ensureDeferred
async def test_all_is_well_where_the_browser_is_told_all_it_asks(front, origin: str) -> None:
    it = await front(**{method: answer.replace(ORIGIN.encode(), origin.encode()) for method, answer in GOOD.items()})
    found = await check_origin(reactor, it.url, ORIGIN)
    assert (found.level, found.advice) == ("ok", "")
    preflight, post = it.asked
    assert b"Access-Control-Request-Method: PATCH" in preflight and b"https://app.example" in preflight
    assert b"resumable" not in post.lower(), "nothing may be made"


@pytest.mark.parametrize(
    ("method", "answer", "said_so"),
    [
        ("OPTIONS", said(401, ALLOW, METHODS, HEADERS), "OPTIONS is answered with 401"),
        ("OPTIONS", said(302, ALLOW), "OPTIONS is answered with 302"),
        ("OPTIONS", said(200), "its origin isn't allowed"),
        ("OPTIONS", said(200, "Access-Control-Allow-Origin: https://b.example", METHODS), "only https://b.example"),
        ("OPTIONS", said(200, ALLOW, ALLOW, METHODS, HEADERS), "is there twice"),
        ("OPTIONS", said(200, f"{ALLOW}, *", METHODS, HEADERS), "is there twice"),
        ("OPTIONS", said(200, ALLOW, HEADERS, "Access-Control-Allow-Methods: POST"), "PATCH isn't among"),
        ("OPTIONS", said(200, ALLOW, METHODS), "it may not send content-type, tus-resumable"),
        ("POST", said(412, TUS, EXPOSE), "its origin isn't allowed"),
        ("POST", said(412, TUS, ALLOW, "Access-Control-Allow-Origin: *", EXPOSE), "is there twice"),
        ("POST", said(412, TUS, ALLOW), "it can't read location, tus-resumable, upload-length, upload-offset"),
        ("POST", b"garbage\r\n\r\n", "no answer"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_keeps_a_page_out_is_named(front, method: str, answer: bytes, said_so: str) -> None:
    it = await front(**{**GOOD, method: answer})
    found = await check_origin(reactor, it.url, ORIGIN)
    assert found.level == "bad" and said_so in found.what and found.advice


@pytest_twisted.ensureDeferred
async def test_a_star_does_not_count_for_authorization(front) -> None:
    """Fetch standard: it has to be named."""
    it = await front(**{**GOOD, "OPTIONS": said(204, ALLOW, METHODS, "Access-Control-Allow-Headers: *")})
    assert (await check_origin(reactor, it.url, ORIGIN, headers={"X-Token": "1"})).level == "ok"
    found = await check_origin(reactor, it.url, ORIGIN, headers={"Authorization": "Bearer secret"})
    assert "it may not send authorization" in found.what
    assert not any(b"secret" in head for head in it.asked)

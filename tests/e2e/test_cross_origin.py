"""What a page of another origin needs of the service, and what a download may do to a browser."""

from __future__ import annotations

import pytest

from .daemon import Daemon
from .tus import OCTETS, Tus, metadata, pattern

PAGE = "https://page.example"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "content-type,tus-resumable,upload-offset,x-something-of-the-page",
}
EXPOSED = (
    "Location", "Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Concat",
    "Upload-Expires", "Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm",
)  # fmt: skip


def listed(value: str) -> set[str]:
    return {part.strip().lower() for part in value.split(",")}


@pytest.mark.parametrize("target", ["/files/", "/files/" + "0" * 32])
def test_the_preflight_of_tus_js_client_is_answered(target: str, tus: Tus) -> None:
    answer = tus.ask("OPTIONS", target, {"Tus-Resumable": None, **PREFLIGHT})
    assert answer.status == 200
    assert answer["access-control-allow-origin"] in ("*", PAGE)
    assert {"post", "head", "patch", "delete"} <= listed(answer["access-control-allow-methods"])
    assert listed(PREFLIGHT["Access-Control-Request-Headers"]) <= listed(answer["access-control-allow-headers"])
    assert "tus-version" in answer


def test_a_page_may_read_every_tus_field_of_answers_and_errors(tus: Tus) -> None:
    origin = {"Origin": PAGE}
    created = tus.post(3, origin)
    path = tus.path(created)
    answers = [
        created,
        tus.head(path, origin),
        tus.patch(path, 0, b"abc", origin),
        tus.patch(path, 1, b"", origin),
        tus.post(None, origin),
        tus.ask("PUT", path, origin),
        tus.ask("HEAD", path, {**origin, "Tus-Resumable": None}),
        tus.ask("GET", "/files/" + "0" * 32, origin),
    ]
    for answer in answers:
        assert answer["access-control-allow-origin"] in ("*", PAGE), answer
        assert listed(", ".join(EXPOSED)) <= listed(answer["access-control-expose-headers"])
        assert "access-control-allow-credentials" not in answer


def test_who_is_no_page_gets_no_fields_for_pages(tus: Tus) -> None:
    assert not [key for key, _ in tus.post(3).fields if key.startswith("access-control")]


def test_only_the_origins_that_were_named_may_upload() -> None:
    with Daemon("--cors-origin", PAGE, "--cors-origin", "http://localhost:3000") as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        for origin in (PAGE, "http://localhost:3000"):
            answer = tus.options({**PREFLIGHT, "Origin": origin})
            assert answer["access-control-allow-origin"] == origin
            assert "origin" in listed(answer["vary"])
        for origin in ("https://evil.example", "null", PAGE + ".evil.example", "http://page.example"):
            answer = tus.options({**PREFLIGHT, "Origin": origin})
            assert "access-control-allow-origin" not in answer
            assert "origin" in listed(answer["vary"])


def test_a_download_is_saved_and_never_shown(tus: Tus) -> None:
    described = metadata(filename="naïve.html", filetype="text/html")
    page = b"<script>alert(1)</script>"
    answer = tus.get(tus.create(len(page), {"Upload-Metadata": described}, page))
    assert answer.body == page
    assert answer["content-disposition"].startswith("attachment;")
    assert "filename*=UTF-8''na%C3%AFve.html" in answer["content-disposition"]
    assert answer["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer["content-security-policy"]


def test_an_operator_may_have_other_wishes() -> None:
    """Downloads that are shown, an extension less, a proxy that takes a prefix off: in the daemon as it is run."""
    flags = ("--download-inline", "--disable-extension", "termination,checksum", "--behind-proxy", "loopback")
    with Daemon(*flags) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        listed_extensions = tus.options()["tus-extension"].split(",")
        assert not {"termination", "checksum", "checksum-trailer"} & set(listed_extensions)
        assert "tus-checksum-algorithm" not in tus.options()
        told = tus.post(3, {"X-Forwarded-Prefix": "/up", "X-Forwarded-Port": "8443", "X-Forwarded-Proto": "https"})
        assert told["location"].startswith("https://127.0.0.1:8443/up/files/")
        for kind, way in (("image/png", "inline"), ("application/pdf", "inline"), ("image/svg+xml", "attachment")):
            path = tus.create(3, {"Upload-Metadata": metadata(filename="x", filetype=kind)}, b"abc")
            answer = tus.get(path)
            assert answer["content-disposition"] == f'{way}; filename="x"'
            assert answer["x-content-type-options"] == "nosniff" and "'none'" in answer["content-security-policy"]
        refused = tus.delete(path)
        assert (refused.status, refused["allow"]) == (405, "GET, HEAD, OPTIONS, PATCH")
        assert tus.offset(path) == 3


def test_a_large_download_to_a_slow_reader_is_whole_and_others_go_on(tus: Tus) -> None:
    data = pattern(20_000_000, seed=31)
    path = tus.create(len(data), None, data)
    with tus.wire() as slow:
        slow.send(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        for _ in range(20):
            assert tus.content(tus.create(3, None, b"abc")) == b"abc"
        assert slow.answer().body == data


def test_an_unfinished_upload_is_not_served(tus: Tus) -> None:
    assert tus.get(tus.create(5, None, b"abc")).status == 404


def test_downloads_can_be_switched_off() -> None:
    with Daemon("--disable-download") as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(3, None, b"abc")
        assert tus.get(path).status in (404, 405)
        assert tus.head(path).offset == 3
        assert tus.ask("GET", path, {"Content-Type": OCTETS}).status in (404, 405)

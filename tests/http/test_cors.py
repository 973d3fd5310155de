"""Which pages may read which answers: the Fetch standard's CORS protocol, origins with tricks included."""

from __future__ import annotations

from typing import Any

import pytest

from resumable.http.cors import CrossOrigin
from resumable.http.cors import parse_origins as parse_origins
from resumable.http.draft import DraftSettings
from resumable.protocol.draft import Limits
from tests.http.visitor import Reply, ask

ORIGIN = "https://app.example"
LISTED = (ORIGIN, "http://localhost:3000")


def from_page(*fields: str, origin: str = ORIGIN, method: str = "POST", **options: Any) -> Reply:
    return ask("Host: up.example", f"Origin: {origin}", *fields, method=method, **options)


def preflight(*fields: str, origin: str = ORIGIN, **options: Any) -> Reply:
    return from_page("Access-Control-Request-Method: PATCH", *fields, origin=origin, method="OPTIONS", **options)


def names(reply: Reply, field: str) -> set[str]:
    return {name.strip().lower() for name in (reply.get(field) or "").split(",")}


def refused(reply: Reply) -> bool:
    return not any(name.lower().startswith("access-control-") for name, _ in reply.fields)


def test_by_default_every_page_may_read_every_tus_field() -> None:
    reply = from_page()
    assert reply.status == 201 and reply.get("Access-Control-Allow-Origin") == "*"
    tus = {"location", "upload-offset", "upload-length", "upload-metadata", "upload-expires", "tus-resumable"}
    assert names(reply, "Access-Control-Expose-Headers") >= tus


def test_a_request_without_an_origin_gets_no_cors_field_and_no_cache_may_give_its_answer_to_a_page() -> None:
    for origins in (("*",), LISTED):
        reply = ask("Host: up.example", origins=origins)
        assert refused(reply)
        assert reply.get("Vary") == "Origin"


def test_no_origins_at_all_switch_every_field_off() -> None:
    reply = from_page(origins=())
    assert refused(reply) and reply.get("Vary") is None
    assert refused(preflight(origins=()))


@pytest.mark.parametrize("origin", LISTED)
def test_a_listed_origin_is_answered_by_its_name(origin: str) -> None:
    for reply in (from_page(origin=origin, origins=LISTED), preflight(origin=origin, origins=LISTED)):
        assert reply.get("Access-Control-Allow-Origin") == origin
        assert "origin" in names(reply, "Vary")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "*",
        "",
        "HTTPS://APP.EXAMPLE",
        "https://App.example",
        "http://app.example",
        "https://app.example.",
        "https://app.example/",
        "https://app.example:443",
        "https://app.example:8443",
        "https://app.example.evil.example",
        "https://evil-app.example",
        "https://sub.app.example",
        "https://app.example@evil.example",
        "https://app.example https://evil.example",
        "https://app.example, https://evil.example",
        "https://äpp.example",
        "http://localhost",
        "http://localhost:30000",
    ],
)
def test_an_origin_that_is_not_listed_byte_for_byte_learns_nothing(origin: str) -> None:
    assert refused(from_page(origin=origin, origins=LISTED))
    assert refused(preflight(origin=origin, origins=LISTED))


@pytest.mark.parametrize("second", [ORIGIN, "https://evil.example", "null"])
def test_two_origin_lines_are_nobodys_origin(second: str) -> None:
    assert refused(from_page(f"Origin: {second}", origins=LISTED))
    assert refused(from_page(f"Origin: {ORIGIN}", origin=second, origins=LISTED))


def test_null_counts_as_any_origin_or_by_its_name() -> None:
    assert from_page(origin="null").get("Access-Control-Allow-Origin") == "*"
    assert from_page(origin="null", origins=(ORIGIN, "null")).get("Access-Control-Allow-Origin") == "null"
    assert refused(from_page(origin="null", origins=("https://*.example.org", "http://localhost:*")))


def test_an_origin_is_listed_as_people_write_it_and_compared_as_browsers_do() -> None:
    written = ["HTTPS://App.Example:443/", "http://localhost:80", "https://b.example:80", "http://[::1]:8000"]
    assert parse_origins(written) == (
        "https://app.example",
        "http://localhost",
        "https://b.example:80",
        "http://[::1]:8000",
    )
    assert from_page(origins=parse_origins(written)).get("Access-Control-Allow-Origin") == ORIGIN


PATTERNS = ("https://*.example.org", "https://preview-*.example.net", "http://localhost:*", "http://*.localhost:3000")


@pytest.mark.parametrize(
    "origin",
    [
        "https://www.example.org",
        "https://a.b.example.org",
        "https://xn--mnchen-3ya.example.org",
        "https://a_b.example.org",
        "https://preview-12.example.net",
        "https://preview-12.a.example.net",
        "http://localhost",
        "http://localhost:5173",
        "http://app.localhost:3000",
    ],
)
def test_a_pattern_lets_in_what_it_says(origin: str) -> None:
    reply = from_page(origin=origin, origins=parse_origins(PATTERNS))
    assert reply.get("Access-Control-Allow-Origin") == origin
    assert reply.get("Access-Control-Expose-Headers")


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.org",
        "https://.example.org",
        "https://evilexample.org",
        "https://www.example.org.evil.com",
        "https://www.example.org.",
        "https://www..example.org",
        "https://www.example.org:443",
        "https://www.example.org:8443",
        "https://www.example.org/",
        "https://evil.com/.example.org",
        "https://evil.com?.example.org",
        "https://evil.com#.example.org",
        "https://evil.com:80.example.org",
        "https://user@www.example.org",
        "https://evil.com@www.example.org",
        "https://evil.com\\.example.org",
        "https://evil.com%2f.example.org",
        "https://evil.com\t.example.org",
        "https://a.example.org https://evil.com",
        "https://evil.com,https://a.example.org",
        "https://WWW.example.org",
        "HTTPS://www.example.org",
        "http://www.example.org",
        "ftp://www.example.org",
        "https://münchen.example.org",
        "https://*.example.org",
        "https://[::1].example.org",
        "https://" + "a." * 3000 + "example.org",
        "https://" + "a" * 9000 + ".example.org",
        "https://" + "." * 9000 + ".example.org",
        "https://preview-.example.net",
        "https://xpreview-1.example.net",
        "https://preview-1.example.net.evil.com",
        "http://localhost.evil.com",
        "http://localhost:",
        "http://localhost:123456",
        "http://localhost:80@evil.com",
        "http://localhost:x",
        "https://localhost:5173",
        "http://evil.com.localhost:3001",
        "null",
        "*",
    ],
)
def test_a_pattern_is_matched_as_a_whole(origin: str) -> None:
    assert refused(from_page(origin=origin, origins=parse_origins(PATTERNS)))
    assert refused(preflight(origin=origin, origins=parse_origins(PATTERNS)))


@pytest.mark.parametrize(
    "origin", ["https://a.example.org\rX: y", "https://a.example.org\nX: y", "https://a\0.example.org"]
)
def test_an_origin_with_a_line_break_never_becomes_a_field(origin: str) -> None:
    reply = from_page(origin=origin, origins=parse_origins(PATTERNS))
    assert refused(reply) and reply.get("X") is None


@pytest.mark.parametrize(
    "pattern",
    [
        "https://*",
        "https://*.com",
        "https://*example.org",
        "https://*.*.example.org",
        "https://www.example.*",
        "https://*.example.org.",
        "https://*.example.org:*:1",
        "https://*.example.org/path",
        "https://user@*.example.org",
        "http*://www.example.org",
        "*://www.example.org",
        "*.example.org",
        "https://[*]",
        "https://*.münchen.example.org",
        "https://(www|api).example.org",
        "null*",
    ],
)
def test_a_pattern_that_would_let_in_strangers_is_refused_at_the_start(pattern: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        parse_origins([pattern])


def test_no_answer_lets_cookies_in_unless_that_is_wanted() -> None:
    for reply in (from_page(), preflight(), from_page(origins=LISTED), preflight(origins=LISTED)):
        assert reply.get("Access-Control-Allow-Credentials") is None


def test_cookies_are_let_in_from_listed_origins_only() -> None:
    rules = CrossOrigin((ORIGIN, "https://*.example.org"), credentials=True)
    for origin in (ORIGIN, "https://www.example.org"):
        for reply in (from_page(origin=origin, cors=rules), preflight(origin=origin, cors=rules)):
            assert reply.get("Access-Control-Allow-Credentials") == "true"
            assert reply.get("Access-Control-Allow-Origin") == origin, "never *, which browsers refuse with cookies"
    assert refused(from_page(origin="https://evil.example", cors=rules))


def test_caches_are_told_what_a_preflight_depends_on() -> None:
    for origin in (ORIGIN, "https://evil.example"):
        reply = preflight(origin=origin, origins=LISTED)
        assert names(reply, "Vary") == {"origin", "access-control-request-method", "access-control-request-headers"}
    assert from_page(method="OPTIONS").get("Vary") == "Origin", "that is no preflight"


def test_what_a_download_says_and_the_request_id_can_be_read_by_default() -> None:
    told = {"content-range", "accept-ranges", "etag", "last-modified", "content-disposition", "x-request-id"}
    assert names(from_page(), "Access-Control-Expose-Headers") >= told


def test_a_page_may_send_and_read_what_the_draft_says_also_where_its_own_fields_are_a_list() -> None:
    both = {"upload-complete", "upload-incomplete", "upload-draft-interop-version", "content-disposition"}
    sent = both | {"upload-offset", "upload-length", "content-type", "content-encoding"}
    sent |= {"content-digest", "repr-digest", "want-repr-digest"}
    for rules in (CrossOrigin(), CrossOrigin(headers=("x-csrf-token",))):
        assert names(preflight(cors=rules), "Access-Control-Allow-Headers") >= sent
    read = both | {"location", "upload-offset", "upload-length", "upload-limit", "repr-digest"}
    reply = from_page("Upload-Complete: ?0", "Upload-Draft-Interop-Version: 6", draft=DraftSettings())
    assert names(reply, "Access-Control-Expose-Headers") >= read


def test_a_page_may_read_why_the_draft_refused_it_and_what_options_tell() -> None:
    limited = DraftSettings(Limits(max_append=3))
    reply = ask(
        *("Host: up.example", f"Origin: {ORIGIN}", "Upload-Complete: ?1", "Content-Length: 5"), tus=False, draft=limited
    )
    assert (reply.status, reply.get("Access-Control-Allow-Origin")) == (413, "*")
    assert "upload-limit" in names(reply, "Access-Control-Expose-Headers") and reply.get("Upload-Limit")
    assert preflight(draft=limited).get("Upload-Limit") == "max-append-size=3"


@pytest.mark.parametrize(
    "fields", [(), ("Content-Type: text/plain",), ("Content-Type: multipart/form-data; boundary=x",)], ids=range(3)
)
def test_what_a_page_sends_without_asking_first_makes_no_upload(fields: tuple[str, ...]) -> None:
    reply = ask("Host: up.example", *fields, "Content-Length: 0", tus=False, draft=DraftSettings())
    assert reply.status == 412


def test_more_fields_can_be_exposed() -> None:
    rules = CrossOrigin(exposed=("x-edge", "server-timing"))
    assert names(from_page(cors=rules), "Access-Control-Expose-Headers") >= {"x-edge", "server-timing", "location"}


def test_the_time_that_a_preflight_is_remembered_is_set_in_whole_seconds() -> None:
    assert preflight().get("Access-Control-Max-Age") == "86400"
    assert preflight(cors=CrossOrigin(max_age=90.5)).get("Access-Control-Max-Age") == "90"
    assert preflight(cors=CrossOrigin(max_age=0)).get("Access-Control-Max-Age") == "0"


def test_with_a_list_of_headers_no_other_may_be_sent() -> None:
    asked = "Access-Control-Request-Headers: x-csrf-token, x-other, upload-offset"
    allowed = names(preflight(asked, cors=CrossOrigin(headers=("x-csrf-token",))), "Access-Control-Allow-Headers")
    assert allowed >= {"x-csrf-token", "upload-offset", "x-http-method-override"} and "x-other" not in allowed


def test_a_method_that_is_left_out_cannot_be_had_by_an_override_either() -> None:
    rules = CrossOrigin(methods=("POST", "HEAD", "PATCH"))
    reply = preflight("Access-Control-Request-Headers: X-HTTP-Method-Override, x-b", cors=rules)
    assert names(reply, "Access-Control-Allow-Methods") == {"post", "head", "patch"}
    allowed = names(reply, "Access-Control-Allow-Headers")
    assert "x-http-method-override" not in allowed and "x-b" in allowed


def test_the_preflight_allows_what_tus_needs() -> None:
    reply = preflight("Access-Control-Request-Headers: tus-resumable,upload-offset")
    assert reply.status == 200
    assert names(reply, "Access-Control-Allow-Methods") == {"post", "get", "head", "patch", "delete", "options"}
    needed = {"tus-resumable", "upload-length", "upload-offset", "upload-metadata", "upload-concat", "content-type"}
    assert names(reply, "Access-Control-Allow-Headers") >= needed | {"x-http-method-override", "upload-checksum"}
    assert int(reply.get("Access-Control-Max-Age") or 0) > 0


def test_a_well_formed_field_of_the_pages_own_is_allowed() -> None:
    reply = preflight(
        "Access-Control-Request-Headers: x-csrf-token, authorization", "Access-Control-Request-Headers: x-b"
    )
    assert names(reply, "Access-Control-Allow-Headers") >= {"x-csrf-token", "authorization", "x-b"}


@pytest.mark.parametrize("asked", ["x-a,,x-b", "x a", "x-a;b", 'x"a"', "x-" + "a" * 1100, "xä"])
def test_what_is_no_list_of_names_is_not_echoed(asked: str) -> None:
    reply = preflight(f"Access-Control-Request-Headers: {asked}")
    assert reply.status == 200
    assert not {"x-a", "x-b"} & names(reply, "Access-Control-Allow-Headers")
    assert asked not in (reply.get("Access-Control-Allow-Headers") or "")


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("POST", "/files/", ("Upload-Metadata: a b c",), 400),
        ("PUT", "/files/", (), 405),
        ("GET", "/files/nothing", (), 404),
    ],
)
def test_a_page_may_read_why_it_was_refused(method: str, path: str, fields: tuple[str, ...], status: int) -> None:
    reply = ask("Host: up.example", f"Origin: {ORIGIN}", *fields, method=method, path=path)
    assert reply.status == status
    assert reply.get("Access-Control-Allow-Origin") == "*"
    assert b'"status"' in reply.body


def test_a_malformed_host_is_told_to_the_page_too() -> None:
    reply = ask("Host: a b", f"Origin: {ORIGIN}")
    assert reply.status == 400
    assert reply.get("Access-Control-Allow-Origin") == "*"

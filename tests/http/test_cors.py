"""Which pages may read which answers: the Fetch standard's CORS protocol, origins with tricks included."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from visitor import Reply, ask

from resumable.option_values import origins as parse_origins

ORIGIN = "https://app.example"
LISTED = (ORIGIN, "http://localhost:3000")


def from_page(*fields: str, origin: str = ORIGIN, origins: Sequence[str] = ("*",), method: str = "POST") -> Reply:
    return ask("Host: up.example", f"Origin: {origin}", *fields, method=method, origins=origins)


def preflight(*fields: str, origin: str = ORIGIN, origins: Sequence[str] = ("*",)) -> Reply:
    return from_page("Access-Control-Request-Method: PATCH", *fields, origin=origin, origins=origins, method="OPTIONS")


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
        assert reply.get("Vary") == "Origin"


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


def test_null_counts_as_any_origin_only() -> None:
    assert from_page(origin="null").get("Access-Control-Allow-Origin") == "*"


def test_an_origin_is_listed_as_people_write_it_and_compared_as_browsers_do() -> None:
    written = ["HTTPS://App.Example:443/", "http://localhost:80", "https://b.example:80", "http://[::1]:8000"]
    assert parse_origins(written) == (
        "https://app.example",
        "http://localhost",
        "https://b.example:80",
        "http://[::1]:8000",
    )
    assert from_page(origins=parse_origins(written)).get("Access-Control-Allow-Origin") == ORIGIN


def test_no_answer_lets_cookies_in() -> None:
    for reply in (from_page(), preflight(), from_page(origins=LISTED)):
        assert reply.get("Access-Control-Allow-Credentials") is None


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

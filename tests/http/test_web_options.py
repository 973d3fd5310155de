"""The options between the server and its clients: flags, variables, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.python.usage import UsageError

from resumable.config.options import Options, Settings
from resumable.config.web import EXTENSIONS, WEB
from resumable.http.cors import CrossOrigin
from resumable.protocol import tus

ORIGINS = ("--cors-origin", "https://example.org")

EXAMPLES: list[tuple[str, str, dict[str, Any]]] = [
    ("cors-methods", "post,Patch", {"methods": ("POST", "PATCH")}),
    ("cors-headers", "X-CSRF-Token,x-b", {"headers": ("x-csrf-token", "x-b")}),
    ("cors-expose", "Server-Timing", {"exposed": ("server-timing",)}),
    ("cors-max-age", "2h", {"max_age": 7200.0}),
]


def parse(*flags: str, **environ: str) -> Settings:
    options = Options(environ)
    options.parseOptions(list(flags))
    return options.settings()


def test_every_option_has_an_example() -> None:
    others = {"location", "download-inline", "disable-extension", "cors-credentials", "disable-http2", "h2c"}
    others |= {"page", "disable-draft", "interim", "min-append-size", "max-append-size"}
    assert {flag for flag, *_ in EXAMPLES} | others == {option.flag for option in WEB}


@pytest.mark.parametrize(("flag", "text", "value"), EXAMPLES)
def test_flags_and_variables_set_the_same_rule(flag: str, text: str, value: dict[str, Any]) -> None:
    expected = CrossOrigin(**value)
    assert parse(f"--{flag}", text).cors == expected
    assert parse(**{f"RESUMABLE_{flag.upper().replace('-', '_')}": text}).cors == expected


def test_any_header_is_written_as_a_star() -> None:
    assert parse("--cors-headers", "*").cors.headers is None


def test_the_form_of_the_location_is_a_flag_and_a_variable() -> None:
    assert parse("--location", "path").location == "path"
    assert parse(RESUMABLE_LOCATION="absolute").location == "absolute"


def test_showing_downloads_is_a_flag_and_a_variable() -> None:
    assert [each.download_inline for each in (parse(), parse("--download-inline"))] == [False, True]
    assert parse(RESUMABLE_DOWNLOAD_INLINE="yes").download_inline


def test_extensions_are_switched_off_one_by_one() -> None:
    assert EXTENSIONS == tus.EXTENSIONS
    assert parse().disabled_extensions == ()
    few = parse("--disable-extension", "termination", "--disable-extension", "Checksum,concatenation-unfinished")
    assert few == parse(RESUMABLE_DISABLE_EXTENSION="termination,checksum,concatenation-unfinished")
    assert few.disabled_extensions == ("termination", "checksum", "concatenation-unfinished")
    assert few.expire_after == parse().expire_after


def test_what_clients_are_not_told_of_does_not_happen_and_what_does_not_happen_they_are_not_told() -> None:
    for flags in (("--disable-extension", "expiration"), ("--expire-after", "never")):
        settings = parse(*flags)
        assert (settings.disabled_extensions, settings.expire_after) == (("expiration",), None)
    assert parse("--disable-extension", "expiration", "--expire-after", "0").expire_after is None


def test_the_draft_can_be_switched_off_and_its_requests_bounded() -> None:
    assert [each.draft for each in (parse(), parse("--disable-draft"))] == [True, False]
    assert not parse(RESUMABLE_DISABLE_DRAFT="yes").draft
    assert (parse().interim, parse("--interim", "never").interim) == ("auto", "never")
    assert (parse().min_append_size, parse().max_append_size) == (None, None)
    bounded = parse("--min-append-size", "5M", "--max-append-size", "5M")
    assert (bounded.min_append_size, bounded.max_append_size) == (5 << 20, 5 << 20)
    assert parse(RESUMABLE_MAX_APPEND_SIZE="100M").max_append_size == 100 << 20


def test_http2_is_a_flag_and_a_variable_and_h2c_another() -> None:
    assert [(each.http2, each.h2c) for each in (parse(), parse("--disable-http2", "--h2c"))] == [
        (True, False),
        (False, True),
    ]
    assert not parse(RESUMABLE_DISABLE_HTTP2="yes").http2
    assert parse(RESUMABLE_H2C="yes").h2c


def test_credentials_go_with_origins_that_are_named() -> None:
    assert parse(*ORIGINS, "--cors-credentials").cors == CrossOrigin(("https://example.org",), credentials=True)
    patterns = "https://*.example.org,http://localhost:*"
    assert parse(RESUMABLE_CORS_CREDENTIALS="yes", RESUMABLE_CORS_ORIGIN=patterns).cors.credentials


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--cors-credentials",), "--cors-credentials needs --cors-origin with the origins"),
        (("--cors-credentials", "--cors-origin", "*"), "--cors-credentials needs --cors-origin with the origins"),
        (("--cors-credentials", "--cors-origin", "none"), "--cors-credentials needs --cors-origin"),
        (("--cors-credentials", "--cors-origin", "https://a.example,null"), "every page can make itself null"),
        (("--cors-origin", "https://*.com"), "two parts or more after it"),
        (("--cors-origin", "https://*example.org"), "two parts or more after it"),
        (("--cors-origin", "https://.*\\.example\\.org"), "patterns like https://*.example.org"),
        (("--cors-origin", "https://münchen.example"), "xn--"),
        (("--cors-methods", "POST,PUT"), "some of POST, GET, HEAD, PATCH, DELETE, OPTIONS"),
        (("--cors-methods", ","), "some of POST"),
        (("--cors-headers", "*,X-A"), "names of header fields"),
        (("--cors-headers", "X A"), "names of header fields"),
        (("--cors-expose", "*"), "names of header fields"),
        (("--cors-expose", "X-A\r\nX-B"), "names of header fields"),
        (("--cors-max-age", "-1"), "a time"),
        (("--location", "relative"), "one of absolute, path"),
        (("--interim", "sometimes"), "one of auto, always, never"),
        (("--min-append-size", "6M", "--max-append-size", "5M"), "no request could be both"),
        (("--disable-extension", "deletion"), "some of creation, creation-with-upload"),
        (("--disable-extension", "expiration", "--expire-after", "1d"), "clients have to be told"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_before_the_start(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*flags)
    assert said in str(caught.value) and "\n" not in str(caught.value)

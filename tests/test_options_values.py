"""The grammar of values, and every wrong one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.config import MAIN, OPTIONS
from resumable.model import values as option_values
from tests.parsing import SWITCHES, parse, refusal


@pytest.mark.parametrize(
    ("text", "path"), [("/", "/"), ("files", "/files/"), ("/files", "/files/"), ("a/b.c_d~e-f/", "/a/b.c_d~e-f/")]
)
def test_the_base_path_begins_and_ends_with_a_slash(text, path):
    assert parse("--base-path", text).base_path == path


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        ("64M", 64 << 20),
        ("64 MB", 64 << 20),
        ("512KiB", 512 << 10),
        ("1.5g", 3 << 29),
    ],
)
def test_sizes(text, size):
    assert option_values.size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("90s", 90), ("5m", 300), ("24h", 86400), ("7d", 604800), ("250ms", 0.25), ("1w", 604800)],
)
def test_durations(text, seconds):
    assert option_values.duration(text) == seconds


@given(st.integers(0, option_values.MAX_SIZE))
def test_every_plain_number_of_bytes_is_itself(number):
    assert option_values.size(str(number)) == number
    assert option_values.size(option_values.size_option(number)) == number


@given(st.text(max_size=12))
def test_a_value_parses_or_raises_value_error_and_nothing_else(text):
    parsers = [option.parse for option in OPTIONS if not option.separator]
    lists = [option.parse for option in OPTIONS if option.separator == ","]
    for parser, value in [*((p, text) for p in parsers), *((p, [text]) for p in lists)]:
        try:
            parser(value)
        except ValueError as problem:
            assert "\n" not in str(problem)


WRONG = [
    ("port", ["-1", "65536", "http", "", "8o8o", "\u0663", "1" * 5000]),
    ("host", ["", "example.org", "1.2.3", "127.0.0.1:80"]),
    ("listen", ["", "8080", "nosuch:1", "tcp", "tcp:x", "tcp:70000", "ssl:70000", "haproxy:tcp:x", "haproxy:"]),
    ("tls-cert", ["", "a\0b"]),
    ("tls-key", ["", "a\0b"]),
    ("upload-dir", ["", "a\0b"]),
    ("catalog", ["", "mysql://h/d", "postgresql:", "h/d"]),
    ("run-dir", ["", "a\0b"]),
    ("workers", ["0", "-1", "many", "1.5"]),
    ("file-mode", ["", "400", "700", "66", "rw", "0o600", "1600"]),
    ("dir-mode", ["", "600", "99", "rwx", "0"]),
    ("base-path", ["", "/a//b/", "/../x/", "/a b/", "/a?b/", "/\u00e9/", "/a%20/"]),
    ("public-url", ["example.org", "ftp://example.org/", "https://", "https://a/?q", "http://a:99999/", "http://a b/"]),
    ("behind-proxy", ["localhost", "10.0.0.1/8", "300.1.1.1", "10.0.0.0/33"]),
    ("max-size", ["-1", "5X", "1e9", "9999999P", "M", ""]),
    ("expire-after", ["-1", "soon", "7 days", "inf", "nan", "1" * 400]),
    ("keep-partials", ["-1", "x"]),
    ("final-timeout", ["0", "-1", "x"]),
    ("remember", ["-1", "x"]),
    ("network-timeout", ["0", "-5", "0s", "x"]),
    ("min-rate", ["-1", "fast"]),
    ("shutdown-timeout", ["-1", "x"]),
    ("reserve", ["-1", "10%"]),
    ("cors-origin", ["", "example.org", "https://a/path", "*,https://a", "none,https://a", "https://*"]),
    ("writers", ["0", "65", "many", "2.5"]),
    ("direct-from", ["-1", "many"]),
    ("part-size", ["0", "1M", "4.9M", "6G", "big"]),
    ("overwrite", ["", "yes", "refuse,replace"]),
    ("ack", ["", "both"]),
    ("scratch-size", ["0", "1M", "2T", "much"]),
    ("ack-timeout", ["0", "-1", "x"]),
    ("local", ["", "delete"]),
    ("reclaim-after", ["-1", "soon"]),
    ("max-lag", ["-1", "10%"]),
    ("max-lag-age", ["-1", "x"]),
    ("terminate-remote", ["", "yes"]),
    ("remote-attempts", ["-1", "1000001", "many"]),
    ("give-up-after", ["-1", "x"]),
    ("retry-delay", ["0", "x"]),
    ("retry-delay-max", ["0", "x"]),
    ("parts-per-upload", ["0", "65"]),
    ("parts-per-remote", ["0", "257"]),
    ("parts", ["0", "1025"]),
    ("remote-timeout", ["0", "x"]),
    ("sweep", ["", "yes"]),
    ("digest", ["", "sha1", "sha-256", "md5"]),
    ("download-from-remote", ["", "yes", "direct"]),
    ("download-url-expires", ["", "0", "500ms", "8d", "never", "-1"]),
    ("status-path", ["", "a/b", "..", ".", "a b", "\u00e9"]),
]


@pytest.mark.parametrize(("flag", "text"), [(flag, text) for flag, texts in WRONG for text in texts])
def test_a_wrong_value_is_refused_in_one_line_that_names_flag_value_and_what_is_expected(flag, text):
    message = refusal(f"--{flag}", text)
    assert message.startswith(f"--{flag} ")
    assert ": expected " in message
    assert len(message) < 400


@pytest.mark.parametrize(("flag", "text"), [(flag, text) for flag, texts in WRONG for text in texts if text.strip()])
def test_a_wrong_variable_is_refused_under_its_own_name(flag, text):
    variable = "RESUMABLE_" + flag.upper().replace("-", "_")
    assert refusal(**{variable: text}).startswith(f"{variable} ")


def test_every_option_has_wrong_values_above():
    assert {flag for flag, _ in WRONG} | SWITCHES | {"remote", "spool"} == {option.flag for option in MAIN}

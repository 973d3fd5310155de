"""What operators set becomes what is built: each option, what contradicts itself, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resumable.auth.build import AccessSettings, TokenSettings
from resumable.auth.forward import ForwardRules
from resumable.auth.rates import Rate
from resumable.config.access import ACCESS
from resumable.model.usage import Quota
from tests.parsing import parse, refusal

FILE = Path("/etc/up/file")
URL = "https://login.example.org/x?y=1"
JWKS = ("--auth-jwks", URL)
FORWARD = ("--auth-forward", URL)


def jwt(**given: Any) -> AccessSettings:
    return AccessSettings(jwt=TokenSettings(jwks_url=URL, **given))


def forward(**given: Any) -> ForwardRules:
    return ForwardRules(**{"url": URL, **given})


def each(**given: Any) -> AccessSettings:
    return AccessSettings(quotas=(Quota(**given), Quota()))


def overall(**given: Any) -> AccessSettings:
    return AccessSettings(quotas=(Quota(), Quota(**given)))


# Flag and value, what else must be set, and what becomes of them.
EXAMPLES: list[tuple[str, str, tuple[str, ...], AccessSettings]] = [
    ("auth-htpasswd", str(FILE), (), AccessSettings(htpasswd=FILE)),
    ("auth-tokens", str(FILE), (), AccessSettings(tokens=FILE)),
    ("auth-signed-keys", str(FILE), (), AccessSettings(signed_keys=FILE)),
    ("auth-jwks", URL, (), jwt()),
    ("auth-jwt-key", str(FILE), (), AccessSettings(jwt=TokenSettings(public_key=FILE))),
    ("auth-jwt-issuer", "https://login", JWKS, jwt(issuer="https://login")),
    ("auth-jwt-audience", "up", JWKS, jwt(audiences=("up",))),
    ("auth-jwt-scope", "up:write", JWKS, jwt(scopes=("up:write",))),
    ("auth-jwt-admin-scope", "up:admin", JWKS, jwt(admin_scope="up:admin")),
    ("auth-jwt-algorithm", "RS256,ES256", JWKS, jwt(algorithms=("RS256", "ES256"))),
    ("auth-jwt-leeway", "1m", JWKS, jwt(leeway=60.0)),
    ("auth-jwt-name-claim", "user", JWKS, jwt(name_claim="user")),
    ("auth-jwt-size-claim", "most", JWKS, jwt(size_claim="most")),
    ("auth-forward", URL, (), AccessSettings(forward=forward())),
    ("auth-forward-header", "X-A,Cookie", FORWARD, AccessSettings(forward=forward(headers=("x-a", "cookie")))),
    ("auth-forward-name", "X-User", FORWARD, AccessSettings(forward=forward(name_header="x-user"))),
    ("auth-forward-name", "none", FORWARD, AccessSettings(forward=forward(name_header=None))),
    ("auth-forward-timeout", "2s", FORWARD, AccessSettings(forward=forward(), forward_timeout=2.0)),
    ("auth-forward-cache", "0", FORWARD, AccessSettings(forward=forward(), forward_remembered=0.0)),
    ("admin", "root", FORWARD, AccessSettings(forward=forward(), admins=frozenset({"root"}))),
    ("max-stored-per-user", "1G", (), each(size=1 << 30)),
    ("max-stored", "1T", (), overall(size=1 << 40)),
    ("max-unfinished-size-per-user", "1G", (), each(unfinished_size=1 << 30)),
    ("max-unfinished-size", "2G", (), overall(unfinished_size=2 << 30)),
    ("max-unfinished-per-user", "10", (), each(unfinished=10)),
    ("max-unfinished", "1000", (), overall(unfinished=1000)),
    ("max-requests-per-user", "10", (), AccessSettings(request_rates=(Rate(10), Rate()))),
    ("max-requests", "100", (), AccessSettings(request_rates=(Rate(), Rate(100)))),
    ("max-rate-per-user", "1M", (), AccessSettings(byte_rates=(Rate(1 << 20), Rate()))),
    ("max-rate", "1G", (), AccessSettings(byte_rates=(Rate(), Rate(1 << 30)))),
]
ELSEWHERE = {
    "auth-jwt-secret",
    "auth-jwt-secret-file",
    "auth-tls",
    "auth-tls-name",
    "tls-client-ca",
    "tls-client-optional",
}


def test_every_option_has_an_example():
    assert {flag for flag, *_ in EXAMPLES} | ELSEWHERE == {option.flag for option in ACCESS}


@pytest.mark.parametrize(("flag", "text", "others", "access"), EXAMPLES)
def test_a_flag_or_a_variable_sets_what_is_built(flag, text, others, access):
    assert parse(*others, f"--{flag}", text).access == access
    assert parse(*others, **{f"RESUMABLE_{flag.upper().replace('-', '_')}": text}).access == access


@pytest.mark.parametrize("option", ACCESS, ids=lambda option: option.flag)
def test_an_empty_flag_is_a_mistake_and_never_an_open_door(option):
    if option.metavar and option.separator != ",":
        assert f"--{option.flag}" in refusal(f"--{option.flag}", "")


def test_repeated_flags_and_lines_in_a_variable():
    assert parse(*FORWARD, "--admin", "ann, bo", "--admin", "eve").access.admins == {"ann, bo", "eve"}
    assert parse(*FORWARD, RESUMABLE_ADMIN="ann, bo\neve\n").access.admins == {"ann, bo", "eve"}
    found = parse(*JWKS, "--auth-jwt-audience", "a", "--auth-jwt-audience", "b").access.jwt
    assert found is not None and found.audiences == ("a", "b")


def test_a_secret_is_given_or_in_a_file_and_shown_by_nothing(tmp_path):
    file = tmp_path / "secret"
    file.write_text("s3cret" * 10 + "\n")
    for settings in (
        parse("--auth-jwt-secret-file", str(file)),
        parse(RESUMABLE_AUTH_JWT_SECRET="s3cret" * 10),
    ):
        assert settings.access.jwt is not None and settings.access.jwt.secret is not None
        assert settings.access.jwt.secret.reveal() == b"s3cret" * 10
        assert "s3cret" not in repr(settings)
    both = refusal("--auth-jwt-secret-file", str(file), "--auth-jwt-secret", "x")
    assert "one of the two" in both
    assert "can't be read" in refusal("--auth-jwt-secret-file", str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("flags", "needed"),
    [
        (("--auth-jwt-issuer", "me"), "--auth-jwks"),
        (("--auth-jwt-scope", "up"), "--auth-jwks"),
        (("--auth-tls", "cn"), "--tls-client-ca"),
        (("--auth-tls-name", "ann"), "--auth-tls"),
        (("--tls-client-optional",), "--tls-client-ca"),
        (("--tls-client-ca", str(FILE)), "--listen ssl:"),
        (("--admin", "root"), "--auth-htpasswd"),
    ],
)
def test_what_would_be_set_in_vain_is_refused(flags, needed):
    assert needed in refusal(*flags)


@pytest.mark.parametrize(
    ("flag", "texts"),
    [
        ("auth-jwks", ["login.example.org", "ftp://a/", "https://", "http://a b/", "http://a:99999/", "http://a/#x"]),
        ("auth-forward", ["/auth", "http://\u00e9/"]),
        ("auth-forward-header", ["a b", "x:"]),
        ("auth-forward-name", ["a b"]),
        ("auth-forward-timeout", ["0"]),
        ("auth-tls", ["name"]),
        ("auth-htpasswd", ["a\0b"]),
        ("max-stored", ["-1", "10%"]),
        ("max-unfinished", ["-1", "x"]),
        ("max-requests", ["-1", "1.5"]),
        ("max-rate-per-user", ["fast"]),
        ("auth-jwt-name-claim", ["a b"]),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(flag, texts):
    for text in texts:
        assert refusal(f"--{flag}", text).startswith(f"--{flag} ")

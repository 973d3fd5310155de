"""What a start tells people: every fact, in words, and no secret."""

from __future__ import annotations

import io

import pytest

from resumable.daemon import announcement
from resumable.daemon.announcement import Started, block, open_to_all, own_address, rows, who_may
from resumable.daemon.terminal import PATIENCE, HeldOutput
from resumable.listening.listeners import OpenPort
from tests.parsing import parse

LOCAL = OpenPort("127.0.0.1:8080")
ALL = OpenPort("0.0.0.0:8080")


def started(*flags, ports=(LOCAL,), admin=(), **environ):
    return Started(parse("--upload-dir", "/u", *flags, **environ), ports, admin)


def told(start, address=lambda everywhere: None):
    found: dict[str, list[str]] = {}
    key = ""
    for label, text in rows(start, address):
        key = label or key
        found.setdefault(key, []).append(text)
    return found


@pytest.mark.parametrize(
    ("port", "url"),
    [
        (LOCAL, "http://127.0.0.1:8080/files/"),
        (OpenPort("[::1]:80"), "http://[::1]:80/files/"),
        (OpenPort("127.0.0.1:443", tls=True), "https://127.0.0.1:443/files/"),
        (OpenPort("127.0.0.1:1", proxied=True), "http://127.0.0.1:1/files/ (with the PROXY protocol)"),
        (OpenPort("unix:/run/http.sock"), "unix:/run/http.sock"),
    ],
)
def test_the_url_has_the_port_and_the_host_that_are_bound(port, url):
    assert told(started(ports=[port]))["uploads"] == [url]


def test_a_port_of_every_interface_is_told_with_addresses_that_work():
    ask = {"0.0.0.0": "192.0.2.7", "::": "2001:db8::7"}.get
    assert told(started(ports=[ALL]), ask)["uploads"] == [
        "http://127.0.0.1:8080/files/",
        "http://192.0.2.7:8080/files/",
    ]
    urls = told(started(ports=[OpenPort("[::]:8080")]), ask)["uploads"]
    assert urls == ["http://[::1]:8080/files/", "http://[2001:db8::7]:8080/files/"]
    assert told(started(ports=[ALL]))["uploads"] == ["http://127.0.0.1:8080/files/"]


def test_the_public_url_comes_first_and_is_what_is_sent_to():
    found = told(started("--public-url", "https://up.example.org/files/"))
    assert found["uploads"] == ["https://up.example.org/files/", "http://127.0.0.1:8080/files/"]
    assert found["send"] == ["resumable put FILE https://up.example.org/files/"]


def test_own_addresses_are_asked_of_the_kernel_only():
    for everywhere in ("0.0.0.0", "::"):
        found = own_address(everywhere)
        assert found is None or (":" in found) is (":" in everywhere)


def test_where_uploads_go_is_told_without_secrets():
    flags = ["--remote", "s3://b/p?region=x", "--remote", "memory://far?name=far&required=no"]
    found = told(started(*flags))
    assert found["directory"] == ["/u"]
    assert found["remotes"] == ["s3://b/p", "far (best effort)"]
    catalog = ("--catalog", "postgresql://ann:hunter2@db/x")
    shared = rows(started(*catalog, "--auth-jwt-secret", "hunter2" * 8, "--guard", "https://h/hunter2"), lambda _: None)
    assert "hunter2" not in str(shared) and ("catalog", "postgresql://...@db/x") in shared
    spooled = Started(parse("--spool", "s3://b/p", *catalog), [LOCAL], [])
    assert told(spooled)["spool"] == ["s3://b/p"] and "directory" not in told(spooled)


def test_operators_are_told_where_they_are_answered():
    admin = [OpenPort("unix:/u/admin.sock"), OpenPort("0.0.0.0:9090")]
    found = told(started(admin=admin))["operators"]
    assert found == ["unix:/u/admin.sock (resumable ls, metrics)", "http://127.0.0.1:9090/metrics"]
    assert told(started())["operators"] == ["not answered (--admin-listen none)"]
    tokens = ("--admin-on-public", "--auth-tokens", "/t")
    assert told(started(*tokens))["operators"] == ["http://127.0.0.1:8080/admin/ for admins"]


@pytest.mark.parametrize(
    ("flags", "who"),
    [
        ([], "anybody on this machine"),
        (["--auth-tokens", "/t"], "who has a token"),
        (["--auth-jwks", "https://i/keys"], "who has a JWT"),
        (["--auth-tokens", "/t", "--auth-htpasswd", "/h"], "who has a token or a password"),
        (["--auth-forward", "https://h/secret"], "whom https://h/... lets in"),
        (["--guard", "https://h/"], "anybody on this machine, if the guard agrees,"),
        (["--guard", "a=https://h/", "--guard", "b=https://i/"], "anybody on this machine, if the guards a, b agree,"),
        (["--auth-tokens", "/t", "--guard", "scan=exec:x"], "who has a token, if the guard scan agrees,"),
    ],
)
def test_who_may_upload_is_told_in_words(flags, who):
    assert who_may(started(*flags)) == who


def test_a_certificate_that_everybody_must_have_is_a_rule():
    flags = ("--tls-cert", "/c.pem", "--tls-client-ca", "/ca.pem")
    port = OpenPort("0.0.0.0:443", tls=True)
    assert who_may(started(*flags, ports=[port])) == "who has a client certificate"
    assert open_to_all(parse(*flags), [port]) is None
    assert open_to_all(parse(*flags), [port, ALL]) is not None
    assert open_to_all(parse(*flags, "--tls-client-optional"), [port]) is not None


@pytest.mark.parametrize(
    ("ports", "flags", "warns"),
    [
        ([ALL], [], True),
        ([OpenPort("[::]:80")], [], True),
        ([OpenPort("192.0.2.7:80"), LOCAL], [], True),
        ([LOCAL], [], False),
        ([OpenPort("[::1]:80"), OpenPort("unix:/s")], [], False),
        ([ALL], ["--auth-tokens", "/t"], False),
        ([ALL], ["--guard", "https://h/"], False),
        ([ALL], ["--hook", "https://h/"], True),
    ],
)
def test_a_port_that_others_reach_without_any_rule_is_warned_of(ports, flags, warns):
    warning = open_to_all(parse(*flags), ports)
    assert (warning is not None) is warns
    if warning is not None:
        assert ports[0].place in warning and "--host 127.0.0.1" in warning and "docs/access.md" in warning
        assert "127.0.0.1:8080" not in warning and "\n" not in warning


def test_the_block_is_aligned_and_says_a_label_once():
    text = block([("uploads", "http://a/"), ("", "http://b/"), ("log", "x")])
    assert text.splitlines()[1:] == ["", "  uploads  http://a/", "           http://b/", "  log      x", ""]
    assert text.startswith(f"resumable {announcement.__version__}\n")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_log_waits_for_the_announcement_and_loses_nothing():
    out = io.StringIO()
    held = HeldOutput(out, Clock())
    held.write("log 1\n")
    held.flush()
    assert out.getvalue() == ""
    held.first("block\n")
    held.write("log 2\n")
    assert out.getvalue() == "block\nlog 1\nlog 2\n"


def test_a_long_start_shows_its_log_meanwhile():
    out, clock = io.StringIO(), Clock()
    held = HeldOutput(out, clock)
    held.write("log 1\n")
    clock.now = PATIENCE + 0.1
    held.write("log 2\n")
    assert out.getvalue() == "log 1\nlog 2\n"
    held.first("block\n")
    assert out.getvalue().endswith("block\n")


def test_a_start_that_fails_shows_its_log():
    out = io.StringIO()
    held = HeldOutput(out, Clock())
    held.write("why\n")
    held.release()
    assert out.getvalue() == "why\n"

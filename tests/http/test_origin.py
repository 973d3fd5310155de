"""The address in a Location: from Host, from trusted proxies, and from nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress

from resumable.model.upload import Upload
from tests.http.visitor import UPLOAD, Nothing, Reply, ask, connect

PROXY = IPv4Address("TCP", "10.0.0.1", 40000)
STRANGER = IPv4Address("TCP", "203.0.113.9", 40000)
TRUSTED = ("10.0.0.0/30", "2001:db8:1::/64")
DIRECT = "http://inner.example:8080"


def seen(*fields: str, peer: IAddress = PROXY, trusted: Sequence[str] = TRUSTED, **more: str) -> str:
    """Scheme and host of the Location."""
    reply = ask("Host: inner.example:8080", *fields, peer=peer, trusted=trusted, **more)
    assert reply.status == 201, reply.body
    location = reply.get("Location")
    assert location is not None and location.endswith(f"/files/{UPLOAD.id}")
    return location.removesuffix(f"/files/{UPLOAD.id}")


X = ("X-Forwarded-Proto: https", "X-Forwarded-Host: up.example")
STANDARD = 'Forwarded: for=192.0.2.7;proto=https;host="up.example:8443"'


def test_without_proxies_host_is_believed_and_nothing_else() -> None:
    assert seen(*X, STANDARD, trusted=()) == DIRECT


@pytest.mark.parametrize("fields", [X, (STANDARD,)])
def test_an_untrusted_peer_forwards_nothing(fields: tuple[str, ...]) -> None:
    assert seen(*fields, peer=STRANGER) == DIRECT
    assert seen(*fields, peer=IPv4Address("TCP", "10.0.0.4", 1)) == DIRECT


def test_a_trusted_peer_is_believed_in_either_way_of_saying_it() -> None:
    assert seen(*X) == "https://up.example"
    assert seen(STANDARD) == "https://up.example:8443"
    assert seen("X-Forwarded-Proto: HTTPS") == "https://inner.example:8080"
    assert seen("X-Forwarded-Host: up.example") == "http://up.example"


@pytest.mark.parametrize(
    ("address", "believed"),
    [
        ("2001:db8:1::7", True),
        ("2001:db8:2::7", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:203.0.113.9", False),
        ("2001:db8:1::7%eth0", True),
    ],
)
def test_ipv6_peers(address: str, believed: bool) -> None:
    assert (seen(*X, peer=IPv6Address("TCP", address, 1)) == "https://up.example") is believed


def test_a_unix_socket_is_the_proxy_as_soon_as_there_is_one() -> None:
    peer = UNIXAddress(None)
    assert seen(*X, peer=peer) == "https://up.example"
    assert seen(*X, peer=peer, trusted=()) == DIRECT


def test_a_client_cannot_put_an_element_before_the_proxys_own() -> None:
    assert seen("X-Forwarded-Host: evil.example, up.example", "X-Forwarded-Proto: http,https") == "https://up.example"
    assert seen("X-Forwarded-Host: evil.example", *X) == "https://up.example"
    forged = "Forwarded: for=192.0.2.7;proto=http;host=evil.example"
    assert seen(f"{forged}, for=192.0.2.8;proto=https;host=up.example") == "https://up.example"
    assert seen(forged, STANDARD) == "https://up.example:8443"
    assert seen(f"{forged}, for=192.0.2.8;proto=https") == "https://inner.example:8080"


@pytest.mark.parametrize("node", ["10.0.0.2", '"10.0.0.2:4711"', '"[2001:db8:1::2]"', '"[2001:db8:1::2]:_port"'])
def test_a_chain_of_trusted_proxies_is_followed_to_the_outermost(node: str) -> None:
    evil = "for=1.2.3.4;host=evil.example"
    outer, inner = "for=192.0.2.7;proto=https;host=up.example", f"for={node};proto=http;host=middle.example"
    assert seen(f"Forwarded: {evil}, {outer}, {inner}") == "https://up.example"
    assert seen(f"Forwarded: {evil}, {outer}", f"Forwarded: {inner}") == "https://up.example"
    assert seen(f"Forwarded: {evil}, for=192.0.2.7;proto=https, {inner}") == "https://middle.example"


@pytest.mark.parametrize("node", ["unknown", "_hidden", '"[2001:db8:2::2]"', "10.0.0.200", "unix", '"10.0.0.2, x"', ""])
def test_the_chain_ends_at_whom_nobody_trusts(node: str) -> None:
    assert seen(f"Forwarded: host=evil.example, for={node};host=up.example") == "http://up.example"


def test_two_ways_that_contradict_each_other_cancel_out() -> None:
    """One of them is what the proxy passed on from a client."""
    assert seen("Forwarded: host=evil.example;proto=http", *X) == DIRECT
    assert seen("Forwarded: host=up.example;proto=https", "X-Forwarded-Host: evil.example") == (
        "https://inner.example:8080"
    )
    assert seen("Forwarded: host=UP.example;proto=https", *X) == "https://up.example"


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-Host: up.example/evil",
        "X-Forwarded-Host: user@up.example",
        "X-Forwarded-Host: up example",
        "X-Forwarded-Host: üp.example",
        "X-Forwarded-Host: up.example:",
        "X-Forwarded-Host: up.example:123456",
        "X-Forwarded-Host: up.example,",
        "X-Forwarded-Host:",
        "X-Forwarded-Proto: javascript",
        "X-Forwarded-Proto: https:",
        'Forwarded: host=up.example, for="',
        'Forwarded: host="up.example',
        "Forwarded: host = up.example",
        "Forwarded: host=up.example;host=evil.example",
        "Forwarded: host=evil.example;Host=up.example",
        "Forwarded: up.example",
        "Forwarded: proto=gopher;host=up.example/",
        r'Forwarded: host="up.example\"',
        "Forwarded: ,;,",
        "Forwarded:",
        "Forwarded: " + "a" * 4000,
        "Forwarded: " + ",;" * 2000,
        "Forwarded: host=" + '"' * 3001,
    ],
)
def test_what_is_malformed_is_ignored(field: str) -> None:
    assert seen(field) == DIRECT


def test_a_malformed_line_hides_the_ones_before_it() -> None:
    assert seen("Forwarded: host=evil.example", "Forwarded: for=10.0.0.2, host=", 'Forwarded: x="') == DIRECT


@pytest.mark.parametrize(
    "field",
    [
        "Forwarded: HOST=up.example;Proto=HTTPS",
        r'Forwarded: host="up\.example" ; proto="https"',
        "Forwarded: , ;host=up.example;;proto=https;by=_me;ext=1 ,",
        'Forwarded: for="a, host=evil.example";host=up.example;proto=https',
    ],
)
def test_forwarded_is_read_as_its_grammar_says(field: str) -> None:
    assert seen(field) == "https://up.example"


def test_an_ipv6_host_keeps_its_brackets() -> None:
    assert seen('Forwarded: host="[2001:db8::1]:8443";proto=https') == "https://[2001:db8::1]:8443"
    assert seen("X-Forwarded-Host: [2001:db8::1]") == "http://[2001:db8::1]"


def test_the_public_url_wins_over_everything() -> None:
    assert seen(*X, STANDARD, public_url="https://public.example/files/") == "https://public.example"


@pytest.mark.parametrize("host", ["a b", "user@host", "host/path", "host:port", "[::1", "", "a,b", "hö.example"])
def test_a_malformed_host_is_refused(host: str) -> None:
    assert ask(f"Host: {host}").status == 400


def test_two_hosts_are_refused() -> None:
    assert ask("Host: a.example", "Host: b.example").status == 400


def test_a_client_of_http_1_0_that_names_no_host_gets_a_path() -> None:
    assert ask(version="1.0").get("Location") == f"/files/{UPLOAD.id}"


def test_a_location_can_be_a_path_which_no_header_can_change() -> None:
    reply = ask("Host: inner.example:8080", *X, peer=PROXY, trusted=TRUSTED, absolute=False)
    assert reply.get("Location") == f"/files/{UPLOAD.id}"


def test_a_prefix_that_a_trusted_proxy_took_off_is_put_before_the_path() -> None:
    """Traefik's StripPrefix, for one."""
    assert seen("X-Forwarded-Prefix: /up", *X) == "https://up.example/up"
    assert seen("X-Forwarded-Prefix: /up/", "X-Forwarded-Host: up.example") == "http://up.example/up"
    assert seen("X-Forwarded-Prefix: /evil, /a/b-_.~9") == DIRECT + "/a/b-_.~9"
    assert seen("X-Forwarded-Prefix: /evil", "X-Forwarded-Prefix: /up") == DIRECT + "/up"
    assert seen("X-Forwarded-Prefix: /", "X-Forwarded-Proto: https") == "https://inner.example:8080"
    reply = ask("Host: a", "X-Forwarded-Prefix: /up", peer=PROXY, trusted=TRUSTED, absolute=False)
    assert reply.get("Location") == f"/up/files/{UPLOAD.id}"
    assert ask("X-Forwarded-Prefix: /up", version="1.0", peer=PROXY, trusted=TRUSTED).get("Location") == (
        f"/up/files/{UPLOAD.id}"
    )


PREFIX = ("X-Forwarded-Prefix: /up", "X-Forwarded-Port: 8443")


class Concatenated(Nothing):
    """Uploads that can be put together."""

    def __init__(self) -> None:
        self.partials: list[str] = []

    def concatenate(self, creation: Any, partials: list[str], by: Any, visit: Any) -> Deferred[Upload]:
        self.partials = partials
        return succeed(UPLOAD)


@pytest.mark.parametrize("public", [None, "https://example.org/up/files/"])
def test_partials_are_known_by_the_path_that_clients_were_told(public: str | None) -> None:
    ids = [f"{number:032x}" for number in range(4)]
    urls = (f"/files/{ids[0]}", f"/up/files/{ids[1]}", f"https://up.example:8/up/files/{ids[2]}?token=x", ids[3])
    for prefix, status in (("X-Forwarded-Prefix: /up", 201), ("X: y", 201 if public else 400)):
        uploads = Concatenated()
        concat = f"Upload-Concat: final;{' '.join(urls)}"
        fields = ("Host: a", prefix, "Tus-Resumable: 1.0.0", concat, "Content-Length: 0")
        channel, wire = connect(uploads, peer=PROXY, trusted=TRUSTED, public_url=public)
        channel.dataReceived("\r\n".join(["POST /files/ HTTP/1.1", *fields, "", ""]).encode())
        assert Reply(wire.value()).status == status
        assert uploads.partials == (ids if status == 201 else [])


def test_a_prefix_and_a_port_of_strangers_are_ignored() -> None:
    assert seen(*PREFIX, peer=STRANGER) == seen(*PREFIX, trusted=()) == DIRECT
    public = "https://public.example/files/"
    assert seen(*PREFIX, public_url=public) == "https://public.example"
    path = ask("Host: a", *PREFIX, peer=PROXY, trusted=TRUSTED, absolute=False, public_url=public).get("Location")
    assert path == f"/files/{UPLOAD.id}"


@pytest.mark.parametrize(
    "prefix",
    ["up", "//up", "/up//x", "/..", "/../x", "/a/./b", "/a/..", "/a b", "/a?b", "/a#b", "/%2e%2e", "/a;b",
     "/\\evil.example", "http://evil.example/x", "/ü", "/" + "x" * 2000, "/a\tb", ""],
)  # fmt: skip
def test_a_prefix_that_is_no_plain_path_is_ignored(prefix: str) -> None:
    assert seen(f"X-Forwarded-Prefix: {prefix}") == DIRECT


@pytest.mark.parametrize(
    ("host", "fields", "outside"),
    [
        ("up.example", ("X-Forwarded-Port: 8443", "X-Forwarded-Proto: https"), "https://up.example:8443"),
        ("up.example", ("X-Forwarded-Port: 443", "X-Forwarded-Proto: https"), "https://up.example"),
        ("up.example", ("X-Forwarded-Port: 80", "X-Forwarded-Proto: https"), "https://up.example"),
        ("up.example", ("X-Forwarded-Port: 80",), "http://up.example"),
        ("[2001:db8::1]", ("X-Forwarded-Port: 8080",), "http://[2001:db8::1]:8080"),
        ("up.example:9000", ("X-Forwarded-Port: 8080",), "http://up.example:9000"),
        ("inner", ("X-Forwarded-Port: 8080", "X-Forwarded-Host: up.example"), "http://up.example:8080"),
        ("inner", ("X-Forwarded-Port: 8080", "X-Forwarded-Host: up.example:9"), "http://up.example:9"),
        ("inner", ("X-Forwarded-Port: 8080", "Forwarded: host=up.example"), "http://up.example"),
        ("up.example", ("X-Forwarded-Port: 1, 8080",), "http://up.example:8080"),
        *(
            ("up.example", (f"X-Forwarded-Port: {port}",), "http://up.example")
            for port in ("", "x", "-1", "9" * 9, "8 0")
        ),
    ],
)
def test_a_port_counts_where_the_host_names_none(host: str, fields: tuple[str, ...], outside: str) -> None:
    reply = ask(f"Host: {host}", *fields, peer=PROXY, trusted=TRUSTED)
    assert reply.get("Location") == f"{outside}/files/{UPLOAD.id}"


@pytest.mark.parametrize(
    ("public", "path"),
    [
        ("https://example.org/uploads/", "/uploads/"),
        ("https://example.org/", "/"),
        ("https://example.org//evil.example/", "/evil.example/"),
    ],
)
def test_the_path_is_that_of_the_public_url(public: str, path: str) -> None:
    """Never one that begins with two slashes: its first segment would be a host."""
    assert ask("Host: a", public_url=public, absolute=False).get("Location") == path + UPLOAD.id

"""`--host`: the address that `--port` listens on."""

from __future__ import annotations

import errno

import pytest

from resumable.listening.endpoints import why_not_bound
from tests.parsing import parse, refusal


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("127.0.0.1", "tcp:8080:interface=127.0.0.1"),
        ("localhost", "tcp:8080:interface=127.0.0.1"),
        ("0.0.0.0", "tcp:8080:interface=0.0.0.0"),
        ("::1", r"tcp6:8080:interface=\:\:1"),
        ("[::1]", r"tcp6:8080:interface=\:\:1"),
        ("::", r"tcp6:8080:interface=\:\:"),
        ("0:0:0:0:0:0:0:1", r"tcp6:8080:interface=\:\:1"),
        ("fe80::1%eth0", r"tcp6:8080:interface=fe80\:\:1%eth0"),
    ],
)
def test_a_host_is_an_address_of_ipv4_or_ipv6(host, endpoint):
    assert parse("--host", host).listen == (endpoint,)
    assert parse(RESUMABLE_HOST=host).listen == (endpoint,)


def test_a_host_goes_with_port_tls_and_further_endpoints():
    assert parse("--host", "::1", "--port", "0").listen == (r"tcp6:0:interface=\:\:1",)
    files = r"privateKey=/k.pem:certKey=/k.pem"
    assert parse("--host", "::1", "--tls-cert", "/k.pem").listen == (rf"ssl:8080:{files}:interface=\:\:1",)
    found = parse("--host", "127.0.0.1", "--port", "1", "--listen", "tcp:2").listen
    assert found == ("tcp:1:interface=127.0.0.1", "tcp:2")


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1:8080", "tcp:1", "", "1.2.3"])
def test_a_host_that_is_no_address_is_refused(host):
    assert refusal("--host", host) == (
        f"--host {host!r}: expected an IP address like 127.0.0.1 or ::1; :: is every interface"
    )


def test_a_host_beside_listen_alone_contradicts_it():
    said = refusal("--host", "127.0.0.1", "--listen", "tcp:9000")
    assert said == "--host is for --port: give --port too, or name the address in --listen tcp:PORT:interface=ADDRESS"
    assert refusal("--listen", "tcp:9000", RESUMABLE_HOST="::1") == said


def test_an_address_that_the_machine_lacks_is_told_with_the_flag_to_change():
    said = why_not_bound("tcp:1:interface=192.0.2.1", OSError(errno.EADDRNOTAVAIL, "x"))
    assert "this machine has no such address; choose another with --host or --listen" in said

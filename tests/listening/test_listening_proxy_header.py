"""The header of the PROXY protocol, as its specification has it, and everything that is not quite it."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.listening.proxy_header import LONGEST, SIGNATURE, Header, Malformed, parse
from tests.listening.headers import V4, binary

V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 4124, 443)
)
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7") * 2 + struct.pack("!HH", 1, 2)
WORST = f"PROXY UNKNOWN {'ffff:' * 7}ffff {'ffff:' * 7}ffff 65535 65535\r\n".encode()

GOOD = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", "192.0.2.7", 56324),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4124 443\r\n", "2001:db8::7", 4124),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 4124 443\r\n", "192.0.2.7", 4124),
    (b"PROXY UNKNOWN\r\n", None, 0),
    (WORST, None, 0),
    (binary(0x11, V4), "192.0.2.7", 56324),
    (binary(0x12, V4), "192.0.2.7", 56324),
    (binary(0x21, V6), "2001:db8::7", 4124),
    (binary(0x21, MAPPED), "192.0.2.7", 1),
    (binary(0x11, V4, more=b"\x03\0\x04abcd" + b"\x04" + b"\0" * 900), "192.0.2.7", 56324),
    (binary(0x00, b""), None, 0),
    (binary(0x31, b"/run/client".ljust(108, b"\0") * 2), None, 0),
]


@pytest.mark.parametrize(("data", "source", "port"), GOOD)
def test_a_header_says_whose_the_connection_is(data: bytes, source: str | None, port: int) -> None:
    header = parse(data + b"GET / HTTP/1.1\r\n")
    assert header is not None and header.size == len(data) and not header.local
    assert (None if header.source is None else str(header.source), header.port) == (source, port)
    assert all(parse(data[:size]) is None for size in range(len(data)))


@pytest.mark.parametrize("data", [binary(0x00, b"", 0x20), binary(0x11, V4, 0x20), binary(0xFF, b"any", 0x20)])
def test_a_proxy_may_speak_for_itself(data: bytes) -> None:
    """Its health checks: LOCAL, whatever comes with it."""
    assert parse(data) == Header(len(data), local=True)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY\tTCP4",
        b"\r\n\r\n\0\r\nQUIX",
        b"\x16\x03\x01",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
        b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 \u0661 2\r\n".encode(),
        b"PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 localhost 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 10.0.0.1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n",
        b"PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY \xff\xfe\r\n",
        b"PROXY \r\n",
        b"PROXY UNKNOWN " + b"x" * 200,
        WORST[:-2] + b"x\r\n" + b"x" * 10,
        binary(0x11, V4, 0x11),
        binary(0x11, V4, 0x31),
        binary(0x11, V4, 0x22),
        binary(0x41, V4),
        binary(0x13, V4),
        binary(0x11, V4[:-1]),
        binary(0x21, V4),
        binary(0x11, b""),
        binary(0x11, V4, size=LONGEST),
        binary(0x11, V4, size=0xFFFF),
    ],
)
def test_what_is_not_quite_a_header_is_none(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]), st.binary(max_size=300))
def test_whatever_comes_it_ends_in_one_of_three_ways(beginning: bytes, rest: bytes) -> None:
    try:
        header = parse(beginning + rest)
    except Malformed:
        return
    assert header is None or 0 < header.size <= len(beginning + rest)

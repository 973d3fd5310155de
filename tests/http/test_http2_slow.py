"""Clients of HTTP/2 that begin something and don't go on with it."""

from __future__ import annotations

import pytest

from tests.http.http1_client import answer
from tests.http.http2_client import HEADERS, WINDOW_UPDATE, Client, frame, ok


def test_a_head_without_an_end_is_an_idle_connection() -> None:
    client = Client(ok, network_timeout=60)
    client.raw(HEADERS, b"\x82", flags=0, stream=1)
    client.advance(59)
    assert not client.wire.disconnecting
    client.advance(3)
    assert client.wire.disconnecting


def test_a_head_that_drips_is_an_idle_connection() -> None:
    client = Client(ok, network_timeout=60)
    client.channel.dataReceived(b"\x00\x40\x00\x01\x04\x00\x00\x00\x01")
    for _ in range(62):
        client.channel.dataReceived(b"\x82")
        client.advance(1)
    assert client.wire.disconnecting and client.tree.requests == []


@pytest.mark.parametrize("rest", [b"", b"\x82"])
def test_a_head_without_an_end_does_not_keep_a_silent_upload(rest: bytes) -> None:
    client = Client(network_timeout=60)
    client.patch(1000)
    _, ends = client.deliver()
    client.channel.dataReceived(frame(HEADERS, rest, 0, stream=3))
    client.advance(62)
    assert ends == ["idle"]
    answer(client.request, 408)
    client.advance(80)
    assert client.wire.disconnecting


def test_a_connection_without_a_preface_s_end_is_closed() -> None:
    client = Client(ok, network_timeout=60)
    client.channel.dataReceived(b"\x00\x00")
    client.advance(62)
    assert client.wire.disconnecting


def test_a_body_below_the_minimal_rate_is_given_up_and_its_neighbours_go_on() -> None:
    client = Client(network_timeout=60, min_rate=100)
    slow = client.patch(100_000)
    kept, slow_ends = client.deliver()
    good = client.patch(100_000)
    consumer, ends = client.deliver()
    for _ in range(65):
        if not slow_ends:
            client.data(slow, b"x" * 50)
        client.data(good, b"x" * 1000)
        client.advance(1)
    assert slow_ends == ["slow"] and len(kept.data) >= 60 * 50
    client.data(good, b"x" * 35_000, end=True)
    assert (len(consumer.data), ends, client.goaway) == (100_000, [""], None)


def test_window_updates_do_not_keep_an_idle_connection() -> None:
    client = Client(ok, network_timeout=60)
    client.send()
    for _ in range(62):
        client.channel.dataReceived(frame(WINDOW_UPDATE, b"\0\0\0\1", stream=0))
        client.advance(1)
    assert client.wire.disconnecting

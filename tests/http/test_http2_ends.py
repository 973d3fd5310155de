"""How requests and connections of HTTP/2 end: time-outs, a stop, floods and broken rules."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from twisted.internet.defer import ensureDeferred

from resumable.http.h2.frames import MAX_FRAME
from resumable.http.h2.limits import HeldBytes
from resumable.http.h2.machine import HEADER_TABLE
from tests.http.http1_client import Consumer, answer
from tests.http.http2_client import CONTINUATION, HEADERS, PING, PRIORITY, RST, SETTINGS, WINDOW_UPDATE, Client, ok

# Time


@pytest.mark.parametrize("drip", [b"", b"x"])
def test_a_body_that_stands_still_or_drips_is_given_up_and_kept_and_the_connection_goes_on(drip: bytes) -> None:
    client = Client(network_timeout=60, min_rate=100)
    stream = client.patch(100_000)
    consumer, ends = client.deliver()
    client.data(stream, b"x" * 10)
    for _ in range(125):
        client.advance(1)
        if drip and not ends:
            client.data(stream, drip)
    assert ends == (["slow"] if drip else ["idle"])
    assert len(consumer.data) >= 10
    answer(client.request, 408, b"slow")
    client.hear()
    assert (client.answers[stream].status, client.answers[stream].ended) == (408, True)
    client.send()
    assert len(client.tree.requests) == 2


def test_time_that_we_pause_counts_for_no_guard() -> None:
    client = Client(network_timeout=60)
    client.patch(100_000)
    consumer, ends = client.deliver()
    consumer.producer.pauseProducing()
    client.advance(1000)
    consumer.producer.resumeProducing()
    client.advance(59)
    assert ends == []
    client.advance(70)
    assert ends == ["idle"]


def test_time_in_which_the_connection_is_not_read_counts_for_no_guard() -> None:
    client = Client(network_timeout=60)
    client.site.held = HeldBytes(0)
    client.patch(100_000)
    _, ends = client.deliver()
    waiting = client.patch(1 << 20)
    client.data(waiting, b"x" * 70_000)
    assert client.wire.producerState == "paused"
    client.advance(1000)
    assert ends == []
    client.tree.requests[1].body.deliver(Consumer())
    assert client.wire.producerState == "producing"
    client.advance(59)
    assert ends == []


def test_a_handler_may_take_its_time() -> None:
    client = Client(network_timeout=60)
    stream = client.send()
    client.advance(1000)
    answer(client.request)
    client.hear()
    assert client.answers[stream].status == 204


@pytest.mark.parametrize("asked", [False, True])
def test_an_idle_connection_is_told_and_closed(asked: bool) -> None:
    client = Client(ok, network_timeout=60)
    if asked:
        client.advance(50)
        client.send()
    client.advance(59)
    assert not client.wire.disconnecting
    client.advance(2)
    assert client.goaway is not None and client.goaway.error_code == ErrorCodes.NO_ERROR
    assert client.wire.disconnecting
    client.advance(61)
    assert client.wire.disconnected


def test_pings_do_not_keep_an_idle_connection() -> None:
    client = Client(ok, network_timeout=60)
    for _ in range(62):
        client.raw(PING, b"12345678")
        client.advance(1)
    assert client.wire.disconnecting


# The end


def test_a_stop_lets_the_answers_out_and_refuses_new_requests() -> None:
    client = Client()
    stream = client.patch(3)
    consumer, ends = client.deliver()
    client.site.stop_idle()
    client.hear()
    assert client.goaway is not None and client.goaway.last_stream_id == stream
    assert not client.wire.disconnecting
    block = client.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
    client.channel.dataReceived(len(block).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x03" + block)
    assert client.wire.value()[3:13] == b"\x03\x00\x00\x00\x00\x03\x00\x00\x00\x07"
    client.channel.dataReceived(b"\x00\x00\x03\x00\x01" + stream.to_bytes(4, "big") + b"abc")
    assert (consumer.data, ends) == (b"abc", [""])
    assert len(client.tree.requests) == 1
    answer(client.request)
    assert client.wire.disconnecting


def test_a_stop_closes_idle_connections_at_once() -> None:
    client = Client(ok)
    client.send()
    client.site.stop_idle()
    assert client.wire.disconnecting


def test_a_stop_does_not_wait_for_idle_clients_that_do_not_say_goodbye() -> None:
    client = Client(ok)
    client.send()
    client.wire.loseConnection = lambda: None  # type: ignore[method-assign]
    client.site.stop_idle()
    client.advance(1)
    assert client.site.connections
    client.advance(2)
    assert client.wire.disconnected


def test_the_answer_of_a_cut_upload_is_not_eaten_by_the_close_of_a_stop() -> None:
    client = Client()
    client.patch(100)
    client.site.stop_idle()
    answer(client.request, 503, b"later")
    client.hear()
    assert not client.wire.disconnecting
    client.raw(0, b"x" * 50, stream=1)
    client.advance(3)
    assert client.answers[1].reset == ErrorCodes.NO_ERROR
    assert not client.wire.disconnecting
    client.advance(3)
    assert client.wire.disconnecting


def test_a_stop_waits_for_no_client_that_has_its_answer_already() -> None:
    client = Client(lambda request: answer(request, 409))
    stream = client.patch(100)
    client.site.stop_idle()
    client.hear()
    assert client.answers[stream].reset == ErrorCodes.NO_ERROR
    client.advance(3)
    assert client.wire.disconnecting


def test_after_the_goaway_of_a_client_its_streams_are_answered_and_the_connection_closes() -> None:
    client = Client()
    stream = client.patch(3)
    consumer, ends = client.deliver()
    client.raw(7, b"\0" * 8)
    client.raw(0, b"abc", flags=1, stream=stream)
    assert (consumer.data, ends) == (b"abc", [""])
    answer(client.request, 200, b"done")
    client.hear()
    assert client.answers[stream].body == b"done"
    assert client.wire.disconnecting


def test_closing_the_connections_aborts_what_is_left_after_the_grace() -> None:
    client = Client()
    client.patch(10)
    closed = ensureDeferred(client.site.close_connections(5))
    client.advance(6)
    assert client.wire.disconnected
    client.hang_up()
    assert closed.called
    assert client.clock.getDelayedCalls() == []


# Floods


def test_too_long_a_header_block_ends_the_connection() -> None:
    client = Client()
    client.raw(HEADERS, b"\0" * 16_384, stream=1)
    for _ in range(10):
        if not client.goaway:
            client.raw(CONTINUATION, b"\0" * 16_384, stream=1)
    assert client.goaway is not None and client.goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM


def test_too_many_empty_continuations_end_the_connection() -> None:
    """CVE-2024-27316."""
    client = Client()
    client.raw(HEADERS, b"", stream=1)
    for _ in range(70):
        if not client.goaway:
            client.raw(CONTINUATION, b"", stream=1)
    assert client.goaway is not None


def test_a_head_that_grows_when_it_is_unpacked_ends_the_connection() -> None:
    client = Client()
    block = client.h2.encoder.encode([("x" * 30, "y" * 4_000)])
    for _ in range(40):
        block += client.h2.encoder.encode([("x" * 30, "y" * 4_000)])
    assert len(block) < 8_192
    client.raw(HEADERS, block, flags=5, stream=1)
    assert client.goaway is not None and client.goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM


def test_a_client_with_a_huge_header_table_does_not_make_ours_huge() -> None:
    client = Client(ok)
    client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 1 << 30})
    client.exchange()
    (connection,) = client.site.connections
    assert connection.machine.encoder.header_table_size == HEADER_TABLE  # type: ignore[attr-defined]
    assert client.answers[client.send()].body == b"ok"


VIOLATIONS = [
    (0, b"x", 0, 0),  # DATA on no stream
    (0, b"x", 0, 2),  # on a stream of ours
    (0, b"x", 0, 99),  # on one that never was
    (0, b"\x05x", 8, 1),  # more padding than frame
    (0, b"", 8, 1),
    (PING, b"123", 0, 0),
    (PING, b"12345678", 0, 1),
    (SETTINGS, b"123", 0, 0),
    (SETTINGS, b"", 0, 1),
    (WINDOW_UPDATE, b"\0\0\0\0", 0, 0),
    (WINDOW_UPDATE, b"\x7f\xff\xff\xff", 0, 0),
    (RST, b"\0\0\0\0", 0, 99),
    (CONTINUATION, b"", 4, 1),
    (5, b"\0\0\0\2", 4, 1),  # PUSH_PROMISE
    (HEADERS, b"\xff\xff\xff", 5, 3),
    (HEADERS, b"", 5, 2),
    (PRIORITY, b"\0\0\0\1\1", 0, 1),
]


@pytest.mark.parametrize(("kind", "payload", "flags", "stream"), VIOLATIONS)
def test_what_breaks_the_rules_ends_the_connection_and_what_arrived_is_kept(
    kind: int, payload: bytes, flags: int, stream: int
) -> None:
    client = Client()
    client.patch(100)
    consumer, ends = client.deliver()
    client.data(1, b"abc")
    client.raw(kind, payload, flags=flags, stream=stream)
    if (kind, stream) != (RST, 99):
        assert client.goaway is not None and client.goaway.error_code != ErrorCodes.NO_ERROR
        assert (consumer.data, ends) == (b"abc", ["disconnected"])
    client.advance(3)
    client.hang_up()
    assert client.clock.getDelayedCalls() == []


def test_data_after_the_end_of_a_stream_ends_the_connection() -> None:
    client = Client()
    client.patch(3)
    client.data(1, b"abc", end=True)
    client.raw(0, b"x", stream=1)
    assert client.goaway is not None and client.goaway.error_code == ErrorCodes.STREAM_CLOSED


def test_too_large_a_frame_ends_the_connection() -> None:
    client = Client()
    client.patch(1 << 20)
    client.channel.dataReceived((MAX_FRAME + 1).to_bytes(3, "big") + b"\0\0\0\0\0\1")
    client.hear()
    assert client.goaway is not None and client.goaway.error_code == ErrorCodes.FRAME_SIZE_ERROR

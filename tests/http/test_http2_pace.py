"""What one client of HTTP/2 may ask for, and that its neighbours on the connection don't pay for it.

A proxy shares one connection among many clients: here "A" is one that breaks off its requests, or worse, and "B" one
whose upload has to get through on the same connection.
"""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from resumable.http.h2 import limits, link
from resumable.http.h2.limits import FRAMES_RATE, REQUESTS_RATE, ClientPace, TokenBudget
from resumable.http.h2.link import MAX_BACKLOG, MAX_STREAMS
from tests.http.http1_client import Consumer, Watcher, answer
from tests.http.http2_client import (
    CONTINUATION,
    HEADERS,
    PING,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW_UPDATE,
    Client,
    frame,
    ok,
)

FRAMES, REQUESTS = 1_000, 100
DATA, GOAWAY, ALTSVC, ORIGIN, UNKNOWN = 0, 7, 10, 12, 200


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules with a tenth of the figures, as there is an h2 on the other side."""
    monkeypatch.setattr(limits, "FRAMES", FRAMES)
    monkeypatch.setattr(limits, "REQUESTS", REQUESTS)


def uploading(client: Client) -> tuple[int, Consumer, list[str]]:
    """B has begun."""
    stream = client.patch(100_000)
    consumer, ends = client.deliver()
    return stream, consumer, ends


def gets_through(client: Client, stream: int, consumer: Consumer, ends: list[str]) -> None:
    """B's upload ends well, and so does one that it begins now."""
    for _ in range(200):
        if client.wire.producerState == "producing":
            break
        client.advance(1)
    client.data(stream, b"x" * 50_000)
    client.data(stream, b"x" * 50_000, end=True)
    assert (len(consumer.data), ends) == (100_000, [""])
    (request,) = [each for each in client.tree.requests if each.channel and each.channel.number == stream]  # type: ignore[union-attr]
    answer(request)
    client.hear()
    assert client.answers[stream].status == 204
    again = client.patch(3)
    client.advance(4)
    consumer, ends = client.deliver()
    client.data(again, b"abc", end=True)
    assert (consumer.data, ends, client.goaway) == (b"abc", [""], None)


# Aborted requests


def test_what_a_proxy_s_clients_break_off_ends_no_upload_of_its_others() -> None:
    client = Client()
    upload = uploading(client)
    for _ in range(3 * REQUESTS):
        client.h2.reset_stream(client.send())
        client.exchange()
    gets_through(client, *upload)


def test_uploads_that_are_broken_off_count_as_little() -> None:
    client = Client()
    upload = uploading(client)
    for _ in range(2 * REQUESTS):
        stream = client.patch(1_000)
        client.h2.send_data(stream, b"x" * 100)
        client.h2.reset_stream(stream)
        client.exchange()
    gets_through(client, *upload)


def test_rapid_resets_begin_no_more_requests_than_their_budget() -> None:
    """CVE-2023-44487: each would have cost a look-up, and hooks their work. Who asks again later waits for a turn."""
    client = Client()
    for _ in range(REQUESTS + 50):
        client.h2.reset_stream(client.send())
        client.exchange()
    assert len(client.tree.requests) == REQUESTS
    assert all(request.gone for request in client.tree.requests)
    begun = len(client.tree.requests)
    for _ in range(MAX_STREAMS):
        client.send()
    client.advance(1.25)
    assert 0 < len(client.tree.requests) - begun <= 2 * REQUESTS_RATE
    client.advance(5)
    assert len(client.tree.requests) - begun == MAX_STREAMS


def test_a_request_that_waits_for_its_turn_and_is_given_up_was_never_begun() -> None:
    client = Client()
    for _ in range(REQUESTS):
        client.h2.reset_stream(client.send())
        client.exchange()
    stream = client.patch(10)
    client.data(stream, b"abc")
    client.h2.reset_stream(stream)
    client.exchange()
    client.advance(5)
    assert len(client.tree.requests) == REQUESTS
    assert client.site.held.size == 0


def test_a_body_that_comes_before_its_request_s_turn_is_kept() -> None:
    client = Client()
    for _ in range(REQUESTS):
        client.h2.reset_stream(client.send())
        client.exchange()
    stream = client.patch(6)
    client.data(stream, b"abcdef", end=True)
    client.advance(2)
    consumer, ends = client.deliver()
    assert (consumer.data, ends) == (b"abcdef", [""])


def test_a_request_that_is_reset_along_with_its_head_is_never_looked_at() -> None:
    client = Client()
    head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    client.h2.send_headers(1, head, end_stream=True)
    client.h2.reset_stream(1)
    client.exchange()
    assert client.tree.requests == []


def test_requests_that_are_answered_cost_nothing() -> None:
    client = Client(ok)
    for _ in range(2 * REQUESTS):
        assert client.answers[client.send()].body == b"ok"
    assert client.wire.producerState == "producing" and len(client.tree.requests) == 2 * REQUESTS


@pytest.mark.parametrize("trick", ["window", "head"])
def test_resets_that_the_server_is_made_to_send_count_like_those_of_clients(trick: str) -> None:
    """CVE-2025-8671."""
    client = Client()
    upload = uploading(client)
    for _ in range(REQUESTS + 100):
        stream = client.send()
        if trick == "window":
            client.raw(WINDOW_UPDATE, b"\x7f\xff\xff\xff", stream=stream)
        else:
            client.raw(HEADERS, b"", flags=5, stream=stream)
    assert len(client.tree.requests) <= REQUESTS + 1
    gets_through(client, *upload)


# Frames


FLOODS: list[tuple[str, bytes]] = [
    ("ping", frame(PING, b"12345678", stream=0)),
    ("ping ack", frame(PING, b"12345678", 1, stream=0)),
    ("settings", frame(SETTINGS, b"", stream=0)),
    ("settings ack", frame(SETTINGS, b"", 1, stream=0)),
    ("priority", frame(PRIORITY, b"\0\0\0\0\1")),
    ("priority of none", frame(PRIORITY, b"\0\0\0\0\1", stream=9_999)),
    ("empty data", frame(DATA, b"")),
    ("padding", frame(DATA, b"\x07" + b"\0" * 7, 8)),
    ("unknown", frame(UNKNOWN, b"", stream=0)),
    ("origin", frame(ORIGIN, b"", stream=0)),
    ("altsvc", frame(ALTSVC, b"\0\1ah2=x", stream=0)),
    ("altsvc of a stream", frame(ALTSVC, b"\0\0h2=x")),
    ("window update", frame(WINDOW_UPDATE, b"\0\0\0\1", stream=0)),
    ("window update of a stream", frame(WINDOW_UPDATE, b"\0\0\0\1")),
    ("window update of a closed stream", frame(WINDOW_UPDATE, b"\0\0\0\1", stream=3)),
    ("reset of a closed stream", frame(RST, b"\0\0\0\x08", stream=3)),
    ("reset of none", frame(RST, b"\0\0\0\x08", stream=9_999)),
    ("head of a reset stream", frame(HEADERS, b"\x82", 5, stream=3)),
    ("continuation", frame(HEADERS, b"", 0, stream=3) + frame(CONTINUATION, b"\x82", 4, stream=3)),
    ("data of a reset stream", frame(DATA, b"", stream=3)),
    ("goaway", frame(GOAWAY, b"\0" * 8, stream=0)),
]


@pytest.mark.parametrize("flood", [each for _, each in FLOODS], ids=[name for name, _ in FLOODS])
def test_a_flood_of_any_frames_is_read_at_a_bounded_pace_and_ends_nobody_else_s_upload(flood: bytes) -> None:
    client = Client()
    upload = uploading(client)
    client.h2.reset_stream(client.send())
    client.exchange()
    per = 2 if flood.count(bytes([CONTINUATION, 4])) else 1
    for _ in range(FRAMES // per // 100 - 2):
        client.channel.dataReceived(flood * 100)
    assert client.wire.producerState == "producing"
    client.channel.dataReceived(flood * 300)
    assert client.wire.producerState == "paused", "what comes beyond the budget waits in the network"
    client.wire.clear()
    client.advance(2)
    assert client.wire.producerState == "producing"
    client.channel.dataReceived(flood * FRAMES_RATE * 2)
    assert client.wire.producerState == "paused"
    client.wire.clear()
    if flood[3] != GOAWAY:  # after it no new requests come
        gets_through(client, *upload)
    else:
        client.advance(10)
        client.data(upload[0], b"x" * 100_000, end=True)
        assert upload[2] == [""]


def test_heads_that_unpack_to_much_are_counted_for_what_they_are() -> None:
    """A few bytes stand for 30,000: a read of 64 KiB would keep everybody waiting for seconds."""
    client = Client()
    head = client.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
    block = client.h2.encoder.encode([("x", "y" * 4_000)])
    client.raw(HEADERS, head + block, flags=5, stream=1)
    small = client.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
    small += client.h2.encoder.encode([("x", "y" * 4_000)]) * 15
    assert len(small) < 40
    sent = 0
    while client.wire.producerState == "producing" and sent < 1_000:
        sent += 1
        client.channel.dataReceived(frame(HEADERS, small, 5, stream=2 * sent + 1))
    assert sent < FRAMES // 50
    assert client.wire.value().count(b"The request's head is longer") >= sent - 1


def test_what_is_read_pays_for_the_frames_that_allow_more() -> None:
    """A client that makes room for each 4 KiB, of its stream and of its connection, downloads without a pause."""
    pace = ClientPace(0.0)
    for _ in range(10 * FRAMES):
        pace.sent(4_096)
        pace.frame()
        pace.frame()
    assert not pace.ahead


def test_a_body_in_very_small_frames_is_slowed_down() -> None:
    client = Client()
    stream = client.patch()
    consumer, _ = client.deliver()
    other = client.patch()
    client.deliver()
    pair = frame(DATA, b"x", stream=stream) + frame(DATA, b"y", stream=other)
    for _ in range(6):
        client.channel.dataReceived(pair * 100)
    assert client.wire.producerState == "paused" and len(consumer.data) == 600


def test_very_small_frames_count_however_many_come_at_once() -> None:
    client = Client()
    stream = client.patch()
    consumer, _ = client.deliver()
    client.channel.dataReceived(frame(DATA, b"x", stream=stream) * FRAMES)
    assert client.wire.producerState == "paused" and len(consumer.data) == FRAMES


def test_a_large_frame_is_no_small_one_when_it_arrives_in_pieces() -> None:
    """Some of curl's versions send the last nine bytes of each frame as a record of TLS of their own."""
    client = Client()
    stream = client.patch()
    consumer, _ = client.deliver()
    whole = frame(DATA, b"x" * 1_000, stream=stream)
    for _ in range(2 * FRAMES):
        client.channel.dataReceived(whole[:-9])
        client.channel.dataReceived(whole[-9:])
    assert client.wire.producerState == "producing" and len(consumer.data) == 2_000 * FRAMES


def test_a_flood_does_not_keep_an_idle_connection_or_a_silent_body() -> None:
    client = Client(network_timeout=10)
    client.patch(100)
    _, ends = client.deliver()
    for _ in range(12):
        client.channel.dataReceived(frame(PING, b"12345678", stream=0) * 2 * FRAMES_RATE)
        client.wire.clear()
        client.clock.advance(1)
    assert ends == ["idle"]
    answer(client.request, 408)
    for _ in range(25):
        client.channel.dataReceived(frame(PING, b"12345678", stream=0) * 2 * FRAMES_RATE)
        client.wire.clear()
        client.clock.advance(1)
    assert client.wire.disconnecting


def test_a_client_that_asks_and_never_reads_is_not_read_and_then_cut_off() -> None:
    client = Client(network_timeout=60)
    client.wire.producer.pauseProducing()
    for _ in range(50):
        client.clock.advance(1)
        if client.wire.producerState == "producing":
            client.channel.dataReceived(frame(PING, b"12345678", stream=0) * 700)
    assert client.wire.producerState == "paused" and not client.wire.disconnected
    assert len(client.wire.value()) <= MAX_BACKLOG + 12_000
    client.clock.pump([1] * 12)
    assert client.wire.disconnected


def test_a_busy_proxy_that_reads_late_loses_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small answers while the line is full: the proxy isn't read for a while, and that's all."""
    monkeypatch.setattr(link, "MAX_BACKLOG", 8_192)
    client = Client(lambda request: answer(request, 200))
    block = client.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
    client.wire.producer.pauseProducing()
    sent = 0
    while client.wire.producerState == "producing":
        sent += 1
        client.channel.dataReceived(frame(HEADERS, block, 5, stream=2 * sent - 1))
        block = client.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
    assert sent > MAX_STREAMS and not client.wire.disconnected
    client.wire.producer.resumeProducing()
    assert client.wire.producerState == "producing"
    assert len(client.tree.requests) == sent and not any(request.gone for request in client.tree.requests)


# Streams


def test_one_stream_over_the_limit_is_refused_and_the_others_go_on() -> None:
    client = Client()
    for _ in range(MAX_STREAMS):
        client.send()
    assert client.goaway is None
    block = client.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
    over = 2 * MAX_STREAMS + 1
    client.channel.dataReceived(frame(HEADERS, block, 4, stream=over) + frame(DATA, b"x" * 10_000, stream=over))
    assert client.wire.value() == frame(RST, ErrorCodes.REFUSED_STREAM.to_bytes(4, "big"), stream=over)
    client.wire.clear()
    assert len(client.tree.requests) == MAX_STREAMS
    for request in client.tree.requests:
        answer(request, 200, b"ok")
    client.hear()
    assert [each.body for each in client.answers.values()] == [b"ok"] * MAX_STREAMS
    client.h2.get_next_available_stream_id()
    client.h2.highest_outbound_stream_id = over
    client.send()
    assert len(client.tree.requests) == MAX_STREAMS + 1


def test_what_a_client_sends_before_it_knows_the_limit_is_refused_alone() -> None:
    client = Client()
    block = client.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
    block2 = client.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
    heads = [frame(HEADERS, block, 5, stream=1)]
    heads += [frame(HEADERS, block2, 5, stream=number) for number in range(3, 301, 2)]
    client.channel.dataReceived(b"".join(heads))
    assert len(client.tree.requests) == MAX_STREAMS
    assert client.wire.value().count(b"\0\0\4\3") == 150 - MAX_STREAMS


def test_a_refused_request_is_seen_by_nobody() -> None:
    watcher = Watcher()
    client = Client(watch=watcher)
    for _ in range(MAX_STREAMS):
        client.send()
    block = client.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
    client.channel.dataReceived(frame(HEADERS, block, 5, stream=2 * MAX_STREAMS + 1))
    assert len(client.tree.requests) == MAX_STREAMS and not watcher.seen


# The rule


def test_a_budget_comes_back_with_time_and_never_beyond_its_size() -> None:
    budget = TokenBudget(100, 10, 0.0)
    budget.refill(1_000)
    budget.spend(99)
    assert not budget.spent
    budget.spend()
    assert budget.spent
    budget.refill(1_000.05)
    assert budget.spent
    budget.refill(1_000.1)
    assert not budget.spent


def test_a_budget_that_is_overdrawn_takes_as_much_longer() -> None:
    budget = TokenBudget(100, 10, 0.0)
    budget.spend(200)
    budget.refill(10)
    assert budget.spent
    budget.refill(10.2)
    assert not budget.spent


def test_what_is_earned_can_be_spent() -> None:
    budget = TokenBudget(100, 10, 0.0)
    budget.spend(100)
    budget.earn(5)
    assert not budget.spent
    budget.earn(1_000)
    budget.spend(100)
    assert budget.spent

"""HTTP/2 connections driven through `StreamingSite.buildProtocol` by h2's client half, on a clock of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from http2_client import Answer, Client
from hypothesis import given, settings
from hypothesis import strategies as st
from klein import Klein
from test_streaming import Consumer, Watcher, answer
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from resumable.http.h2.answers import MAX_PRODUCED, MAX_UNSENT
from resumable.http.h2.frames import MAX_FRAME, PREFACE, Data, FrameReader
from resumable.http.h2.limits import CONNECTION_WINDOW, STREAM_WINDOW, HeldBytes
from resumable.http.h2.machine import HEADER_TABLE, MAX_STREAMS
from resumable.http.request import StreamingRequest
from resumable.http.site import StreamingSite

MIB = 1 << 20
SETTINGS, PING, CONTINUATION, HEADERS, WINDOW_UPDATE, RST, PRIORITY = 4, 6, 9, 1, 8, 3, 2


def ok(request: StreamingRequest) -> None:
    answer(request, 200, b"ok")


# Who speaks it


def test_h2c_is_refused_unless_it_is_switched_on() -> None:
    wire = StringTransport()
    channel = StreamingSite(Client().tree, reactor=Clock()).buildProtocol(None)
    channel.makeConnection(wire)
    channel.dataReceived(PREFACE)
    assert wire.value().startswith(b"HTTP/1.1 400 ")


def test_the_preface_may_come_in_pieces() -> None:
    client = Client(ok)
    wire = StringTransport()
    channel = client.site.buildProtocol(None)
    channel.makeConnection(wire)
    for at in range(len(PREFACE)):
        channel.dataReceived(PREFACE[at : at + 1])
    assert wire.value()[3:4] == b"\x04"
    assert len(client.site.connections) == 2


def test_the_preface_after_a_request_of_http_1_1_is_refused() -> None:
    client = Client(ok)
    wire = StringTransport()
    channel = client.site.buildProtocol(None)
    channel.makeConnection(wire)
    channel.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + PREFACE)
    assert b"HTTP/1.1 400 " in wire.value()


def test_http_1_1_is_still_spoken_beside_h2c() -> None:
    client = Client(ok)
    wire = StringTransport()
    channel = client.site.buildProtocol(None)
    channel.makeConnection(wire)
    channel.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.value().startswith(b"HTTP/1.1 200 ")


def test_what_follows_half_a_preface_is_a_violation() -> None:
    client = Client(ok)
    wire = StringTransport()
    channel = client.site.buildProtocol(None)
    channel.makeConnection(wire)
    channel.dataReceived(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
    assert wire.value().startswith(b"HTTP/1.1 400 ")


# Requests


def test_a_request_is_dispatched_with_its_head() -> None:
    client = Client()
    client.send("GET", "/a%20b/c?x=1", user_agent="me")
    request = client.request
    assert (request.method, request.path, request.postpath) == (b"GET", b"/a%20b/c", [b"a b", b"c"])
    assert request.args == {b"x": [b"1"]}
    assert request.clientproto == b"HTTP/2"
    assert request.requestHeaders.getRawHeaders(b"host") == [b"example.com"]
    assert request.requestHeaders.getRawHeaders(b"user-agent") == [b"me"]
    assert not request.isSecure()
    assert request.body.length == 0


def test_an_answer_has_its_fields_in_lower_case_and_none_of_the_connection() -> None:
    def handler(request: StreamingRequest) -> None:
        request.setHeader(b"X-Thing", b"1")
        request.setHeader(b"Connection", b"close")
        request.setHeader(b"Transfer-Encoding", b"chunked")
        answer(request, 200, b"hello")

    client = Client(handler)
    got = client.answers[client.send()]
    assert (got.status, got.body, got.ended, got.reset) == (200, b"hello", True, None)
    assert got.fields["x-thing"] == "1" and got.fields["server"] == "resumable"
    assert not {"connection", "transfer-encoding"} & set(got.fields)


def test_an_answer_without_a_length_just_ends() -> None:
    def handler(request: StreamingRequest) -> None:
        request.write(b"a")
        request.write(b"b")
        request.finish()

    client = Client(handler)
    got = client.answers[client.send()]
    assert (got.body, got.ended) == (b"ab", True)


@pytest.mark.parametrize(("method", "code"), [("HEAD", 200), ("PATCH", 204), ("GET", 304)])
def test_an_answer_without_a_body_ends_with_its_head(method: str, code: int) -> None:
    client = Client(lambda request: answer(request, code, b"" if code != 200 else b"hello"))
    got = client.answers[client.send(method)]
    assert (got.status, got.body, got.ended) == (code, b"", True)


def test_streams_are_answered_in_any_order() -> None:
    client = Client()
    first, second = client.send(), client.send()
    answer(client.tree.requests[1], 200, b"2")
    client.hear()
    assert (client.answers[second].body, client.answers[first].status) == (b"2", 0)
    answer(client.tree.requests[0], 200, b"1")
    client.hear()
    assert client.answers[first].body == b"1"


def test_the_watch_sees_every_request_and_its_end() -> None:
    watcher = Watcher()
    client = Client(watch=watcher)
    client.send()
    client.send()
    answer(client.tree.requests[0], 200, b"x")
    client.hang_up()
    assert [seen[:3] for seen in watcher.seen] == [(b"GET", 200, False), (b"GET", 200, True)]


def test_a_handler_that_raises_answers_500_and_the_connection_goes_on() -> None:
    def handler(request: StreamingRequest) -> None:
        if request.path == b"/bad":
            raise ValueError("secret")
        ok(request)

    client = Client(handler)
    got = client.answers[client.send(path="/bad")]
    assert (got.status, json.loads(got.body)["status"]) == (500, 500)
    assert b"secret" not in got.body
    assert client.answers[client.send()].body == b"ok"


def test_an_answer_that_fails_midway_is_reset_and_the_connection_goes_on() -> None:
    def handler(request: StreamingRequest) -> None:
        if request.path == b"/bad":
            request.write(b"half")
            raise ValueError
        ok(request)

    watcher = Watcher()
    client = Client(handler, watch=watcher)
    got = client.answers[client.send(path="/bad")]
    assert (got.body, got.ended, got.reset) == (b"half", False, ErrorCodes.INTERNAL_ERROR)
    assert watcher.seen[0][2]
    assert client.answers[client.send()].body == b"ok"


REFUSED: list[tuple[dict[str, Any], int]] = [
    ({"method": "CONNECT X"}, 400),
    ({"path": "no-slash"}, 400),
    ({"path": "*files/1"}, 400),
    ({"path": "http://a/files/1"}, 400),
    ({"path": "*"}, 400),
    ({"path": "/a#b"}, 400),
    ({"path": "/a b"}, 400),
    ({"path": "/\x7f"}, 400),
    ({"path": "/" + "x" * 9_000}, 414),
    ({"x": "y" * 17_000}, 431),
    ({f"x{number}": "" for number in range(501)}, 431),
    ({"expect": "miracles"}, 417),
    ({"content_length": "9" * 30}, 400),
    ({"content_length": "5"}, 400),
    ({"x(": "y"}, 400),
]


@pytest.mark.parametrize(("said", "status"), REFUSED)
def test_what_no_resource_could_see_is_refused_with_the_reason_and_the_connection_goes_on(
    said: dict[str, Any], status: int
) -> None:
    watcher = Watcher()
    client = Client(ok, watch=watcher, refusal_fields=lambda _: [(b"Tus-Resumable", b"1.0.0")])
    got = client.answers[client.send(**said)]
    assert (got.status, got.ended) == (status, True)
    assert json.loads(got.body)["status"] == status and len(got.body) >= 256
    assert got.fields["tus-resumable"] == "1.0.0"
    assert watcher.refusals == [status]
    assert client.tree.requests == []
    assert client.answers[client.send()].body == b"ok"


def test_the_refusal_of_a_head_has_no_body() -> None:
    """It would break the protocol: clients, and proxies with the requests of many, end the connection for it."""
    client = Client(ok)
    got = client.answers[client.send(method="HEAD", x="y" * 17_000)]
    assert (got.status, got.ended, got.body) == (431, True, b"")
    assert client.answers[client.send()].body == b"ok"


def test_a_refusal_is_made_for_the_page_that_asked() -> None:
    client = Client(ok, refusal_fields=lambda origins: [(b"X-Origins", b",".join(origins))])
    assert (
        client.answers[client.send(path="*", origin="https://app.example")].fields["x-origins"] == "https://app.example"
    )


def test_the_body_of_what_was_refused_is_dropped_and_credited() -> None:
    client = Client()
    stream = client.send("PATCH", "/a b", end=False)
    client.data(stream, b"x" * 100_000, end=True)
    assert (client.answers[stream].status, client.answers[stream].ended) == (400, True)
    assert client.answers[stream].reset is None


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "GET"), (":scheme", "http"), (":path", "/")],
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("host", "b")],
        [(":method", "GET"), (":authority", "a"), (":path", "/")],
        [(":method", "GET"), (":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")],
        [(":scheme", "http"), (":authority", "a"), (":path", "/")],
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("connection", "close")],
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("te", "gzip")],
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("X", "upper")],
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("x", "a\r\nb: c")],
        [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/"),
            ("transfer-encoding", "chunked"),
        ],
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "")],
        [(":status", "200"), (":scheme", "http"), (":authority", "a"), (":path", "/")],
    ],
)
def test_a_head_that_breaks_the_rules_of_http_2_is_refused_and_the_connection_goes_on(
    fields: list[tuple[str, str]],
) -> None:
    """A proxy may pass on what one of its clients says, on a connection that it shares among them."""
    client = Client(ok)
    client.send()
    client.tree.requests.clear()
    client.answers[3] = got = Answer()
    client.h2.config.validate_outbound_headers = client.h2.config.normalize_outbound_headers = False
    client.h2.send_headers(3, fields, end_stream=True)
    client.exchange()
    assert (got.status, got.ended) == (400, True)
    assert client.tree.requests == []
    client.h2.config.validate_outbound_headers = client.h2.config.normalize_outbound_headers = True
    assert client.answers[client.send()].body == b"ok"


@pytest.mark.parametrize("value", ["abc", "", "-1"])
def test_a_length_that_is_none_ends_its_request_alone(value: str) -> None:
    client = Client(ok)
    got = client.answers[client.send(content_length=value)]
    assert got.reset == ErrorCodes.PROTOCOL_ERROR
    assert client.answers[client.send()].body == b"ok"


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ([("x", "y")], 4),  # and its stream doesn't end
        ([("content-length", "x")], 5),
        ([(":status", "100")], 4),
    ],
)
def test_trailers_that_break_the_rules_end_their_request_alone(fields: list[tuple[str, str]], flags: int) -> None:
    client = Client()
    first, other = client.patch(10), client.patch(3)
    consumer, ends = client.deliver()
    client.data(first, b"abc")
    client.raw(HEADERS, client.h2.encoder.encode(fields), flags=flags, stream=first)
    assert client.answers[first].reset == ErrorCodes.PROTOCOL_ERROR
    assert client.tree.requests[0].gone
    client.data(other, b"abc", end=True)
    assert (consumer.data, ends, client.goaway) == (b"abc", [""], None)


@pytest.mark.parametrize("fields", [[(":path", "/")], [("X", "y")], [("connection", "close")], [("x", "a\nb")]])
def test_trailers_with_what_trailers_must_not_have_make_the_body_malformed(fields: list[tuple[str, str]]) -> None:
    client = Client()
    stream = client.patch()
    _, ends = client.deliver()
    client.data(stream, b"abc")
    client.raw(HEADERS, client.h2.encoder.encode(fields), flags=5, stream=stream)
    assert (ends, client.goaway) == (["malformed"], None)


def test_host_may_take_the_place_of_authority() -> None:
    client = Client(ok)
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "b")]
    client.channel.dataReceived(frame(HEADERS, client.h2.encoder.encode(fields), 5))
    assert client.request.requestHeaders.getRawHeaders(b"host") == [b"b"]


# Bodies


def test_a_body_is_delivered_as_it_arrives() -> None:
    client = Client()
    stream = client.patch(10)
    assert client.request.body.length == 10
    consumer, ends = client.deliver()
    client.data(stream, b"hello")
    assert (consumer.data, ends) == (b"hello", [])
    client.data(stream, b"world", end=True)
    assert (consumer.data, ends) == (b"helloworld", [""])
    answer(client.request)
    client.hear()
    assert (client.answers[stream].status, client.answers[stream].reset) == (204, None)


def test_a_body_without_a_length_ends_where_its_stream_does() -> None:
    client = Client()
    stream = client.patch()
    assert client.request.body.length is None
    consumer, ends = client.deliver()
    client.data(stream, b"hello", end=True)
    assert (consumer.data, ends) == (b"hello", [""])


def test_bytes_of_an_unfinished_frame_are_delivered_at_once() -> None:
    client = Client()
    stream = client.patch(100)
    consumer, ends = client.deliver()
    client.channel.dataReceived(b"\x00\x00\x64\x00\x01" + stream.to_bytes(4, "big") + b"x" * 30)
    assert (len(consumer.data), ends) == (30, [])
    client.channel.dataReceived(b"x" * 70)
    assert (len(consumer.data), ends) == (100, [""])


def test_a_request_whose_empty_end_comes_along_has_no_body() -> None:
    client = Client()
    stream = client.h2.get_next_available_stream_id()
    head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    client.h2.send_headers(stream, head)
    client.h2.end_stream(stream)
    client.exchange()
    assert client.request.body.length == 0


def test_padding_is_taken_away_and_given_back() -> None:
    client = Client()
    stream = client.patch(5)
    consumer, ends = client.deliver()
    client.h2.send_data(stream, b"hello", end_stream=True, pad_length=200)
    client.exchange()
    assert (consumer.data, ends) == (b"hello", [""])


def test_trailers_are_there_at_the_end() -> None:
    client = Client()
    stream = client.patch(trailer="Upload-Checksum")
    consumer, ends = client.deliver()
    client.data(stream, b"hello")
    client.h2.send_headers(stream, [("upload-checksum", "sha1 abc="), ("x-a", "1"), ("x-a", "2")], end_stream=True)
    client.exchange()
    assert (consumer.data, ends) == (b"hello", [""])
    assert client.request.body.trailers == {"upload-checksum": "sha1 abc=", "x-a": "1, 2"}


def test_trailers_that_are_too_long_make_the_body_malformed() -> None:
    client = Client()
    stream = client.patch()
    consumer, ends = client.deliver()
    client.data(stream, b"hello")
    client.h2.send_headers(stream, [("x-a", "1" * 17_000)], end_stream=True)
    client.exchange()
    assert (consumer.data, ends) == (b"hello", ["malformed"])


@pytest.mark.parametrize("sent", [b"short", b"longer than it said"])
def test_a_body_that_is_not_as_long_as_it_said_is_malformed_and_what_came_is_kept(sent: bytes) -> None:
    client = Client()
    stream = client.patch(10)
    consumer, ends = client.deliver()
    client.raw(0, sent, flags=1, stream=stream)
    assert ends == ["malformed"]
    assert consumer.data == sent[:10]
    assert client.goaway is None


def test_100_continue_is_sent_when_the_body_is_wanted() -> None:
    client = Client()
    stream = client.patch(5, expect="100-continue")
    assert client.answers[stream].informational == []
    assert client.request.getHeader(b"expect") is None
    client.deliver()
    assert client.answers[stream].informational == ["100"]


def test_a_refusal_is_not_followed_by_100_continue() -> None:
    client = Client(lambda request: answer(request, 409, b"no"))
    stream = client.patch(5, expect="100-continue")
    assert (client.answers[stream].status, client.answers[stream].informational) == (409, [])


def test_after_an_early_answer_the_rest_is_dropped_a_while_and_then_called_off_without_an_error() -> None:
    client = Client(lambda request: answer(request, 409, b"conflict"), linger=10)
    stream = client.patch(MIB)
    got = client.answers[stream]
    assert (got.status, got.body, got.ended, got.reset) == (409, b"conflict", True, None)
    client.data(stream, b"x" * 100_000)
    client.advance(9)
    assert got.reset is None
    client.advance(2)
    assert got.reset == ErrorCodes.NO_ERROR
    for _ in range(100):  # what was under way is dropped, and the connection's window stays open
        client.raw(0, b"x" * 16_384, stream=stream)
    assert client.goaway is None
    assert client.answers[client.send()].status == 409


def test_a_client_may_send_all_of_it_after_an_early_answer() -> None:
    client = Client(lambda request: answer(request, 409))
    stream = client.patch(10 * MIB)
    for _ in range(160):
        client.data(stream, b"x" * 65_536)
    client.h2.end_stream(stream)
    client.exchange()
    client.advance(20)
    assert client.answers[stream].reset is None


def test_the_last_of_too_many_bytes_after_an_early_answer_harms_nobody() -> None:
    client = Client(lambda request: answer(request, 409), linger_bytes=10)
    stream = client.patch(20)
    client.raw(0, b"x" * 20, flags=1, stream=stream)
    assert client.goaway is None
    assert client.answers[client.send()].status == 409


def test_no_more_than_the_linger_bytes_are_dropped_after_an_early_answer() -> None:
    client = Client(lambda request: answer(request, 409), linger_bytes=MIB)
    stream = client.patch(10 * MIB)
    for _ in range(17):
        client.raw(0, b"x" * 65_536, stream=stream)
    assert client.answers[stream].reset == ErrorCodes.NO_ERROR


def test_what_is_sent_after_early_answers_uses_up_no_window() -> None:
    client = Client(lambda request: answer(request, 409))
    before = client.h2.outbound_flow_control_window
    sent = 0
    stream = client.patch(64 * MIB)
    while sent < 2 * CONNECTION_WINDOW:
        client.raw(0, b"x" * MAX_FRAME, stream=stream)
        sent += MAX_FRAME
    assert client.goaway is None
    assert client.h2.outbound_flow_control_window >= before + sent - CONNECTION_WINDOW // 4


@pytest.mark.parametrize("paused", [False, True])
def test_a_reset_stream_brings_what_arrived(paused: bool) -> None:
    client = Client()
    stream = client.patch(100)
    consumer, ends = client.deliver(Consumer(pause_after=1 if paused else None))
    client.data(stream, b"abc")
    client.data(stream, b"def")
    client.h2.reset_stream(stream, ErrorCodes.CANCEL)
    client.exchange()
    assert (consumer.data, ends) == (b"abcdef", ["disconnected"])
    assert client.request.gone
    assert client.site.held.size == 0


def test_a_lost_connection_brings_what_arrived_on_each_stream() -> None:
    client = Client()
    ends, consumers = [], []
    for _ in range(3):
        stream = client.patch(100)
        client.data(stream, b"%d" % stream)
        consumer, end = client.deliver()
        consumers.append(consumer)
        ends.append(end)
    client.hang_up()
    assert [consumer.data for consumer in consumers] == [b"1", b"3", b"5"]
    assert ends == [["disconnected"]] * 3
    assert client.site.connections == set()
    assert client.clock.getDelayedCalls() == []


def test_a_violation_brings_what_arrived_before_it() -> None:
    client = Client()
    stream = client.patch(100)
    consumer, ends = client.deliver()
    said = b"\x00\x00\x03\x00\x00" + stream.to_bytes(4, "big") + b"abc"
    client.channel.dataReceived(said + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")
    client.hear()
    assert (consumer.data, ends) == (b"abc", ["disconnected"])
    assert client.goaway is not None


# Windows and memory


@pytest.mark.slow
def test_the_windows_cover_50_mib_a_second_over_50_ms() -> None:
    client = Client()
    stream = client.patch(1 << 30)
    assert client.window(stream) == STREAM_WINDOW
    client.deliver()
    least = STREAM_WINDOW
    for _ in range(300):
        client.data(stream, b"x" * 65_536)
        least = min(least, client.window(stream))
    assert least >= 2 * 50 * MIB * 0.05


def test_a_paused_body_closes_its_own_window_only() -> None:
    client = Client()
    paused = client.patch(1 << 30)
    consumer, _ = client.deliver()
    consumer.producer.pauseProducing()
    while client.window(paused):
        client.data(paused, b"x" * min(65_536, client.window(paused)))
    assert client.request.body.held == client.site.held.size == STREAM_WINDOW
    other = client.patch(1 << 30)
    flowing, _ = client.deliver()
    for _ in range(200):
        client.data(other, b"y" * 65_536)
    assert len(flowing.data) == 200 * 65_536
    consumer.producer.resumeProducing()
    client.hear()
    assert (client.window(paused), client.site.held.size) == (STREAM_WINDOW, 0)


def test_paused_bodies_of_one_connection_hold_no_more_than_its_window() -> None:
    client = Client()
    for _ in range(3):
        stream = client.patch(1 << 30)
        while client.window(stream):
            client.data(stream, b"x" * min(65_536, client.window(stream)))
    assert client.site.held.size <= CONNECTION_WINDOW


def test_many_connections_together_hold_a_bounded_number_of_bytes() -> None:
    client = Client()
    client.site.held = HeldBytes(MIB)
    clients = [client, *(Client(site=client.site) for _ in range(3))]
    streams = [each.patch(1 << 30) for each in clients]
    bodies = [request.body for request in client.tree.requests]
    for each, stream in zip(clients, streams, strict=True):
        while each.wire.producerState == "producing" and each.window(stream):
            each.data(stream, b"x" * min(65_536, each.window(stream)))
    assert client.site.held.size <= MIB + 4 * 2 * 65_536
    assert [each.wire.producerState for each in clients] == ["paused"] * 4
    for body in bodies:
        body.deliver(Consumer())
    assert client.site.held.size == 0
    assert [each.wire.producerState for each in clients] == ["producing"] * 4


def fill(client: Client, stream: int) -> None:
    """Send as long as anything is taken."""
    while client.wire.producerState == "producing" and client.window(stream):
        client.data(stream, b"x" * min(65_536, client.window(stream)))


def test_one_client_with_many_connections_leaves_half_of_the_memory_for_others() -> None:
    greedy = [Client(address="192.0.2.7")]
    site = greedy[0].site
    site.held = HeldBytes(4 * MIB)
    greedy += [Client(site=site, address="192.0.2.7") for _ in range(4)]
    for each in greedy:
        fill(each, each.patch(1 << 30))
    assert 2 * MIB < site.held.size <= 2 * MIB + 5 * 2 * 65_536
    other = Client(site=site, address="192.0.2.8")
    stream = other.patch(1 << 30)
    for _ in range(8):
        other.data(stream, b"y" * 65_536)
    assert other.wire.producerState == "producing"
    fill(other, stream)
    assert 4 * MIB < site.held.size <= 4 * MIB + 6 * 2 * 65_536
    bodies = [request.body for request in greedy[0].tree.requests]
    for body in bodies[:-1]:  # what has all to do with the one client
        body.deliver(Consumer())
    assert [each.wire.producerState for each in [*greedy, other]] == ["producing"] * 6
    bodies[-1].deliver(Consumer())
    assert site.held.size == 0 and not site.held.full("192.0.2.7")


def test_who_is_stopped_for_all_goes_on_when_somebody_else_has_given_room() -> None:
    clients = [Client(address="192.0.2.7")]
    site = clients[0].site
    site.held = HeldBytes(2 * MIB)
    clients += [Client(site=site, address=f"192.0.2.{n}") for n in (8, 9)]
    for each in clients:
        fill(each, each.patch(1 << 30))
    assert [each.wire.producerState for each in clients] == ["paused"] * 3
    clients[0].tree.requests[0].body.deliver(Consumer())
    assert [each.wire.producerState for each in clients] == ["producing"] * 3


def test_a_body_that_is_dropped_is_read_within_bounds_only() -> None:
    client = Client(linger_bytes=MIB)
    stream = client.patch(1 << 30)
    client.request.body.discard()
    while client.window(stream):
        client.data(stream, b"x" * min(65_536, client.window(stream)))
    assert client.request.body.received <= MIB + STREAM_WINDOW


def test_more_than_a_window_allows_ends_the_connection() -> None:
    client = Client()
    stream = client.patch(1 << 30)
    for _ in range(STREAM_WINDOW // MAX_FRAME):
        client.raw(0, b"x" * MAX_FRAME, stream=stream)
    assert client.goaway is None
    client.raw(0, b"x", stream=stream)
    assert client.goaway is not None and client.goaway.error_code == ErrorCodes.FLOW_CONTROL_ERROR


@implementer(IPushProducer)
class Sender:
    """Writes a chunk whenever it may; ``made`` is how many bytes it has written."""

    def __init__(self, request: StreamingRequest, size: int, chunk: int = 65_536) -> None:
        self.request, self.left, self.chunk = request, size, chunk
        self.paused = self.working = self.stopped = False
        self.made = 0
        request.setHeader(b"content-length", b"%d" % size)
        request.registerProducer(self, True)
        self.work()

    def work(self) -> None:
        if self.working:
            return
        self.working = True
        while self.left and not self.paused and not self.stopped:
            size = min(self.left, self.chunk)
            self.left -= size
            self.made += size
            self.request.write(b"x" * size)
        self.working = False
        if not self.left and not self.stopped:
            self.stopped = True
            self.request.unregisterProducer()
            self.request.finish()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.work()

    def stopProducing(self) -> None:
        self.stopped = True


def test_an_answer_is_sent_at_the_pace_of_its_reader() -> None:
    senders: list[Sender] = []
    client = Client(lambda request: senders.append(Sender(request, 10 * MIB)))
    client.acknowledge = False
    stream = client.send()
    assert (len(client.answers[stream].body), senders[0].paused) == (65_535, True)
    assert senders[0].made <= 2 * 65_536
    while not client.answers[stream].ended:
        client.h2.increment_flow_control_window(50_000, stream)
        client.h2.increment_flow_control_window(50_000)
        client.exchange()
        assert senders[0].made - len(client.answers[stream].body) <= 2 * 65_536
    assert len(client.answers[stream].body) == 10 * MIB


def test_readers_that_never_read_cost_a_bounded_amount_of_memory() -> None:
    senders: list[Sender] = []
    client = Client(lambda request: senders.append(Sender(request, 10 * MIB, 256 << 10)))
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1})
    client.acknowledge = False
    for _ in range(MAX_STREAMS):
        client.send()
    assert sum(sender.made for sender in senders) <= MAX_UNSENT + MAX_PRODUCED


def test_a_full_transport_pauses_the_answers() -> None:
    senders: list[Sender] = []
    client = Client(lambda request: senders.append(Sender(request, 10 * MIB)))
    with client.full():
        client.send()
        assert senders[0].made == 0
    assert client.answers[1].ended


def test_answers_take_turns() -> None:
    client = Client(lambda request: answer(request, 200, b"x" * MIB))
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 4 * MIB})
    client.acknowledge = False
    first, second = client.send(), client.send()
    for _ in range(10):
        client.h2.increment_flow_control_window(131_072)
        client.exchange()
    got = [len(client.answers[stream].body) for stream in (first, second)]
    assert sum(got) == 65_535 + 10 * 131_072 and min(got) >= 5 * 65_536


def test_a_client_that_goes_stops_the_producers() -> None:
    senders: list[Sender] = []
    client = Client(lambda request: senders.append(Sender(request, 10 * MIB)))
    client.acknowledge = False
    stream = client.send()
    client.h2.reset_stream(stream)
    client.exchange()
    assert senders[0].stopped


def test_a_request_that_is_aborted_ends_alone() -> None:
    client = Client()
    first, second = client.send(), client.send()
    client.tree.requests[0].channel.abort()
    client.hear()
    assert client.answers[first].reset == ErrorCodes.CANCEL
    assert client.tree.requests[0].gone
    answer(client.tree.requests[1])
    client.hear()
    assert client.answers[second].status == 204


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


# Klein


def test_a_klein_route_gets_its_body_and_a_cancelled_one_got_its_bytes() -> None:
    app = Klein()
    consumer, losses = Consumer(), []

    @app.route("/files/<name>", methods=["PATCH"])
    async def route(request: Any, name: str) -> bytes:
        try:
            await request.body.deliver(consumer)
        except Exception as error:
            losses.append(error)
            raise
        request.setResponseCode(204)
        return b""

    client = Client(site=StreamingSite(app.resource(), reactor=Clock(), h2c=True))
    stream = client.patch(5)
    client.data(stream, b"hello", end=True)
    assert client.answers[stream].status == 204
    stream = client.patch(5)
    client.data(stream, b"he")
    client.h2.reset_stream(stream)
    client.exchange()
    assert (consumer.data, len(losses)) == (b"hellohe", 1)


# Frames


def frame(kind: int, payload: bytes, flags: int = 0, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


FRAMES = st.one_of(
    st.builds(frame, st.just(0), st.binary(max_size=40), st.sampled_from([0, 1]), st.sampled_from([1, 3])),
    st.builds(frame, st.sampled_from([2, 3, 4, 6, 8, 77]), st.binary(max_size=20), st.just(0), st.sampled_from([0, 1])),
)


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_the_cuts_between_reads_do_not_matter(frames: list[bytes], cuts: list[int]) -> None:
    """Bodies come out whole with their ends where they were, and so do all other frames, in order."""

    def seen(pieces: list[bytes]) -> tuple[list[object], dict[int, list[bytes]]]:
        reader, order, bodies = FrameReader(), [], {1: [b""], 3: [b""]}
        for piece in pieces:
            for each in reader.feed(piece):
                if isinstance(each, Data):
                    assert each.size == len(each.payload)
                    bodies[each.stream][-1] += each.payload
                    if each.ends:
                        bodies[each.stream].append(b"")
                elif each not in PREFACE:
                    order.append(each)
        return order, bodies

    stream = PREFACE + b"".join(frames)
    pieces, at = [], 0
    while at < len(stream):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(stream[at : at + size])
        at += size
    expected = [each for each in frames if each[3]]
    bodies: dict[int, list[bytes]] = {1: [b""], 3: [b""]}
    for each in frames:
        if not each[3]:
            bodies[each[8]][-1] += each[9:]
            if each[4]:
                bodies[each[8]].append(b"")
    assert seen([stream]) == seen(pieces) == (expected, bodies)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(FRAMES, st.binary(max_size=30)), max_size=20), st.integers(1, 60), st.booleans())
def test_no_stream_of_bytes_breaks_a_connection(pieces: list[bytes], cut: int, pausing: bool) -> None:
    """Whatever comes, nothing raises, each body has one end, and no timer is left."""
    consumers: list[Consumer] = []
    ends: list[object] = []

    def ended(outcome: object, request: StreamingRequest) -> None:
        ends.append(outcome)
        answer(request)

    def handler(request: StreamingRequest) -> None:
        consumers.append(Consumer(pause_after=1 if pausing else None))
        request.body.deliver(consumers[-1]).addBoth(ended, request)

    client = Client(handler)
    client.patch(1000)
    client.patch()
    stream = b"".join(pieces)
    for at in range(0, len(stream), cut):
        client.channel.dataReceived(stream[at : at + cut])
    client.advance(200)
    for consumer in consumers:
        consumer.pause_after = None
        if consumer.producer is not None:
            consumer.producer.resumeProducing()
    client.hang_up()
    assert len(ends) == len(consumers)
    assert client.site.held.size == 0
    assert client.clock.getDelayedCalls() == []

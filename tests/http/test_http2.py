"""HTTP/2 connections driven through `StreamingSite.buildProtocol` by h2's client half: requests, Klein, any frames."""

from __future__ import annotations

import json
from typing import Any

import pytest
from h2.errors import ErrorCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from klein import Klein
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from resumable.http.h2.frames import PREFACE, Data, FrameReader
from resumable.http.request import StreamingRequest
from resumable.http.site import StreamingSite
from tests.http.http1_client import Consumer, Watcher, answer
from tests.http.http2_client import HEADERS, Answer, Client, frame, ok

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


FRAMES = st.one_of(
    st.builds(frame, st.just(0), st.binary(max_size=40), st.sampled_from([0, 1]), st.sampled_from([1, 3])),
    st.builds(frame, st.sampled_from([2, 3, 4, 6, 8, 77]), st.binary(max_size=20), st.just(0), st.sampled_from([0, 1])),
)


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_the_cuts_between_reads_do_not_matter(frames: list[bytes], cuts: list[int]) -> None:
    """Bodies come out whole with their ends where they were, and so do all others. Each short frame counts."""

    def seen(pieces: list[bytes]) -> tuple[list[object], dict[int, list[bytes]], int]:
        reader, order, bodies, short = FrameReader(), [], {1: [b""], 3: [b""]}, 0
        for piece in pieces:
            for each in reader.feed(piece):
                if isinstance(each, Data):
                    assert each.size == len(each.payload)
                    bodies[each.stream][-1] += each.payload
                    short += each.short
                    if each.ends:
                        bodies[each.stream].append(b"")
                elif each not in PREFACE:
                    order.append(each)
        return order, bodies, short

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
    assert seen([stream]) == seen(pieces) == (expected, bodies, len(frames) - len(expected))


@pytest.mark.slow
@settings(max_examples=200)
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

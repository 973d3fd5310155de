"""Requests driven byte by byte through `StreamingSite.buildProtocol`, on a clock of their own."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from klein import Klein
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resumable.http.body import READ_AHEAD, Body
from resumable.http.channel import READ_SIZE
from resumable.http.request import RequestObserver, StreamingRequest
from resumable.http.site import StreamingSite
from resumable.http.twisted_web import PRIVATES, TESTED_TWISTED
from resumable.model.errors import BodyLost
from resumable.model.upload import IBody

Handler = Callable[[StreamingRequest], None]


@implementer(IConsumer)
class Consumer:
    """Keeps what it is given. ``pause_after``: it pauses its producer whenever it holds so many bytes."""

    def __init__(self, pause_after: int | None = None) -> None:
        self.data = b""
        self.writes: list[bytes] = []
        self.producer: Any = None
        self.registrations = 0
        self.pause_after = pause_after

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming and self.producer is None
        self.producer = producer
        self.registrations += 1

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        assert self.producer is not None, "written to after the producer was unregistered"
        assert type(data) is bytes
        self.data += data
        self.writes.append(data)
        if self.pause_after is not None and len(self.data) >= self.pause_after:
            self.producer.pauseProducing()


class Tree(Resource):
    """Hands every request to the handler of the test."""

    isLeaf = True

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.requests: list[StreamingRequest] = []
        self.handler = handler

    def render(self, request: Any) -> int:
        self.requests.append(request)
        self.handler(request)
        return NOT_DONE_YET


class Wire(StringTransport):
    """A transport that a read size may be set on."""

    bufferSize = READ_SIZE


def answer(request: StreamingRequest, code: int = 204, body: bytes = b"") -> None:
    request.setResponseCode(code)
    if body or code != 204:
        request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    request.write(body)
    request.finish()


def nothing(request: StreamingRequest) -> None:
    """Leaves the answer to the test."""


class Watcher(RequestObserver):
    """A watch that changes or answers requests, and notes how they and what was none have ended."""

    def __init__(self, prepare: Callable[[StreamingRequest], None] = lambda _: None) -> None:
        self._prepare = prepare
        self.seen: list[tuple[bytes, int, bool, float]] = []
        self.refusals: list[int] = []

    def prepare(self, request: StreamingRequest) -> None:
        self._prepare(request)

    def done(self, request: StreamingRequest, seconds: float) -> None:
        self.seen.append((request.method, request.code, request.gone, seconds))

    def refused(self, status: int) -> None:
        self.refusals.append(status)


class Client:
    """One connection to a site with one handler."""

    def __init__(self, handler: Handler = nothing, site: StreamingSite | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.tree = Tree(handler)
        self.site = site or StreamingSite(self.tree, reactor=self.clock, **options)
        self.wire = Wire()
        self.channel = self.site.buildProtocol(None)
        self.wire.protocol = self.channel
        self.channel.makeConnection(self.wire)
        self.lost: list[str] = []

    def send(self, *pieces: bytes) -> bytes:
        """Send; answers everything that was answered since the last call."""
        for piece in pieces:
            self.channel.dataReceived(piece)
        return self.received()

    def received(self) -> bytes:
        value = self.wire.value()
        self.wire.clear()
        return value

    def hang_up(self) -> None:
        self.channel.connectionLost(Failure(ConnectionLost()))

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.25] * int(seconds * 4))

    @property
    def request(self) -> StreamingRequest:
        return self.tree.requests[-1]

    @property
    def body(self) -> Body:
        return self.request.body

    def deliver(self, consumer: Consumer | None = None) -> tuple[Consumer, list[str]]:
        """Have the last request's body delivered; how it ends is put in the list: "" or BodyLost's reason."""
        consumer = consumer or Consumer()
        return consumer, ending(self.body.deliver(consumer))


def ending(delivered: Deferred[None]) -> list[str]:
    ends: list[str] = []
    delivered.addCallbacks(
        lambda _: ends.append(""), lambda failure: ends.append(failure.trap(BodyLost) and failure.value.reason)
    )
    return ends


def patch(length: int | None = None, *fields: str, version: str = "1.1", method: str = "PATCH") -> bytes:
    """The head of a request with a body; chunked when its length is None."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"{method} /files/1 HTTP/{version}", "Host: example.com", framing, *fields]
    return "\r\n".join([*lines, "", ""]).encode()


GET = b"GET /files/1 HTTP/1.1\r\nHost: example.com\r\n\r\n"


# What we lean on


def test_twisted_still_has_every_private_name_that_is_leaned_on() -> None:
    """Tested with the versions from TESTED_TWISTED[0] to TESTED_TWISTED[1]; run everything here before widening it."""
    oldest, newest = (tuple(map(int, version.split("."))) for version in TESTED_TWISTED)
    version = (twisted.version.major, twisted.version.minor)
    assert oldest <= version <= newest, (
        f"resumable/http/twisted_web.py was never tested with Twisted {twisted.__version__}"
    )
    for kind, names in PRIVATES.items():
        missing = [name for name in names if not hasattr(kind, name)]
        assert not missing, f"Twisted {twisted.__version__}: {kind.__name__} has no {missing} any more"
    client = Client()
    for name in ("requests", "persistent", "_networkProducer"):
        assert hasattr(client.channel, name), f"Twisted {twisted.__version__}: a channel has no {name} any more"


def test_a_body_keeps_its_contract() -> None:
    client = Client()
    client.send(patch(5))
    assert verifyObject(IBody, client.body)
    assert verifyObject(IPushProducer, client.body)


@pytest.mark.parametrize(("http2", "offered"), [(True, [b"h2", b"http/1.1"]), (False, [b"http/1.1"])])
def test_http2_is_offered_unless_it_is_switched_off(http2: bool, offered: list[bytes]) -> None:
    assert Client(http2=http2).site.acceptableProtocols() == offered


# Dispatch


def test_a_request_is_dispatched_when_its_headers_are_complete() -> None:
    client = Client()
    head = patch(5)
    client.send(head[:-1])
    assert client.tree.requests == []
    client.send(head[-1:])
    assert len(client.tree.requests) == 1
    assert (client.request.method, client.request.path) == (b"PATCH", b"/files/1")
    assert client.body.length == 5
    assert client.body.received == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_cuts_between_reads_do_not_matter(size: int) -> None:
    client = Client(lambda request: None)
    stream = patch(5) + b"hello"
    client.send(*(stream[at : at + size] for at in range(0, len(stream), size)))
    consumer, ends = client.deliver()
    assert (consumer.data, ends) == (b"hello", [""])


def test_a_request_without_a_body_has_an_empty_one() -> None:
    client = Client()
    client.send(GET)
    assert client.body.length == 0
    consumer, ends = client.deliver()
    assert (ends, consumer.data, consumer.registrations, consumer.producer) == ([""], b"", 1, None)


def test_the_request_content_is_always_empty() -> None:
    client = Client()
    client.send(patch(5) + b"hello")
    assert client.request.content.read() == b""


def test_unknown_methods_reach_the_resources() -> None:
    client = Client(lambda request: answer(request, 405))
    assert client.send(GET.replace(b"GET", b"FOO")).startswith(b"HTTP/1.1 405 ")


def test_query_arguments_and_percent_encoding_are_decoded() -> None:
    client = Client()
    client.send(GET.replace(b"/files/1", b"/a%20b/c?x=1&x=2"))
    assert client.request.postpath == [b"a b", b"c"]
    assert client.request.args == {b"x": [b"1", b"2"]}


def test_the_absolute_form_is_accepted_and_its_authority_replaces_host() -> None:
    client = Client()
    client.send(GET.replace(b"/files/1", b"http://other:8080/files/1?a=b"))
    assert client.request.path == b"/files/1"
    assert client.request.requestHeaders.getRawHeaders(b"host") == [b"other:8080"]


def test_the_watch_sees_a_request_right_before_dispatch_and_may_change_the_method() -> None:
    seen: list[bytes] = []

    def prepare(request: StreamingRequest) -> None:
        assert request.body.length == 5
        request.method = b"PATCH"
        request.responseHeaders.setRawHeaders(b"X-Prepared", [b"yes"])

    def handler(request: StreamingRequest) -> None:
        seen.append(request.method)
        answer(request)

    client = Client(handler, watch=Watcher(prepare))
    assert b"X-Prepared: yes" in client.send(patch(5, method="POST"))
    assert seen == [b"PATCH"]


def test_the_watch_may_answer_itself() -> None:
    client = Client(watch=Watcher(lambda request: answer(request, 400)))
    assert client.send(GET).startswith(b"HTTP/1.1 400 ")
    assert client.tree.requests == []


def test_the_watch_is_told_once_of_each_request_that_ends_and_how_long_it_took() -> None:
    waiting: list[StreamingRequest] = []
    watcher = Watcher()
    client = Client(waiting.append, watch=watcher)
    client.send(GET)
    client.advance(2)
    answer(waiting.pop(), 404)
    assert watcher.seen == [(b"GET", 404, False, 2.0)]
    client.send(GET)
    client.hang_up()
    assert [seen[2] for seen in watcher.seen] == [False, True]


def test_the_watch_is_told_of_what_was_no_request() -> None:
    watcher = Watcher()
    Client(watch=watcher).send(b"NONSENSE\r\n\r\n")
    assert (watcher.seen, watcher.refusals) == ([], [400])


def test_a_site_counts_the_bytes_that_come_in() -> None:
    client = Client(answer)
    client.send(GET, GET[:7])
    assert client.site.received == len(GET) + 7


def test_answers_name_no_version_and_no_content_type_of_their_own() -> None:
    client = Client(lambda request: answer(request, 200, b"ok"))
    head = client.send(GET).partition(b"\r\n\r\n")[0]
    assert b"Server: resumable\r\n" in head + b"\r\n"
    assert b"Twisted" not in head
    assert b"Content-Type" not in head


def test_a_handler_that_raises_answers_500_as_problem_json_without_a_trace() -> None:
    def handler(request: StreamingRequest) -> None:
        raise ValueError("secret")

    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        client = Client(handler)
        status, _, document = problem_of(client.send(GET))
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert (status, document["status"]) == (500, 500)
    assert "secret" not in json.dumps(document)
    assert any(event.get("log_failure") and event["log_failure"].check(ValueError) for event in logged)


def test_options_asterisk_is_answered() -> None:
    assert Client().send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 200 ")


# Delivery


def test_bytes_are_delivered_as_they_arrive_and_not_copied() -> None:
    client = Client()
    client.send(patch(1_000_000))
    consumer, ends = client.deliver()
    piece = b"x" * 400_000
    client.send(piece)
    assert consumer.writes[0] is piece
    client.send(piece)
    assert ends == []
    client.send(b"x" * 200_000)
    assert (len(consumer.data), ends) == (1_000_000, [""])
    assert client.body.received == 1_000_000
    assert consumer.producer is None


def test_what_came_before_the_body_was_wanted_is_delivered_first() -> None:
    client = Client()
    client.send(patch(10) + b"ab", b"cd")
    consumer, ends = client.deliver()
    client.send(b"efghij")
    assert (consumer.data, ends) == (b"abcdefghij", [""])


def test_a_body_is_delivered_once() -> None:
    client = Client()
    client.send(patch(10))
    client.deliver()
    with pytest.raises(RuntimeError):
        client.deliver()


def test_many_tiny_reads_before_the_body_is_wanted_are_kept_in_order() -> None:
    client = Client()
    client.send(patch(1000), *(b"%d" % (index % 10) for index in range(1000)))
    consumer, ends = client.deliver()
    assert (consumer.data, ends) == (b"0123456789" * 100, [""])


def test_a_chunked_body_has_no_length_and_is_decoded() -> None:
    client = Client()
    client.send(patch(None))
    assert client.body.length is None
    consumer, ends = client.deliver()
    client.send(b"5\r\nhello\r\n6;name=value\r\n world\r\n", b"0\r\n")
    assert (consumer.data, ends) == (b"hello world", [])
    client.send(b"\r\n")
    assert ends == [""]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11, 1000])
def test_the_cuts_between_reads_do_not_matter_to_chunks(size: int) -> None:
    client = Client(lambda request: None)
    stream = patch(None) + b"5\r\nhello\r\n00A\r\n, my world\r\n0;x\r\nA: b\r\nc: d\r\n\r\n"
    client.send(*(stream[at : at + size] for at in range(0, len(stream), size)))
    consumer, ends = client.deliver()
    assert (consumer.data, ends) == (b"hello, my world", [""])
    assert client.body.trailers == {"a": "b", "c": "d"}


def test_the_inside_of_a_large_chunk_is_not_copied() -> None:
    client = Client()
    client.send(patch(None), b"f4240\r\n")
    consumer, _ = client.deliver()
    piece = b"x" * 400_000
    client.send(piece, piece, b"x" * 200_000 + b"\r\n0\r\n\r\n")
    assert consumer.writes[0] is piece
    assert len(consumer.data) == 1_000_000


def test_the_chunks_of_one_read_are_written_at_once() -> None:
    client = Client()
    client.send(patch(None))
    consumer, _ = client.deliver()
    client.send(b"1\r\na\r\n" * 100)
    assert consumer.writes == [b"a" * 100]


def test_trailers_are_there_at_the_end_by_lower_case_name() -> None:
    client = Client()
    client.send(patch(None, "Trailer: Upload-Checksum"))
    _, ends = client.deliver()
    assert client.body.trailers == {}
    client.send(b"1\r\na\r\n0\r\nUpload-Checksum:  sha1 Kq5s== \r\nX-A: 1\r\nx-a: 2\r\n\r\n")
    assert ends == [""]
    assert client.body.trailers == {"upload-checksum": "sha1 Kq5s==", "x-a": "1, 2"}


# Backpressure


def test_pausing_closes_the_window_and_resuming_opens_it() -> None:
    client = Client()
    client.send(patch(10))
    consumer, ends = client.deliver()
    consumer.producer.pauseProducing()
    assert client.wire.producerState == "paused"
    client.send(b"abc")  # what was read already
    assert consumer.data == b""
    consumer.producer.resumeProducing()
    assert client.wire.producerState == "producing"
    assert consumer.data == b"abc"
    client.send(b"defghij")
    assert ends == [""]


def test_a_body_that_nobody_wants_yet_closes_the_window_after_a_bounded_read_ahead() -> None:
    client = Client()
    client.send(patch(10 * READ_AHEAD), b"x" * (READ_AHEAD - 1))
    assert client.wire.producerState == "producing"
    client.send(b"x")
    assert client.wire.producerState == "paused"
    consumer, _ = client.deliver()
    assert client.wire.producerState == "producing"
    assert len(consumer.data) == READ_AHEAD


def test_a_paused_consumer_gets_the_end_only_after_the_bytes() -> None:
    client = Client()
    client.send(patch(4))
    consumer, ends = client.deliver()
    consumer.producer.pauseProducing()
    client.send(b"abcd")
    assert (consumer.data, ends) == (b"", [])
    consumer.producer.resumeProducing()
    assert (consumer.data, ends) == (b"abcd", [""])


def test_a_consumer_may_pause_while_held_bytes_are_written_to_it() -> None:
    client = Client()
    client.send(patch(6) + b"ab", b"cd", b"ef")
    consumer, ends = client.deliver(Consumer(pause_after=2))
    assert (consumer.data, ends) == (b"ab", [])
    consumer.producer.resumeProducing()
    assert consumer.data == b"abcd"
    consumer.producer.resumeProducing()
    assert (consumer.data, ends) == (b"abcdef", [""])


def test_a_full_send_buffer_does_not_reopen_the_window_of_a_paused_body() -> None:
    client = Client()
    client.send(patch(10))
    consumer, _ = client.deliver()
    consumer.producer.pauseProducing()
    client.channel.pauseProducing()
    client.channel.resumeProducing()
    assert client.wire.producerState == "paused"


def test_between_requests_a_full_send_buffer_closes_the_window() -> None:
    client = Client()
    client.channel.pauseProducing()
    assert client.wire.producerState == "paused"
    client.channel.resumeProducing()
    assert client.wire.producerState == "producing"


def test_reads_grow_while_they_come_back_full_and_shrink_at_the_end_of_the_body() -> None:
    client = Client()
    client.send(patch(16 << 20))
    client.deliver()
    sizes = []
    for _ in range(6):
        client.send(b"x" * client.wire.bufferSize)
        sizes.append(client.wire.bufferSize)
    assert sizes == [1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 20, 1 << 20]
    client.send(b"x" * ((16 << 20) - client.body.received))
    assert client.wire.bufferSize == READ_SIZE


def test_small_reads_do_not_grow() -> None:
    client = Client()
    client.send(patch(1 << 20), b"x" * 1000, b"x" * 60_000)
    assert client.wire.bufferSize == READ_SIZE


# Loss


def test_a_disconnect_ends_the_body_after_its_bytes() -> None:
    client = Client()
    client.send(patch(10) + b"abc")
    consumer, ends = client.deliver()
    client.hang_up()
    assert (consumer.data, ends, consumer.producer) == (b"abc", ["disconnected"], None)


def test_a_disconnect_delivers_even_to_a_paused_consumer() -> None:
    client = Client()
    client.send(patch(10))
    consumer, ends = client.deliver(Consumer(pause_after=1))
    client.send(b"a")
    client.send(b"bc")
    assert consumer.data == b"a"
    client.hang_up()
    assert (consumer.data, ends) == (b"abc", ["disconnected"])


def test_a_body_lost_before_it_was_wanted_still_brings_its_bytes() -> None:
    client = Client()
    client.send(patch(10) + b"abc")
    request = client.request
    client.hang_up()
    consumer = Consumer()
    ends = ending(request.body.deliver(consumer))
    assert (consumer.data, ends) == (b"abc", ["disconnected"])


def test_a_disconnect_after_the_whole_body_came_loses_nothing() -> None:
    client = Client()
    client.send(patch(3))
    consumer, ends = client.deliver()
    producer = consumer.producer
    producer.pauseProducing()
    client.send(b"abc")
    client.hang_up()
    producer.resumeProducing()
    assert (consumer.data, ends) == (b"abc", [""])


def test_answering_after_a_disconnect_does_nothing() -> None:
    client = Client()
    client.send(patch(10))
    finished: list[object] = []
    client.request.notifyFinish().addErrback(finished.append)
    client.deliver()[1]
    client.hang_up()
    client.request.close_after_answer()
    answer(client.request)
    assert client.received() == b""
    assert len(finished) == 1


def test_stop_producing_drops_the_rest() -> None:
    client = Client()
    client.send(patch(10))
    consumer, ends = client.deliver()
    consumer.producer.stopProducing()
    client.send(b"abc")
    assert (consumer.data, ends) == (b"", ["disconnected"])


def test_a_discarded_body_is_read_and_dropped_and_the_connection_stays() -> None:
    client = Client()
    client.send(patch(10) + b"abc")
    consumer, ends = client.deliver()
    client.body.discard()
    client.send(b"defghij")
    assert (consumer.data, ends, consumer.producer) == (b"abc", [], None)
    answer(client.request)
    assert b"Connection: close" not in client.received()
    client.send(GET)
    assert len(client.tree.requests) == 2


def test_what_is_dropped_is_bounded_for_each_request_not_for_the_connection() -> None:
    client = Client(linger_bytes=1000)
    for _ in range(5):
        client.send(patch(900))
        client.deliver()
        client.body.discard()
        client.send(b"x" * 900)
        answer(client.request)
    assert client.wire.producerState == "producing"
    assert len(client.tree.requests) == 5


def test_a_discarded_body_is_not_read_for_ever() -> None:
    client = Client(linger_bytes=1000)
    client.send(patch(10_000))
    client.deliver()
    client.body.discard()
    client.send(b"x" * 1001)
    assert client.wire.producerState == "paused"
    answer(client.request, 413)
    client.advance(11)
    assert client.wire.disconnecting


def test_discarding_a_paused_body_opens_the_window() -> None:
    client = Client()
    client.send(patch(10))
    consumer, _ = client.deliver()
    consumer.producer.pauseProducing()
    client.body.discard()
    assert client.wire.producerState == "producing"


def test_a_consumer_may_discard_from_within_a_write() -> None:
    client = Client()
    client.send(patch(6) + b"ab", b"cd")

    class Full(Consumer):
        def write(self, data: bytes) -> None:
            super().write(data)
            client.body.discard()

    consumer, ends = client.deliver(Full())
    client.send(b"ef")
    assert (consumer.data, ends) == (b"ab", [])


def test_cancelling_a_delivery_discards_the_body() -> None:
    client = Client()
    client.send(patch(10))
    consumer = Consumer()
    delivered = client.body.deliver(consumer)
    cancelled: list[object] = []
    delivered.addErrback(cancelled.append)
    delivered.cancel()
    client.send(b"abc")
    client.hang_up()
    assert (consumer.data, consumer.producer, len(cancelled)) == (b"", None, 1)


def test_an_answer_while_the_body_is_delivered_ends_the_delivery() -> None:
    client = Client()
    client.send(patch(10) + b"abc")
    consumer, ends = client.deliver()
    answer(client.request, 423)
    assert (consumer.data, ends) == (b"abc", ["disconnected"])


# Malformed chunks


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n",
        b"-1\r\na\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"\r\n",
        b"1\na\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\n\n",
        b"1;a\0\r\na\r\n",
        b"1;a\nb\r\na\r\n",
        b"1" * 17 + b"\r\n",
        b"1;" + b"x" * 2000,
        b"1;" + b"x" * 2000 + b"\r\na\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n bad: name\r\n\r\n",
        b"0\r\nbad : name\r\n\r\n",
        b"0\r\na: b\nc: d\r\n\r\n",
        b"0\r\na: " + b"x" * 20_000,
        b"0\r\n" + b"a: bbbbbbbbbbb\r\n" * 2_000 + b"\r\n",
    ],
)
def test_a_malformed_chunk_loses_the_body_but_not_what_came_before(chunks: bytes) -> None:
    client = Client()
    client.send(patch(None))
    consumer, ends = client.deliver()
    client.send(b"5\r\nhello\r\n" + chunks)
    assert consumer.data[:5] == b"hello"
    assert ends == ["malformed"]
    client.send(GET)
    assert len(client.tree.requests) == 1
    answer(client.request, 400)
    received = client.received()
    assert received.startswith(b"HTTP/1.1 400 ") and b"Connection: close\r\n" in received
    client.send(GET)
    client.advance(11)
    assert client.wire.disconnecting


# Expect


EXPECT = "Expect: 100-continue"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_100_continue_is_sent_when_the_body_is_wanted() -> None:
    client = Client()
    assert client.send(patch(5, EXPECT)) == b""
    assert client.body.expects_continue
    assert not client.request.requestHeaders.hasHeader(b"expect")
    client.deliver()
    assert client.received() == CONTINUE


def test_a_rejection_is_not_followed_by_a_stray_100() -> None:
    client = Client(lambda request: answer(request, 409))
    received = client.send(patch(5, EXPECT))
    assert received.startswith(b"HTTP/1.1 409 ") and b"Connection: close\r\n" in received
    client.deliver()
    assert client.received() == b""


@pytest.mark.parametrize("stream", [patch(0, EXPECT), patch(None, EXPECT) + b"0\r\n\r\n"])
def test_100_continue_is_sent_even_when_the_body_is_empty(stream: bytes) -> None:
    client = Client()
    client.send(stream)
    _, ends = client.deliver()
    answer(client.request)
    assert ends == [""]
    assert client.received().startswith(CONTINUE + b"HTTP/1.1 204 ")


def test_no_100_for_http_1_0_nor_without_expect() -> None:
    for head in (patch(5), patch(5, EXPECT, version="1.0")):
        client = Client()
        client.send(head)
        assert not client.body.expects_continue
        client.deliver()
        assert client.received() == b""


def test_other_expectations_are_417() -> None:
    assert problem_of(Client().send(patch(5, "Expect: wonders")))[0] == 417


# Early answers


def test_an_early_answer_goes_out_at_once_and_the_rest_is_dropped() -> None:
    client = Client(lambda request: answer(request, 409))
    received = client.send(patch(1000) + b"x" * 10)
    assert received.startswith(b"HTTP/1.1 409 ") and b"Connection: close\r\n" in received
    assert not client.wire.disconnecting
    client.send(b"x" * 500)
    assert not client.wire.disconnecting
    assert client.send(b"x" * 490) == b""
    assert client.wire.disconnecting


def test_an_early_answer_to_a_chunked_body_waits_for_its_end() -> None:
    client = Client(lambda request: answer(request, 409))
    client.send(patch(None), b"5\r\nhello\r\n")
    assert not client.wire.disconnecting
    client.send(b"0\r\n\r\n")
    assert client.wire.disconnecting


def test_an_early_answer_opens_the_window_that_an_unwanted_body_had_closed() -> None:
    client = Client()
    client.send(patch(10 * READ_AHEAD), b"x" * READ_AHEAD)
    assert client.wire.producerState == "paused"
    answer(client.request, 409)
    assert client.wire.producerState == "producing"
    client.send(b"x" * 9 * READ_AHEAD)
    assert client.wire.disconnecting


def test_what_follows_an_early_answer_is_never_taken_for_a_request() -> None:
    client = Client(lambda request: answer(request, 409))
    client.send(patch(100))
    assert client.send(b"x" * 100 + GET, GET) == b""
    assert len(client.tree.requests) == 1


def test_dropping_ends_after_the_linger_time() -> None:
    client = Client(lambda request: answer(request, 409), linger=10)
    client.send(patch(1000))
    client.advance(9)
    assert not client.wire.disconnecting
    client.advance(2)
    assert client.wire.disconnecting and not client.wire.disconnected
    client.advance(61)
    assert client.wire.disconnected


def test_a_connection_that_is_read_no_more_is_closed_soon() -> None:
    """A browser shows the answer to a body that it still sends only when the connection ends."""
    client = Client(lambda request: answer(request, 409), linger=10, linger_bytes=1000)
    client.send(patch(5000), bytes(1001))
    assert not client.wire.disconnecting
    client.advance(2.5)
    assert client.wire.disconnecting


def test_dropping_ends_after_the_linger_bytes() -> None:
    client = Client(lambda request: answer(request, 409), linger_bytes=1000)
    client.send(patch(10_000), b"x" * 1000)
    assert client.wire.producerState == "producing"
    client.send(b"x")
    assert client.wire.producerState == "paused"
    client.advance(11)
    assert client.wire.disconnecting


def test_a_small_body_that_came_with_its_head_keeps_the_connection() -> None:
    for stream in (patch(5) + b"hello", patch(None) + b"5\r\nhello\r\n0\r\n\r\n"):
        client = Client(lambda request: answer(request, 409))
        assert b"Connection: close" not in client.send(stream)
        assert client.send(GET).startswith(b"HTTP/1.1 409 ")
        assert not client.wire.disconnecting


@pytest.mark.parametrize("following", [b"", GET])
def test_an_answer_from_within_the_last_write_keeps_the_connection(following: bytes) -> None:
    client = Client()

    class Hasty(Consumer):
        def write(self, data: bytes) -> None:
            super().write(data)
            if self.data == b"hello":
                answer(client.tree.requests[0])

    client.send(patch(5) + b"he")
    consumer, ends = client.deliver(Hasty())
    received = client.send(b"llo" + following)
    assert received.startswith(b"HTTP/1.1 204 ") and b"Connection: close" not in received
    assert (consumer.writes, ends) == ([b"he", b"llo"], [""])
    client.send(GET)
    assert len(client.tree.requests) >= 2


def test_a_body_that_completes_while_it_is_answered_early_is_answered_once() -> None:
    def handler(request: StreamingRequest) -> None:
        request.body.deliver(Consumer()).addCallback(lambda _: answer(request, 204))
        answer(request, 409)

    assert Client(handler).send(patch(5) + b"hello").count(b"HTTP/1.1 ") == 1


def test_the_transport_is_half_closed_after_an_early_answer_if_it_can_be() -> None:
    client = Client(lambda request: answer(request, 409))
    calls: list[str] = []
    client.wire.loseWriteConnection = lambda: calls.append("half")  # type: ignore[attr-defined]
    client.send(patch(1000))
    assert calls == ["half"]
    assert not client.wire.disconnecting


def test_a_handler_may_demand_that_the_connection_closes() -> None:
    def handler(request: StreamingRequest) -> None:
        request.close_after_answer()
        answer(request, 423)

    client = Client(handler)
    assert b"Connection: close\r\n" in client.send(GET)
    assert client.wire.disconnecting


# Keep-alive and pipelining


def test_pipelined_requests_are_answered_in_order_one_after_the_other() -> None:
    client = Client()
    client.send(patch(3) + b"abc" + GET + GET)
    assert len(client.tree.requests) == 1
    answer(client.request)
    assert len(client.tree.requests) == 2
    answer(client.request, 200, b"2")
    answer(client.request, 200, b"3")
    assert client.received().count(b"HTTP/1.1 ") == 3
    assert not client.wire.disconnecting


def test_a_thousand_pipelined_requests_do_not_recurse() -> None:
    client = Client(lambda request: answer(request, 200, b"x"))
    assert client.send(GET * 1000).count(b"HTTP/1.1 200 ") == 1000


def test_pipelined_bytes_are_bounded_while_a_request_is_answered() -> None:
    client = Client()
    client.send(GET, GET * 500)
    assert client.wire.producerState == "paused"
    client.tree.handler = lambda request: answer(request, 200, b"x")
    answer(client.request)
    assert client.wire.producerState == "producing"
    assert len(client.tree.requests) == 501


def test_an_empty_line_before_a_request_is_skipped_once() -> None:
    client = Client(lambda request: answer(request, 200, b"x"))
    assert client.send(b"\r\n" + GET).startswith(b"HTTP/1.1 200 ")
    assert client.send(b"\r\n", GET).startswith(b"HTTP/1.1 200 ")
    assert client.send(b"\r\n\r\n" + GET).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close", "close,Upgrade"])
def test_a_client_may_ask_for_the_connection_to_be_closed(value: str) -> None:
    client = Client(lambda request: answer(request, 200, b"x"))
    assert b"Connection: close\r\n" in client.send(
        GET.replace(b"\r\n\r\n", f"\r\nConnection: {value}\r\n\r\n".encode())
    )
    assert client.wire.disconnecting


def test_http_1_0_is_answered_and_closed() -> None:
    client = Client(lambda request: answer(request, 200, b"x"))
    assert client.send(b"GET /files/1 HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")
    assert client.wire.disconnecting


# Guards


def test_a_silent_body_is_lost_as_idle_and_may_still_be_answered() -> None:
    client = Client(network_timeout=60)
    client.send(patch(100_000))
    consumer, ends = client.deliver()
    client.advance(30)
    client.send(b"x" * 20_000)
    client.advance(59)
    assert ends == []
    client.advance(2)
    assert (len(consumer.data), ends) == (20_000, ["idle"])
    assert not client.wire.disconnecting
    answer(client.request, 408)
    assert b"Connection: close\r\n" in client.received()
    client.advance(11)
    assert client.wire.disconnecting


def test_a_dripping_body_is_lost_as_slow() -> None:
    client = Client(network_timeout=60, min_rate=100)
    client.send(patch(100_000))
    consumer, ends = client.deliver()
    for _ in range(59):
        client.advance(1)
        client.send(b"x" * 50)
    assert ends == []
    client.advance(2)
    assert (len(consumer.data), ends) == (59 * 50, ["slow"])


@pytest.mark.parametrize(("rate", "limit"), [(101, 100), (1, 0)])
def test_a_body_that_is_fast_enough_goes_on(rate: int, limit: int) -> None:
    client = Client(network_timeout=60, min_rate=limit)
    client.send(patch(1_000_000))
    _, ends = client.deliver()
    for _ in range(300):
        client.send(b"x" * rate)
        client.advance(1)
    assert ends == []


def test_a_body_that_slows_down_later_is_lost_too() -> None:
    client = Client(network_timeout=60, min_rate=100)
    client.send(patch(10_000_000))
    _, ends = client.deliver()
    client.send(b"x" * 1_000_000)
    for _ in range(125):
        client.advance(1)
        client.send(b"x")
    assert ends == ["slow"]


def test_time_that_we_pause_counts_for_no_guard() -> None:
    client = Client(network_timeout=60)
    client.send(patch(100_000))
    consumer, ends = client.deliver()
    client.advance(30)
    consumer.producer.pauseProducing()
    client.advance(1000)
    consumer.producer.resumeProducing()
    assert ends == []
    client.advance(29)
    assert ends == []
    client.advance(33)
    assert len(ends) == 1


def test_a_handler_may_take_its_time() -> None:
    client = Client(network_timeout=60)
    client.send(patch(3) + b"abc")
    _, ends = client.deliver()
    client.advance(10_000)
    assert ends == [""]
    answer(client.request)
    assert client.received().startswith(b"HTTP/1.1 204 ")
    assert not client.wire.disconnecting


def test_a_body_that_nobody_wants_yet_is_not_guarded() -> None:
    client = Client(network_timeout=60)
    client.send(patch(10))
    client.advance(10_000)
    _, ends = client.deliver()
    client.advance(59)
    assert ends == []
    client.advance(2)
    assert ends == ["idle"]


@pytest.mark.parametrize("interval", [1, 20])
def test_headers_must_be_complete_within_the_network_timeout(interval: int) -> None:
    client = Client(network_timeout=60)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
    for _ in range(60 // interval):
        client.send(b"x")
        client.advance(interval)
    client.advance(2)
    status, _, document = problem_of(client.received())
    assert (status, document["status"]) == (408, 408)
    client.advance(11)
    assert client.wire.disconnecting


def test_an_idle_connection_is_closed_without_a_word() -> None:
    client = Client(lambda request: answer(request, 200, b"x"), network_timeout=60)
    client.advance(59)
    client.send(GET)
    client.advance(59)
    assert not client.wire.disconnecting
    client.advance(2)
    assert client.wire.disconnecting
    assert client.received().count(b"HTTP/1.1") == 0


def test_a_connection_that_never_says_anything_is_closed() -> None:
    client = Client(network_timeout=60)
    client.advance(61)
    assert client.wire.disconnecting


def test_a_closed_connection_that_stays_is_aborted() -> None:
    client = Client(lambda request: answer(request, 200, b"x"), network_timeout=60)
    client.advance(61)
    assert not client.wire.disconnected
    client.advance(61)
    assert client.wire.disconnected


def test_all_connections_share_one_timer_which_ends_with_the_last() -> None:
    client = Client()
    others = [Client(site=client.site) for _ in range(100)]
    assert len(client.clock.getDelayedCalls()) == 1
    for other in [client, *others]:
        other.hang_up()
    assert client.clock.getDelayedCalls() == []


def test_a_started_factory_keeps_no_timer_and_no_access_log() -> None:
    client = Client(lambda request: answer(request, 200, b"x"))
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        client.site.doStart()
        client.send(GET)
        client.hang_up()
        assert client.clock.getDelayedCalls() == []
        client.site.doStop()
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert not [event for event in logged if "GET" in str(event.get("log_format"))]


# Stopping


@pytest.mark.parametrize("asked", [False, True])
def test_stopping_closes_idle_connections_at_once(asked: bool) -> None:
    client = Client()
    if asked:
        client.send(GET)
        answer(client.request)
    else:
        client.advance(2)
    client.site.stop_idle()
    assert client.wire.disconnecting


@pytest.mark.parametrize("sent", [b"", GET[:1], GET[:-1]])
def test_stopping_waits_a_moment_for_a_request_that_is_on_its_way(sent: bytes) -> None:
    client = Client()
    client.send(sent)
    client.site.stop_idle()
    assert not client.wire.disconnecting
    client.send(GET[len(sent) :])
    answer(client.request)
    received = client.received()
    assert b"Connection: close\r\n" in received and received.startswith(b"HTTP/1.1 204 ")
    assert client.wire.disconnecting


def test_stopping_waits_for_the_rest_of_a_later_request() -> None:
    client = Client()
    client.send(GET)
    answer(client.request)
    client.received()
    client.send(GET[:5])
    client.site.stop_idle()
    client.send(GET[5:])
    answer(client.request)
    assert client.received().startswith(b"HTTP/1.1 204 ") and client.wire.disconnecting


def test_stopping_waits_no_longer_than_a_moment() -> None:
    silent = Client()
    slow = Client(site=silent.site)
    slow.send(GET[:5])
    silent.site.stop_idle()
    silent.advance(2)
    assert silent.wire.disconnecting and silent.received() == b""
    assert slow.received().startswith(b"HTTP/1.1 408 ")


def test_stopping_does_not_wait_for_idle_clients_that_do_not_say_goodbye() -> None:
    """TLS closes when the other side has agreed; one that sleeps would keep the server for its whole time to stop."""
    client = Client()
    client.wire.loseConnection = lambda: None  # type: ignore[method-assign]
    client.advance(2)
    client.site.stop_idle()
    client.advance(1)
    assert client.site.connections
    client.advance(2)
    assert client.wire.disconnected


def test_stopping_lets_answers_out_and_closes_after_them() -> None:
    client = Client()
    client.send(patch(3) + b"ab")
    _, ends = client.deliver()
    client.site.stop_idle()
    assert not client.wire.disconnecting
    client.send(b"c" + GET)
    assert ends == [""]
    answer(client.request)
    received = client.received()
    assert b"Connection: close\r\n" in received and received.startswith(b"HTTP/1.1 204 ")
    assert len(client.tree.requests) == 1
    client.advance(11)
    assert client.wire.disconnecting


def test_a_connection_that_comes_while_stopping_is_closed_after_its_first_request() -> None:
    client = Client()
    client.site.stop_idle()
    late = Client(site=client.site)
    late.send(GET)
    answer(client.request)
    assert late.received().startswith(b"HTTP/1.1 204 ") and late.wire.disconnecting


def test_drained_fires_when_no_connection_is_left() -> None:
    client = Client()
    other = Client(site=client.site)
    fired: list[None] = []
    client.site.drained().addCallback(fired.append)
    client.hang_up()
    assert fired == []
    other.hang_up()
    assert fired == [None]
    client.site.drained().addCallback(fired.append)
    assert len(fired) == 2


def test_abort_all_resets_what_is_open_and_the_bodies_are_lost() -> None:
    client = Client()
    client.send(patch(10) + b"abc")
    consumer, ends = client.deliver()
    client.site.abort_all()
    assert client.wire.disconnected
    client.hang_up()
    assert (consumer.data, ends) == (b"abc", ["disconnected"])


def test_closing_the_connections_aborts_what_is_left_after_the_grace() -> None:
    client = Client()
    client.send(patch(10))
    closed = ensureDeferred(client.site.close_connections(5))
    client.advance(4)
    assert not client.wire.disconnected
    client.advance(2)
    assert client.wire.disconnected
    client.hang_up()
    assert closed.called
    assert client.clock.getDelayedCalls() == []


# What is refused


def problem_of(response: bytes) -> tuple[int, bytes, dict[str, Any]]:
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert b"\r\nContent-Type: application/problem+json" in head
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert len(body) >= 256
    document = json.loads(body)
    assert set(document) == {"type", "title", "status", "detail"}
    return int(head.split(b" ")[1]), head, document


def head(*lines: bytes, start: bytes = b"PATCH /files/1 HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([start, host, *lines, b"", b""])


REFUSED: Iterable[tuple[bytes, int, str]] = [
    (head(b"Content-Length: 5", b"Content-Length: 5"), 400, "more than once"),
    (head(b"Content-Length: 5", b"Content-Length: 6"), 400, "more than once"),
    (head(b"Content-Length: 5, 5"), 400, "number"),
    (head(b"Content-Length: +5"), 400, "number"),
    (head(b"Content-Length: -5"), 400, "number"),
    (head(b"Content-Length: 0x5"), 400, "number"),
    (head(b"Content-Length: 5_0"), 400, "number"),
    (head(b"Content-Length:"), 400, "number"),
    (head("Content-Length: ٣".encode()), 400, "number"),
    (head(b"Content-Length: " + b"9" * 5000), 400, "number"),
    (head(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400, "exclude"),
    (head(b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400, "exclude"),
    (head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400, "more than once"),
    (head(b"Transfer-Encoding: identity"), 501, "chunked"),
    (head(b"Transfer-Encoding: gzip, chunked"), 501, "chunked"),
    (head(b"Transfer-Encoding: xchunked"), 501, "chunked"),
    (head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0"), 400, "HTTP/1.0"),
    (head(b"Content-Length : 5"), 400, "name"),
    (head(b"Content Length: 5"), 400, "name"),
    (head(b"\xe9: 5"), 400, "name"),
    (head(b": 5"), 400, "name"),
    (head(b"no colon"), 400, "colon"),
    (head(b"X: a", b" folded"), 400, "folded"),
    (head(b"\tX: a"), 400, "folded"),
    (head(b"X: a\0b"), 400, "NUL"),
    (head(b"X: a\nContent-Length: 5"), 400, "bare"),
    (head(b"X: a\rContent-Length: 5"), 400, "bare"),
    (head(b"X: a", host=b"X-No: host"), 400, "Host"),
    (head(b"Host: b"), 400, "Host"),
    (b"GET /\r\n", 400, "request line"),
    (b"GET / HTTP/0.9\r\n", 400, "request line"),
    (b"GET / HTTP/2.0\r\n", 400, "request line"),
    (b"GET  / HTTP/1.1\r\n", 400, "request line"),
    (b"GET /a b HTTP/1.1\r\n", 400, "request line"),
    (b"G@T / HTTP/1.1\r\n", 400, "request line"),
    (b"/ HTTP/1.1\r\n", 400, "request line"),
    (b"GET /\xe9 HTTP/1.1\r\n", 400, "request line"),
    (b"GET /\0 HTTP/1.1\r\n", 400, "request line"),
    (b"GET / HTTP/1.1\n", 400, "CR LF"),
    (b"\n", 400, "CR LF"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\n", 400, "CR LF"),
    (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n", 414, "longer"),
    (b"x" * 9_000, 414, "longer"),
    (head(b"X: " + b"x" * 17_000), 431, "longer"),
    (b"GET / HTTP/1.1\r\nX: " + b"x" * 17_000, 431, "longer"),
    (head(*[b"X: y"] * 501), 431, "fields"),
]


@pytest.mark.parametrize(("stream", "status", "reason"), REFUSED)
@pytest.mark.parametrize("cut", [None, 1])
def test_a_malformed_request_is_refused_with_the_reason(
    stream: bytes, status: int, reason: str, cut: int | None
) -> None:
    client = Client(lambda request: answer(request, 200, b"smuggled"))
    stream += GET
    if cut is None:
        received = client.send(stream)
    else:
        received = client.send(*(stream[at : at + cut] for at in range(0, len(stream), cut)))
    answered, _, document = problem_of(received)
    assert (answered, document["status"]) == (status, status)
    assert reason in document["detail"]
    assert client.tree.requests == []
    assert client.send(GET) == b""
    client.advance(11)
    assert client.wire.disconnecting


def test_T2_a_refusal_before_there_is_a_request_carries_the_fields_of_every_answer() -> None:
    client = Client(refusal_fields=lambda _: [(b"Tus-Resumable", b"1.0.0")])
    answer = client.send(b"nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nTus-Resumable: 1.0.0\r\n" in answer.partition(b"\r\n\r\n")[0] + b"\r\n"


def test_a_malformed_request_after_a_good_one_is_refused_after_its_answer() -> None:
    client = Client()
    assert client.send(GET + b"BAD\r\n\r\n") == b""
    answer(client.request, 200, b"x")
    received = client.received()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 Bad Request\r\n" in received


# Klein


def klein_client(route: Callable[..., Any], **options: Any) -> Client:
    app = Klein()
    app.route("/files/<name>", methods=["PATCH", "GET"])(route)
    client = Client()
    site = StreamingSite(app.resource(), reactor=client.clock, **options)
    client = Client(site=site)
    return client


def test_a_klein_route_runs_at_header_completion() -> None:
    seen: list[StreamingRequest] = []
    consumer = Consumer()

    async def route(request: Any, name: str) -> bytes:
        seen.append(request)
        await request.body.deliver(consumer)
        request.setResponseCode(204)
        return b""

    client = klein_client(route)
    client.send(patch(5) + b"he")
    assert len(seen) == 1
    assert client.send(b"llo").startswith(b"HTTP/1.1 204 ")
    assert consumer.data == b"hello"
    assert client.send(patch(1), b"x").startswith(b"HTTP/1.1 204 ")


def test_a_klein_route_that_is_cancelled_by_a_disconnect_has_got_the_bytes() -> None:
    consumer = Consumer()
    losses: list[str] = []
    logged: list[Any] = []

    async def route(request: Any, name: str) -> bytes:
        try:
            await request.body.deliver(consumer)
        except BodyLost as lost:
            losses.append(lost.reason)
            raise
        return b""

    globalLogPublisher.addObserver(logged.append)
    try:
        client = klein_client(route)
        client.send(patch(5) + b"he")
        client.hang_up()
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert (consumer.data, losses) == (b"he", ["disconnected"])
    assert not [event for event in logged if event.get("log_failure")]


def test_a_klein_route_that_ignores_the_body_answers_early() -> None:
    client = klein_client(lambda request, name: b"no")
    assert b"Connection: close\r\n" in client.send(patch(5))


def test_nothing_here_warns_or_leaks_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = Client(lambda request: answer(request, 409))
        client.send(patch(100))
        client.hang_up()


FRAGMENTS = [
    *(patch(3), patch(3, EXPECT), patch(None), patch(0), GET),
    *(b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"\r\n", b"\n", b"\r", b"\0", b": ", b"zz"),
    *(b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"Content-Length: 3\r\n", b"x" * 70_000),
]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12), st.integers(1, 40), st.booleans(), st.booleans())
def test_no_stream_of_bytes_breaks_a_connection(fragments: list[bytes], cut: int, at_once: bool, pausing: bool) -> None:
    """Whatever comes, nothing raises, each body has one end, each request one answer, and no timer is left."""
    ends: list[object] = []
    consumers: list[Consumer] = []

    def ended(outcome: object, request: StreamingRequest) -> None:
        ends.append(outcome)
        answer(request, 200, b"ok")

    def handler(request: StreamingRequest) -> None:
        consumers.append(Consumer(pause_after=1 if pausing else None))
        request.body.deliver(consumers[-1]).addBoth(ended, request)

    client = Client(handler)
    stream = b"".join(fragments)
    pieces = [stream] if at_once else [stream[at : at + cut] for at in range(0, min(len(stream), 2_000), cut)]
    received = client.send(*pieces)
    assert received.count(b"HTTP/1.1 200 ") == len(ends)
    assert received.count(b"HTTP/1.1 4") + received.count(b"HTTP/1.1 5") <= 1
    client.advance(200)
    for consumer in consumers:
        consumer.pause_after = None
        if consumer.producer is not None:
            consumer.producer.resumeProducing()
    client.hang_up()
    assert len(ends) == len(consumers) == len(client.tree.requests)
    assert all(outcome is None or outcome.check(BodyLost) for outcome in ends)  # type: ignore[attr-defined]
    assert client.clock.getDelayedCalls() == []

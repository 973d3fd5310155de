"""Bodies of requests and answers in HTTP/2, their windows and their memory."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from resumable.http.channel import READ_SIZE
from resumable.http.h2.answers import MAX_PRODUCED, MAX_UNSENT
from resumable.http.h2.frames import MAX_FRAME
from resumable.http.h2.limits import CONNECTION_WINDOW, STREAM_WINDOW, HeldBytes
from resumable.http.h2.link import MAX_STREAMS, MOST_READ
from resumable.http.request import StreamingRequest
from tests.http.http1_client import Consumer, answer
from tests.http.http2_client import MIB, PING, Client, frame

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


def test_reads_grow_while_they_bring_bodies_and_shrink_for_anything_else() -> None:
    """Many frames in one read would keep other connections waiting."""
    client = Client()
    stream = client.patch()
    client.deliver()
    sizes = []
    for _ in range(4):
        sizes.append(client.wire.bufferSize)
        for _ in range(sizes[-1] // MAX_FRAME):
            client.h2.send_data(stream, b"x" * (MAX_FRAME - 9))
        client.exchange()
    assert sizes == [READ_SIZE, 2 * READ_SIZE, MOST_READ, MOST_READ]
    client.channel.dataReceived(b"".join(frame(PING, b"12345678", stream=0) for _ in range(100)))
    assert client.wire.bufferSize == READ_SIZE


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

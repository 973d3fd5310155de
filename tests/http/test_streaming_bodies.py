"""Bodies of HTTP/1.1: delivered, paused, lost, malformed, expected."""

from __future__ import annotations

import pytest

from resumable.http.body import READ_AHEAD
from resumable.http.channel import READ_SIZE
from tests.http.http1_client import CONTINUE, EXPECT, GET, Client, Consumer, answer, ending, patch, problem_of

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
    client.send(patch(1 << 20), b"x" * 1000, b"x" * 30_000)
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

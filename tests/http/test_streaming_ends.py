"""How requests and connections of HTTP/1.1 end: early answers, keep-alive, time-outs, a stop."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.logger import globalLogPublisher

from resumable.http.body import READ_AHEAD
from resumable.http.request import StreamingRequest
from tests.http.http1_client import GET, Client, Consumer, answer, patch, problem_of

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


def test_a_slow_head_behind_an_empty_line_is_answered_by_its_method() -> None:
    client = Client()
    client.send(b"\r\nHEAD / HTTP/1.1\r\n")
    client.advance(62)
    answer = client.received()
    assert answer.startswith(b"HTTP/1.1 408 ") and answer.endswith(b"\r\n\r\n")


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

"""Informational responses before the answer, over HTTP/1.1 and HTTP/2; RFC 9110 section 15.2."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.web.http_headers import InvalidHeaderName

from resumable.http.request import StreamingRequest
from tests.http import http2_client
from tests.http.http1_client import CONTINUE, EXPECT, GET, Client, Consumer, answer, ending, patch
from tests.http.sockets import Server, connected, in_thread

INTERIM = b"HTTP/1.1 104 Upload Resumption Supported\r\nLocation: /files/1\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n"


def inform(request: StreamingRequest) -> bool:
    return request.interim(104, [(b"location", b"/files/1")])


def informed(request: StreamingRequest, code: int = 204) -> None:
    """A handler that sends a 104 if it may, then answers."""
    inform(request)
    answer(request, code)


def inform_and_take(request: StreamingRequest) -> None:
    """A handler that sends a 104 if it may, then wants the body."""
    inform(request)
    ending(request.body.deliver(Consumer()))


# HTTP/1.1


def test_it_goes_out_at_once_with_its_fields() -> None:
    client = Client()
    client.send(patch(5))
    assert inform(client.request)
    assert client.received() == INTERIM


def test_several_may_come_before_the_answer_and_none_after_it() -> None:
    client = Client()
    client.send(patch(5))
    assert inform(client.request) and inform(client.request)
    client.deliver()
    assert client.send(b"hello") == 2 * INTERIM
    assert inform(client.request)
    answer(client.request)
    assert client.received().startswith(INTERIM + NO_CONTENT)
    assert not inform(client.request)
    assert client.received() == b""


def test_none_comes_once_the_answer_has_begun() -> None:
    client = Client()
    client.send(GET)
    client.request.set_field(b"content-length", b"2")
    client.request.write(b"o")
    client.received()
    assert not inform(client.request)
    client.request.write(b"k")
    client.request.finish()
    assert client.received() == b"k"


def test_one_before_100_does_not_replace_it() -> None:
    client = Client()
    client.send(patch(5, EXPECT))
    assert inform(client.request)
    client.deliver()
    assert client.received() == INTERIM + CONTINUE


def test_one_may_follow_100() -> None:
    client = Client()
    client.send(patch(5, EXPECT))
    client.deliver()
    assert inform(client.request)
    assert client.received() == CONTINUE + INTERIM


@pytest.mark.parametrize("body", [patch(5, EXPECT) + b"hel", patch(None, EXPECT) + b"5\r\nhel"])
def test_100_is_the_same_with_one_and_without_when_a_part_of_the_body_came_along(body: bytes) -> None:
    client = Client(inform_and_take)
    assert client.send(body) == INTERIM + CONTINUE


def test_none_is_sent_to_http_1_0() -> None:
    client = Client(informed)
    assert client.send(b"GET /files/1 HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 204 ")


@pytest.mark.parametrize("code", [99, 100, 101, 200, 204])
def test_other_codes_are_not_sent_by_handlers(code: int) -> None:
    client = Client()
    client.send(GET)
    with pytest.raises(ValueError, match=str(code)):
        client.request.interim(code, [])
    assert client.received() == b""


def test_a_code_without_a_reason_has_none() -> None:
    client = Client()
    client.send(GET)
    assert client.request.interim(103, [(b"link", b"</>"), (b"link", b"</a>")])
    assert client.received() == b"HTTP/1.1 103 \r\nLink: </>\r\nLink: </a>\r\n\r\n"


def test_fields_cannot_break_out_of_their_lines() -> None:
    client = Client()
    client.send(GET)
    assert client.request.interim(104, [(b"location", b"/a\r\nX: y\r\n\r\nHTTP/1.1 200 OK")])
    assert client.received().splitlines()[1:] == [b"Location: /a X: y  HTTP/1.1 200 OK", b""]
    with pytest.raises(InvalidHeaderName):
        client.request.interim(104, [(b"x y\r\n", b"z")])
    assert client.received() == b""


def test_none_goes_to_a_client_that_has_gone() -> None:
    client = Client()
    client.send(patch(5))
    request = client.request
    client.hang_up()
    assert not inform(request)
    assert client.received() == b""


def test_none_goes_out_when_the_connection_closes() -> None:
    client = Client()
    client.send(patch(5))
    client.channel.abort()
    assert not inform(client.request)
    assert client.received() == b""


def test_none_comes_when_the_body_is_lost() -> None:
    """What its client sends, if anything, belongs to no request."""
    client = Client()
    client.send(patch(None), b"no chunk\r\n")
    assert not inform(client.request)
    answer(client.request, 400)
    assert client.received().startswith(b"HTTP/1.1 400 ")


def test_the_connection_goes_on_and_each_request_may_have_one() -> None:
    client = Client(informed)
    for _ in range(3):
        assert client.send(GET).startswith(INTERIM + NO_CONTENT)
    assert client.send(patch(5) + b"hello").startswith(INTERIM + NO_CONTENT)
    assert not client.wire.disconnecting


@pytest.mark.parametrize("first", [GET, patch(5) + b"hello", patch(None) + b"5\r\nhello\r\n0\r\n\r\n"])
def test_none_goes_to_a_client_that_pipelines(first: bytes) -> None:
    client = Client(informed)
    received = client.send(first + GET)
    assert received.count(b"HTTP/1.1 204 ") == received.count(b"HTTP/1.1 ") == 2
    assert client.send(GET).startswith(INTERIM)


@pytest.mark.parametrize("following", [b"", GET])
@pytest.mark.parametrize(("length", "body"), [(5, b"hello"), (None, b"5\r\nhello\r\n0\r\n\r\n")])
def test_a_consumer_may_send_one_unless_the_next_request_has_come(
    length: int | None, body: bytes, following: bytes
) -> None:
    client = Client()

    class Informing(Consumer):
        def write(self, data: bytes) -> None:
            super().write(data)
            inform(client.request)

    client.send(patch(length))
    client.deliver(Informing())
    assert client.send(body + following) == (b"" if following else INTERIM)


def test_none_goes_out_when_the_next_request_comes_before_the_answer() -> None:
    client = Client()
    client.send(GET)
    assert inform(client.request)
    assert client.send(GET[:3]) == INTERIM
    assert not inform(client.request)
    answer(client.request)
    client.send(GET[3:])
    assert len(client.tree.requests) == 2
    assert not inform(client.request)


@pytest.mark.parametrize("stream", [patch(5) + b"hello", patch(None) + b"5\r\nhello\r\n0\r\n\r\n", patch(5) + b"he"])
def test_a_body_that_came_with_its_head_is_not_taken_for_pipelining(stream: bytes) -> None:
    consumer, ends = Consumer(), list[str]()

    def handler(request: StreamingRequest) -> None:
        assert inform(request)
        ends.append("")
        request.body.deliver(consumer)

    assert Client(handler).send(stream) == INTERIM
    assert ends == [""] and b"hello".startswith(consumer.data) and consumer.data


def test_bytes_of_a_body_that_make_no_sense_end_in_no_informational_response() -> None:
    client = Client(inform_and_take)
    assert client.send(patch(None) + b"no chunk\r\n") == b""


def test_a_client_that_does_not_read_gets_the_first_only() -> None:
    client = Client()
    client.send(patch(5))
    client.wire.producer.pauseProducing()
    assert inform(client.request)
    assert not inform(client.request)
    client.wire.producer.resumeProducing()
    assert inform(client.request)
    assert client.received() == 2 * INTERIM


def test_they_keep_no_client_that_sends_nothing() -> None:
    client = Client(network_timeout=60)
    client.send(patch(100_000))
    _, ends = client.deliver()
    for _ in range(61):
        inform(client.request)
        client.advance(1)
    assert ends == ["idle"]


# Over a socket


@pytest_twisted.ensureDeferred
async def test_what_a_client_does_not_read_is_bounded(serve: Callable[..., Server]) -> None:
    sent: list[int] = []

    def handler(request: StreamingRequest) -> None:
        count = 0
        while count < 10_000 and request.interim(104, [(b"x", b"y" * 50_000)]):
            count += 1
        sent.append(count)
        answer(request)

    server = serve(handler)

    def client() -> bytes:
        with connected(server) as connection:
            connection.sendall(GET)
            received = b""
            while b"HTTP/1.1 204 " not in received[-1000:]:
                received += connection.recv(1 << 20)
            return received

    assert (await in_thread(client)).count(b"HTTP/1.1 104 ") == sent[0] < 10_000


# HTTP/2


def test_on_http_2_it_goes_out_at_once_with_its_fields() -> None:
    client = http2_client.Client()
    stream = client.patch(5)
    assert client.request.interim(104, [(b"Location", b"/a\r\nb")])
    client.hear()
    assert client.answers[stream].informed == [{":status": "104", "location": "/a b"}]
    assert not client.answers[stream].fields


def test_on_http_2_several_may_come_around_100_and_none_after_the_answer() -> None:
    client = http2_client.Client()
    stream = client.patch(5, expect="100-continue")
    assert inform(client.request)
    client.deliver()
    assert inform(client.request)
    client.data(stream, b"hello", end=True)
    request = client.request
    answer(request)
    assert not inform(request)
    client.hear()
    assert client.answers[stream].informational == ["104", "100", "104"]
    assert (client.answers[stream].status, client.answers[stream].ended) == (204, True)


def test_on_http_2_none_comes_once_the_answer_has_begun() -> None:
    client = http2_client.Client()
    stream = client.send()
    client.request.write(b"o")
    assert not inform(client.request)
    client.request.finish()
    client.hear()
    assert (client.answers[stream].informational, client.answers[stream].body) == ([], b"o")


def test_on_http_2_requests_that_come_together_have_one_each() -> None:
    client = http2_client.Client()
    streams = [client.send() for _ in range(3)]
    for request in client.tree.requests[::-1]:
        assert inform(request)
        answer(request)
    client.hear()
    assert [client.answers[stream].informational for stream in streams] == [["104"]] * 3
    assert [client.answers[stream].status for stream in streams] == [204] * 3


@pytest.mark.parametrize("reset", [False, True])
def test_on_http_2_none_goes_to_a_client_that_has_gone(reset: bool) -> None:
    client = http2_client.Client()
    stream = client.patch(5)
    request = client.request
    if reset:
        client.h2.reset_stream(stream)
        client.exchange()
    else:
        client.hang_up()
    assert not inform(request)
    assert client.wire.value() == b""


def test_on_http_2_a_client_that_does_not_read_gets_the_first_only() -> None:
    client = http2_client.Client()
    stream = client.patch(5)
    with client.full():
        assert inform(client.request)
        assert not inform(client.request)
    assert inform(client.request)
    client.hear()
    assert client.answers[stream].informational == ["104", "104"]


def test_on_http_2_they_take_nothing_of_the_windows_and_keep_no_client_that_sends_nothing() -> None:
    client = http2_client.Client(network_timeout=60)
    stream = client.patch(100_000)
    _, ends = client.deliver()
    windows = client.window(stream), client.h2.inbound_flow_control_window
    for _ in range(61):
        inform(client.request)
        client.advance(1)
    assert windows == (client.window(stream), client.h2.inbound_flow_control_window)
    assert ends == ["idle"]


def test_on_http_2_a_body_goes_on_beneath_them() -> None:
    client = http2_client.Client()
    stream = client.patch()
    consumer = Consumer()
    ends = ending(client.request.body.deliver(consumer))
    for _ in range(5):
        client.data(stream, b"x" * 10_000)
        assert inform(client.request)
    client.data(stream, b"", end=True)
    assert (len(consumer.data), ends) == (50_000, [""])

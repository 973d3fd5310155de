"""Requests that the server hangs up on: no answer, and what has come of their bodies is kept."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
import pytest_twisted
from h2.errors import ErrorCodes
from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.http.handling import handle
from resumable.http.request import StreamingRequest
from resumable.model.errors import BodyLost
from resumable.spool.direct import Ending, IDirectConsumer
from tests.certificates import certified
from tests.http import http2_client
from tests.http.http1_client import GET, Client, Consumer, Watcher, answer, ending, patch
from tests.http.sockets import MIB, Server, connected, in_thread, read_all

CLIENTS = [Client, http2_client.Client]
Connect = type[Client] | type[http2_client.Client]


def begin(client: Client | http2_client.Client) -> None:
    """Send the head of a PATCH with a body."""
    if isinstance(client, Client):
        client.send(patch(5))
    else:
        client.patch(5)


def inform(request: StreamingRequest) -> bool:
    return request.interim(104, [(b"location", b"/files/1")])


# HTTP/1.1


def test_what_was_sent_before_goes_out_and_the_connection_closes() -> None:
    client = Client()
    client.send(patch(100))
    consumer, ends = client.deliver()
    client.send(b"x" * 10)
    inform(client.request)
    client.request.hang_up()
    assert client.received().startswith(b"HTTP/1.1 104 ")
    assert client.wire.disconnecting and not client.wire.disconnected
    assert (consumer.data, ends) == (b"x" * 10, ["disconnected"])


@pytest.mark.parametrize("length", [100, None])
def test_bytes_that_have_come_can_still_be_delivered(length: int | None) -> None:
    client = Client()
    client.send(patch(length), b"5\r\nhello\r\n")
    body = client.body
    client.request.hang_up()
    consumer = Consumer()
    assert ending(body.deliver(consumer)) == ["disconnected"]
    assert consumer.data == (b"hello" if length is None else b"5\r\nhello\r\n")


def test_bytes_of_a_paused_body_come_after_the_pause() -> None:
    client = Client()
    client.send(patch(100))
    consumer, ends = client.deliver(Consumer(pause_after=1))
    client.send(b"abc", b"def")
    client.request.hang_up()
    assert (consumer.data, ends) == (b"abcdef", ["disconnected"])


@pytest.mark.parametrize("piece", [b"x" * 50, b"x" * 90, b"x" * 500 + GET])
def test_what_comes_later_is_dropped_and_never_a_request(piece: bytes) -> None:
    client = Client()
    client.send(patch(100))
    consumer, _ = client.deliver()
    client.send(b"x" * 10)
    client.request.hang_up()
    assert client.send(piece, piece, GET) == b""
    assert len(client.tree.requests) == 1 and consumer.data == b"x" * 10


def test_what_came_behind_it_is_no_request() -> None:
    client = Client()
    client.send(patch(5) + b"hello" + GET)
    client.request.hang_up()
    client.send(GET)
    assert len(client.tree.requests) == 1 and client.wire.disconnecting


@pytest.mark.parametrize(
    "stream", [patch(100) + b"x" * 10, patch(None) + b"5\r\nhello\r\n5\r\nhe", patch(5) + b"hello"]
)
def test_a_handler_may_do_it_at_once(stream: bytes) -> None:
    client = Client(lambda request: request.hang_up())
    assert client.send(stream + GET) == b""
    assert len(client.tree.requests) == 1 and client.wire.disconnecting


@pytest.mark.parametrize(
    "stream", [patch(100) + b"x" * 10, patch(None) + b"5\r\nhello\r\n5\r\nhe", patch(5) + b"hello"]
)
def test_a_consumer_may_do_it_while_it_is_written_to(stream: bytes) -> None:
    client = Client()

    class Hasty(Consumer):
        def write(self, data: bytes) -> None:
            super().write(data)
            client.request.hang_up()

    consumer, ends = Hasty(), list[str]()

    def handler(request: StreamingRequest) -> None:
        nonlocal ends
        ends = ending(request.body.deliver(consumer))

    client.tree.handler = handler
    assert client.send(stream) == b""
    assert client.wire.disconnecting and ends == ["disconnected"] and len(consumer.writes) == 1


def test_a_client_that_does_not_say_goodbye_is_not_waited_for() -> None:
    """Over TLS the connection ends with that, and the client may go on to send until then."""
    client = Client(linger=10)
    client.send(patch(1000))
    client.request.hang_up()
    for _ in range(9):
        client.send(b"x")
        client.advance(1)
    assert not client.wire.disconnected
    client.advance(2)
    assert client.wire.disconnected


def test_an_answer_that_has_begun_ends_where_it_is() -> None:
    client = Client()
    client.send(GET)
    request = client.request
    request.set_field(b"content-length", b"100")
    request.write(b"beginning")
    request.hang_up()
    assert client.received().endswith(b"beginning")
    assert client.wire.disconnecting and not request.gone
    client.hang_up()
    assert request.gone


# Both


@pytest.mark.parametrize("connect", CLIENTS)
def test_the_request_is_logged_once_as_lost_and_later_answers_are_nothing(connect: Connect) -> None:
    watch = Watcher()
    client = connect(watch=watch)
    begin(client)
    request = client.request
    request.hang_up()
    client.wire.clear()
    request.hang_up()
    answer(request)
    request.finish()
    assert not inform(request)
    assert client.wire.value() == b""
    client.hang_up()
    assert [(method, gone) for method, _, gone, _ in watch.seen] == [(b"PATCH", True)]
    assert not client.site.connections


@pytest.mark.parametrize("connect", CLIENTS)
def test_a_request_that_is_answered_stays_answered(connect: Connect) -> None:
    client = connect(answer)
    begin(client)
    client.request.hang_up()
    assert not client.wire.disconnecting and not client.request.gone
    client.hang_up()


@pytest.mark.parametrize("connect", CLIENTS)
def test_the_handler_that_does_it_goes_on_and_one_that_waits_is_cancelled(connect: Connect) -> None:
    steps: list[str] = []
    waiting: Deferred[None] = Deferred(lambda _: steps.append("cancelled"))

    async def itself(request: StreamingRequest) -> bytes:
        request.hang_up()
        steps.append("went on")
        return b"nobody reads this"

    async def other(request: StreamingRequest) -> bytes:
        await waiting
        return b""

    for work in (itself, other):
        client = connect(lambda request, work=work: handle(request, work(request), lambda *_: b""))
        begin(client)
        client.request.hang_up()
    assert steps == ["went on", "cancelled"]


@pytest.mark.parametrize("connect", CLIENTS)
def test_a_handler_hears_the_end_of_its_body_before_it_is_cancelled(connect: Connect) -> None:
    steps: list[str] = []

    async def work(request: StreamingRequest) -> bytes:
        try:
            await request.body.deliver(Consumer())
        except BodyLost as lost:
            steps.append(lost.reason)
        return b""

    client = connect(lambda request: handle(request, work(request), lambda *_: b""))
    begin(client)
    client.request.hang_up()
    assert steps == ["disconnected"]


class Producer:
    stopped = 0

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None:
        self.stopped += 1


@pytest.mark.parametrize("connect", CLIENTS)
def test_the_producer_of_an_answer_that_never_began_is_stopped(connect: Connect) -> None:
    client, producer = connect(), Producer()
    begin(client)
    client.request.registerProducer(producer, True)
    client.request.hang_up()
    client.hang_up()
    assert producer.stopped == 1


# HTTP/2


def test_on_http_2_the_stream_is_reset_after_what_was_sent_before_and_the_others_go_on() -> None:
    client = http2_client.Client()
    other = client.patch(5)
    stream = client.patch(100)
    consumer, ends = client.deliver()
    client.data(stream, b"x" * 10)
    inform(client.request)
    client.request.hang_up()
    client.hear()
    assert client.answers[stream].informational == ["104"]
    assert client.answers[stream].reset == ErrorCodes.INTERNAL_ERROR
    assert (consumer.data, ends) == (b"x" * 10, ["disconnected"])
    client.data(other, b"hello", end=True)
    answer(client.tree.requests[0])
    client.hear()
    assert client.answers[other].status == 204
    assert client.goaway is None and not client.wire.disconnecting
    client.send()
    assert len(client.tree.requests) == 3


def test_on_http_2_bytes_that_were_under_way_are_dropped_and_their_window_is_given_back() -> None:
    client = http2_client.Client()
    stream = client.patch()
    client.data(stream, b"x" * 100_000)
    client.request.hang_up()
    window = client.h2.outbound_flow_control_window
    for _ in range(100):
        client.raw(0, b"x" * 65_536, stream=stream)
    assert client.site.held.size == 0 and client.goaway is None
    assert client.h2.outbound_flow_control_window > window
    client.send()
    assert len(client.tree.requests) == 2


def test_on_http_2_bytes_that_have_come_can_still_be_delivered() -> None:
    client = http2_client.Client()
    stream = client.patch(100)
    client.data(stream, b"hello")
    body = client.request.body
    client.request.hang_up()
    consumer = Consumer()
    assert ending(body.deliver(consumer)) == ["disconnected"]
    assert consumer.data == b"hello"


def test_on_http_2_an_answer_that_has_begun_ends_in_a_reset() -> None:
    client = http2_client.Client()
    stream = client.send()
    client.request.write(b"beginning")
    client.request.hang_up()
    client.hear()
    answered = client.answers[stream]
    assert (answered.body, answered.ended, answered.reset) == (b"beginning", False, ErrorCodes.INTERNAL_ERROR)


# Over a socket


@implementer(IDirectConsumer)
class Taking(Consumer):
    """Takes a body by a thread that the test plays."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: Deferred[Ending] = Deferred()
        self.began: Deferred[None] = Deferred()

    def unregisterProducer(self) -> None:
        self.producer = None  # a body whose connection is lost meanwhile says so twice

    def receive(self, source: int, size: int, arrived: Callable[[int], None]) -> Deferred[Ending]:
        self.began.callback(None)
        return self.taken


@pytest_twisted.ensureDeferred
async def test_a_thread_takes_no_more_of_a_body_that_was_hung_up_on(serve: Callable[..., Server]) -> None:
    consumer, requests, ends = Taking(), list[StreamingRequest](), list[list[str]]()

    def handler(request: StreamingRequest) -> None:
        requests.append(request)
        ends.append(ending(request.body.deliver(consumer)))

    server = serve(handler, direct_from=1)
    with connected(server) as connection:
        connection.sendall(patch(4 * MIB))
        await in_thread(lambda: connection.sendall(b"x" * MIB))
        await consumer.began
        await in_thread(lambda: None)  # out of the call that began it
        assert inform(requests[0])
        requests[0].hang_up()
        assert consumer.producer is None and ends == [[]]
        received = await in_thread(lambda: connection.recv(4096))
        assert received.startswith(b"HTTP/1.1 104 ")
        consumer.taken.callback(Ending.AGAIN)
        assert ends == [["disconnected"]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Twisted calls what pyOpenSSL has deprecated
@pytest_twisted.ensureDeferred
async def test_over_tls_what_was_sent_before_arrives_and_then_the_end(serve: Callable[..., Server]) -> None:
    def handler(request: StreamingRequest) -> None:
        inform(request)
        request.hang_up()

    server = serve(handler, tls=certified("localhost").private.options(), http2=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def client() -> bytes:
        with context.wrap_socket(server.connect()) as connection:
            connection.sendall(patch(4 * MIB))
            return read_all(connection)

    assert (await in_thread(client)).startswith(b"HTTP/1.1 104 ")
    await server.site.drained()

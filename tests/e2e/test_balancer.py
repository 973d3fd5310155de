"""The balancer of the tests does what balancers do, so that what is shown through it counts."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.waiting import BOUND, eventually, free_port

from .balancer import Balancer
from .daemon import Daemon
from .tus import pattern
from .wire import Wire

BIG = pattern(3_000_000, seed=5)


class Backend:
    """A server whose every connection is one call of `answer`, with the bytes up to the end of the first head."""

    def __init__(self, answer: Callable[[socket.socket, bytes], None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                link.settimeout(30)
                self._threads.append(threading.Thread(target=self._talk, args=(link,), daemon=True))
                self._threads[-1].start()

    def _talk(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError):
            came = b""
            while b"\r\n\r\n" not in came:
                came += link.recv(1)
            self._answer(link, came)

    def close(self) -> None:
        # Not close alone: accept() of another thread keeps the port open.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(30)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket, bytes], None]], int]]:
    """Start a backend; its port."""
    with contextlib.ExitStack() as stack:

        def start(answer: Callable[[socket.socket, bytes], None]) -> int:
            return stack.enter_context(contextlib.closing(Backend(answer))).port

        yield start


def named(name: str) -> Callable[[socket.socket, bytes], None]:
    """Answers each request with this name."""

    def answer(link: socket.socket, head: bytes) -> None:
        link.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\n\r\n{name}".encode())
        link.recv(1)

    return answer


GET = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def test_each_request_of_one_connection_goes_to_the_next_backend(serve):
    ports = [serve(named(name)) for name in "abc"]
    with Balancer(ports) as balancer, Wire(balancer.port) as wire:
        assert [wire.send(GET).answer().body for _ in range(6)] == [b"a", b"b", b"c", b"a", b"b", b"c"]
        assert balancer.shares == dict.fromkeys(ports, 2)
        assert [(each.method, each.target, each.status) for each in balancer.served] == [("GET", "/a", 200)] * 6


def test_requests_that_come_together_are_answered_in_their_order(serve):
    with Balancer([serve(named(name)) for name in "ab"]) as balancer, Wire(balancer.port) as wire:
        wire.send(GET + GET)
        assert [wire.answer().body, wire.answer().body] == [b"a", b"b"]


def test_a_backend_that_takes_no_connection_is_passed_over(serve):
    with Balancer([free_port(), serve(named("b"))]) as balancer, Wire(balancer.port) as wire:
        assert [wire.send(GET).answer().body for _ in range(3)] == [b"b"] * 3


def test_without_any_backend_the_answer_is_503(serve):
    with Balancer([free_port()]) as balancer, Wire(balancer.port) as wire:
        assert wire.send(GET).answer().status == 503
        assert wire.ended()


def test_backends_can_be_taken_out_and_put_in(serve):
    one, two = serve(named("a")), serve(named("b"))
    with Balancer([one]) as balancer, Wire(balancer.port) as wire:
        assert wire.send(GET).answer().body == b"a"
        balancer.use([two])
        assert wire.send(GET).answer().body == b"b"


def test_a_backend_that_dies_before_it_answers_is_502(serve):
    def die(link: socket.socket, head: bytes) -> None:
        link.close()

    with Balancer([serve(die)]) as balancer, Wire(balancer.port) as wire:
        assert wire.send(GET).answer().status == 502
        assert balancer.served[0].status is None


def test_a_backend_that_dies_within_its_answer_ends_the_clients_connection(serve):
    def half(link: socket.socket, head: bytes) -> None:
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    with Balancer([serve(half)]) as balancer, Wire(balancer.port) as wire, pytest.raises(EOFError):
        wire.send(GET).answer()


def test_an_answer_without_length_ends_with_its_connection(serve):
    def until_the_end(link: socket.socket, head: bytes) -> None:
        link.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    with Balancer([serve(until_the_end)]) as balancer, Wire(balancer.port) as wire:
        assert wire.send(GET).answer().body == b"all of it"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_after_any_framed_answer_the_connection_goes_on(serve, answer):
    def framed(link: socket.socket, head: bytes) -> None:
        link.sendall(answer)
        link.recv(1)

    with Balancer([serve(framed)]) as balancer, Wire(balancer.port) as wire:
        first, second = wire.send(GET).answer(), wire.send(GET).answer()
        assert first == second


def test_a_head_answer_has_no_body_whatever_its_length_says(serve):
    def told(link: socket.socket, head: bytes) -> None:
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        link.recv(1)

    with Balancer([serve(told)]) as balancer, Wire(balancer.port) as wire:
        for _ in range(2):
            assert wire.send("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n").answer("HEAD").status == 200


def test_bytes_of_a_body_go_through_before_the_next_ones_come(serve):
    """A balancer that buffers requests would wait for the whole body."""
    seen = threading.Event()

    def look(link: socket.socket, head: bytes) -> None:
        assert link.recv(5) == b"first"
        seen.set()
        assert link.recv(6) == b"second"
        link.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        link.recv(1)

    with Balancer([serve(look)]) as balancer, Wire(balancer.port) as wire:
        wire.send("PATCH /a HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nfirst")
        assert seen.wait(BOUND)
        assert wire.send("second").answer().status == 204


def test_a_chunked_body_with_a_trailer_goes_through_byte_by_byte(serve):
    body = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nUpload-Checksum: x\r\n\r\n"
    got = []

    def take(link: socket.socket, head: bytes) -> None:
        came = b""
        while len(came) < len(body):
            came += link.recv(100)
        got.append(came)
        link.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        link.recv(1)

    with Balancer([serve(take)]) as balancer, Wire(balancer.port) as wire:
        for _ in range(2):
            wire.send("PATCH /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").send(body)
            assert wire.answer().status == 204
    assert got == [body, body]


def test_100_continue_comes_from_the_backend_and_before_the_body(serve):
    def agree(link: socket.socket, head: bytes) -> None:
        link.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert link.recv(4) == b"body"
        link.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        link.recv(1)

    with Balancer([serve(agree)]) as balancer, Wire(balancer.port) as wire:
        wire.send("PATCH /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert wire.interim() == 100
        assert wire.send("body").answer().status == 204


def test_an_answer_before_the_end_of_the_body_goes_through_at_once(serve):
    def refuse(link: socket.socket, head: bytes) -> None:
        link.sendall(b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno")
        link.recv(1 << 16)

    with Balancer([serve(refuse)]) as balancer, Wire(balancer.port) as wire:
        wire.send("PATCH /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun")
        assert wire.answer().status == 409


def test_a_backend_that_answers_early_and_reads_the_rest_keeps_the_connection(serve):
    def drain(link: socket.socket, head: bytes) -> None:
        link.sendall(b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")
        left = len(BIG)
        while left:
            left -= len(link.recv(1 << 16))
        link.recv(1)

    with Balancer([serve(drain), serve(named("b"))]) as balancer, Wire(balancer.port) as wire:
        wire.send(f"PATCH /a HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BIG)}\r\n\r\n")
        assert wire.answer().status == 409
        assert wire.send(BIG).send(GET).answer().body == b"b"


def test_an_early_answer_survives_a_client_that_goes_on_sending(serve):
    def refuse(link: socket.socket, head: bytes) -> None:
        link.sendall(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
        link.shutdown(socket.SHUT_WR)
        while link.recv(1 << 16):
            pass

    with Balancer([serve(refuse)]) as balancer, Wire(balancer.port) as wire:
        wire.send(f"PATCH /a HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BIG)}\r\n\r\n")
        wire.offer(BIG)
        answer = wire.answer()
        assert (answer.status, answer.body) == (413, b"no")


def test_a_client_that_leaves_within_its_body_leaves_the_backend(serve):
    ended = threading.Event()

    def until_it_ends(link: socket.socket, head: bytes) -> None:
        while link.recv(1 << 16):
            pass
        ended.set()

    with Balancer([serve(until_it_ends)]) as balancer:
        with Wire(balancer.port) as wire:
            wire.send("PATCH /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun")
            eventually(lambda: balancer.served)
        assert ended.wait(BOUND)


def test_a_client_that_leaves_while_it_waits_for_an_answer_leaves_the_backend(serve):
    ended = threading.Event()

    def until_it_ends(link: socket.socket, head: bytes) -> None:
        link.recv(1)
        ended.set()

    with Balancer([serve(until_it_ends)]) as balancer:
        with Wire(balancer.port) as wire:
            wire.send(GET)
            eventually(lambda: balancer.served)
        assert ended.wait(BOUND)


def test_a_stop_ends_what_is_under_way(serve):
    def wait(link: socket.socket, head: bytes) -> None:
        link.recv(1)

    with Balancer([serve(wait)]) as balancer:
        wire = Wire(balancer.port).send(GET)
        eventually(lambda: balancer.served)
    with wire:
        assert wire.ended()


def test_an_upload_through_it_is_whole(tmp_path):
    """Two names of one server: what comes through two connections is one upload."""
    with Daemon() as daemon, Balancer([daemon.start().port] * 2) as balancer, Wire(balancer.port) as wire:
        host = f"Host: 127.0.0.1:{balancer.port}\r\nTus-Resumable: 1.0.0\r\n"
        wire.send(f"POST /files/ HTTP/1.1\r\n{host}Upload-Length: {len(BIG)}\r\nContent-Length: 0\r\n\r\n")
        location = wire.answer("POST")["location"]
        assert location.startswith(balancer.url)
        path = location.removeprefix(f"http://127.0.0.1:{balancer.port}")
        for start in range(0, len(BIG), 1_000_000):
            piece = BIG[start : start + 1_000_000]
            wire.send(
                f"PATCH {path} HTTP/1.1\r\n{host}Upload-Offset: {start}\r\n"
                f"Content-Type: application/offset+octet-stream\r\nContent-Length: {len(piece)}\r\n\r\n"
            )
            assert wire.send(piece).answer("PATCH").offset == start + len(piece)
        assert wire.send(f"GET {path} HTTP/1.1\r\n{host}\r\n").answer().body == BIG
        assert len(balancer.served) == 5

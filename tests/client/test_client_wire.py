"""The blocking face's requests, against servers that do anything."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resumable.client import SourceChanged, TransferCancelled, one_request
from resumable.client.effects import TAIL, BodyStretch, CutShort, Exchange, HttpReply, Lost
from resumable.client.links import Interrupt, proxy_of
from resumable.client.pace import TokenBucket
from resumable.client.sources import BytesSource, FileSource, SendSource
from tests.client.raw_server import RawServer, raw_server, received
from tests.client.wires import a_wire

DATA = random.Random(5).randbytes(3 << 20)
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    it = Interrupt()
    yield it
    it.close()


def patch(url: str, source: SendSource, **more: Callable[..., object]) -> Exchange:
    assert source.size is not None
    return Exchange(method="PATCH", url=url, body=BodyStretch(source, 0, source.size), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["file", "bytes"])
def test_content_arrives_as_it_is_and_progress_is_told(kind: str, directory: Path, interrupt: Interrupt) -> None:
    got: list[bytes] = []

    def serve(server: RawServer, connection: socket.socket) -> None:
        assert b"Content-Length: %d\r\n" % (len(DATA) - 5) in server.head(connection)
        got.append(received(connection, len(DATA) - 5))
        connection.sendall(NO_CONTENT)

    path = directory / "source"
    path.write_bytes(DATA)
    source = FileSource(path) if kind == "file" else BytesSource(DATA)
    moved: list[int] = []
    with raw_server(serve) as server:
        exchange = Exchange(
            method="PATCH", url=server.url, body=BodyStretch(source, 5, len(DATA) - 5), moved=moved.append
        )
        assert a_wire().exchange(exchange, interrupt).status == 204
    assert got == [DATA[5:]]
    assert moved == sorted(moved) and moved[-1] == len(DATA) - 5
    source.close()


@pytest.mark.parametrize("kind", ["file", "bytes"])
@pytest.mark.parametrize("size", [1, TAIL, TAIL + 1, len(DATA)])
def test_the_last_bytes_stay_here_when_the_source_has_changed(
    kind: str, size: int, directory: Path, interrupt: Interrupt
) -> None:
    got, over = bytearray(), threading.Event()

    def serve(server: RawServer, connection: socket.socket) -> None:
        server.head(connection)
        while block := connection.recv(1 << 20):
            got.extend(block)
        over.set()

    def before_last() -> None:
        raise SourceChanged("it has changed", "source")

    path = directory / "source"
    path.write_bytes(DATA[:size])
    source = FileSource(path) if kind == "file" else BytesSource(DATA[:size])
    with raw_server(serve) as server:
        exchange = Exchange(method="PATCH", url=server.url, body=BodyStretch(source, 0, size, before_last))
        with pytest.raises(SourceChanged):
            a_wire().exchange(exchange, interrupt)
        assert over.wait(30)
    assert len(got) <= max(0, size - TAIL)
    assert kind == "bytes" or len(got) == max(0, size - TAIL)
    source.close()


def test_informational_responses_are_told_and_are_not_the_answer(interrupt: Interrupt) -> None:
    def serve(server: RawServer, connection: socket.socket) -> None:
        server.head(connection)
        connection.sendall(b"HTTP/1.1 104 Upload Resumption Supported\r\nUpload-Offset: 7\r\n\r\n")
        received(connection, len(DATA))
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    told: list[tuple[int, str | None]] = []

    def informed(status: int, reply: HttpReply) -> None:
        told.append((status, reply.get("upload-offset")))

    with raw_server(serve) as server:
        reply = a_wire().exchange(patch(server.url, BytesSource(DATA), informed=informed), interrupt)
    assert (reply.status, reply.body) == (200, b"ok")
    assert told == [(104, "7"), (100, None)]


@pytest.mark.parametrize("ends", ["by a reset", "in peace", "not at all"])
def test_an_early_answer_is_read_whatever_becomes_of_the_connection(ends: str, interrupt: Interrupt) -> None:
    over = threading.Event()

    def serve(server: RawServer, connection: socket.socket) -> None:
        server.head(connection)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
        if ends == "by a reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif ends == "not at all":
            over.wait(30)

    with raw_server(serve) as server:
        reply = a_wire().exchange(patch(server.url, BytesSource(DATA * 8)), interrupt)
        over.set()
    assert (reply.status, reply.body) == (413, b"large")


def _serve_once(server: RawServer, connection: socket.socket) -> None:
    server.head(connection)
    connection.sendall(NO_CONTENT)


def test_a_kept_connection_that_the_server_has_closed_is_replaced(interrupt: Interrupt) -> None:
    with raw_server(_serve_once, _serve_once) as server:
        it = a_wire()
        for _ in range(2):
            assert it.exchange(Exchange(method="HEAD", url=server.url), interrupt).status == 204


def test_a_connection_is_used_again(interrupt: Interrupt) -> None:
    def serve(server: RawServer, connection: socket.socket) -> None:
        for _ in range(2):
            server.head(connection)
            connection.sendall(NO_CONTENT)

    with raw_server(serve) as server:
        it = a_wire()
        for _ in range(2):
            assert it.exchange(Exchange(method="HEAD", url=server.url), interrupt).status == 204
        assert len(server.heard) == 2


def _hangs_up(server: RawServer, connection: socket.socket) -> None:
    server.head(connection)


def _talks_nonsense(server: RawServer, connection: socket.socket) -> None:
    server.head(connection)
    connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")


@pytest.mark.parametrize(
    ("conversation", "words"),
    [(_hangs_up, "closed without an answer"), (_talks_nonsense, r"no HTTP/1\.1")],
)
def test_what_is_no_answer_is_told_in_words(
    conversation: Callable[[RawServer, socket.socket], None], words: str, interrupt: Interrupt
) -> None:
    with raw_server(conversation) as server, pytest.raises(Lost, match=words):
        a_wire().exchange(Exchange(method="HEAD", url=server.url), interrupt)


def test_refused_unknown_and_silent_hosts_are_told_in_words(interrupt: Interrupt) -> None:
    it = a_wire(timeout=0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(Lost, match=r"nothing has moved for 0\.2 s"):
            it.exchange(Exchange(method="HEAD", url=url), interrupt)
    with pytest.raises(Lost, match="refused"):
        it.exchange(Exchange(method="HEAD", url=url), interrupt)
    with pytest.raises(Lost, match=r"name nowhere\.invalid isn't found"):
        it.exchange(Exchange(method="HEAD", url="http://nowhere.invalid/"), interrupt)


def test_a_transfer_ends_when_it_is_interrupted_from_another_thread(interrupt: Interrupt) -> None:
    def serve(server: RawServer, connection: socket.socket) -> None:
        server.head(connection)
        interrupt.set()
        connection.recv(1)

    with raw_server(serve) as server, pytest.raises(TransferCancelled):
        a_wire().exchange(Exchange(method="HEAD", url=server.url), interrupt)


def test_sending_is_cut_when_nothing_may_be_sent_any_more(
    interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_request, "ASK", 0.0)

    def serve(server: RawServer, connection: socket.socket) -> None:
        server.head(connection)
        while connection.recv(1 << 16):
            pass

    answers = iter([0.0, 0.0])
    with raw_server(serve) as server, pytest.raises(CutShort) as raised:
        a_wire().exchange(patch(server.url, BytesSource(DATA * 8), may_go=lambda: next(answers, 9.0)), interrupt)
    assert raised.value.wait == 9.0


def test_a_proxy_is_given_whole_urls_and_who_we_are(interrupt: Interrupt) -> None:
    with raw_server(_serve_once) as server:
        it = a_wire(proxy=f"http://me:secret@127.0.0.1:{server.port}")
        assert it.exchange(Exchange(method="HEAD", url="http://far.example/files/?a=b"), interrupt).status == 204
        (head,) = server.heard
    assert head.startswith(b"HEAD http://far.example/files/?a=b HTTP/1.1\r\n")
    assert b"Host: far.example\r\n" in head
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in head


def test_a_proxy_that_refuses_the_way_is_told_in_words(interrupt: Interrupt) -> None:
    def serve(server: RawServer, connection: socket.socket) -> None:
        assert server.head(connection).startswith(b"CONNECT far.example:443 HTTP/1.1\r\n")
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with raw_server(serve) as server, pytest.raises(Lost, match=r"answers 403 to the way to far\.example:443"):
        a_wire(proxy=f"http://127.0.0.1:{server.port}").exchange(
            Exchange(method="HEAD", url="https://far.example/"), interrupt
        )


def test_proxies_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_of("http://a.example/", None) is None
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "near.example")
    assert proxy_of("http://a.example/", None) == "http://proxy:3128"
    assert proxy_of("http://near.example/", None) is None
    assert proxy_of("http://a.example/", "") is None


def test_the_bound_on_bytes_per_second_holds_for_all() -> None:
    now = 0.0
    bucket = TokenBucket(1000.0, lambda: now)
    sent = 0
    for _ in range(2000):
        granted, wait = bucket.take(10_000)
        sent += granted
        assert granted or wait > 0
        now += wait
    assert sent <= 1000.0 * now + 250
    assert sent >= 1000.0 * now - 250

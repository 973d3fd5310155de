"""Clients of HTTP/1.1 that don't read their answers, and those who only read slowly."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from resumable.http.download import CHUNK, Sending
from resumable.http.request import StreamingRequest
from tests.http.http1_client import GET, Client, answer, patch
from tests.http.unread import STEADY, File, read_on, unread


def download(size: int = 100 * CHUNK) -> tuple[File, Any, list[Any]]:
    """What is read, what answers by it, and how that has ended."""
    file, ends = File(), []

    def handler(request: StreamingRequest) -> None:
        request.setResponseCode(200)
        request.set_field(b"content-length", b"%d" % size)
        Deferred.fromCoroutine(Sending(request, file, 0, size).run()).addBoth(ends.append)

    return file, handler, ends


def stop_reading(client: Client) -> Any:
    """The transport is full from its first byte on."""
    write = client.wire.write

    def filled(data: bytes) -> None:
        write(data)
        client.wire.producer.pauseProducing()

    client.wire.write = filled  # type: ignore[method-assign]
    kernel = unread(client.wire)
    read_on(client.wire)
    return kernel


def test_a_download_that_is_never_read_is_cut_off_after_the_network_timeout() -> None:
    file, handler, ends = download()
    client = Client(handler, network_timeout=60)
    stop_reading(client)
    client.send(GET)
    client.advance(58)
    assert not client.wire.disconnected and not ends
    client.advance(3)
    assert client.wire.disconnected and client.site.cut["unread"] == 1
    client.channel.stopProducing()
    client.hang_up()
    assert (file.closed, len(ends)) == (1, 1)


def test_a_slow_but_steady_reader_is_not_cut_off_however_long_a_piece_takes() -> None:
    _, handler, ends = download()
    client = Client(handler, network_timeout=60)
    kernel = stop_reading(client)
    client.send(GET)
    for _ in range(60):  # an hour for one piece
        kernel.acknowledged += STEADY
        client.advance(60)
    assert not client.wire.disconnected and not ends
    client.advance(130)
    assert client.wire.disconnected


def test_a_reader_below_the_minimal_rate_is_cut_off() -> None:
    _, handler, _ = download()
    client = Client(handler, network_timeout=60, min_rate=100)
    kernel = stop_reading(client)
    client.send(GET)
    for _ in range(65):
        client.advance(1)
        kernel.acknowledged += 99
    assert client.wire.disconnected


@pytest.mark.parametrize("head", [GET, patch(0)])
def test_small_answers_that_are_never_read_are_not_written_for_ever(head: bytes) -> None:
    """They wait for the transport: no more requests are read meanwhile, and the connection ends."""
    client = Client(lambda request: answer(request, 200, b"x" * 1000), network_timeout=60)
    stop_reading(client)
    client.send(head * 100)
    assert len(client.tree.requests) <= 100 and client.wire.producerState == "paused"
    client.advance(61)
    assert client.wire.disconnected


def test_an_answer_before_the_end_of_its_body_does_not_wait_for_a_client_that_never_reads() -> None:
    client = Client(lambda request: answer(request, 409, b"x" * 1000), network_timeout=60, linger=10)
    stop_reading(client)
    client.send(patch(1000))
    client.advance(11)
    assert client.wire.disconnecting and not client.wire.disconnected
    client.advance(61)
    assert client.wire.disconnected


def test_the_last_bytes_before_a_close_have_the_time_that_a_slow_reader_needs() -> None:
    """`loseConnection` writes what it has; a reset would also take what lies in the kernel's buffer."""
    client = Client(lambda request: answer(request, 200, b"x" * 100_000), network_timeout=60)
    kernel = stop_reading(client)
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert client.wire.disconnecting
    for _ in range(10):
        kernel.acknowledged += STEADY
        client.advance(60)
    assert not client.wire.disconnected
    client.advance(130)
    assert client.wire.disconnected


def test_a_client_that_waits_for_its_turn_is_not_cut_off_once_it_reads() -> None:
    client = Client(lambda request: answer(request, 200, b"x"), network_timeout=60)
    stop_reading(client)
    client.send(GET)
    client.advance(50)
    read_on(client.wire)
    client.wire.write = lambda data: None  # type: ignore[method-assign]
    client.send(GET)
    client.advance(50)
    assert not client.wire.disconnected and not client.wire.disconnecting


def test_100_continue_for_a_client_that_never_reads_it_changes_no_guard() -> None:
    client = Client(network_timeout=60)
    stop_reading(client)
    client.send(patch(100, "Expect: 100-continue"))
    _, ends = client.deliver()
    client.advance(121)
    assert ends and client.wire.disconnected

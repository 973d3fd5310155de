"""Requests of both versions with bytes changed, cut anywhere: nothing raises, nothing is logged, nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, globalLogPublisher

from resumable.http.h2.frames import PREFACE
from resumable.http.request import StreamingRequest
from tests.http.http1_client import GET, Client, Consumer, answer, patch
from tests.http.http2_client import frame

REQUESTS = [
    GET,
    GET.replace(b"GET", b"HEAD"),
    patch(5) + b"hello",
    patch() + b"3\r\nabc\r\n0\r\n\r\n",
    patch(None, "Trailer: Upload-Checksum") + b"2;x=y\r\nab\r\n0\r\nUpload-Checksum: sha1 a\r\n\r\n",
    patch(100, "Expect: 100-continue"),
]


def head(method: str, *more: tuple[str, str]) -> bytes:
    """Without a table, so that it may come in any order."""
    block: bytes = Encoder().encode(
        [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", "/"), *more]
    )
    return block


BLOCKS = [head("GET"), head("PATCH", ("content-length", "5")), head("PATCH", ("expect", "100-continue")), b"\x82", b""]
STREAMS = st.sampled_from([0, 1, 2, 3, 5, 7])
FRAMES = st.one_of(
    st.builds(frame, st.sampled_from([1, 9]), st.sampled_from(BLOCKS), st.sampled_from([0, 1, 4, 5]), STREAMS),
    st.builds(frame, st.just(0), st.binary(max_size=12), st.sampled_from([0, 1, 8]), STREAMS),
    st.builds(frame, st.just(8), st.sampled_from([b"\0\0\0\1", b"\0\1\0\0", b"\x7f\xff\xff\xff"]), st.just(0), STREAMS),
    st.builds(frame, st.just(4), st.sampled_from([b"", b"\0\4\0\0\0\0", b"\0\1\0\0\0\0"]), st.just(0), st.just(0)),
    st.builds(frame, st.integers(0, 20), st.binary(max_size=9), st.integers(0, 255), STREAMS),
)
CHANGES = st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3), st.integers(0, 3)), max_size=3)
WAYS = st.lists(st.sampled_from(["wait", "full", "empty", "", "", ""]), min_size=1, max_size=20)


def changed(data: bytes, changes: list[tuple[int, bytes, int]]) -> bytes:
    for place, put, drop in changes:
        at = place % (len(data) + 1)
        data = data[:at] + put + data[at + drop :]
    return data


@contextmanager
def nothing_logged() -> Iterator[None]:
    seen: list[Any] = []

    def look(event: Any) -> None:
        if event["log_level"] >= LogLevel.error:
            seen.append(event)

    globalLogPublisher.addObserver(look)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(look)
    assert not seen


def serve(request: StreamingRequest) -> None:
    """Takes the body, and answers at its end with more than a transport takes at once."""
    ended = request.body.deliver(Consumer())
    ended.addBoth(lambda _: None if request.gone else answer(request, 200, b"x" * 70_000))


def talk(client: Client, data: bytes, cut: int, ways: list[str]) -> None:
    for number, at in enumerate(range(0, len(data), cut)):
        client.channel.dataReceived(data[at : at + cut])
        way, producer = ways[number % len(ways)], client.wire.producer
        if way == "wait":
            client.advance(1)
        elif producer is not None and way == "full":
            producer.pauseProducing()
        elif producer is not None and way == "empty":
            producer.resumeProducing()
    client.advance(30)
    client.hang_up()
    assert client.clock.getDelayedCalls() == []
    assert client.site.held.size == 0


@settings(max_examples=150)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4), CHANGES, st.integers(1, 60), WAYS)
def test_http_1_1_with_bytes_changed(
    requests: list[bytes], changes: list[tuple[int, bytes, int]], cut: int, ways: list[str]
) -> None:
    with nothing_logged():
        talk(Client(serve, network_timeout=5, linger=2), changed(b"".join(requests), changes), cut, ways)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.lists(FRAMES, min_size=1, max_size=12), CHANGES, st.integers(1, 200), WAYS)
def test_http_2_with_frames_of_all_kinds_and_bytes_changed(
    frames: list[bytes], changes: list[tuple[int, bytes, int]], cut: int, ways: list[str]
) -> None:
    with nothing_logged():
        data = PREFACE + frame(4, b"", stream=0) + changed(b"".join(frames), changes)
        talk(Client(serve, network_timeout=5, linger=2, h2c=True), data, cut, ways)

"""Streams of events over HTTP/2: each is one of many on its connection, and a quiet one lasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from resumable.http import events
from resumable.http.live import EVERY, Live, WatchedKind
from resumable.http.request import StreamingRequest
from tests.http.http1_client import answer
from tests.http.http2_client import Client


class Counter:
    """A document that is a number."""

    over = False

    def __init__(self, first: int) -> None:
        self.number = first

    def update(self, found: int | None) -> bytes | None:
        assert found is not None
        before, self.number = self.number, found
        return None if found == before else self.whole(b"")

    def whole(self, seen: bytes) -> bytes:
        return events.event(b"number", b"%d" % self.number)


class Board:
    """A client, and the number that it may watch."""

    def __init__(self) -> None:
        self.number = 0
        self.client = Client(self._handle, network_timeout=20)
        self.live = Live(self.client.clock)
        self._source = WatchedKind(self._look, lambda _, first: Counter(first))

    async def _look(self, keys: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(keys, self.number)

    def _handle(self, request: StreamingRequest) -> None:
        if request.method == b"POST":
            answer(request, 200, b"ok")
            return
        done = Deferred.fromCoroutine(self.live.stream(request, self._source, "a", self.number))
        request.on_loss = done.cancel

        def finish(_: Any) -> None:
            if not request.gone:
                request.finish()

        done.addBoth(finish)

    def turn(self, number: int) -> None:
        self.number = number
        self.client.advance(EVERY)


def test_streams_share_a_connection_with_other_requests() -> None:
    board = Board()
    one, two = board.client.send(), board.client.send()
    other = board.client.send("POST")
    assert board.client.answers[other].body == b"ok"
    board.turn(7)
    for stream in (one, two):
        assert board.client.answers[stream].body.endswith(b"event: number\ndata: 7\n\n")
        assert not board.client.answers[stream].ended


def test_a_quiet_stream_outlives_the_time_out_of_the_network() -> None:
    board = Board()
    stream = board.client.send()
    board.client.advance(90)
    board.turn(1)
    found = board.client.answers[stream]
    assert found.reset is None and not found.ended and found.body.endswith(b"data: 1\n\n")


def test_a_reader_that_makes_no_room_gets_the_newest_when_it_does() -> None:
    board = Board()
    stream = board.client.send()
    with board.client.full():
        for number in range(1, 20):
            board.turn(number)
    board.client.hear()
    body = board.client.answers[stream].body
    assert body.endswith(b"data: 19\n\n") and body.count(b"event: ") < 5


def test_a_stop_ends_every_stream() -> None:
    board = Board()
    streams = [board.client.send() for _ in range(3)]
    board.client.site.stop_idle()
    board.client.hear()
    assert all(board.client.answers[stream].ended for stream in streams) and board.live.watchers == 0


def test_a_client_that_resets_its_stream_leaves_nothing_behind() -> None:
    board = Board()
    stream = board.client.send()
    board.client.h2.reset_stream(stream)
    board.client.exchange()
    assert board.live.watchers == 0 and not board.client.site.at_stop

"""Clients of HTTP/2 that make no room for their answers, or don't read at all, beside those who do."""

from __future__ import annotations

from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from twisted.internet.defer import Deferred

from resumable.http.download import CHUNK, Sending
from resumable.http.h2.answers import MAX_PRODUCED, MAX_UNSENT, PIECE
from resumable.http.h2.machine import MAX_STREAMS
from resumable.http.request import StreamingRequest
from tests.http.http1_client import answer
from tests.http.http2_client import WINDOW_UPDATE, Client, frame
from tests.http.unread import STEADY, File, unread

WINDOW = 65_535


def downloads(size: int = 100 * CHUNK) -> tuple[list[File], Any]:
    """What is read, for each request, and what answers by it. An upload is left to the test."""
    files: list[File] = []

    def handler(request: StreamingRequest) -> None:
        if request.method == b"GET":
            files.append(File())
            request.setResponseCode(200)
            sent = Deferred.fromCoroutine(Sending(request, files[-1], 0, size).run())
            sent.addCallbacks(lambda _: request.finish(), lambda _: None)

    return files, handler


def room(client: Client, stream: int, size: int) -> None:
    """Allow so much more."""
    client.channel.dataReceived(frame(WINDOW_UPDATE, size.to_bytes(4, "big"), stream=stream))
    if stream:
        client.h2.increment_flow_control_window(size, stream)
    else:
        client.h2.increment_flow_control_window(size)
    client.h2.data_to_send()
    client.hear()


def shut(client: Client, window: int = 0) -> None:
    """New streams have no window, and nothing is given back."""
    client.acknowledge = False
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
    client.exchange()


@pytest.mark.parametrize("window", [0, 1, 30_000])
def test_a_download_whose_window_stays_shut_is_cut_off_alone(window: int) -> None:
    files, handler = downloads()
    client = Client(handler, network_timeout=60)
    shut(client, window)
    upload = client.patch(100_000)
    consumer, ends = client.deliver()
    stream = client.send()
    for _ in range(6):
        client.data(upload, b"x" * 2_000)
        client.advance(9.5)
    assert client.answers[stream].reset is None
    client.data(upload, b"x" * 8_000)
    client.advance(5)
    assert client.answers[stream].reset == ErrorCodes.CANCEL
    assert files[0].closed == 1 and client.site.cut["unread"] == 1
    assert (len(consumer.data), ends, client.goaway) == (20_000, [], None)


def test_a_small_answer_that_nobody_makes_room_for_is_cut_off() -> None:
    client = Client(lambda request: answer(request, 200, b"x" * 100), network_timeout=60)
    shut(client)
    stream = client.send()
    client.advance(59)
    assert client.answers[stream].reset is None
    client.advance(2)
    assert client.answers[stream].reset == ErrorCodes.CANCEL
    client.advance(62)
    assert client.wire.disconnecting, "and an idle connection it is"


def test_an_answer_without_a_body_needs_no_room() -> None:
    client = Client(answer, network_timeout=60)
    shut(client)
    stream = client.send()
    assert (client.answers[stream].status, client.answers[stream].ended) == (204, True)


def test_a_slow_but_steady_reader_stays() -> None:
    _, handler = downloads()
    client = Client(handler, network_timeout=60)
    shut(client)
    stream = client.send()
    for _ in range(30):
        room(client, stream, STEADY)
        room(client, 0, STEADY)
        client.advance(50)
    assert client.answers[stream].reset is None
    assert len(client.answers[stream].body) == 30 * STEADY
    client.advance(65)
    assert client.answers[stream].reset == ErrorCodes.CANCEL


def test_a_window_that_drips_below_the_minimal_rate_is_as_good_as_shut() -> None:
    _, handler = downloads()
    client = Client(handler, network_timeout=60, min_rate=100)
    shut(client)
    stream = client.send()
    for _ in range(70):
        if client.answers[stream].reset is None:
            room(client, stream, 50)
        client.advance(1)
    assert client.answers[stream].reset == ErrorCodes.CANCEL


def test_the_window_of_the_whole_connection_counts_as_well() -> None:
    files, handler = downloads()
    client = Client(handler, network_timeout=60)
    client.acknowledge = False
    streams = [client.send() for _ in range(3)]
    assert sum(len(client.answers[each].body) for each in streams) == WINDOW
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    client.exchange()
    client.advance(62)
    assert [client.answers[each].reset for each in streams] == [ErrorCodes.CANCEL] * 3
    assert all(file.closed for file in files)


def test_many_downloads_on_a_slow_connection_have_the_time_that_they_need_together() -> None:
    """Each has its turn seldom, and that is nobody's fault while the client takes what it can."""
    _, handler = downloads()
    client = Client(handler, network_timeout=60)
    client.acknowledge = False
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 8 << 20})
    client.exchange()
    streams = [client.send() for _ in range(40)]
    for _ in range(10):
        room(client, 0, 70_000)
        client.advance(60)
    assert [client.answers[each].reset for each in streams] == [None] * 40


def test_those_who_do_not_read_keep_none_from_reading() -> None:
    """However many they are, and whatever they have waiting."""
    _, handler = downloads(4 * CHUNK)
    client = Client(handler, network_timeout=60)
    client.acknowledge = False
    client.h2.increment_flow_control_window(1 << 24)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1})
    client.exchange()
    for _ in range(MAX_STREAMS - 1):
        client.send()
    reader = client.send()
    room(client, reader, 8 * CHUNK)
    assert len(client.answers[reader].body) == 4 * CHUNK and client.answers[reader].ended


class Remote(File):
    """What is far away: it hasn't answered yet."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.waiting: Deferred[bytes] = Deferred()

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        self.asked.append(size)
        return self.waiting


def from_remotes(remotes: list[Remote]) -> Any:
    """Answers /slow by one of them, everything else by a file."""

    def handler(request: StreamingRequest) -> None:
        source = Remote() if request.path.startswith(b"/slow") else File()
        if isinstance(source, Remote):
            remotes.append(source)
        request.setResponseCode(200)
        sent = Deferred.fromCoroutine(Sending(request, source, 0, 4 * CHUNK).run())
        sent.addCallbacks(lambda _: request.finish(), lambda _: None)

    return handler


def test_downloads_from_slow_remotes_delay_no_other_one() -> None:
    remotes: list[Remote] = []
    client = Client(from_remotes(remotes))
    for _ in range(MAX_STREAMS - 1):
        client.send(path="/slow")
    assert [len(remote.asked) for remote in remotes] == [1] * (MAX_STREAMS - 1)
    stream = client.send(path="/here")
    assert len(client.answers[stream].body) == 4 * CHUNK and client.answers[stream].ended


def test_remotes_that_answer_all_at_once_bring_a_bounded_amount() -> None:
    remotes: list[Remote] = []
    client = Client(from_remotes(remotes))
    client.acknowledge = False
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    client.exchange()
    for _ in range(MAX_STREAMS):
        client.send(path="/slow")
    assert (remotes[0].asked, remotes[-1].asked) == ([CHUNK], [PIECE])
    for remote in remotes:
        waiting, remote.waiting = remote.waiting, Deferred()
        waiting.callback(bytes(remote.asked[0]))
    assert all(len(remote.asked) == 2 for remote in remotes), "a piece is read ahead of each"
    assert sum(sum(remote.asked) for remote in remotes) <= MAX_UNSENT + 4 * MAX_PRODUCED


def test_a_connection_that_is_not_read_at_all_is_cut_off() -> None:
    files, handler = downloads()
    client = Client(handler, network_timeout=60)
    client.acknowledge = False
    client.send()
    unread(client.wire)
    client.clock.pump([1.0] * 58)
    assert not client.wire.disconnected
    client.clock.pump([1.0] * 3)
    assert client.wire.disconnected
    assert client.site.cut["unread"] == 2, "the answer, whose window is shut as well, and the connection"
    client.hang_up()
    assert files[0].closed == 1


def test_a_connection_that_is_read_slowly_stays_with_all_its_streams() -> None:
    files, handler = downloads()
    client = Client(handler, network_timeout=60)
    kernel = unread(client.wire)
    client.send()
    client.send()
    for _ in range(20):
        kernel.acknowledged += STEADY
        client.clock.pump([1.0] * 60)
    assert not client.wire.disconnected and not any(file.closed for file in files)


def test_pings_that_are_not_heard_do_not_make_a_connection_look_read() -> None:
    client = Client(network_timeout=60)
    client.send()
    unread(client.wire)
    for _ in range(65):
        client.channel.dataReceived(frame(6, b"12345678", stream=0))
        client.clock.pump([1.0])
    assert client.wire.disconnected


def test_the_last_words_have_the_time_that_a_slow_reader_needs() -> None:
    client = Client(lambda request: answer(request, 200, b"x" * 10_000), network_timeout=60)
    client.send()
    kernel = unread(client.wire)
    client.raw(7, b"\0" * 8)  # its GOAWAY
    assert client.wire.disconnecting
    for _ in range(10):
        kernel.acknowledged += STEADY
        client.clock.pump([1.0] * 60)
    assert not client.wire.disconnected
    client.clock.pump([1.0] * 130)
    assert client.wire.disconnected

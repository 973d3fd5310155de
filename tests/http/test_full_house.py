"""More connections than there are files for: who idles makes room, and nobody's upload is touched."""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

import pytest
from h2.settings import SettingCodes
from twisted.internet.task import Clock
from twisted.logger import Logger

from resumable.daemon import startup
from resumable.http import connections
from resumable.http.h2.frames import PREFACE
from resumable.http.request import StreamingRequest
from resumable.http.site import StreamingSite
from tests.http.http1_client import GET, Client, Tree, Watcher, answer, nothing, patch
from tests.http.http2_client import Client as Http2Client
from tests.http.http2_client import frame

WITH_ORIGIN = GET[:-2] + b"Origin: https://a.example\r\n\r\n"
HEAD = frame(1, b"\x82\x86\x84\x41\x01a", 5)  # GET http://a/


def house(size: int, handler: object = nothing, **options: object) -> StreamingSite:
    clock = Clock()
    site = StreamingSite(Tree(handler), reactor=clock, max_connections=size, **options)  # type: ignore[arg-type]
    site.clock = clock  # type: ignore[attr-defined]
    return site


def full_house(size: int, **options: object) -> Any:
    """Its ``uploads`` have something to do."""
    site: Any = house(size, **options)
    site.uploads = [Client(site=site) for _ in range(size)]
    for client in site.uploads:
        client.tree = site.resource
        client.send(patch(100))
    return site


def pump(site: Any, seconds: int) -> None:
    site.clock.pump([0.5] * (2 * seconds))


def open_ones(clients: list[Client]) -> list[bool]:
    return [not (client.wire.disconnecting or client.wire.disconnected) for client in clients]


def test_the_one_that_has_been_idle_for_longest_makes_room() -> None:
    site = house(3, lambda request: answer(request, 200, b"ok"))
    clients = [Client(site=site) for _ in range(3)]
    clients[0].send(GET)
    assert open_ones(clients) == [True] * 3
    clients.append(Client(site=site))
    assert open_ones(clients) == [True, False, True, True]
    clients.append(Client(site=site))
    assert open_ones(clients) == [True, False, False, True, True]


def test_a_head_that_drips_is_as_idle_as_none() -> None:
    site = house(1)
    dripping = Client(site=site)
    dripping.send(GET[:10])
    later = Client(site=site)
    assert open_ones([dripping, later]) == [False, True]


def test_uploads_stay_and_the_newcomer_is_told_where_all_are_busy() -> None:
    watch = Watcher()
    site = full_house(2, watch=watch, refusal_fields=lambda origins: [(b"X-Origins", b",".join(origins))])
    newcomer = Client(site=site)
    assert newcomer.send(WITH_ORIGIN[:-1]) == b""
    told = newcomer.send(WITH_ORIGIN[-1:])
    head, _, body = told.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    for field in (b"Retry-After: 10", b"X-Origins: https://a.example", b"Connection: close"):
        assert field in head.split(b"\r\n")
    assert len(body) >= 256 and json.loads(body)["status"] == 503
    assert (watch.refusals, site.cut) == ([503], {"unread": 0, "idle": 0, "full": 1})
    pump(site, 3)
    assert newcomer.wire.disconnecting
    newcomer.hang_up()
    assert open_ones(site.uploads) == [True, True]
    site.uploads[0].hang_up()
    later = Client(site=site)
    later.send(patch(100))
    assert open_ones([later]) == [True] and len(site.connections) == 2


def test_who_is_told_may_still_be_sending_and_is_read_for_a_while() -> None:
    newcomer = Client(site=(site := full_house(1)))
    assert newcomer.send(patch(1 << 20) + b"x" * 1000).startswith(b"HTTP/1.1 503 ")
    pump(site, 1)
    assert open_ones([newcomer]) == [True]
    pump(site, 2)
    assert open_ones([newcomer]) == [False]


@pytest.mark.parametrize("sent", [b"", GET[:10], GET])
def test_telling_takes_a_few_seconds_at_most(sent: bytes) -> None:
    newcomer = Client(site=(site := full_house(1)))
    newcomer.send(sent)
    pump(site, 4)
    assert not newcomer.wire.disconnected
    pump(site, 2)
    assert newcomer.wire.disconnected


def test_few_are_told_at_once_and_the_oldest_makes_room() -> None:
    site = full_house(32)
    newcomers = [Client(site=site) for _ in range(3)]
    assert open_ones(newcomers) == [False, True, True]
    newcomers[0].hang_up()
    assert len(site.connections) == 32 + 2
    assert newcomers[1].send(GET).startswith(b"HTTP/1.1 503 ")
    assert open_ones(site.uploads) == [True] * 32


def test_who_is_being_told_is_not_among_those_who_are_idle() -> None:
    site = full_house(32)
    told = Client(site=site)
    told.send(GET[:10])
    answer(site.uploads[0].tree.requests[0])
    assert open_ones([Client(site=site), told]) == [True, True]
    assert told.send(GET[10:]).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("together", [True, False])
def test_a_newcomer_with_http2_is_told_once_and_then_goodbye(together: bool) -> None:
    site = full_house(1, h2c=True, refusal_fields=lambda origins: [(b"X-Origins", b",".join(origins))])
    client = Http2Client(site=site)
    client.acknowledge = False
    first = client.send("POST", origin="https://a.example", end=together)
    got = client.answers[first]
    assert (got.status, got.ended, got.reset) == (503, True, None if together else 0)
    assert (got.fields["retry-after"], got.fields["x-origins"]) == ("10", "https://a.example")
    assert json.loads(got.body)["status"] == 503 and len(got.body) >= 256
    assert client.goaway is not None and client.goaway.error_code == 0 and client.goaway.last_stream_id == first
    assert client.wire.disconnecting is together
    pump(site, 6)
    assert client.wire.disconnecting or client.wire.disconnected
    assert site.cut["full"] == 1


def test_a_head_is_told_what_makes_no_client_start_over() -> None:
    newcomer = Client(site=(site := full_house(1, h2c=True)))
    told = newcomer.send(b"HEAD /files/1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 423 Locked\r\nRetry-After: 10\r\n") and told.endswith(b"\r\n\r\n")
    client = Http2Client(site=site)
    got = client.answers[client.send("HEAD")]
    assert (got.status, got.fields["retry-after"], got.body, got.ended) == (423, "10", b"", True)
    assert client.wire.disconnecting


def test_a_newcomer_with_http2_that_makes_no_room_for_the_answer_is_not_waited_for() -> None:
    site = full_house(1, h2c=True)
    client = Http2Client(site=site)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    client.send()
    pump(site, 6)
    assert client.wire.disconnected


def test_an_http2_connection_is_idle_without_streams_only() -> None:
    requests: list[StreamingRequest] = []
    site = house(2, requests.append, h2c=True)
    clients = [Client(site=site) for _ in range(2)]
    for client in clients:
        client.send(PREFACE + frame(4, b"", stream=0) + HEAD)
    newcomer = Client(site=site)
    assert newcomer.send(GET).startswith(b"HTTP/1.1 503 ") and open_ones(clients) == [True, True]
    newcomer.hang_up()
    answer(requests[0])
    assert open_ones([*clients, Client(site=site)]) == [False, True, True]


def test_who_begins_to_speak_http2_in_a_full_house_is_not_one_more() -> None:
    site = house(1, h2c=True)
    client = Client(site=site)
    client.send(PREFACE + frame(4, b"", stream=0) + HEAD)
    assert len(site.connections) == 1 and open_ones([client]) == [True]


@pytest.mark.parametrize(("hard", "most"), [(65_536, 32_768), (resource.RLIM_INFINITY, sys.maxsize)])
def test_half_of_the_files_are_left_for_uploads(monkeypatch: pytest.MonkeyPatch, hard: int, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, hard))
    assert startup.most_connections() == most


def test_who_has_been_refused_and_stays_makes_room_as_well() -> None:
    site = house(1)
    refused = Client(site=site)
    assert refused.send(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert open_ones([Client(site=site)]) == [True]
    assert refused.wire.disconnected


def test_the_log_tells_who_was_cut_off_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, object]] = []
    monkeypatch.setattr(connections, "log", Logger(observer=told.append))
    Client(site=full_house(1))
    assert [(each["client"], each["why"], each["count"]) for each in told] == [("192.168.1.1", "full", 2)]

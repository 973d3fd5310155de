"""More connections than there are files for: who idles makes room, and nobody's upload is touched."""

from __future__ import annotations

import resource
import sys

import pytest
from test_http2 import frame
from test_streaming import GET, Client, Tree, answer, nothing, patch
from twisted.internet.task import Clock

from resumable import startup
from resumable.http.streaming import StreamingRequest, StreamingSite
from resumable.http.two.frames import PREFACE

HEAD = frame(1, b"\x82\x86\x84\x41\x01a", 5)  # GET http://a/


def house(size: int, handler: object = nothing, **options: object) -> StreamingSite:
    return StreamingSite(Tree(handler), reactor=Clock(), max_connections=size, **options)  # type: ignore[arg-type]


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


def test_uploads_stay_and_the_newcomer_goes_where_all_are_busy() -> None:
    site = house(2)
    uploads = [Client(site=site) for _ in range(2)]
    for client in uploads:
        client.send(patch(100))
    newcomer = Client(site=site)
    assert open_ones([*uploads, newcomer]) == [True, True, False]
    newcomer.hang_up()
    uploads[0].hang_up()
    assert open_ones([Client(site=site)]) == [True]


def test_an_http2_connection_is_idle_without_streams_only() -> None:
    requests: list[StreamingRequest] = []
    site = house(2, requests.append, h2c=True)
    clients = [Client(site=site) for _ in range(2)]
    for client in clients:
        client.send(PREFACE + frame(4, b"", stream=0) + HEAD)
    assert len(site.connections) == 2 and open_ones([*clients, Client(site=site)]) == [True, True, False]
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

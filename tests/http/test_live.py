"""An upload's status as server-sent events: what is sent when, to whom, and when it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from resumable.http.live import BEAT, EVENTS, EVERY, LIFE
from resumable.model.upload import ReplicaState
from tests.http.event_stream import ACCEPT, Watching, another, parsed, unchunked
from tests.http.visitor import Client, new, serving
from tests.uploads.fakes import FakeReplication
from tests.uploads.harness import Server

DATA = b"0123456789"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(replication=FakeReplication()) as server:
        yield server


@pytest.fixture
def sender(server: Server) -> Client:
    return Client(server)


def test_the_document_comes_at_once_and_is_that_of_json(server: Server, sender: Client) -> None:
    upload_id = new(sender)
    watching = Watching(another(server), upload_id)
    assert parsed(watching.first) == [
        ("status", json.loads(sender.ask("GET", f"/files/{upload_id}/status", tus=False).body))
    ]
    assert watching.first.startswith(b"retry: 2000\n\nid: ")


def test_the_answer_is_kept_by_no_cache_held_back_by_no_proxy_and_readable_for_pages(
    server: Server, sender: Client
) -> None:
    head = Watching(another(server), new(sender), "Origin: https://app.example").head.lower()
    for field in (
        b"content-type: text/event-stream",
        b"cache-control: no-store",
        b"x-accel-buffering: no",
        b"x-content-type-options: nosniff",
        b"access-control-allow-origin: *",
    ):
        assert field in head
    assert b"content-encoding" not in head


def test_a_change_comes_within_a_tick_and_only_then(server: Server, sender: Client) -> None:
    upload_id = new(sender)
    watching = Watching(another(server), upload_id)
    assert watching.comes(5 * EVERY) == []
    sender.patch(upload_id, 0, DATA[:4])
    ((name, document),) = watching.comes(EVERY)
    assert (name, document["offset"]) == ("status", 4)
    assert watching.comes(EVERY) == []


def test_many_changes_in_one_tick_come_as_the_newest(server: Server, sender: Client) -> None:
    upload_id = new(sender)
    watching = Watching(another(server), upload_id)
    for offset in range(5):
        sender.patch(upload_id, offset, DATA[offset : offset + 1])
    assert [document["offset"] for _, document in watching.comes(EVERY)] == [5]


def test_the_stream_ends_when_the_upload_is_stored(server: Server, sender: Client) -> None:
    upload_id = new(sender)
    watching = Watching(another(server), upload_id)
    sender.patch(upload_id, 0, DATA)
    assert [document["state"] for _, document in watching.comes(EVERY)] == ["finished"]
    server.store(upload_id)
    server.advance(EVERY)
    assert watching.over
    (name, document), end = watching.comes()
    assert (name, document["state"]) == ("status", "stored") and end == ("end", {"state": "stored"})
    assert document["replicas"][0]["state"] == ReplicaState.STORED.value


def test_the_stream_ends_when_the_upload_is_gone_which_clients_are_told_no_more_of(
    server: Server, sender: Client
) -> None:
    upload_id = new(sender)
    watching = Watching(another(server), upload_id)
    sender.ask("DELETE", f"/files/{upload_id}")
    server.advance(EVERY)
    assert watching.over and watching.comes() == [("end", {"state": "gone"})]


def test_a_stored_upload_is_told_of_once_and_a_client_that_comes_back_is_told_to_stay_away(
    server: Server, sender: Client
) -> None:
    upload_id = new(sender)
    sender.patch(upload_id, 0, DATA)
    server.store(upload_id)
    assert [name for name, _ in parsed(Watching(another(server), upload_id).first)] == ["status", "end"]
    fields = (ACCEPT, "Last-Event-ID: end")
    assert another(server).ask("GET", f"/files/{upload_id}/status", *fields, tus=False).status == 204


def test_a_client_that_comes_back_is_not_sent_what_it_has(server: Server, sender: Client) -> None:
    upload_id = new(sender)
    (identity,) = [line[4:] for line in Watching(another(server), upload_id).first.split(b"\n") if line[:4] == b"id: "]
    back = Watching(another(server), upload_id, f"Last-Event-ID: {identity.decode()}")
    assert parsed(back.first) == []
    sender.patch(upload_id, 0, DATA[:1])
    assert [document["offset"] for _, document in back.comes(EVERY)] == [1]


def test_what_json_is_refused_for_events_are_refused_for(server: Server) -> None:
    answer = another(server).ask("GET", f"/files/{'f' * 32}/status", ACCEPT, tus=False)
    assert (answer.status, answer.get("Content-Type")) == (404, "application/problem+json")


def test_all_who_watch_one_upload_cost_one_look(server: Server, sender: Client, monkeypatch: Any) -> None:
    upload_id = new(sender)
    clients = [another(server) for _ in range(20)]
    options = clients[0].channel.site.resource
    for client in clients:
        client.channel.site.resource = options
    all_of_them = [Watching(client, upload_id) for client in clients]
    looks = []
    asked = server.uploads.statuses

    async def counted(ids: Any) -> Any:
        looks.append(list(ids))
        return await asked(ids)

    monkeypatch.setattr(server.uploads, "statuses", counted)
    sender.patch(upload_id, 0, DATA[:3])
    server.advance(EVERY)
    assert looks == [[upload_id]]
    assert [each.comes()[0][1]["offset"] for each in all_of_them] == [3] * 20


def test_a_slow_reader_is_sent_nothing_until_it_reads_and_then_the_newest(server: Server, sender: Client) -> None:
    upload_id = new(sender)
    client = another(server)
    watching = Watching(client, upload_id)
    client.channel.pauseProducing()
    for offset in range(6):
        sender.patch(upload_id, offset, DATA[offset : offset + 1])
        assert watching.comes(EVERY) == []
    client.channel.resumeProducing()
    assert [document["offset"] for _, document in watching.comes()] == [6]


def test_a_quiet_stream_has_heartbeats(server: Server, sender: Client) -> None:
    watching = Watching(another(server), new(sender))
    server.advance(BEAT * 1.3)
    assert unchunked(watching.wire.value()) == b":\n\n"


def test_a_stream_ends_after_an_hour_so_that_access_is_looked_at_again(server: Server, sender: Client) -> None:
    watching = Watching(another(server), new(sender))
    for _ in range(int(LIFE / BEAT) - 1):
        server.advance(BEAT)
    watching.wire.clear()
    assert not watching.over
    server.advance(BEAT)
    assert watching.over and watching.comes() == []


def test_at_a_stop_streams_end_at_once(server: Server, sender: Client) -> None:
    client = another(server)
    watching = Watching(client, new(sender))
    client.channel.site.stop_idle()
    assert watching.over and watching.wire.disconnecting


def test_a_client_that_has_gone_leaves_nothing_behind(server: Server, sender: Client) -> None:
    from twisted.internet.error import ConnectionDone
    from twisted.python.failure import Failure

    client = another(server)
    Watching(client, new(sender))
    client.channel.connectionLost(Failure(ConnectionDone()))
    assert not client.channel.site.at_stop
    live = client.channel.site.resource._tus._live  # type: ignore[attr-defined]
    assert live.watchers == 0 and not live._ticking.pending


def test_watching_never_touches_the_hold(server: Server, sender: Client) -> None:
    upload_id = new(sender)
    sender.patch(upload_id, 0, DATA[:2], "Content-Length: 8")
    assert server.context.holds.held(upload_id)
    watching = Watching(another(server), upload_id)
    watching.comes(4 * EVERY)
    assert server.context.holds.held(upload_id) and sender.reply() is None
    sender.send(DATA[2:])
    assert sender.reply() is not None


def test_more_watchers_are_told_less_often() -> None:
    assert 10 * EVENTS / EVENTS > EVERY  # ten thousand of them: every ten seconds


def test_a_database_that_is_away_ends_no_stream(server: Server, sender: Client, monkeypatch: Any) -> None:
    from resumable.protocol.errors import Unavailable

    upload_id = new(sender)
    watching = Watching(another(server), upload_id)

    async def away(ids: Any) -> Any:
        raise Unavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(server.uploads, "statuses", away)
        sender.patch(upload_id, 0, DATA[:3])
        assert watching.comes(4 * EVERY) == []
    assert [document["offset"] for _, document in watching.comes(2 * EVERY)] == [3]

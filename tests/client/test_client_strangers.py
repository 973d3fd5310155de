"""Servers that do what no server should: nothing of the user's goes astray, and the client comes to an end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resumable.client import (
    ClientOptions,
    GaveUp,
    NothingThere,
    SourceChanged,
    StateFile,
    StateUnusable,
    TransferCancelled,
    TransferRefused,
)
from resumable.client.effects import Exchange, HttpReply
from resumable.client.links import Interrupt
from resumable.client.patience import judged
from resumable.client.sources import StreamSource
from resumable.client.speech import new_url
from tests.client.raw_server import RawServer, raw_server
from tests.client.wires import a_wire
from tests.client.world import BASE, Fault, World, answer, cut_after

DATA = bytes(range(256)) * 40
MINE = ClientOptions(token="secret", headers={"X-Api-Key": "secret"})


@pytest.mark.parametrize(
    "elsewhere", ["http://other/files/", "http://server:8080/files/", "https://server:8443/files/"]
)
def test_what_the_user_gave_for_a_server_goes_to_no_other_host_or_port(world: World, elsewhere: str) -> None:
    world.fails(answer(308, ("location", elsewhere)))
    world.run(world.transfer(MINE).ask(Exchange(method="OPTIONS", url=BASE)))
    before, after = (dict(each.fields) for each in world.requests)
    assert (before["Authorization"], before["X-Api-Key"]) == ("Bearer secret", "secret")
    assert not {"Authorization", "X-Api-Key"} & set(after)


def test_the_same_host_by_tls_gets_them(world: World) -> None:
    world.fails(answer(308, ("location", "https://server/files/")))
    world.run(world.transfer(MINE).ask(Exchange(method="OPTIONS", url=BASE)))
    assert dict(world.requests[-1].fields)["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("base", "location"),
    [
        (BASE, "file:///etc/passwd"),
        (BASE, "ftp://other/"),
        (BASE, "http://[::1/"),
        (BASE, "http://server:99999/"),
        ("https://server/files/", "http://other/files/1"),
    ],
)
def test_an_upload_where_nothing_may_be_sent_is_refused(base: str, location: str) -> None:
    with pytest.raises(TransferRefused):
        new_url(base, HttpReply(201, [("location", location)]))


def test_an_upload_s_address_has_no_characters_that_a_terminal_obeys() -> None:
    reply = HttpReply(201, [("location", "/files/\x1b[31m\xe4?a=%20&b=c")])
    assert new_url(BASE, reply) == "http://server/files/%1B[31m%E4?a=%20&b=c"


@pytest.mark.parametrize("name", ["title", "detail"])
def test_a_server_s_words_are_short_and_colour_nothing(name: str) -> None:
    body = json.dumps({"title": "no", name: "\x1b[31m" + "no" * 100_000}).encode()
    with pytest.raises(TransferRefused) as told:
        judged(HttpReply(400, [("content-type", "application/problem+json")], body), BASE)
    assert str(told.value).isprintable() and len(str(told.value)) < 1000
    assert told.value.title.isprintable()


def test_a_document_that_is_nested_too_deeply_has_no_words() -> None:
    body = b"[" * (1 << 20)
    with pytest.raises(TransferRefused, match="Bad Request"):
        judged(HttpReply(400, [("content-type", "application/json")], body), BASE)


def test_an_upload_that_is_gone_after_each_piece_is_given_up_with_pauses_before(world: World) -> None:
    def before(exchange: Exchange) -> None:
        if exchange.method == "PATCH" and dict(exchange.fields)["Upload-Offset"] != "0":
            world.fails(answer(404))
        assert len(world.requests) < 50, "it never ends"

    world.before = before
    with pytest.raises(NothingThere):
        world.put(DATA, ClientOptions(chunk_size=1000))
    assert len(world.pauses) == 3


@pytest.mark.parametrize("protocol", ["tus", "draft"])
@pytest.mark.parametrize("arrives", [None, 700])
def test_an_answer_without_an_offset_is_believed_only_as_far_as_head_says(
    world: World, protocol: str, arrives: int | None
) -> None:
    world.fails(None, Fault(arrives=arrives, done=True, reply=HttpReply(204)))
    done = world.put(DATA, ClientOptions(protocol=protocol, chunk_size=6000))
    assert bytes(world.uploads[done.url].data) == DATA
    first, second = [dict(each.fields)["Upload-Offset"] for each in world.requests if each.method == "PATCH"][:2]
    assert (first, second) == ("0", str(arrives or 6000))
    assert world.methods()[:4] == ["POST", "PATCH", "HEAD", "PATCH"] and world.pauses == []


def test_an_upload_that_is_taken_away_with_its_last_byte_is_sent_once(world: World) -> None:
    world.fails(None, Fault(arrives=None, done=True, reply=HttpReply(204)), answer(404))
    assert world.put(DATA, ClientOptions(verify=False)).sent == len(DATA)
    assert world.methods() == ["POST", "PATCH", "HEAD"]


@pytest.mark.parametrize("resumed", [True, False])
def test_an_upload_that_is_complete_without_all_bytes_isnt_sent(world: World, resumed: bool) -> None:
    options = ClientOptions(protocol="draft", verify=False, chunk_size=3000, retry_for=0 if resumed else 3600)
    ended = HttpReply(200, [("upload-complete", "?1"), ("upload-offset", "3000")])
    if resumed:
        world.fails(None, cut_after(3000), Fault(reply=ended))
        with pytest.raises(GaveUp):
            world.put(DATA, options)
        world.fails(Fault(reply=ended))
    else:
        world.fails(None, Fault(arrives=3000, done=True, reply=ended), Fault(reply=ended))
    with pytest.raises(SourceChanged, match="complete with 3000 bytes"):
        world.put(DATA, options)


def test_a_stream_whose_upload_is_complete_before_its_end_isnt_sent(world: World) -> None:
    import io

    ended = HttpReply(200, [("upload-complete", "?1"), ("upload-offset", "3000")])
    world.fails(None, Fault(arrives=3000, done=True, reply=ended), Fault(reply=ended))
    options = ClientOptions(protocol="draft", verify=False, chunk_size=3000)
    with pytest.raises(SourceChanged, match="complete with 3000 bytes"):
        world.put(StreamSource(io.BytesIO(DATA), 1 << 20), options)


def test_progress_that_answers_deny_doesnt_count_for_ever(world: World) -> None:
    def before(exchange: Exchange) -> None:
        if exchange.method == "PATCH":
            assert exchange.informed is not None
            exchange.informed(104, HttpReply(104, [("upload-offset", "100")]))
            world.fails(answer(503))
        assert len(world.requests) < 200, "it never ends"

    world.before = before
    with pytest.raises(GaveUp):
        world.put(DATA, ClientOptions(retry_for=60))


def test_a_flood_that_never_ends_can_be_cancelled() -> None:
    interrupt = Interrupt()
    seen = []

    def serve(server: RawServer, connection: object) -> None:
        server.head(connection)  # type: ignore[arg-type]
        for _ in range(20_000):
            connection.sendall(b"HTTP/1.1 104 X\r\nUpload-Offset: 1\r\n\r\n" * 100)  # type: ignore[attr-defined]

    def informed(status: int, reply: HttpReply) -> None:
        seen.append(status)
        assert len(seen) < 100_000, "it never ends"
        interrupt.set()

    with raw_server(serve) as server, pytest.raises(TransferCancelled):
        a_wire().exchange(Exchange(method="HEAD", url=server.url, informed=informed), interrupt)
    interrupt.close()


@pytest.mark.parametrize("name", ["pieces", "downloads"])
def test_a_state_file_with_something_else_in_it_is_told(directory: Path, name: str) -> None:
    path = directory / "state.json"
    path.write_text(json.dumps({"version": 1, "uploads": {}, name: []}))
    state = StateFile(path)
    with pytest.raises(StateUnusable):
        state.piece(BASE)
    with pytest.raises(StateUnusable):
        state.download("a")

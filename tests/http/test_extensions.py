"""Extensions that are switched off are neither told nor taken, and what was made with them before goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resumable.protocol import tus
from tests.http.visitor import Client, Reply, created, new, serving
from tests.uploads.harness import Server

TYPE = "Content-Type: application/offset+octet-stream"
DATA = b"0123456789"
POST = ("POST /files/ HTTP/1.1", "Host: t", "Tus-Resumable: 1.0.0", "Upload-Length: 10")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def less(server: Server, *names: str) -> Client:
    return Client(server, extensions=tus.extensions_without(names))


def refused(reply: Reply, status: int, word: str) -> bool:
    return reply.status == status and word.encode() in reply.body and len(reply.body) >= 256


@pytest.mark.parametrize("name", tus.EXTENSIONS)
def test_options_leaves_out_what_is_switched_off_and_what_needs_it(server: Server, name: str) -> None:
    told = less(server, name).ask("OPTIONS", "/files/", tus=False)
    also = {each for each, needed in tus.NEEDED.items() if needed == name}
    if name == "creation":
        also.add("concatenation-unfinished")
    assert (told.get("Tus-Extension") or "").split(",") == [e for e in tus.EXTENSIONS if e not in {name, *also}]
    assert (told.get("Tus-Checksum-Algorithm") is None) == (name == "checksum")


def test_all_of_them_can_be_switched_off(server: Server) -> None:
    told = less(server, *tus.EXTENSIONS).ask("OPTIONS", "/files/", tus=False)
    assert (told.status, told.get("Tus-Version"), told.get("Tus-Extension")) == (200, "1.0.0", None)


def test_without_termination_delete_is_405_and_the_upload_stays(server: Server) -> None:
    upload_id = new(Client(server))
    client = less(server, "termination")
    for method in ("DELETE", "PUT"):
        reply = client.ask(method, f"/files/{upload_id}")
        assert (reply.status, reply.get("Allow")) == (405, "GET, HEAD, OPTIONS, PATCH")
    assert client.ask("POST", f"/files/{upload_id}", "X-HTTP-Method-Override: DELETE").status == 405
    assert client.ask("HEAD", f"/files/{upload_id}").status == 200


def test_without_creation_post_is_405_and_uploads_go_on(server: Server) -> None:
    upload_id = new(Client(server))
    client = less(server, "creation")
    for method in ("POST", "PUT"):
        reply = client.ask(method, "/files/", "Upload-Length: 5")
        assert (reply.status, reply.get("Allow")) == (405, "OPTIONS")
    client.patch(upload_id, 0, DATA)
    done = client.reply()
    assert done is not None and done.status == 204


def test_without_creation_with_upload_a_post_with_bytes_is_400_and_makes_nothing(server: Server) -> None:
    for framing, body in (
        (f"Content-Length: {len(DATA)}", DATA),
        ("Transfer-Encoding: chunked", b"1\r\nx\r\n0\r\n\r\n"),
    ):
        client = less(server, "creation-with-upload")
        client.send("\r\n".join([*POST, TYPE, framing, "", ""]).encode() + body)
        reply = client.reply()
        assert reply is not None and refused(reply, 400, "creation-with-upload")
    assert not server.names() and new(less(server, "creation-with-upload"))


def test_without_deferred_lengths_none_may_begin_and_those_under_way_go_on(server: Server) -> None:
    upload_id = created(Client(server).ask("POST", "/files/", "Upload-Defer-Length: 1"))
    client = less(server, "creation-defer-length")
    assert refused(client.ask("POST", "/files/", "Upload-Defer-Length: 1"), 400, "creation-defer-length")
    client.patch(upload_id, 0, DATA, "Upload-Length: 10")
    done = client.reply()
    assert done is not None and (done.status, done.get("Upload-Offset")) == (204, "10")


def test_without_checksums_one_is_400_and_nothing_of_its_body_is_kept(server: Server) -> None:
    client = less(server, "checksum")
    upload_id = new(client)
    client.patch(upload_id, 0, DATA, "Upload-Checksum: sha1 h6zsF82dzSCnFsws9nQXtxyKcBY=")
    reply = client.reply()
    assert reply is not None and refused(reply, 400, "Upload-Checksum")
    assert Client(server).ask("HEAD", f"/files/{upload_id}").get("Upload-Offset") == "0"
    posted = less(server, "checksum").ask(
        "POST", "/files/", "Upload-Length: 10", TYPE, "Upload-Checksum: sha1 h6zsF82dzSCnFsws9nQXtxyKcBY=", body=DATA
    )
    assert refused(posted, 400, "Upload-Checksum")


@pytest.mark.parametrize("off", ["checksum", "checksum-trailer"])
def test_without_trailers_an_announced_one_is_400_before_the_body(server: Server, off: str) -> None:
    client = less(server, off)
    upload_id = new(client)
    announced = ("Transfer-Encoding: chunked", "Trailer: Upload-Checksum", TYPE)
    client.begin("PATCH", f"/files/{upload_id}", "Upload-Offset: 0", *announced)
    reply = client.reply()
    assert reply is not None and refused(reply, 400, "checksum-trailer")
    client = less(server, off)
    client.send("\r\n".join([*POST, *announced, "", ""]).encode())
    posted = client.reply()
    assert posted is not None and refused(posted, 400, "checksum-trailer")


def test_without_checksum_trailers_a_checksum_in_the_header_counts(server: Server) -> None:
    client = less(server, "checksum-trailer")
    upload_id = new(client)
    client.patch(upload_id, 0, DATA, "Upload-Checksum: sha1 h6zsF82dzSCnFsws9nQXtxyKcBY=")
    reply = client.reply()
    assert reply is not None and reply.status == 204


def test_without_concatenation_there_are_no_new_partials_and_finals(server: Server) -> None:
    part = created(Client(server).ask("POST", "/files/", "Upload-Length: 10", "Upload-Concat: partial"))
    client = less(server, "concatenation")
    for value in ("partial", f"final;/files/{part}"):
        length = ("Upload-Length: 10",) if value == "partial" else ()
        assert refused(client.ask("POST", "/files/", *length, f"Upload-Concat: {value}"), 400, "concatenation")
    client.patch(part, 0, DATA, "Upload-Concat: partial")
    done = client.reply()
    assert done is not None and done.status == 204, "tus-js-client says so in its appends, too"
    assert client.ask("HEAD", f"/files/{part}").get("Upload-Concat") == "partial"


def test_without_unfinished_concatenation_all_partials_must_be_finished(server: Server) -> None:
    client = less(server, "concatenation-unfinished")
    part = created(client.ask("POST", "/files/", "Upload-Length: 10", "Upload-Concat: partial"))
    final = f"Upload-Concat: final;/files/{part}"
    assert refused(client.ask("POST", "/files/", final), 400, "concatenation-unfinished")
    client.patch(part, 0, DATA)
    client.reply()
    assert client.ask("POST", "/files/", final).status == 201
    assert client.ask("POST", "/files/", f"Upload-Concat: final;/files/{'0' * 32}").status == 400

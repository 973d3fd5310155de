"""Who reads disturbs nobody who writes; and what is no longer here is read from where it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from resumable.http.download import CHUNK, Remotely
from resumable.protocol import metadata
from resumable.protocol.errors import NotFound, Unavailable
from tests.http.draft_client import Draft
from tests.http.draft_client import upload_id as upload_id_of
from tests.http.visitor import Client, Reply, new, serving
from tests.uploads.fakes import FakeReplication
from tests.uploads.harness import Server

DATA = b"0123456789"
METADATA = metadata.encode({"filename": "ä.html", "filetype": "text/html"})


@pytest.fixture
def remote() -> FakeReplication:
    return FakeReplication()


@pytest.fixture
def server(remote: FakeReplication) -> Iterator[Server]:
    with serving(replication=remote) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


def get(client: Client, upload_id: str, *fields: str) -> Reply:
    return client.ask("GET", f"/files/{upload_id}", *fields, tus=False)


# the hold


def test_a_get_leaves_a_live_append_alone(client: Client, server: Server) -> None:
    upload_id = new(client)
    client.patch(upload_id, 0, b"01234", "Content-Length: 10")
    reply = get(Client(server), upload_id)
    assert (reply.status, reply.get("Content-Type")) == (404, "application/problem+json")
    client.send(b"56789")
    done = client.reply()
    assert done is not None and (done.status, done.get("Upload-Offset")) == (204, "10")
    assert get(client, upload_id).body == DATA


def test_a_get_leaves_a_silent_append_alone(client: Client, server: Server) -> None:
    upload_id = new(client)
    client.patch(upload_id, 0, b"01234", "Content-Length: 10")
    server.advance(5.0)
    assert get(Client(server), upload_id).status == 404
    server.advance(5.0)
    assert client.reply() is None, "a HEAD would have taken the hold over"
    client.send(b"56789")
    done = client.reply()
    assert done is not None and done.status == 204


def test_a_download_under_way_keeps_nobody_from_writing_or_deleting(client: Client, server: Server) -> None:
    data = bytes(range(256)) * (3 * CHUNK // 256)
    upload_id = server.upload(data)
    client.channel.pauseProducing()
    client.begin("GET", f"/files/{upload_id}", tus=False)
    other = Client(server)
    other.patch(upload_id, len(data), b"")
    done = other.reply()
    assert done is not None and done.status == 204
    assert other.ask("HEAD", f"/files/{upload_id}").status == 200
    assert other.ask("DELETE", f"/files/{upload_id}").status == 204
    server.sweep()
    client.channel.resumeProducing()
    server.pump()
    reply = client.reply()
    assert reply is not None and reply.body == data, "what was opened is read to its end"


# HEAD of those who don't speak tus

DOWNLOAD = {
    "content-length", "content-type", "content-disposition", "etag", "last-modified", "accept-ranges", "cache-control",
    "x-content-type-options", "content-security-policy", "tus-resumable", "vary",
}  # fmt: skip


def described(reply: Reply, names: set[str] = DOWNLOAD) -> dict[str, str]:
    return {name.lower(): value for name, value in reply.fields if name.lower() in names}


def test_a_head_without_tus_resumable_tells_of_a_finished_upload_what_a_get_would(
    client: Client, server: Server
) -> None:
    """HEAD without Tus-Resumable | of a finished upload: the header fields that GET would send"""
    upload_id = new(client, 10, f"Upload-Metadata: {METADATA}")
    client.patch(upload_id, 0, DATA)
    client.reply()
    for fields in ((), ("Range: bytes=2-3",)):
        plain = client.ask("HEAD", f"/files/{upload_id}", *fields, tus=False)
        assert (plain.status, plain.body) == (200, b"") and plain.get("Upload-Offset") is None
        assert described(plain) == described(get(client, upload_id)) and described(plain).keys() == DOWNLOAD
    etag = plain.get("ETag")
    cached = client.ask("HEAD", f"/files/{upload_id}", f"If-None-Match: {etag}", tus=False)
    assert (cached.status, cached.get("ETag")) == (304, etag)
    assert client.ask("HEAD", f"/files/{upload_id}", 'If-Match: "x"', tus=False).status == 412
    asked = client.ask("HEAD", f"/files/{upload_id}", "Range: bytes=2-3")
    assert (asked.get("Upload-Offset"), asked.get("ETag")) == ("10", None), "a client of tus is told of the upload"


def test_a_head_without_tus_resumable_of_an_unfinished_upload_is_412(client: Client, server: Server) -> None:
    """HEAD without Tus-Resumable | ...; of an unfinished one: 412"""
    upload_id = new(client)
    client.patch(upload_id, 0, b"01234", "Content-Length: 10")
    other = Client(server)
    for _ in range(2):
        reply = other.ask("HEAD", f"/files/{upload_id}", tus=False)
        assert (reply.status, reply.get("Tus-Version"), reply.get("Upload-Offset")) == (412, "1.0.0", None)
    client.send(b"56789")
    done = client.reply()
    assert done is not None and done.status == 204, "it disturbed nobody"
    assert other.ask("HEAD", f"/files/{upload_id}", "Tus-Resumable: 0.2.2", tus=False).status == 412
    assert Client(server, download=False).ask("HEAD", f"/files/{upload_id}", tus=False).status == 412
    assert other.ask("DELETE", f"/files/{upload_id}").status == 204
    assert other.ask("HEAD", f"/files/{upload_id}", tus=False).status == 410
    assert other.ask("HEAD", f"/files/{'0' * 32}", tus=False).status == 404


def test_a_head_without_tus_resumable_says_no_more_than_a_get_could_bring(
    client: Client, remote: Any, dropped: str
) -> None:
    asked: list[tuple[Any, ...]] = []
    remote.open_copy = lambda *given: asked.append(given) or succeed(copy)
    copy = Copy(DATA)
    plain = client.ask("HEAD", f"/files/{dropped}", tus=False)
    assert (plain.status, plain.get("Content-Length"), plain.body) == (200, "10", b"")
    assert asked == [(dropped, 0, 1)] and copy.closed == 1
    for error, status in ((NotFound("It is lost."), 404), (Unavailable("Not now.", 7), 423)):
        remote.open_copy = lambda *_, error=error: fail(error)
        reply = client.ask("HEAD", f"/files/{dropped}", tus=False)
        assert reply.status == status and reply.get("Content-Disposition") is None
    assert client.ask("HEAD", f"/files/{dropped}").status == 200


# from a remote


class Copy:
    """A copy in a remote; the test answers its reads."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.waiting: list[tuple[int, Deferred[bytes]]] = []
        self.closed = 0

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        self.waiting.append((offset, Deferred()))
        return self.waiting[-1][1]

    def close(self) -> None:
        self.closed += 1

    def answer(self, size: int = 1 << 20) -> None:
        offset, waiting = self.waiting.pop(0)
        waiting.callback(self.data[offset : offset + size])


@pytest.fixture
def dropped(client: Client, server: Server) -> str:
    upload_id = new(client, len(DATA), f"Upload-Metadata: {METADATA}")
    client.patch(upload_id, 0, DATA)
    client.reply()
    server.store(upload_id)
    server.drop(upload_id)
    server.sweep()
    return upload_id


def from_copy(client: Client, remote: Any, upload_id: str, *fields: str) -> tuple[Reply, Copy]:
    """The answer to a GET while a copy answers each of its reads with all there is."""
    copy = remote.copies[upload_id] = Copy(DATA)
    client.begin("GET", f"/files/{upload_id}", *fields, tus=False)
    while copy.waiting:
        offset, waiting = copy.waiting.pop(0)
        end = 5 if "bytes=2-4" in "".join(fields) else None
        waiting.callback(DATA[offset:end])
    reply = client.reply()
    assert reply is not None
    return reply, copy


def test_what_was_dropped_is_read_from_a_remote(client: Client, remote: Any, dropped: str) -> None:
    reply, copy = from_copy(client, remote, dropped)
    assert (reply.status, reply.body, copy.closed) == (200, DATA, 1)
    assert reply.get("Content-Length") == "10" and reply.get("Content-Type") == "application/octet-stream"
    assert (reply.get("Content-Disposition") or "").startswith("attachment; filename=")
    assert reply.get("X-Content-Type-Options") == "nosniff" and reply.get("Accept-Ranges") == "bytes"


def test_ranges_and_conditions_are_the_same_whether_it_was_dropped_or_not(
    client: Client, remote: Any, server: Server
) -> None:
    upload_id = server.upload(DATA)
    here = get(client, upload_id)
    tag = here.get("ETag")
    server.store(upload_id)
    server.drop(upload_id)
    server.sweep()
    gone, _ = from_copy(client, remote, upload_id)
    assert [gone.get(each) for each in ("ETag", "Last-Modified")] == [tag, here.get("Last-Modified")]
    some, copy = from_copy(client, remote, upload_id, "Range: bytes=2-4", f"If-Range: {tag}")
    assert (some.status, some.body, some.get("Content-Range"), copy.closed) == (206, b"234", "bytes 2-4/10", 1)
    remote.copies.clear()
    for fields, status in (((f"If-None-Match: {tag}",), 304), (('If-Match: "x"',), 412), (("Range: bytes=10-",), 416)):
        assert get(client, upload_id, *fields).status == status, "no remote is asked"


def test_an_empty_upload_asks_no_remote(client: Client, server: Server) -> None:
    upload_id = server.upload(b"")
    server.store(upload_id)
    server.drop(upload_id)
    server.sweep()
    reply = get(client, upload_id)
    assert (reply.status, reply.body, reply.get("Content-Length")) == (200, b"", "0")


def test_a_remote_that_is_down_is_503_and_the_client_may_come_again(client: Client, dropped: str) -> None:
    reply = get(client, dropped, "Range: bytes=2-4")
    assert (reply.status, reply.get("Retry-After")) == (503, "7")
    assert reply.get("Content-Type") == "application/problem+json" and len(reply.body) >= 256
    for name in ("Content-Disposition", "Content-Range", "ETag", "Accept-Ranges", "Last-Modified"):
        assert reply.get(name) is None
    assert reply.get("Cache-Control") == "no-store"


def test_a_copy_that_is_gone_is_404(client: Client, remote: Any, dropped: str) -> None:
    remote.open_copy = lambda *asked: fail(NotFound("The file is nowhere."))
    assert get(client, dropped).status == 404


def test_a_copy_that_breaks_off_cuts_the_answer_off(client: Client, remote: Any, server: Server) -> None:
    data = bytes(4 * CHUNK)
    upload_id = server.upload(data)
    server.store(upload_id)
    server.drop(upload_id)
    server.sweep()
    copy = remote.copies[upload_id] = Copy(data)
    client.begin("GET", f"/files/{upload_id}", tus=False)
    copy.answer(CHUNK)
    copy.waiting.pop(0)[1].errback(Unavailable("no remote"))
    reply = client.reply()
    assert reply is not None and reply.status == 200 and len(reply.body) == CHUNK
    assert client.wire.disconnecting and copy.closed == 1


def test_a_client_that_leaves_closes_the_copy_at_once(client: Client, remote: Any, dropped: str) -> None:
    copy = remote.copies[dropped] = Copy(DATA)
    client.begin("GET", f"/files/{dropped}", tus=False)
    assert len(copy.waiting) == 1 and not copy.closed
    client.channel.stopProducing()  # as a real transport tells it
    client.channel.connectionLost(Failure(ConnectionLost()))
    assert copy.closed == 1
    copy.answer()
    assert copy.closed == 1 and not copy.waiting


def test_a_client_that_leaves_before_a_remote_answers_is_forgotten(client: Client, remote: Any, dropped: str) -> None:
    opening: Deferred[Any] = Deferred()
    remote.open_copy = lambda *asked: opening
    client.begin("GET", f"/files/{dropped}", tus=False)
    client.channel.connectionLost(Failure(ConnectionLost()))
    copy = Copy(DATA)
    opening.callback(copy)
    assert copy.closed == 1 and not copy.waiting


def test_a_client_that_does_not_read_is_sent_no_more(client: Client, remote: Any, server: Server) -> None:
    data = bytes(8 * CHUNK)
    upload_id = server.upload(data)
    server.store(upload_id)
    server.drop(upload_id)
    server.sweep()
    copy = remote.copies[upload_id] = Copy(data)
    client.begin("GET", f"/files/{upload_id}", tus=False)
    client.channel.pauseProducing()
    copy.answer(CHUNK)
    assert not copy.waiting
    client.channel.resumeProducing()
    assert len(copy.waiting) == 1


# redirects


@pytest.fixture
def redirected(server: Server, remote: Any) -> Client:
    remote.url = "https://store.example/bucket/key?X-Amz-Signature=s3cret"
    return Client(server, remotely=Remotely.REDIRECT)


def test_a_client_is_sent_to_the_store(redirected: Client, remote: Any, dropped: str) -> None:
    reply = get(redirected, dropped, "Range: bytes=2-4")
    assert (reply.status, reply.get("Location"), reply.body) == (307, remote.url, b"")
    assert reply.get("Cache-Control") == "no-store" and reply.get("Referrer-Policy") == "no-referrer"
    assert reply.get("Content-Range") is None and reply.get("Content-Disposition") is None
    (asked,) = remote.signed
    assert asked == (
        dropped,
        "application/octet-stream",
        "attachment; filename=\"_.html\"; filename*=UTF-8''%C3%A4.html",
        60.0,
    )


def test_the_store_is_told_what_may_be_shown_too(server: Server, remote: Any) -> None:
    picture = metadata.encode({"filename": "a.png", "filetype": "image/png"})
    client = Client(server, remotely=Remotely.REDIRECT, inline=True)
    upload_id = new(client, 10, f"Upload-Metadata: {picture}")
    client.patch(upload_id, 0, DATA)
    client.reply()
    server.store(upload_id)
    server.drop(upload_id)
    server.sweep()
    remote.url = "https://store.example/signed"
    assert get(client, upload_id).status == 307
    assert remote.signed[-1][1:3] == ("image/png", 'inline; filename="a.png"')


def test_a_file_that_is_coded_is_not_left_to_a_store_that_does_not_say_so(
    redirected: Client, server: Server, remote: Any
) -> None:
    upload_id = upload_id_of(Draft(server).post(DATA, "?1", "Content-Encoding: gzip"))
    server.store(upload_id)
    server.drop(upload_id)
    server.sweep()
    reply, _ = from_copy(redirected, remote, upload_id)
    assert (reply.status, reply.body, reply.get("Content-Encoding")) == (200, DATA, "gzip")
    assert not remote.signed


def test_nobody_is_sent_to_the_store_for_what_is_here(redirected: Client, remote: Any, server: Server) -> None:
    assert get(redirected, server.upload(DATA)).body == DATA
    assert not remote.signed


def test_who_has_it_or_asks_for_what_is_not_there_is_not_sent_away(
    redirected: Client, remote: Any, dropped: str
) -> None:
    for fields, status in ((("If-None-Match: *",), 304), (('If-Match: "x"',), 412), (("Range: bytes=10-",), 416)):
        assert get(redirected, dropped, *fields).status == status
    assert not remote.signed


def test_where_nothing_can_be_signed_the_bytes_go_through_here(redirected: Client, remote: Any, dropped: str) -> None:
    remote.url = None
    reply, _ = from_copy(redirected, remote, dropped)
    assert (reply.status, reply.body) == (200, DATA)


def test_a_head_is_never_sent_away(redirected: Client, dropped: str) -> None:
    reply = redirected.ask("HEAD", f"/files/{dropped}")
    assert (reply.status, reply.get("Upload-Offset")) == (200, "10")
    plain = redirected.ask("HEAD", f"/files/{dropped}", tus=False)
    assert (plain.status, plain.get("Content-Length"), plain.get("Location")) == (200, "10", None)


def test_it_can_be_switched_off(server: Server, remote: Any, dropped: str) -> None:
    remote.open_copy = lambda *asked: pytest.fail("a remote was asked")
    reply = get(Client(server, remotely=Remotely.OFF), dropped)
    assert reply.status == 404 and b"no longer on this server" in reply.body
    assert Client(server, remotely=Remotely.OFF).ask("HEAD", f"/files/{dropped}", tus=False).status == 404
    assert get(Client(server, download=False), dropped).status == 405


def test_a_deleted_upload_is_gone_wherever_it_was(client: Client, remote: Any, dropped: str) -> None:
    remote.copies[dropped] = succeed(Copy(DATA))
    assert client.ask("DELETE", f"/files/{dropped}").status == 204
    assert get(client, dropped).status == 410

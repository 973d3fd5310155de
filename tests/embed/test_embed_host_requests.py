"""Requests that are none of the uploads' are what Twisted's own site would make of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import GzipEncoderFactory

from resumable.embed import UploadServer
from tests.e2e.http2 import Http2
from tests.e2e.wire import Wire
from tests.embed.hosts import listening, started, tree

pytestmark = pytest.mark.filterwarnings("ignore:twisted.web.resource._Unsafe:DeprecationWarning")
LARGE = bytes(range(256)) * 2000


class Page(Resource):
    isLeaf = True

    def render_GET(self, request) -> bytes:
        session = request.getSession()
        session.visits = getattr(session, "visits", 0) + 1
        request.setETag(b"page")
        return b"%d %s %s" % (session.visits, request.getRequestHostname(), request.args.get(b"q", [b""])[0])

    def render_POST(self, request) -> bytes:
        return b"%s of %d" % (request.args[b"name"][0], request.content.seek(0, 2))


class Failing(Resource):
    isLeaf = True

    def render_GET(self, request) -> bytes:
        raise KeyError("secret")


@pytest.fixture
def server(tmp_path: Path) -> UploadServer:
    return UploadServer(upload_dir=tmp_path / "uploads")


@pytest_twisted.ensureDeferred
async def test_cookies_sessions_queries_and_tags_work(server: UploadServer) -> None:
    root = tree(server, b"files")
    root.putChild(b"page", Page())
    async with started(server), listening(site := server.site(root)) as host:
        first = await host.ask("GET", "/page?q=a%20b", {"Host": "example.org:80"})
        cookie = first.headers["set-cookie"].partition(";")[0]
        again = await host.ask("GET", "/page", {"Cookie": cookie})
        assert (first.body, again.body) == (b"1 example.org a b", b"2 127.0.0.1 ")
        assert (first.headers["content-type"], first.headers["etag"]) == ("text/html", "page")
        assert (await host.ask("HEAD", "/page")).body == b""
        assert (await host.ask("DELETE", "/page")).status == 501
        for session in list(site.sessions.values()):
            session.expire()


@pytest_twisted.ensureDeferred
async def test_forms_of_any_size_are_read_before_their_resource_is_asked(server: UploadServer) -> None:
    root = tree(server, b"files")
    root.putChild(b"page", Page())
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    parts = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n%s\r\n--x--\r\n'
    async with started(server), listening(server.site(root)) as host:
        assert (await host.ask("POST", "/page", form, b"name=small")).body == b"small of 10"
        multipart = parts % b"field"
        said = await host.ask("POST", "/page", {"Content-Type": "multipart/form-data; boundary=x"}, multipart)
        assert said.body == b"field of %d" % len(multipart)
        large = b"name=large&more=" + b"a" * 3_000_000
        assert (await host.ask("POST", "/page", form, large)).body == b"large of %d" % len(large)


@pytest_twisted.ensureDeferred
async def test_files_are_served_in_ranges_and_compressed(server: UploadServer, tmp_path: Path) -> None:
    from twisted.web.static import File  # which warns of Twisted itself

    (tmp_path / "large.txt").write_bytes(LARGE)
    root = tree(server, b"files")
    root.putChild(b"static", File(str(tmp_path)))
    root.putChild(b"small", EncodingResourceWrapper(Page(), [GzipEncoderFactory()]))
    async with started(server), listening(site := server.site(root)) as host:
        whole = await host.ask("GET", "/static/large.txt")
        assert (whole.body, whole.headers["content-type"]) == (LARGE, "text/plain")
        ranged = await host.ask("GET", "/static/large.txt", {"Range": "bytes=5-9"})
        assert (ranged.status, ranged.body) == (206, LARGE[5:10])
        fresh = await host.ask("GET", "/static/large.txt", {"If-Modified-Since": whole.headers["last-modified"]})
        assert (fresh.status, fresh.body) == (304, b"")
        zipped = await host.ask("GET", "/small", {"Accept-Encoding": "gzip"})
        assert zipped.headers["content-encoding"] == "gzip"
        assert gzip.decompress(zipped.body).startswith(b"1 127.0.0.1")
        for session in list(site.sessions.values()):
            session.expire()


@pytest_twisted.ensureDeferred
async def test_a_resource_that_fails_is_answered_500_without_its_reason(server: UploadServer) -> None:
    root = tree(server, b"files")
    root.putChild(b"failing", Failing())
    async with started(server), listening(server.site(root)) as host:
        said = await host.ask("GET", "/failing")
        assert said.status == 500 and b"secret" not in said.body
        assert (await host.ask("GET", "/none")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_while_its_body_comes_leaves_nothing_behind(server: UploadServer) -> None:
    root = tree(server, b"files")
    root.putChild(b"page", Page())

    def cut(port: int) -> None:
        with Wire(port) as wire:
            wire.send(b"POST /page HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
            assert wire.interim() == 100
            wire.send(b"name")

    async with started(server), listening(site := server.site(root)) as host:
        await deferToThread(cut, host.port)
        await site.drained()
        assert (await host.ask("OPTIONS", "/files/")).status == 200


@pytest_twisted.ensureDeferred
async def test_http_2_is_spoken_to_all_resources(tmp_path: Path) -> None:
    server = UploadServer(upload_dir=tmp_path / "uploads", h2c=True)
    root = tree(server, b"files")
    root.putChild(b"page", Page())

    def ask(port: int) -> list[tuple[int, bytes]]:
        with Http2(port) as link:
            form = {"content-type": "application/x-www-form-urlencoded"}
            answers = [link.ask("POST", "/page", form, b"name=two"), link.ask("OPTIONS", "/files/", {}, b"")]
        return [(each.status, each.body) for each in answers]

    async with started(server), listening(server.site(root)) as host:
        assert await deferToThread(ask, host.port) == [(200, b"two of 8"), (200, b"")]

"""An upload server in somebody else's program: under any site and path, beside others, and gone without a trace."""

from __future__ import annotations

import gc
import signal
import threading
from pathlib import Path

import pytest
import pytest_twisted
from klein import Klein
from twisted.application.service import Application, IService, MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.web.resource import Resource
from twisted.web.server import Site

from resumable.embed import StartupError, UploadServer, site
from resumable.hooks import Allow, Changes, Refuse
from tests.e2e.wire import Wire
from tests.embed.hosts import TUS, Host, asked, listening, started, tree
from tests.postgres import database
from tests.waiting import eventually, free_port

#: Twisted's own page for what isn't there.
pytestmark = pytest.mark.filterwarnings("ignore:twisted.web.resource._Unsafe:DeprecationWarning")
DATA = bytes(range(256)) * 1200


def stored(directory: Path, location: str) -> bytes:
    return (directory / location.rpartition("/")[2]).read_bytes()


@pytest.mark.parametrize("path", ["/files/", "/a/b/uploads/"])
@pytest_twisted.ensureDeferred
async def test_uploads_are_taken_at_any_path_of_a_tree_of_resources(path: str, tmp_path: Path) -> None:
    server = UploadServer(upload_dir=tmp_path, base_path=path)
    root = tree(server, *[each.encode() for each in path.strip("/").split("/")])
    async with started(server), listening(server.site(root)) as host:
        said = await host.upload(DATA, path)
        assert said.status == 201
        assert said.headers["location"] == f"http://127.0.0.1:{host.port}{path}" + said.headers["location"][-32:]
        assert stored(tmp_path, said.headers["location"]) == DATA
        got = await host.ask("GET", path + said.headers["location"][-32:])
        assert got.body == DATA
        assert (await host.ask("OPTIONS", path.rstrip("/"))).headers["tus-version"] == "1.0.0"
        assert (await host.ask("GET", "/elsewhere")).status == 404


@pytest_twisted.ensureDeferred
async def test_the_upload_page_is_there_if_it_is_asked_for(tmp_path: Path) -> None:
    for number, (page, status) in enumerate([(None, 405), ("on", 200)]):
        server = UploadServer(upload_dir=tmp_path / str(number), **({} if page is None else {"page": page}))
        async with started(server), listening(server.site(tree(server, b"files"))) as host:
            said = await host.ask("GET", "/files/", {"Accept": "text/html"})
            assert said.status == status and (b"<script" in said.body) is (page is not None)


@pytest_twisted.ensureDeferred
async def test_uploads_are_taken_at_a_route_of_klein(tmp_path: Path) -> None:
    app = Klein()
    server = UploadServer(upload_dir=tmp_path)

    @app.route("/")
    def home(request) -> bytes:
        return b"home"

    @app.route("/echo", methods=["POST"])
    def echo(request) -> bytes:
        return request.content.read()

    @app.route("/files/", branch=True)
    def files(request) -> Resource:
        return server.resource

    async with started(server), listening(server.site(app.resource())) as host:
        said = await host.upload(DATA)
        assert said.status == 201
        path = "/files/" + said.headers["location"].rpartition("/")[2]
        assert (await host.ask("HEAD", path, TUS)).headers["upload-offset"] == str(len(DATA))
        assert (await host.ask("GET", path)).body == DATA
        assert (await host.ask("GET", "/")).body == b"home"
        assert (await host.ask("POST", "/echo", {}, DATA)).body == DATA


@pytest_twisted.ensureDeferred
async def test_bytes_are_safe_before_the_end_of_a_body(tmp_path: Path) -> None:
    server = UploadServer(upload_dir=tmp_path)
    async with started(server), listening(server.site(tree(server, b"files"))) as host:
        created = await host.ask("POST", "/files/", {**TUS, "Upload-Length": "1000"}, b"")
        path = "/files/" + created.headers["location"].rpartition("/")[2]
        wire = await deferToThread(Wire, host.port)
        _begin(wire, path)
        await deferToThread(eventually, lambda: asked(host.port, "HEAD", path, TUS).headers["upload-offset"] == "600")
        wire.close()


@pytest_twisted.ensureDeferred
async def test_a_site_that_collects_bodies_is_told_of_at_the_first_request_and_takes_no_upload(tmp_path: Path) -> None:
    server = UploadServer(upload_dir=tmp_path)
    async with started(server), listening(Site(tree(server, b"files"))) as host:
        with capturedLogs() as logged:
            answers = [await host.upload(DATA), await host.ask("OPTIONS", "/files/")]
    assert [each.status for each in answers] == [500, 500]
    assert answers[0].headers["content-type"] == "application/problem+json"
    told = [event["log_format"] for event in logged if "uploads are refused" in str(event.get("log_format"))]
    assert len(told) == 1 and "server.site(root)" in told[0] and "port=" in told[0]


@pytest_twisted.ensureDeferred
async def test_a_server_that_no_site_can_reach_says_so_at_its_start(tmp_path: Path) -> None:
    with capturedLogs() as logged:
        async with started(UploadServer(upload_dir=tmp_path)):
            pass
    assert any("server.site(root)" in str(event.get("advice")) for event in logged)


@pytest_twisted.ensureDeferred
async def test_another_place_than_the_base_path_is_told_with_what_to_write(tmp_path: Path) -> None:
    server = UploadServer(upload_dir=tmp_path)
    with capturedLogs() as logged:
        async with started(server), listening(server.site(tree(server, b"up"))) as host:
            assert (await host.upload(DATA, "/up/")).status == 500
    (told,) = [event for event in logged if "base path" in str(event.get("log_format"))]
    assert (told["found"], told["path"]) == ("/up/", "/files/")


@pytest_twisted.ensureDeferred
async def test_several_servers_share_a_site_and_a_process(tmp_path: Path) -> None:
    one = UploadServer(upload_dir=tmp_path / "one", base_path="/one/", max_size=10**6)
    two = UploadServer(upload_dir=tmp_path / "two", base_path="/two/", max_size=10, admin_token_file=None)
    told: list[tuple[str, str]] = []
    for name, each in (("one", one), ("two", two)):

        @each.on("finished")
        async def finished(event, name=name) -> None:
            told.append((name, event.upload.id))

    root = Resource()
    for name, each in ((b"one", one), (b"two", two)):
        root.putChild(name, each.resource)
        root.putChild(b"admin-" + name, each.admin)
    async with started(one, two), listening(site(root, one, two)) as host:
        first, second = await host.upload(DATA, "/one/"), await host.upload(b"x", "/two/")
        assert (await host.upload(DATA, "/two/")).status == 413
        assert stored(tmp_path / "one", first.headers["location"]) == DATA
        assert stored(tmp_path / "two", second.headers["location"]) == b"x"
        metrics = [(await host.ask("GET", f"/admin-{name}/metrics")).body.decode() for name in ("one", "two")]
        await one.stop()
        assert (await host.upload(DATA, "/one/")).status == 503
        assert (await host.upload(b"y", "/two/")).status == 201
    assert [f"resumable_received_bytes_total {n:.1f}" in text for n, text in zip((len(DATA), 1), metrics, strict=True)]
    for text in metrics:
        assert "resumable_uploads_created_total 1.0" in text
    assert ("one", first.headers["location"][-32:]) in told and ("two", second.headers["location"][-32:]) in told


@pytest_twisted.ensureDeferred
async def test_the_programs_functions_decide_about_uploads_and_hear_of_them(tmp_path: Path) -> None:
    server = UploadServer(upload_dir=tmp_path)
    heard: Deferred[tuple[str, bool]] = Deferred()

    @server.before("create")
    def allowed(question):
        return Refuse() if question.upload.length == 13 else Allow(Changes(metadata={"by": b"program"}))

    @server.on("finished")
    def finished(event) -> None:
        by = event.upload.metadata["by"].decode()
        reactor.callFromThread(heard.callback, (by, threading.current_thread() is threading.main_thread()))  # type: ignore[attr-defined]

    async with started(server), listening(server.site(tree(server, b"files"))) as host:
        assert (await host.upload(bytes(13))).status == 403
        assert (await host.upload(DATA)).status == 201
        assert await heard == ("program", False)
        with pytest.raises(StartupError, match="before its start"):
            server.on("finished")


@pytest_twisted.ensureDeferred
async def test_the_admin_api_is_for_those_with_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef0123\n")
    server = UploadServer(upload_dir=tmp_path / "uploads", admin_token_file=tmp_path / "token")
    root = tree(server, b"files")
    root.putChild(b"operators", server.admin)
    async with started(server), listening(server.site(root)) as host:
        await host.upload(DATA)
        bearer = {"Authorization": "Bearer 0123456789abcdef0123"}
        assert (await host.ask("GET", "/operators/v1/uploads")).status == 401
        listed = await host.ask("GET", "/operators/v1/uploads?state=any", bearer)
        assert listed.status == 200 and listed.body.count(b'"id"') == 1
        assert (await host.ask("PUT", "/operators/v1/drain", bearer, b"")).status == 200


@pytest_twisted.ensureDeferred
async def test_a_stop_commits_and_answers_what_is_under_way(tmp_path: Path) -> None:
    server = UploadServer(upload_dir=tmp_path, shutdown_timeout="1h")
    async with started(server), listening(server.site(tree(server, b"files"))) as host:
        created = await host.ask("POST", "/files/", {**TUS, "Upload-Length": "1000"}, b"")
        path = "/files/" + created.headers["location"].rpartition("/")[2]
        wire = await deferToThread(Wire, host.port)
        _begin(wire, path)
        assert await deferToThread(wire.interim) == 100
        await server.stop()
        assert (await deferToThread(wire.answer)).status == 503
        wire.close()
    again = UploadServer(upload_dir=tmp_path)
    async with started(again), listening(again.site(tree(again, b"files"))) as host:
        assert (await host.ask("HEAD", path, TUS)).headers["upload-offset"] == "600"


def _begin(wire: Wire, path: str) -> None:
    wire.send(
        f"PATCH {path} HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nExpect: 100-continue\r\n"
        "Content-Type: application/offset+octet-stream\r\nContent-Length: 1000\r\n\r\n".encode()
        + DATA[:600]
    )


@pytest_twisted.ensureDeferred
async def test_nothing_of_the_process_is_changed(tmp_path: Path) -> None:
    def looked() -> tuple[object, ...]:
        handlers = [signal.getsignal(each) for each in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)]
        return (*handlers, gc.get_threshold(), gc.get_freeze_count(), threading.active_count())

    before = looked()
    server = UploadServer(upload_dir=tmp_path)
    async with started(server), listening(server.site()) as host:
        assert (await host.upload(DATA)).status == 201
        assert (await host.ask("GET", "/healthz")).status == 200
        pools = reactor.getThreadPool().threads  # type: ignore[attr-defined]
        assert looked()[:-1] == before[:-1]
    assert looked()[:-1] == before[:-1]
    assert not [each.name for each in threading.enumerate() if each.name.startswith(("spool", "catalog", "hooks"))]
    assert pools


@pytest_twisted.ensureDeferred
async def test_a_port_of_its_own_is_opened_when_asked_for(tmp_path: Path) -> None:
    port = free_port()
    async with started(UploadServer(upload_dir=tmp_path, listen=f"tcp:{port}:interface=127.0.0.1")):
        assert (await Host(port).upload(DATA)).status == 201


@pytest_twisted.ensureDeferred
async def test_a_directory_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    async with started(UploadServer(upload_dir=tmp_path)):
        with pytest.raises(StartupError, match="Another daemon uses the upload directory"):
            UploadServer(upload_dir=tmp_path)


@pytest_twisted.ensureDeferred
async def test_an_error_of_the_start_is_the_same_exception(tmp_path: Path) -> None:
    server = UploadServer(upload_dir=tmp_path, hook=["python:not_there_at_all"])
    with pytest.raises(StartupError, match="not_there_at_all"):
        server.start()
    assert not server.running


@pytest_twisted.ensureDeferred
async def test_it_is_a_service_of_an_application_without_a_name_of_its_own(tmp_path: Path) -> None:
    application = Application("theirs")
    servers = [UploadServer(upload_dir=tmp_path / name) for name in "ab"]
    for each in servers:
        each.setServiceParent(application)
    whole = IService(application)
    assert isinstance(whole, MultiService)
    whole.privilegedStartService()
    whole.startService()
    assert all(each.tree is not None for each in servers)
    await whole.stopService()
    assert all(each.tree is None for each in servers)
    with pytest.raises(StartupError, match="starts once"):
        servers[0].startService()


@pytest_twisted.ensureDeferred
async def test_requests_before_the_start_are_asked_to_come_again(tmp_path: Path) -> None:
    server = UploadServer(upload_dir=tmp_path)
    async with listening(server.site(tree(server, b"files"))) as host:
        said = await host.upload(b"x")
    assert (said.status, said.headers["retry-after"]) == (503, "5")


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_servers_of_several_programs_share_a_catalog(tmp_path: Path) -> None:
    shared = {"upload_dir": tmp_path / "uploads", "catalog": database()}
    (tmp_path / "uploads").mkdir(mode=0o700)
    one, two = (UploadServer(run_dir=tmp_path / name, **shared) for name in ("one", "two"))
    async with started(one, two), listening(one.site()) as first, listening(two.site()) as second:
        path = "/files/" + (await first.upload(DATA)).headers["location"][-32:]
        assert (await second.ask("HEAD", path, TUS)).headers["upload-offset"] == str(len(DATA))
        assert (await second.ask("GET", path)).body == DATA

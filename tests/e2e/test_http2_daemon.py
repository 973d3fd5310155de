"""HTTP/2 over TLS: by a client that shows what is on the wire, by curl and by Node."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.certificates import certified

from . import tools
from .daemon import Daemon, eventually, free_port
from .http2 import Http2
from .tus import OCTETS, Tus, checksum, pattern, sha256

DATA = pattern(20_000_000, seed=41)
CANCEL, NO_ERROR = 8, 0
PORT = free_port()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    key = tmp_path_factory.mktemp("tls") / "server.pem"
    key.write_bytes(certified("localhost").both)
    with Daemon("--listen", f"ssl:{PORT}:privateKey={key}:interface=127.0.0.1", "--max-size", "30M") as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


@pytest.fixture
def link(daemon: Daemon) -> Iterator[Http2]:
    with Http2(PORT, tls=True) as it:
        yield it


def append(offset: int, length: int | None = None) -> dict[str, str]:
    sized = {} if length is None else {"Content-Length": str(length)}
    return {"Tus-Resumable": "1.0.0", "Upload-Offset": str(offset), "Content-Type": OCTETS, **sized}


def test_an_upload_of_many_windows_arrives_whole_with_a_secure_location(link: Http2, tus: Tus) -> None:
    made = link.ask("POST", "/files/", {"Upload-Length": str(len(DATA))})
    assert made["location"].startswith("https://127.0.0.1/files/")
    path = made["location"].removeprefix("https://127.0.0.1")
    answer = link.ask("PATCH", path, append(0), DATA)
    assert (answer.status, answer.offset) == (204, len(DATA))
    assert link.ask("HEAD", path).offset == len(DATA)
    assert sha256(link.ask("GET", path).body) == sha256(DATA)
    assert sha256(tus.content(path)) == sha256(DATA)


def test_ten_uploads_share_one_connection(link: Http2, tus: Tus) -> None:
    paths = [tus.create(1_000_000) for _ in range(10)]
    numbers = [link.begin("PATCH", path, append(0, 1_000_000)) for path in paths]
    for start in range(0, 1_000_000, 100_000):
        for number in numbers:
            link.send(number, DATA[start : start + 100_000], end=start == 900_000)
    assert [link.answer(number).status for number in numbers] == [204] * 10
    assert all(tus.content(path) == DATA[:1_000_000] for path in paths)


def test_a_reset_upload_keeps_what_arrived_and_the_connection_goes_on(link: Http2, tus: Tus) -> None:
    path = tus.create(10_000_000)
    number = link.begin("PATCH", path, append(0, 10_000_000))
    link.send(number, DATA[:5_000_000])
    link.reset(number)
    eventually(lambda: link.ask("HEAD", path).offset == 5_000_000)
    assert link.ask("PATCH", path, append(5_000_000), DATA[5_000_000:10_000_000]).offset == 10_000_000
    assert tus.content(path) == DATA[:10_000_000]


def test_a_lost_connection_keeps_what_arrived_on_each_stream(daemon: Daemon, tus: Tus) -> None:
    paths = [tus.create(1_000_000) for _ in range(3)]
    with Http2(PORT, tls=True) as link:
        for path in paths:
            link.send(link.begin("PATCH", path, append(0, 1_000_000)), DATA[:300_000])
    for path in paths:
        eventually(lambda path=path: tus.offset(path) == 300_000)


def test_refusals_come_early_and_cost_no_connection(link: Http2, tus: Tus) -> None:
    path = tus.create(10_000_000)
    for fields, status in ((append(5, 9_000_000), 409), (append(0, 20_000_000), 413)):
        number = link.begin("PATCH", path, fields)
        answer = link.answer(number)
        assert (answer.status, answer.problem["status"]) == (status, status)
        link.reset(number)
    assert link.ask("POST", "/files/", {"Upload-Length": "99999999"}).status == 413
    assert link.ask("PATCH", path, append(0), DATA[:10_000_000]).status == 204


def test_100_continue_comes_when_the_bytes_are_wanted(link: Http2, tus: Tus) -> None:
    path = tus.create(5)
    number = link.begin("PATCH", path, {**append(0, 5), "Expect": "100-continue"})
    assert link.interim_of(number) == 100
    link.send(number, b"hello", end=True)
    assert link.answer(number).status == 204


@pytest.mark.parametrize(("wrong", "status"), [(False, 204), (True, 460)])
def test_a_checksum_may_come_as_a_trailer(link: Http2, tus: Tus, wrong: bool, status: int) -> None:
    path = tus.create(1_000_000)
    said = checksum("sha1", b"other" if wrong else DATA[:1_000_000])
    fields = {**append(0), "Trailer": "Upload-Checksum"}
    answer = link.ask("PATCH", path, fields, DATA[:1_000_000], {"Upload-Checksum": said})
    assert answer.status == status
    assert tus.offset(path) == (0 if wrong else 1_000_000)


@pytest.mark.parametrize("over_http2", [True, False])
def test_a_silent_stream_loses_its_hold_and_keeps_its_bytes(link: Http2, tus: Tus, over_http2: bool) -> None:
    path = tus.create(1_000_000)
    number = link.begin("PATCH", path, {**append(0, 1_000_000), "Expect": "100-continue"})
    assert link.interim_of(number) == 100
    link.send(number, DATA[:400_000])
    if over_http2:
        eventually(lambda: link.ask("HEAD", path).get("upload-offset") == "400000")
        assert link.ask("PATCH", path, append(400_000), DATA[400_000:1_000_000]).status == 204
    else:
        eventually(lambda: tus.head(path).get("upload-offset") == "400000")
        assert tus.patch(path, 400_000, DATA[400_000:1_000_000]).status == 204
    assert link.answer(number).status == 423
    assert tus.content(path) == DATA[:1_000_000]


def test_creation_with_upload(link: Http2) -> None:
    made = link.ask("POST", "/files/", {"Upload-Length": "100000", "Content-Type": OCTETS}, DATA[:100_000])
    assert (made.status, made.offset) == (201, 100_000)


def test_curl_uploads_and_downloads(daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    curl = tools.need("curl")
    version = subprocess.run([curl, "--version"], capture_output=True, text=True, check=True).stdout
    if "HTTP2" not in version:
        pytest.skip("this curl speaks no HTTP/2")
    (tmp_path / "big.bin").write_bytes(DATA)
    path = tus.create(len(DATA))
    fields = [part for name, value in append(0).items() for part in ("-H", f"{name}: {value}")]
    common = [curl, "-sSk", "--http2", "--max-time", "60", "-w", "%{http_version} %{http_code}", "-o"]
    url = f"https://127.0.0.1:{PORT}{path}"
    sent = tools.run(*common, "-", "-X", "PATCH", "-T", "big.bin", *fields, url, cwd=tmp_path)
    assert sent == "2 204"
    assert tools.run(*common, "back.bin", url, cwd=tmp_path) == "2 200"
    assert (tmp_path / "back.bin").read_bytes() == DATA
    refused = tools.run(*common, "why.json", "-X", "PATCH", "-T", "big.bin", *fields, url, cwd=tmp_path)
    assert refused.endswith("2 409")
    assert json.loads((tmp_path / "why.json").read_bytes())["status"] == 409


NODE = """
const http2 = require("node:http2");
const link = http2.connect(process.argv[1], {rejectUnauthorized: false});
const ask = (method, path, fields, body) => new Promise((done, failed) => {
  const request = link.request({":method": method, ":path": path, "tus-resumable": "1.0.0", ...fields});
  let answer;
  request.on("response", (fields) => { answer = fields; });
  request.on("error", failed);
  request.resume();
  request.on("close", () => done(answer));
  request.end(body);
});
(async () => {
  const made = await ask("POST", "/files/", {"upload-length": "5000000"});
  const path = new URL(made["location"]).pathname;
  const body = Buffer.alloc(5000000, "x");
  const append = {"upload-offset": "0", "content-type": "application/offset+octet-stream"};
  const sent = await ask("PATCH", path, append, body);
  const again = await ask("PATCH", path, append, body);
  console.log(JSON.stringify([made[":status"], sent[":status"], sent["upload-offset"], again[":status"]]));
  link.close();
})();
"""


def test_node_creates_and_appends(daemon: Daemon, tmp_path: Path) -> None:
    said = tools.run(tools.need("node"), "-e", NODE, f"https://127.0.0.1:{PORT}", cwd=tmp_path)
    assert json.loads(said) == [201, 204, "5000000", 409]


def test_http_1_1_is_there_for_who_asks_for_it(daemon: Daemon) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for offered in ([], ["http/1.1"]):
        context.set_alpn_protocols(offered) if offered else None
        with closing(Tus(PORT)) as tus:
            wire = tus.wire()
            wire.socket = context.wrap_socket(wire.socket)
            assert wire.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").answer().status == 200
            wire.close()


def test_a_stop_lets_an_upload_be_committed_and_answered(tmp_path: Path) -> None:
    key, port = tmp_path / "server.pem", free_port()
    key.write_bytes(certified("localhost").both)
    with Daemon("--listen", f"ssl:{port}:privateKey={key}:interface=127.0.0.1") as daemon:
        daemon.start()
        with Http2(port, tls=True) as link:
            path = link.ask("POST", "/files/", {"Upload-Length": "1000000"})["location"].rpartition("127.0.0.1")[2]
            number = link.begin("PATCH", path, {**append(0, 1_000_000), "Expect": "100-continue"})
            assert link.interim_of(number) == 100
            link.send(number, DATA[:400_000])
            file = daemon.upload_dir / path.removeprefix("/files/")
            eventually(lambda: file.stat().st_size == 400_000)
            daemon.terminate()
            assert link.answer(number).status == 503
            assert link.goaway == NO_ERROR
        assert daemon.wait() == 0
        daemon.start()
        with closing(Tus(daemon.port)) as tus:
            assert tus.offset(path) == 400_000

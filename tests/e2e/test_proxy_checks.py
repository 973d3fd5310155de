"""Proxies set up well and badly, real ones: what the look through them says, and what becomes of uploads.

Each proxy is started once and listens on a port for each way. The examples for operators are in test_proxies.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from twisted.internet import reactor

from resumable.doctor.findings import Finding
from resumable.doctor.interim import check_interim
from resumable.doctor.outside import check_origin
from resumable.doctor.proxy import check_proxy
from resumable.hooks.http import Tls
from tests.certificates import Authority

from . import tools
from .daemon import Daemon, eventually, free_port
from .tus import OCTETS, Tus, metadata, patch_head, pattern

FLAGS = ("--behind-proxy", "loopback", "--interim", "always")
DATA = pattern(3_000_000, seed=51)
TUS = {"Tus-Resumable": "1.0.0"}

NGINX = """
daemon off; master_process off; pid {home}/pid; error_log stderr; events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    ssl_certificate {home}/pem; ssl_certificate_key {home}/pem;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme;
    client_max_body_size 0;
    proxy_request_buffering off;
    large_client_header_buffers 4 32k; proxy_buffer_size 32k; proxy_buffers 4 32k;
    server {{
        listen 127.0.0.1:{short}; proxy_buffer_size 4k; proxy_buffers 8 4k; location / {{ proxy_pass {upstream}; }}
    }}
    server {{
        listen 127.0.0.1:{asis}; proxy_buffer_size 4k; proxy_buffers 8 4k; large_client_header_buffers 4 8k;
        location / {{ proxy_pass {upstream}; }}
    }}
    server {{
        listen 127.0.0.1:{narrow}; large_client_header_buffers 4 8k; location / {{ proxy_pass {upstream}; }}
    }}
    server {{ listen 127.0.0.1:{streams}; location / {{ proxy_pass {upstream}; }} }}
    server {{ listen 127.0.0.1:{collects}; location / {{ proxy_pass {upstream}; proxy_request_buffering on; }} }}
    server {{ listen 127.0.0.1:{limits}; location / {{ proxy_pass {upstream}; client_max_body_size 1m; }} }}
    server {{ listen 127.0.0.1:{elsewhere}; location /uploads/ {{ proxy_pass {upstream}/files/; }} }}
    server {{ listen 127.0.0.1:{subpath}; location /up/ {{ proxy_pass {below}/files/; }} }}
    server {{ listen 127.0.0.1:{tls} ssl http2; location / {{ proxy_pass {upstream}; }} }}
    server {{
        listen 127.0.0.1:{hides} ssl; proxy_set_header X-Forwarded-Proto ""; proxy_set_header Host $http_host;
        location / {{ proxy_pass {upstream}; }}
    }}
    server {{ listen 127.0.0.1:{down}; location / {{ proxy_pass http://127.0.0.1:9; }} }}
    server {{
        listen 127.0.0.1:{login}; auth_basic x; auth_basic_user_file {home}/none;
        location / {{ proxy_pass {upstream}; }}
    }}
    server {{
        listen 127.0.0.1:{twice}; add_header Access-Control-Allow-Origin * always;
        location / {{ proxy_pass {upstream}; }}
    }}
}}
"""
# What is held back is what fits into one buffer.
HAPROXY = """
global
    tune.bufsize 262144
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-request 60s
    default_backend uploads
frontend streams
    bind 127.0.0.1:{streams}
frontend collects
    bind 127.0.0.1:{collects}
    option http-buffer-request
frontend tls
    bind 127.0.0.1:{tls} ssl crt {home}/pem alpn h2,http/1.1
    http-request set-header X-Forwarded-Proto https
frontend subpath
    bind 127.0.0.1:{subpath}
    http-request replace-path /up/(.*) /files/\\1
    default_backend below
backend uploads
    server one {upstream_address}
backend below
    server two {below_address}
"""
WAYS = ("streams", "collects", "limits", "elsewhere", "subpath", "tls", "hides", "down", "login", "twice")
WAYS += ("short", "asis", "narrow")


class Proxy:
    """A running proxy: the port for each way."""

    def __init__(self, command: list[str], ports: Mapping[str, int], authority: Authority, log: Path) -> None:
        self.ports = ports
        self._policy = Tls(authority.pem)
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def url(self, way: str, path: str = "/files/") -> str:
        secure = way in ("tls", "hides")
        return f"https://localhost:{self.ports[way]}{path}" if secure else f"http://127.0.0.1:{self.ports[way]}{path}"

    async def look(self, way: str, path: str = "/files/") -> dict[str, Finding]:
        found = await check_proxy(reactor, self.url(way, path), policy=self._policy, patience=1.0)
        return {each.name: each for each in found}

    async def look_for_interim(self, way: str) -> Finding:
        return await check_interim(reactor, self.url(way), interim="always", policy=self._policy, patience=2.0)

    async def look_from(self, origin: str, way: str) -> Finding:
        return await check_origin(reactor, self.url(way), origin, policy=self._policy)


@pytest.fixture(scope="module")
def below() -> Iterator[Daemon]:
    """A daemon that lives under /up/ for those outside, and says so by paths."""
    with Daemon("--public-url", "https://anywhere.example/up/", "--location", "path") as it:
        yield it.start()


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def proxy(
    request: pytest.FixtureRequest, daemon: Daemon, below: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    home = tmp_path_factory.mktemp(request.param)
    authority = Authority()
    (home / "pem").write_text("".join(authority.issue("localhost")))
    ports = {way: free_port() for way in WAYS}
    config = home / "config"
    command: Callable[[], list[str]] = {
        "nginx": lambda: [tools.need("nginx"), "-p", str(home), "-e", "stderr", "-c", str(config)],
        "haproxy": lambda: [tools.need("haproxy"), "-db", "-f", str(config)],
    }[request.param]
    text = NGINX if request.param == "nginx" else HAPROXY
    places = {"upstream_address": f"127.0.0.1:{daemon.port}", "below_address": f"127.0.0.1:{below.port}"}
    config.write_text(text.format(home=home, upstream=daemon.origin, below=below.origin, **places, **ports))
    it = Proxy(command(), ports, authority, home / "log")
    try:
        assert eventually(lambda: it.process.poll() is not None or answers(ports["streams"]))
        assert it.process.poll() is None, (home / "log").read_text()
        yield it
    finally:
        it.process.kill()
        it.process.wait()


def answers(port: int) -> bool:
    tus = Tus(port)
    try:
        return tus.options().status == 200
    except (OSError, EOFError, AssertionError):
        return False
    finally:
        tus.close()


class Upload:
    """What becomes of an upload with this metadata: the status of its creation, and of HEAD."""

    def __init__(self, port: int, said: str) -> None:
        link = HTTPConnection("127.0.0.1", port, timeout=30)
        with closing(link):
            link.request("POST", "/files/", None, {**TUS, "Upload-Metadata": said, "Upload-Length": "1"})
            answer = link.getresponse()
            answer.read()
            self.made = answer.status
            link.request("HEAD", urlsplit(answer.headers["Location"]).path, None, TUS)
            self.asked = link.getresponse().status


#: The rest is between the server and any proxy.
ONLY_NGINX = pytest.mark.parametrize("proxy", ["nginx"], indirect=True)


@pytest.mark.parametrize("way", ["streams", "tls"])
@pytest_twisted.ensureDeferred
async def test_a_proxy_that_passes_requests_on_is_well_also_with_tls_in_front(proxy: Proxy, way: str) -> None:
    found = await proxy.look(way)
    assert {each.level for each in found.values()} == {"ok"}, found
    assert proxy.url(way) in found["Location"].what


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_collects_requests_is_found_out_and_it_really_loses_what_was_sent(proxy: Proxy) -> None:
    found = await proxy.look("collects")
    assert found["proxy buffering"].level == "bad" and found["Location"].level == "ok"
    tus = Tus(proxy.ports["collects"])
    path = tus.create(len(DATA))
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, len(DATA)) + DATA[:100_000])
    assert tus.offset(path) == 0
    tus.finish(path, DATA)
    assert tus.content(path) == DATA
    tus.close()


@pytest.mark.parametrize("way", ["streams", "tls"])
@pytest_twisted.ensureDeferred
async def test_a_proxy_that_takes_a_104_for_the_answer_is_told_from_one_that_passes_it_on(
    proxy: Proxy, way: str
) -> None:
    found = await proxy.look_for_interim(way)
    assert found.level == ("bad" if "nginx" in str(proxy.process.args) else "ok"), found


def test_a_connection_that_is_reset_in_the_middle_leaves_what_can_be_resumed(proxy: Proxy) -> None:
    tus = Tus(proxy.ports["streams"])
    path = tus.create(len(DATA))
    wire = tus.wire()
    wire.send(patch_head(path, 0, len(DATA)) + DATA[:1_000_000])
    assert eventually(lambda: tus.offset(path))
    wire.reset()
    tus.finish(path, DATA)
    assert tus.content(path) == DATA
    tus.close()


@pytest_twisted.ensureDeferred
async def test_below_another_path_the_location_is_the_one_outside(proxy: Proxy) -> None:
    found = await proxy.look("subpath", "/up/")
    assert {each.level for each in found.values()} == {"ok"}, found
    tus = Tus(proxy.ports["subpath"], "/up/")
    location = tus.post(len(DATA))["location"]
    assert location.startswith("/up/"), "a path, whatever host and scheme the client has used"
    tus.finish(location, DATA)
    assert tus.content(location) == DATA
    tus.close()


@ONLY_NGINX
@pytest_twisted.ensureDeferred
async def test_a_limit_of_bodies_is_found_out(proxy: Proxy) -> None:
    found = await proxy.look("limits")
    assert found["proxy body limit"].level == "warn" and found["proxy buffering"].level == "ok"


@ONLY_NGINX
@pytest.mark.parametrize(("way", "level"), [("streams", "ok"), ("short", "bad"), ("asis", "bad"), ("narrow", "warn")])
@pytest_twisted.ensureDeferred
async def test_a_proxy_without_room_for_long_metadata_is_found_out_and_really_makes_clients_start_over(
    proxy: Proxy, way: str, level: str
) -> None:
    found = await proxy.look(way)
    assert found["long metadata"].level == level and found["proxy buffering"].level == "ok", found
    said = metadata(note="n" * 4500)
    upload = Upload(proxy.ports[way], said)
    assert upload.made == 201 and upload.asked == (502 if level == "bad" else 200)


@ONLY_NGINX
@pytest.mark.parametrize(("way", "path"), [("elsewhere", "/uploads/"), ("hides", "/files/")])
@pytest_twisted.ensureDeferred
async def test_a_location_that_leads_elsewhere_is_found_out(proxy: Proxy, way: str, path: str) -> None:
    found = await proxy.look(way, path)
    assert found["Location"].level == "bad" and "--public-url" in found["Location"].advice, found


@ONLY_NGINX
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_down_is_found_out(proxy: Proxy) -> None:
    assert "with 502" in (await proxy.look("down"))["proxy buffering"].what


@ONLY_NGINX
@pytest_twisted.ensureDeferred
async def test_what_a_page_would_meet_is_found_out(proxy: Proxy) -> None:
    assert (await proxy.look_from("https://app.example", "tls")).level == "ok"
    assert "OPTIONS is answered with 401" in (await proxy.look_from("https://app.example", "login")).what
    assert "is there twice" in (await proxy.look_from("https://app.example", "twice")).what


def test_http_2_in_front_ends_at_the_proxy(proxy: Proxy, tmp_path: Path) -> None:
    curl = tools.need("curl")
    if "HTTP2" not in tools.run(curl, "--version", cwd=tmp_path):
        pytest.skip("this curl knows no HTTP/2")
    (tmp_path / "data").write_bytes(DATA)
    once = [
        curl,
        "-sSk",
        "--http2",
        "-D",
        "-",
        "-o",
        "/dev/null",
        "-H",
        "Tus-Resumable: 1.0.0",
        "-H",
        f"Content-Type: {OCTETS}",
    ]
    sent = [
        "-X",
        "POST",
        "-H",
        f"Upload-Length: {len(DATA)}",
        "--data-binary",
        f"@{tmp_path / 'data'}",
        proxy.url("tls"),
    ]
    head = tools.run(*once, *sent, cwd=tmp_path).lower()
    assert head.startswith("http/2 201") and f"upload-offset: {len(DATA)}" in head
    assert f"location: {proxy.url('tls')}" in head

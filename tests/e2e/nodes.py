"""Several daemons that share an upload directory and a PostgreSQL: what any number of nodes behind a balancer are."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.postgres import database

from .daemon import Daemon
from .tus import Tus


class Nodes:
    """``count`` daemons with the same flags; `start` them all. Each has a client, `tus`."""

    def __init__(self, count: int, *flags: str, env: Mapping[str, str] | None = None, url: str | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="resumable-nodes-"))
        self.upload_dir = self.home / "uploads"
        self.upload_dir.mkdir()
        self.url = url or database()
        self.daemons = []
        for number in range(count):
            run = ("--run-dir", str(self.home / f"run{number}"))
            node = Daemon("--catalog", self.url, *run, *flags, env=env, upload_dir=self.upload_dir)
            self.daemons.append(node)
        self.tus = [node.attach(Tus(node.port)) for node in self.daemons]

    def start(self) -> Nodes:
        for node in self.daemons:
            node.start()
        return self

    def __enter__(self) -> Nodes:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for client in self.tus:
            client.close()
        for node in self.daemons:
            node.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def complaints(self) -> list[str]:
        return [each for node in self.daemons for each in node.complaints()]

    def file(self, path: str) -> Path:
        """Where the file of a finished upload is."""
        return self.upload_dir / path.rpartition("/")[2]


@contextmanager
def frozen(node: Daemon) -> Iterator[None]:
    """The process stands still meanwhile."""
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.process.send_signal(signal.SIGCONT)

"""Several daemons that share an upload directory and a PostgreSQL: what any number of nodes behind a balancer are."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import psycopg

from resumable.cli.admin_client import AdminLine
from tests.postgres import database

from .daemon import Daemon, eventually
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


class Workers(Daemon):
    """``count`` workers of one machine, with a supervisor."""

    def __init__(self, *flags: str, count: int = 2) -> None:
        super().__init__()
        self.run_dir, self.database = self.home / "run", database()
        self.flags = (
            *("--catalog", self.database, "--workers", str(count), "--run-dir", str(self.run_dir)),
            *flags,
        )

    def rows(self) -> dict[int, str]:
        """The workers that the catalog knows, by their processes."""
        with psycopg.connect(self.database) as connection:
            return dict(connection.execute("SELECT pid, id FROM workers").fetchall())

    def keeper(self) -> int | None:
        """The process that has an append under way."""
        with psycopg.connect(self.database) as connection:
            row = connection.execute("SELECT pid FROM workers JOIN uploads ON kept_by = workers.id").fetchone()
            return None if row is None else int(row[0])

    @property
    def children(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def by_worker(self) -> dict[str, Tus]:
        """A client with an open connection to each, by what the ids of its answers begin with."""
        found: dict[str, Tus] = {}

        def another() -> bool:
            tus = self.attach(Tus(self.port))
            found.setdefault(tus.options()["x-request-id"].partition("-")[0], tus)
            return len(found) == 2

        eventually(another)
        return found

    def admin(self, name: str = "admin.sock") -> AdminLine:
        return AdminLine(f"unix:{self.run_dir / name}")

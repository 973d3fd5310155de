"""The servers that are measured, and how one of them is started and stopped.

Changes when a server's command line does. Invariant: a server runs in a process of its own with a fresh directory, on a
free port of 127.0.0.1, and is gone when its ``with`` block is left, however that happens.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from bench import proc, rivals
from bench.database import Database
from bench.database import new as new_database
from bench.database import version as postgres_version
from bench.load import HOST, Connection, LoadError, create, free_port
from bench.rivals import CACHE, Unavailable
from bench.store import BUCKET, Gateway

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 30.0
STOP_SECONDS = 30.0
QUIET = 0.5
"""Seconds without work after which all workers are taken for started."""


@dataclass(frozen=True)
class Kind:
    """A server that can be measured. ``root`` is the path where uploads are created; ``prepare`` returns the version.

    ``durability`` says in a few words when an upload is acknowledged. ``keeps`` is false where nothing is kept.
    ``swallows`` tells that a body is held in memory whole, so that huge ones are not sent to it. ``stored`` is its
    command with a store behind it, where it knows one; ``secured`` are words for its command that let it listen with
    TLS, too, on a port, with a file of key and certificate. ``objects`` is how many the store gets for a small upload.
    ``tree`` is where Python finds what it imports. ``own`` servers are resumable, of now or of before; ``shared`` ones
    have their catalog in PostgreSQL, and so many ``workers``. Those with ``limits`` are no peers: in these measures
    they tell what can be reached at all.
    """

    name: str
    title: str
    root: str
    durability: str
    prepare: Callable[[], str]
    command: Callable[[int, Path], list[str]]
    keeps: bool = True
    swallows: bool = False
    stored: Callable[[int, Path, Gateway], list[str]] | None = None
    secured: Callable[[int, Path], list[str]] | None = None
    objects: int = 1
    tree: Path = ROOT
    own: bool = False
    limits: tuple[str, ...] = ()
    shared: bool = False
    workers: int = 1


def _own_version() -> str:
    if importlib.util.find_spec("resumable.daemon.service") is None:
        raise Unavailable("resumable.daemon.service is not there")
    from resumable import __version__

    return __version__


def _own(port: int, directory: Path) -> list[str]:
    twistd = Path(sys.executable).parent / "twistd"
    start = (
        [str(twistd)] if twistd.exists() else [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    )
    listen = f"tcp:{port}:interface={HOST}"
    return [*start, "-n", "--pidfile=", "resumable", "--listen", listen, "--upload-dir", str(directory)]


def _workers(count: int) -> Callable[[int, Path], list[str]]:
    """The command of so many workers on PostgreSQL, which the environment names."""

    def command(port: int, directory: Path) -> list[str]:
        return [*_own(port, directory), "--run-dir", str(directory.parent / f"run-{port}"), "--workers", str(count)]

    return command


def _postgres_version() -> str:
    return f"{_own_version()} on PostgreSQL {postgres_version()}"


def _own_stored(port: int, directory: Path, store: Gateway) -> list[str]:
    return [*_own(port, directory), *_remote(store)]


def _remote(store: Gateway) -> list[str]:
    return ["--remote", _url(store, "aws")]


def _url(store: Gateway, dialect: str) -> str:
    return f"s3://{BUCKET}?endpoint={store.url}&dialect={dialect}&style=path&region=us-east-1"


def _own_secured(port: int, key: Path) -> list[str]:
    return ["--listen", f"ssl:{port}:privateKey={key}:interface={HOST}"]


def _node_stored(port: int, directory: Path, store: Gateway) -> list[str]:
    rivals.tus_node_s3()
    return ["node", str(CACHE / "tus-node/tus-node-s3.mjs"), str(port), store.url, BUCKET]


def _node(port: int, directory: Path) -> list[str]:
    return ["node", str(CACHE / "tus-node/tus-node.mjs"), str(port), str(directory)]


def _rustus(port: int, directory: Path) -> list[str]:
    places = ["--data-dir", str(directory), "--info-dir", str(directory / ".info")]
    # Its own bound on a body is 256 KiB, and it writes a line for each request: both would count against it here.
    bounds = ["--max-body-size", str(1 << 35), "--log-level", "ERROR"]
    return [str(CACHE / "rustus/bin/rustus"), "--host", HOST, "--port", str(port), *places, *bounds]


def _tusd(port: int, directory: Path) -> list[str]:
    # It writes lines for each request, too.
    listen = ["-host", HOST, "-port", str(port), "-verbose=false"]
    return [rivals.tusd_binary(), *listen, "-upload-dir", str(directory)]


def _tusd_stored(port: int, directory: Path, store: Gateway) -> list[str]:
    return [*_tusd(port, directory), "-s3-bucket", BUCKET, "-s3-endpoint", store.url]


def _least(port: int, directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.least", str(port), str(directory)]


def _least_stored(port: int, directory: Path, store: Gateway) -> list[str]:
    return [*_least(port, directory), "store", store.url, BUCKET]


def _least_secured(port: int, key: Path) -> list[str]:
    return ["tls", str(port), str(key)]


def _null(port: int, directory: Path) -> list[str]:
    return [sys.executable, "-m", "bench.null", str(port)]


OURS, BEFORE, LEAST, NULL = "resumable", "before", "least", "null"
POSTGRES, WORKERS = "postgres", "workers"
DISKLESS, EQUAL = "diskless", "diskless-equal"
TAKEN_IN = ("big", "parallel", "paced", "creation", "append", "connect")
"""The measures of nothing but what comes in."""


def _on_postgres(name: str, title: str, count: int) -> Kind:
    """So many workers of ours with their catalog in PostgreSQL."""
    command = _workers(count)
    return Kind(
        name,
        title,
        "/files/",
        "as resumable; the catalog is in PostgreSQL",
        _postgres_version,
        command,
        stored=lambda port, directory, store: [*command(port, directory), *_remote(store)],
        secured=_own_secured,
        own=True,
        shared=True,
        workers=count,
    )


def _diskless(name: str, title: str, dialect: str) -> Kind:
    """A node of ours without a disk: the store has the bytes, PostgreSQL the records."""

    def command(port: int, directory: Path) -> list[str]:
        raise LoadError("needs a store")

    def stored(port: int, directory: Path, store: Gateway) -> list[str]:
        words = _own(port, directory)
        where = words.index("--upload-dir")
        return [*words[:where], "--run-dir", str(directory.parent / f"run-{port}"), "--spool", _url(store, dialect)]

    return Kind(
        name,
        title,
        "/files/",
        "in the store, or up to 256 KiB in PostgreSQL; the offset committed there",
        _postgres_version,
        command,
        stored=stored,
        own=True,
        shared=True,
    )


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            OURS,
            "resumable",
            "/files/",
            "on the disk: the file synced, then its offset committed in the catalog",
            _own_version,
            _own,
            stored=_own_stored,
            secured=_own_secured,
            own=True,
        ),
        Kind(
            BEFORE,
            "before",
            "/files/",
            "as resumable: it is the commit that this version's goals are measured against",
            rivals.before,
            _own,
            stored=_own_stored,
            secured=_own_secured,
            tree=CACHE / "before",
            own=True,
        ),
        _on_postgres(POSTGRES, "one worker on PostgreSQL", 1),
        _on_postgres(WORKERS, "two workers on PostgreSQL", 2),
        _diskless(DISKLESS, "a node without a disk", "aws"),
        _diskless(EQUAL, "a node without a disk, equal parts", "r2"),
        Kind(
            "tus-node",
            "@tus/server",
            "/files",
            "in the page cache, never synced",
            rivals.tus_node,
            _node,
            stored=_node_stored,
            objects=2,
        ),
        Kind(
            "rustus",
            "rustus",
            "/files",
            "in the page cache; synced only where its option says so, which is off",
            rivals.rustus,
            _rustus,
            swallows=True,
        ),
        Kind(
            "tusd",
            "tusd",
            "/files/",
            "in the page cache, never synced",
            rivals.tusd,
            _tusd,
            stored=_tusd_stored,
            objects=2,
        ),
        Kind(
            LEAST,
            "the least program",
            "/files/",
            "as resumable",
            lambda: "",
            _least,
            stored=_least_stored,
            secured=_least_secured,
            limits=(*TAKEN_IN, "s3-big", "s3-small", "tls"),
        ),
        Kind(
            NULL,
            "no server at all",
            "/files",
            "nothing is kept",
            lambda: "",
            _null,
            keeps=False,
            limits=TAKEN_IN,
        ),
    )
}
# tusd only where it is there already: not everywhere can Go fetch it.
DEFAULT = (OURS, BEFORE, "tus-node", "rustus", *(("tusd",) if rivals.has_tusd() else ()), LEAST)


class Spent(NamedTuple):
    """Processor seconds of the server, of its database if it has one, and of the client, which is this process."""

    server: float
    database: float
    client: float

    def each(self, count: float) -> dict[str, float]:
        """Values for a sample: of each of so many."""
        return {"cpu": self.server / count, "database": self.database / count, "client": self.client / count}


NOTHING = Spent(0.0, 0.0, 0.0)


class Running:
    """One started server; ``directory`` is where it keeps uploads, ``log`` what it printed, ``store`` is behind it."""

    def __init__(
        self,
        kind: Kind,
        scratch: Path,
        store: Gateway | None = None,
        *,
        database: Database | None = None,
        log: str = "server.log",
    ) -> None:
        self.kind, self.directory, self.log = kind, scratch / "uploads", scratch / log
        self.store = store
        self.port = free_port()
        self._owned = new_database() if kind.shared and database is None else None
        self.database = self._owned or database
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self.process is None:
            raise LoadError("the server is not running")
        return self.process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        if self._owned is not None:
            self._owned.drop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def spent(self, before: Spent = NOTHING) -> Spent:
        """What was spent until now, without what was ``before``."""
        database = proc.exact_seconds(self.database.pid) if self.database else 0.0
        now = (proc.cpu_seconds(self.pid), database, time.process_time())
        return Spent(*(late - early for late, early in zip(now, before, strict=True)))

    def connections(self, count: int, secure: int | None = None) -> list[Connection]:
        """So many, spread evenly over the workers, over TLS to the port ``secure`` if it is given.

        One that was taken by a worker that has its share already is closed, and another one opened.
        """
        opened: list[Connection] = []
        end, share = time.monotonic() + START_SECONDS, math.ceil(count / self.kind.workers)
        while len(opened) < count:
            connection = Connection(secure or self.port)
            if secure:
                connection.secure()
            if self.kind.workers > 1:
                connection.ask("OPTIONS", self.kind.root, {})
                if max(proc.connections(self.pid, secure or self.port)) > share:
                    connection.close()
                    if time.monotonic() > end:
                        raise LoadError("one worker took most of the connections")
                    continue
            opened.append(connection)
        return opened

    def kill(self) -> None:
        """End it at once, with the processes that it has started."""
        if self.process is not None:
            for pid in reversed(list(proc.tree(self.process.pid))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def start(self) -> None:
        """Start it and wait until it answers; also a second time, on what the first one left."""
        self.directory.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.kind.tree),
            **(self.store.environment if self.store else {}),
            **(self.database.environment if self.database else {}),
        }
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.log.parent,
                env=environment,
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise LoadError(f"{self.kind.name} did not start: {self._tail()}")
            try:
                with Connection(self.port, 5.0) as connection:
                    connection.ask("OPTIONS", self.kind.root, {})
                break
            except (OSError, LoadError):
                time.sleep(0.02)
        else:
            raise LoadError(f"{self.kind.name} did not answer within {START_SECONDS:.0f} s: {self._tail()}")
        if self.kind.workers > 1:
            self._await_others()

    def _await_others(self) -> None:
        """The first worker answers; wait until the others have nothing more to do for their start."""
        end, spent = time.monotonic() + START_SECONDS, -1.0
        while (now := proc.cpu_seconds(self.pid)) > spent + 0.05 or len(
            list(proc.tree(self.pid))
        ) < 1 + self.kind.workers:
            if time.monotonic() > end:
                raise LoadError(f"{self.kind.name} did not start all workers: {self._tail()}")
            spent = now
            time.sleep(QUIET)

    def _command(self) -> list[str]:
        if self.store is None:
            return self.kind.command(self.port, self.directory)
        if self.kind.stored is None:
            raise LoadError("has no remote tier")
        return self.kind.stored(self.port, self.directory, self.store)

    def warm(self) -> None:
        """Send a first small upload, so that what is loaded or made on first use is there."""
        with Connection(self.port) as connection:
            create(connection, self.kind.root, 4096, os.urandom(4096))

    def stop(self) -> tuple[float, int]:
        """Send SIGTERM and wait; returns the seconds until it was gone and its exit status (negative: a signal)."""
        if self.process is None:
            raise LoadError("the server is not running")
        began = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise LoadError(f"still running {STOP_SECONDS:.0f} s after SIGTERM") from error
        took, self.process = time.perf_counter() - began, None
        return took, status

    def file_of(self, path: str) -> Path:
        """Return the data file of the upload at that path: every server here names it by the last segment."""
        return self.directory / path.rstrip("/").rpartition("/")[2]

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-600:].strip()

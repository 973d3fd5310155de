"""A worker of a catalog on PostgreSQL whose connection gets lost at the wrong moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.catalog.on_postgres import CatalogOfWorker


class Lossy:
    """Loses the connection of a worker, before or after the server has done what it is sent."""

    def __init__(self, worker: CatalogOfWorker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loses: str | None = None
        opened = worker.catalog._batches.open().__class__
        together, execute = opened.together, psycopg.Connection.execute

        def lossy(connection: Any, calls: Any) -> Any:
            if self.loses is not None and len(calls) > 1:
                return self._lose(connection.raw, lambda: together(connection, calls))
            return together(connection, calls)

        def lossy_commit(raw: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            if self.loses is not None and query == "COMMIT":
                return self._lose(raw, lambda: execute(raw, query, *args, **kwargs))
            return execute(raw, query, *args, **kwargs)

        monkeypatch.setattr(opened, "together", lossy)
        monkeypatch.setattr(psycopg.Connection, "execute", lossy_commit)

    def _lose(self, raw: Any, do: Callable[[], Any]) -> Any:
        when, self.loses = self.loses, None
        if when == "after":
            do()
        raw.close()
        raise psycopg.OperationalError("lost")

"""A disk that fails at the statement that a test names."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from resumable.catalog import batches


def outcome(answer: Deferred[Any]) -> Any:
    """Its result, or the exception that it failed with; may be asked again."""
    assert answer.called, "no answer yet"
    answer.addErrback(lambda failure: failure.value)
    return answer.result


class Faults:
    """Connections that fail as told: ``rules`` maps the start of a statement to what happens instead, once each."""

    def __init__(self) -> None:
        self.rules: list[tuple[str, Callable[[Execute, str], sqlite3.Cursor]]] = []
        self.opened = 0
        self.refuse_open = False

    def connect(self, path: str) -> sqlite3.Connection:
        if self.refuse_open:
            raise error(10, "disk I/O error")
        self.opened += 1
        faults = self

        class Faulty(sqlite3.Connection):
            def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                for rule in faults.rules:
                    if sql.startswith(rule[0]):
                        faults.rules.remove(rule)
                        return rule[1](super().execute, sql)
                return super().execute(sql, *arguments)

        connection = sqlite3.connect(path, factory=Faulty, isolation_level=None, check_same_thread=False)
        for pragma in batches._PRAGMAS:
            connection.execute(pragma).fetchall()
        return connection

    def instead(self, sql: str, happens: Callable[[Execute, str], sqlite3.Cursor]) -> None:
        self.rules.append((sql, happens))

    def fail(self, sql: str, code: int = 1034) -> None:
        def failing(execute: Execute, statement: str) -> sqlite3.Cursor:
            raise error(code, f"failed: {statement[:20]}")

        self.instead(sql, failing)

    def fail_after(self, sql: str) -> None:
        def failing(execute: Execute, statement: str) -> sqlite3.Cursor:
            execute(statement).fetchall()
            raise error(1034, "failed when it was done")

        self.instead(sql, failing)


def error(code: int, text: str) -> sqlite3.OperationalError:
    wrong = sqlite3.OperationalError(text)
    wrong.sqlite_errorcode = code
    wrong.sqlite_errorname = {10: "SQLITE_IOERR", 13: "SQLITE_FULL", 1034: "SQLITE_IOERR_FSYNC"}[code]
    return wrong


Execute = Callable[..., sqlite3.Cursor]

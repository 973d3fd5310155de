"""A connection to PostgreSQL that takes the statements of the catalog's tables, with ``?`` for their values.

Invariants: a COMMIT that was answered is on the disk (``synchronous_commit = on``); a process that freezes in the
middle of a transaction holds its locks for `FROZEN` seconds at most; nobody waits for ever for a server that says
nothing (`AnswerTime`), unless for what may take long (`take_long`). Times are seconds.
Sources: https://www.postgresql.org/docs/current/runtime-config-client.html, https://www.psycopg.org/psycopg3/docs/.
"""

from __future__ import annotations

import itertools
import re
import time
from binascii import b2a_base64
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

import psycopg
from attrs import define
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from resumable.masking import masked
from resumable.model.errors import CatalogUnavailable

FROZEN: Final = 1.0
"""Seconds after which the server ends a transaction whose client says nothing. Less: a busy machine loses work; more:
an upload of a worker that was stopped waits longer for another."""
PATIENCE: Final = 5
"""Seconds for a connection to be made."""
ANSWERED_WITHIN: Final = 10.0
"""Seconds of silence after which an answer is given up. Less: a disk that stalls fails requests; more: they wait longer
while a server hangs, or a network drops everything. The server itself ends a statement a little earlier."""

Connect = Callable[[], psycopg.Connection[Any]]

_SESSION: Final = (
    "SET synchronous_commit = on",
    f"SET idle_in_transaction_session_timeout = {int(FROZEN * 1000)}",
    "SET idle_session_timeout = 0",
    f"SET statement_timeout = {int(ANSWERED_WITHIN * 900)}",
    "SET default_transaction_isolation = 'read committed'",
    "SET timezone = 'UTC'",
    "SET standard_conforming_strings = on",
    # Each statement goes by an index, as in SQLite. Else those that were planned for small tables read all rows later.
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET max_parallel_workers_per_gather = 0",
    "SET jit = off",
)
_PLACEHOLDER: Final = re.compile(r"\?(\d*)")
_RESERVED: Final = re.compile(r'"?\boffset\b"?')


@define
class AnswerTime:
    """How long all connections that share it wait for the server to say something."""

    seconds: float = ANSWERED_WITHIN
    _hurries: bool = False
    _over: bool = False

    def hurry(self, seconds: float) -> None:
        """This process ends. What has no answer within ``seconds`` is given up, and then everything. For any thread."""
        self.seconds = min(self.seconds, seconds)
        self._hurries = True

    @property
    def over(self) -> bool:
        """Whether nothing is waited for any more."""
        return self._over

    def is_over(self, silent: float) -> bool:
        """Whether an answer is given up that has been waited for so long."""
        if self._over or silent >= self.seconds:
            self._over = self._hurries
            return True
        return False


class NoAnswer(psycopg.OperationalError):
    """The server says nothing. What was sent to it may have been done, or may still be."""

    def __init__(self) -> None:
        super().__init__("the server doesn't answer")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which each wait ends with NoAnswer when ``answer_time`` does, and the connection with it."""

    answer_time: AnswerTime | None = None

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """See `psycopg.Connection.wait`."""
        return super().wait(gen if self.answer_time is None else self._bounded(gen, self.answer_time), *args, **options)

    def _bounded(self, gen: Generator[Any, Any, Any], answer_time: AnswerTime) -> Generator[Any, Any, Any]:
        """psycopg tells it several times a second that nothing has come."""
        try:
            state, heard = next(gen), time.monotonic()
            while True:
                if ready := (yield state):
                    heard = time.monotonic()
                elif answer_time.is_over(time.monotonic() - heard):
                    break
                state = gen.send(ready)
        except StopIteration as end:
            return end.value
        self.close()
        raise NoAnswer


def take_long(raw: psycopg.Connection[Any]) -> None:
    """From now on each statement over this connection may take as long as it does. Raises psycopg.Error."""
    if isinstance(raw, BoundedConnection):
        raw.answer_time = None
    raw.execute("SET statement_timeout = 0")


def connector(url: str, answer_time: AnswerTime | None = None) -> Connect:
    """What makes connections to the database at ``url``, with this ``answer_time``.

    It raises psycopg.Error, and CatalogUnavailable where ``url`` can't be read.
    """
    answer_time = answer_time or AnswerTime()

    def connect() -> psycopg.Connection[Any]:
        try:
            conninfo_to_dict(url)
        except psycopg.Error:  # whose message has all of it, a password included
            raise CatalogUnavailable(
                "--catalog has a URL that PostgreSQL can't read: percent-encode special characters in it"
            ) from None
        if answer_time.over:
            raise NoAnswer
        connection = BoundedConnection.connect(
            url,
            autocommit=True,
            row_factory=tuple_row,
            cursor_factory=psycopg.RawCursor,
            prepare_threshold=5,
            connect_timeout=int(min(PATIENCE, answer_time.seconds + 1)),
            application_name="resumable",
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10_000,
        )
        try:
            connection.answer_time = answer_time
            connection.execute("; ".join(_SESSION), prepare=False)
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


@cache
def translated(statement: str, last: int = 0) -> str:
    """The statement with PostgreSQL's ``$1`` for ``?1``, and ``$1``, ``$2``, ... for each ``?`` in turn. ``?0`` is the
    ``last`` of all.

    ``offset`` is a word of its own there, and needs quotes as a column.
    """
    count = 0

    def number(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"${int(match[1] or count) or last}"

    return " ".join(_RESERVED.sub('"offset"', _PLACEHOLDER.sub(number, statement)).split())


BYTES: Final = "?0"
"""In a statement: its last parameter, an array of bytes (``bytea[]``)."""
Call: TypeAlias = tuple[str, Sequence[str | Sequence[bytes]]]
"""A statement, and the JSON for each of its parameters, the bytes for `BYTES`."""


class Connection:
    """One connection, for the methods of the catalog's tables. They may raise psycopg.Error."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw
        self._prepared: dict[str, str] = {}
        self._numbers = itertools.count()

    def together(self, calls: Sequence[Call]) -> list[list[tuple[Any, ...]]]:
        """The rows that each call answers, all done in one transaction. Each answers some, or none in a row.

        They go as one message, so the server does nothing before it has all of it: a process that freezes while it
        sends leaves no transaction open, and holds no lock. An error rolls all back.
        https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT
        """
        try:
            return self._sent(calls)
        except psycopg.errors.InvalidSqlStatementName:  # after a ROLLBACK, psycopg drops all that was prepared
            self._prepared.clear()
            return self._sent(calls)

    def _sent(self, calls: Sequence[Call]) -> list[list[tuple[Any, ...]]]:
        message = "; ".join([self._called(statement, values) for statement, values in calls])
        raw = self.raw
        threshold, raw.prepare_threshold = raw.prepare_threshold, None  # psycopg would keep the text of each
        try:
            cursor = raw.execute(message.encode("ascii"))
        finally:
            raw.prepare_threshold = threshold
        found = [cursor.fetchall()]
        while cursor.nextset():
            found.append(cursor.fetchall())
        return found

    def _called(self, statement: str, values: Sequence[str | Sequence[bytes]]) -> str:
        if (name := self._prepared.get(statement)) is None:
            name = f"resumable_{next(self._numbers)}"
            types = ", ".join("json" if isinstance(value, str) else "bytea[]" for value in values)
            text = translated(statement, len(values))
            self.raw.execute(f"PREPARE {name}{types and f' ({types})'} AS {text}".encode(), prepare=False)
            self._prepared[statement] = name
        return f"EXECUTE {name} ({', '.join(map(_literal, values))})" if values else f"EXECUTE {name}"

    def execute(self, statement: str, values: Sequence[Any] = (), binary: bool = False) -> psycopg.Cursor[Any]:
        """The cursor, with the rows and ``rowcount``. ``binary``: bytes come as they are, not as digits of twice their
        size."""
        return self.raw.execute(translated(statement), values or None, binary=binary)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> psycopg.Cursor[Any]:
        """The cursor, whose ``rowcount`` is the sum."""
        cursor = self.raw.cursor()
        cursor.executemany(translated(statement), rows)
        return cursor


def _literal(value: str | Sequence[bytes]) -> str:
    """How it stands in a message of several statements, which is text. The server is slow to read text, and Base64 is
    shorter than hexadecimal."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    texts = (b2a_base64(data, newline=False).decode("ascii") for data in value)
    return "ARRAY[" + ", ".join(f"decode('{text}', 'base64')" for text in texts) + "]::bytea[]"


def unavailable(error: BaseException) -> CatalogUnavailable:
    """The CatalogUnavailable for an error of PostgreSQL: in one line, without secrets, with what to change if that is
    known, and whether its disk is full."""
    code = getattr(error, "sqlstate", None)
    text = _said(error)
    advice = next((advice for codes, words, advice in _ADVICE if code in codes or words.search(text)), "")
    return CatalogUnavailable(f"PostgreSQL: {text}{advice and '; '}{advice}", no_space=code == "53100")


def _said(error: BaseException) -> str:
    """In one line, without what is known anyway; of several addresses that were tried, the last one's."""
    text, *_ = _KNOWN.split(str(error))
    return masked(" ".join(text.split())).removeprefix("connection failed: ") or type(error).__name__


_KNOWN: Final = re.compile(r"\s+Is the server running|\s+Multiple connection attempts failed")
_ADVICE: Final[tuple[tuple[frozenset[str], re.Pattern[str], str], ...]] = tuple(
    (frozenset(codes.split()), re.compile(words), advice)
    for codes, words, advice in (
        (
            "28P01",
            "password authentication failed|no password supplied",
            "correct PGPASSWORD, the password file, or the user in --catalog",
        ),
        (
            "28000",
            "no pg_hba.conf entry|role .* does not exist",
            "let this user in by pg_hba.conf, or correct --catalog",
        ),
        ("3D000", "database .* does not exist", "make it (createdb), or correct --catalog"),
        (
            "53300",
            "too many clients|remaining connection slots|too many connections",
            "raise max_connections, or the limit of the role or the database, or start fewer workers",
        ),
        (
            "25006",
            "read-only transaction",
            "name the primary in --catalog, or take default_transaction_read_only away",
        ),
        ("53100", "No space left on device", "make room on the disk of the database"),
        ("42501 3F000", "permission denied", "GRANT this user the right, or make it the owner of the database"),
        ("42P01", "relation .* does not exist", "the tables of the catalog are missing: restart to make them"),
        (
            "",
            "failed to resolve host|could not translate host name|Name or service not known",
            "correct the host in --catalog",
        ),
        (
            "",
            "Connection refused|No such file or directory|timeout expired|timed out|No route to host",
            "start the server, or correct --catalog",
        ),
    )
)
"""SQLSTATEs, words of errors without one (as of connections that can't be made), and what to change."""

"""What must be true in the catalog and the directory of several processes: looked at all the while, and at the end.

Invariant: each rule is one statement, so it is looked at in one state of the catalog.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.postgres_connection import connector
from resumable.spool.disk import Disk
from resumable.spool.segments import SegmentDirectory, SegmentSweeper
from resumable.spool.segments.segment_sweeper import OLD

from .fleet import Fleet
from .ledger import Ledger

RULES: Final[Mapping[str, str]] = {
    "is marked lost": "SELECT id FROM uploads WHERE gone = 'lost'",
    "has segments that are not its offset": """SELECT id FROM uploads LEFT JOIN segments ON upload_id = id
        WHERE NOT whole AND on_disk = 1 AND gone IS NULL AND dropped_at IS NULL AND partials IS NULL
        GROUP BY id, "offset"
        HAVING COALESCE(sum(size), 0) <> "offset" OR COALESCE(max(start + size), 0) <> "offset" """,
    "is finished, and not at its end": """SELECT id FROM uploads WHERE finished_at IS NOT NULL
        AND "offset" IS DISTINCT FROM length""",
    "has segments though it is whole": "SELECT id FROM uploads JOIN segments ON upload_id = id WHERE whole",
    "is a segment of no upload": """SELECT name FROM segments WHERE NOT EXISTS
        (SELECT FROM uploads WHERE id = upload_id)""",
    "is a named segment that is to be removed": "SELECT name FROM segments JOIN discarded USING (name)",
    "is counted wrongly for quotas": """SELECT owner, size, unfinished, really, really_open FROM usage, (SELECT
        COALESCE(sum(COALESCE(length, GREATEST(charged, "offset"))), 0) AS really,
        count(*) FILTER (WHERE finished_at IS NULL) AS really_open FROM uploads WHERE gone IS NULL) AS counted
        WHERE owner = '*' AND (size, unfinished) <> (really, really_open)""",
}
USED: Final = """SELECT COALESCE(sum(COALESCE(length, GREATEST(charged, "offset"))), 0),
    count(*) FILTER (WHERE finished_at IS NULL) FROM uploads WHERE gone IS NULL"""
OPEN: Final = """SELECT COALESCE(max(extract(epoch FROM clock_timestamp() - state_change)), 0) FROM pg_stat_activity
    WHERE datname = 'soak' AND state LIKE 'idle in transaction%'"""
CONNECTIONS: Final = """SELECT count(*) FROM pg_stat_activity WHERE datname = 'soak' AND pid <> pg_backend_pid()
    AND backend_type = 'client backend'"""
REPLICAS: Final = "replicas WHERE looks < 3"
"""The others wait for a day, for what a frozen process may still send to the store."""
TABLES: Final = ("uploads", "segments", "discarded", "pins", "finals", REPLICAS, "replica_parts", "outbox", "workers",
                 "claims", "usage")  # fmt: skip
PAUSE: Final = 0.5


class Sampler(threading.Thread):
    """Looks twice a second. ``most``: bytes and number of unfinished uploads that the quotas allow. ``rules``: as
    `RULES`."""

    def __init__(self, fleet: Fleet, ledger: Ledger, most: tuple[int, int], rules: Mapping[str, str] = RULES) -> None:
        super().__init__(name="sampler", daemon=True)
        self.closing = threading.Event()
        self.looks = 0
        self.connections = 0
        self.idle = 0.0
        self.used = (0, 0)
        self._fleet = fleet
        self._ledger = ledger
        self._most = most
        self._rules = rules
        self._told: Counter[str] = Counter()

    def run(self) -> None:
        while not self.closing.wait(PAUSE):
            try:
                self.look()
            except psycopg.Error:
                continue  # the database is away

    def look(self) -> None:
        with psycopg.connect(self._fleet.database.url, autocommit=True, connect_timeout=5) as connection:
            for what, statement in self._rules.items():
                for row in connection.execute(statement).fetchall():
                    self._tell(f"{' '.join(map(str, row))} {what}")
            size, unfinished = connection.execute(USED).fetchall()[0]
            if size > self._most[0] or unfinished > self._most[1]:
                self._tell(f"quotas {self._most} were passed: {size} bytes, {unfinished} unfinished")
            self.used = (max(self.used[0], int(size)), max(self.used[1], unfinished))
            self.idle = max(self.idle, float(connection.execute(OPEN).fetchall()[0][0]))
            self.connections = max(self.connections, connection.execute(CONNECTIONS).fetchall()[0][0])
        self.looks += 1

    def _tell(self, what: str) -> None:
        self._told[what] += 1
        if self._told[what] == 1 and len(self._told) < 50:
            self._ledger.problem(f"in the catalog: {what}")


def rows(fleet: Fleet, tables: Sequence[str] = TABLES) -> dict[str, int]:
    return {each.split()[0]: fleet.database.ask(f"SELECT count(*) FROM {each}")[0][0] for each in tables}


def own_files(upload_dir: Path) -> list[str]:
    """Files of segments, joins and placing, by their path below .resumable."""
    own = upload_dir / ".resumable"
    names = [each for name in ("segments", "finals", "placing") for each in (own / name).rglob("*") if each.is_file()]
    return [str(each.relative_to(own)) for each in names]


def unnamed(fleet: Fleet) -> dict[str, str]:
    """Files that no row names, and the worker that wrote each."""
    named = {name for (name,) in fleet.database.ask("SELECT name FROM segments UNION SELECT name FROM discarded")}
    found = [each for each in own_files(fleet.upload_dir) if each.removeprefix("segments/") not in named]
    named = {name for (name,) in fleet.database.ask("SELECT name FROM segments UNION SELECT name FROM discarded")}
    return {each: each.rsplit("-", 2)[1] for each in found if each.removeprefix("segments/") not in named}


def sweep_as_after_days(fleet: Fleet) -> int:
    """All files are days old, and the sweeper of the product looks at them. No process may be at work. Answers how many
    it has removed."""
    old = time.time() - 2 * OLD
    for each in fleet.upload_dir.rglob("*"):
        if each.is_file() and each.name != "marker":
            os.utime(each, (old, old))
    catalog = PostgresCatalog(connector(fleet.database.url), None, batcher=lambda name, work: AtOnce(work))
    catalog.open()
    catalog.start()
    installation = fleet.database.ask("SELECT id FROM installation")[0][0]
    names = SegmentDirectory(
        *(Disk(), str(fleet.upload_dir)), installation=installation, worker_id="0" * 16, new_name=lambda: "0"
    )
    sweeper = SegmentSweeper(names, catalog.segments, _Here())
    failed: list[Failure] = []
    Deferred.fromCoroutine(sweeper.sweep_unknown()).addErrback(failed.append)
    catalog.stop()
    for each in failed:
        each.raiseException()
    return sweeper.removed


class AtOnce:
    """An IBatcher of one job at a time."""

    def __init__(self, work: Callable[[list[Any]], Sequence[Any]]) -> None:
        self._work = work

    def start(self) -> None: ...

    def submit(self, job: Any) -> Deferred[Any]:
        (result,) = self._work([job])
        return fail(result) if isinstance(result, Failure) else succeed(result)

    def stop(self) -> Deferred[None]:
        return succeed(None)


class _Here:
    """An IPool without threads."""

    def run(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return maybeDeferred(call, *arguments)


def odd(upload_dir: Path) -> list[str]:
    """What is below .resumable and has no business there."""
    known = {"segments", "finals", "placing", "workers", "marker"}
    return sorted(each.name for each in (upload_dir / ".resumable").iterdir() if each.name not in known)


def files(upload_dir: Path) -> set[str]:
    return {each.name for each in upload_dir.iterdir() if each.name != ".resumable"}


def wait_for(ask: object, seconds: float) -> bool:
    """Whether it came true within that time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if ask():  # type: ignore[operator]
                return True
        except (psycopg.Error, FileNotFoundError):
            pass
        threading.Event().wait(0.3)
    return False

"""On PostgreSQL: the rows of workers, the heartbeat of this one, and whether all of them drain.

Invariants: a worker's row is deleted only after its last transaction, which holds a lock on it; none is taken for dead
by a worker whose own heartbeats did not all arrive in time in the last `DEAD_AFTER` seconds: while the database was
away or stood still, nobody's did. Who is dead is told by this worker's own last heartbeat, not by the time. Times are
seconds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import psycopg
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.aio.deferreds import Timer
from resumable.aio.threads import IBatcher, Stopped
from resumable.catalog.batches import CatalogJob
from resumable.catalog.jobs import AnyJob, CatalogTable, Jobs, Work, reads, writes, writes_now
from resumable.catalog.postgres.outage import CatalogOutage
from resumable.catalog.postgres.postgres_batches import PostgresBatches
from resumable.catalog.postgres.postgres_connection import Connect, Connection
from resumable.catalog.postgres.wake import channel, packed
from resumable.model.errors import CatalogUnavailable
from resumable.model.workers import BURIED, DEAD_AFTER, HEARTBEAT, IDrainRecord, IWorkers, Worker

T = TypeVar("T")

FRESH: Final = 3.0
"""Seconds for which a heartbeat is fresh: it is waited for what such a worker has to say. One that took longer, with
the pause before it, was late."""
_NOW: Final = "extract(epoch FROM clock_timestamp())"
# A row that is locked is that of a worker with a transaction under way.
_BURY: Final = """DELETE FROM workers WHERE id IN (SELECT id FROM workers WHERE id <> ?1
    AND seen_at < (SELECT seen_at FROM workers WHERE id = ?1) - ?2{which} FOR UPDATE SKIP LOCKED) RETURNING id"""


@implementer(IWorkers)
class PostgresWorkers(CatalogTable):
    """IWorkers, for the worker ``me``, over a connection of its own: a heartbeat never waits for the catalog's batches.
    ``connect`` has to make one that gives up well before `DEAD_AFTER`: the next heartbeat goes over another one.

    ``batcher``: see `PostgresCatalog`. ``questions``: the catalog's jobs, which answer the frequent questions.
    ``on_disowned`` is called when this worker was taken for dead. ``outage``: the catalog's.

    `register` first, which blocks. Then `start`, and after all changes of this worker `stop`.
    """

    log = Logger()

    def __init__(
        self,
        connect: Connect,
        me: Worker,
        clock: IReactorTime,
        *,
        batcher: Callable[[str, Work], IBatcher[AnyJob, Any]],
        questions: Jobs,
        on_disowned: Callable[[], None] = lambda: None,
        wall: Callable[[], float] = time.time,
        outage: CatalogOutage | None = None,
    ) -> None:
        super().__init__(
            Jobs(PostgresBatches(connect, None, outage=outage), lambda work: batcher("workers", work), None)
        )
        self.id = me.id
        self._me = me
        self._clock = clock
        self._questions = questions
        self._on_disowned = on_disowned
        self._timer = Timer(clock, self._beat)
        #: Since when heartbeats have arrived in time, and when the last one did. In the batcher's thread.
        self._well_since: float | None = None
        self._last = 0.0
        self._wall = wall
        #: Seconds that the database's clock is before this machine's, by the last heartbeat.
        self.ahead = 0.0
        self._running = False

    @writes_now
    def register(self, connection: Connection) -> None:
        """Make this worker's row. Blocks; before `start` only. Raises CatalogUnavailable."""
        me = self._me
        connection.execute(
            "INSERT INTO workers (id, node, pid, options, signs) VALUES (?, ?, ?, ?, true) ON CONFLICT (id) DO NOTHING",
            (me.id, me.node, os.getpid(), json.dumps(dict(me.options))),
        )
        self._seen_now(connection)

    def _seen_now(self, connection: Connection) -> bool:
        """Whether the row is there. Its time, by the database's clock, tells how far that is before this machine's."""
        before = self._wall()
        row = connection.execute(self.SEEN, (self.id,)).fetchone()
        if row is not None:
            self.ahead = row[0] - (before + self._wall()) / 2
        return row is not None

    SEEN = f"UPDATE workers SET seen_at = {_NOW} WHERE id = ? RETURNING seen_at"

    def start(self) -> None:
        """Heartbeats begin. Never before the process has forked for good."""
        self._running = True
        self._well_since = self._last = self._clock.seconds()
        self.jobs.start()
        self._timer.set(HEARTBEAT)

    def stop(self) -> Deferred[None]:
        """Heartbeats end, and this worker's row goes: what it held is anybody's. May be repeated."""
        self._timer.clear()
        if self._running:
            self._running = False
            self.declare_dead(self.id).addErrback(self._left_behind)
        return self.jobs.stop()

    def _left_behind(self, failure: Failure) -> None:
        failure.trap(CatalogUnavailable)
        self.log.warn("the worker's row stays until another deletes it: {reason}", reason=str(failure.value))

    # The heartbeat

    def _beat(self) -> None:
        self._seen().addCallbacks(self._was_seen, self._was_not_seen)

    @writes
    def _seen(self, connection: Connection) -> bool:
        landed = self._seen_now(connection)
        last, self._last = self._last, self._clock.seconds()
        if self._well_since is None or self._last - last > FRESH:
            self._well_since = self._last
        return landed

    def _was_seen(self, landed: bool) -> None:
        if not self._running:
            return
        if not landed:
            self._running = False
            self._on_disowned()
            return
        self._timer.set(HEARTBEAT)

    def _was_not_seen(self, failure: Failure) -> None:
        if failure.check(CatalogUnavailable, Stopped) is None:
            self.log.failure("a heartbeat failed", failure)
        self._well_since = None
        if self._running:
            self._timer.set(HEARTBEAT)

    @property
    def may_bury(self) -> bool:
        """Whether this worker's heartbeats have arrived in time for so long that another's would have, too.

        To be asked by the job that buries, when it is done: that may be long after it was wanted."""
        now, since = self._clock.seconds(), self._well_since
        return since is not None and now - since >= DEAD_AFTER and now - self._last <= FRESH

    # IWorkers

    ALL = f"""SELECT id, node, pid, started_at, options FROM workers WHERE seen_at >= {_NOW} - ?
        ORDER BY started_at, id"""

    def all(self) -> Deferred[Sequence[Worker]]:
        """See IWorkers."""
        return self._ask(lambda connection: [_worker(row) for row in connection.execute(self.ALL, (FRESH,)).fetchall()])

    def signed(self) -> Deferred[Sequence[str]]:
        """Those with a fresh heartbeat that have left their sign in the upload directory; this one included. Workers of
        older releases don't."""
        return self._ask(lambda connection: signed(connection.raw))

    KEEPER = f"""SELECT workers.id FROM uploads JOIN workers ON workers.id = kept_by
        WHERE uploads.id = ? AND kept_by <> ? AND seen_at >= {_NOW} - ?"""

    def keeper(self, upload_id: str) -> Deferred[str | None]:
        """See IWorkers."""

        def find(connection: Connection) -> str | None:
            row = connection.execute(self.KEEPER, (upload_id, self.id, FRESH)).fetchone()
            return None if row is None else str(row[0])

        return self._ask(find)

    @writes
    def declare_dead(self, connection: Connection, worker_id: str) -> bool:
        gone = connection.execute("DELETE FROM workers WHERE id = ?", (worker_id,)).rowcount == 1
        if gone:
            _tell_all(connection)
        return gone

    @writes
    def bury_dead(self, connection: Connection) -> Sequence[str]:
        """See IWorkers. Answers none while this worker's own heartbeats didn't arrive for long enough."""
        return self.bury(connection)

    HOLDER = _BURY.format(which=" AND id = (SELECT holder FROM claims WHERE name = ?3)")
    ANY = _BURY.format(which="")

    def bury(self, connection: Connection, claim: str | None = None) -> Sequence[str]:
        """As `bury_dead`, within another job on these `jobs`; with a ``claim`` only its holder."""
        if not self.may_bury:
            return []
        statement, values = (self.ANY, ()) if claim is None else (self.HOLDER, (claim,))
        rows = connection.execute(statement, (self.id, DEAD_AFTER, *values)).fetchall()
        for (worker_id,) in rows:
            self.log.warn(
                "worker {worker} gave no sign for {seconds} s: it is dead", worker=worker_id, seconds=DEAD_AFTER
            )
        if rows:
            _tell_all(connection)
        return [worker_id for (worker_id,) in rows]

    def _ask(self, question: Callable[[Connection], T]) -> Deferred[T]:
        return self._questions.submit(CatalogJob(question))


def signed(raw: psycopg.Connection[Any]) -> Sequence[str]:
    """See `PostgresWorkers.signed`. Raises psycopg.Error."""
    rows = raw.execute(f"SELECT id FROM workers WHERE signs AND seen_at >= {_NOW} - $1", (FRESH,)).fetchall()
    return [worker_id for (worker_id,) in rows]


@implementer(IDrainRecord)
class DrainRecord(CatalogTable):
    """IDrainRecord."""

    @reads
    def draining_since(self, connection: Connection) -> float | None:
        row = connection.execute("SELECT draining_since FROM installation").fetchone()
        since: float | None = None if row is None else row[0]
        return since

    @writes
    def drain(self, connection: Connection, since: float) -> None:
        connection.execute("UPDATE installation SET draining_since = COALESCE(draining_since, ?)", (since,))

    @writes
    def fill(self, connection: Connection) -> None:
        connection.execute("UPDATE installation SET draining_since = NULL")


def _tell_all(connection: Connection) -> None:
    """With the change: it is rare enough for that (see wake.py). Nobody's message, so this worker hears it, too."""
    for name, payload in packed("", [(channel(None), BURIED, "")]):
        connection.execute("SELECT pg_notify(?, ?)", (name, payload))


def _worker(row: tuple[Any, ...]) -> Worker:
    worker_id, node, pid, started_at, options = row
    return Worker(worker_id, node, pid, started_at, json.loads(options))

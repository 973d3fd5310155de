"""On PostgreSQL: the tables of replicas and their parts.

Invariants: those of `resumable.catalog.replica_table`; and one worker sends a replica: the one that created the upload,
until its row is gone; then whoever finds it first. An id of a worker is never used again, so one that was seen to have
no row never gets one.

A worker without a row may only be frozen, and finish a request to the store when it wakes; and one that got no answer
may arrive late. So a replica that was taken over before it was stored, or that failed before it was stored or ended, is
removed three times. ``looks``: 0 for all others, 1 for such a one, 2 and 3 after its first and second removal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.catalog.jobs import Jobs, frees, reads, writes
from resumable.catalog.outbox_table import OutboxTable
from resumable.catalog.postgres.postgres_connection import Connection
from resumable.catalog.postgres.postgres_schema import NOW
from resumable.catalog.replica_table import END, PAIR, ReplicaTable, to_pair
from resumable.catalog.schema import IN_WORK, REPLICA_FIELDS, WAITS, to_replica
from resumable.model.replica import Backlog, IHeldReplicas, Page
from resumable.model.upload import Replica, Upload

TAKEN_OVER: Final = 5000
"""Replicas of gone workers that one question takes over, at most: a tenth of a second."""
ROWS: Final = 1000
"""Rows of replicas that one question sums up: some milliseconds, which others wait."""
LATE: Final = (60.0, 86_400.0)
"""Seconds after the first and the second removal of what may arrive late, until the next one."""
_LATE: Final = "looks = GREATEST(looks, CASE WHEN stored IS NULL THEN 1 ELSE 0 END)"
_FAILED: Final = "looks = CASE WHEN failing_since IS NULL THEN looks ELSE 1 END"
END_FAILED: Final = END.replace("state = 'ending'", f"state = 'ending', {_FAILED}", 1)
"""As `END`, for `end_replicas`."""
#: ``?{0}``: this worker; None: a tool, which sees all.
_MINE: Final = "(?{0}::text IS NULL OR holder = ?{0})"


@implementer(IHeldReplicas)
class PostgresReplicaTable(ReplicaTable):
    """`ReplicaTable`, for the worker ``worker_id``; None: a tool, which sees what all workers have."""

    def __init__(self, jobs: Jobs, outbox: OutboxTable, worker_id: str | None) -> None:
        super().__init__(jobs, outbox)
        self._worker_id = worker_id

    LOCK = "SELECT 1 FROM uploads WHERE id = ? FOR NO KEY UPDATE"

    def lock(self, connection: Any, upload_id: str) -> None:
        """See `ReplicaTable.lock`."""
        connection.execute(self.LOCK, (upload_id,))

    OF_MANY = f"SELECT {REPLICA_FIELDS} FROM replicas WHERE upload_id = ANY(?) ORDER BY seq"

    @reads
    def of_many(self, connection: Any, upload_ids: Sequence[str]) -> Mapping[str, Sequence[Replica]]:
        """See IReplicas. One question for all."""
        found: dict[str, list[Replica]] = {}
        for row in connection.execute(self.OF_MANY, (list(upload_ids),)).fetchall():
            found.setdefault(row[0], []).append(to_replica(row))
        return found

    # Whose they are

    OWN = (
        PAIR.replace(" FROM ", ", holder, EXISTS (SELECT 1 FROM workers WHERE workers.id = holder) FROM ", 1)
        + " WHERE replicas.upload_id = ? AND remote = ?"
    )

    @deferred
    async def own(self, upload_id: str, remote: str) -> tuple[Replica, Upload | None] | None:
        """See IReplicas. One of a worker that is gone is taken over."""
        found = await self._own(upload_id, remote)
        if found is None:
            return None
        pair, holder, lives = found
        if self._worker_id is None or holder == self._worker_id:
            return pair
        if lives or not await self._take_over_one(upload_id, remote, holder):
            return None
        return await self.get(upload_id, remote)

    @reads
    def _own(
        self, connection: Connection, upload_id: str, remote: str
    ) -> tuple[tuple[Replica, Upload | None], str | None, bool] | None:
        row = connection.execute(self.OWN, (upload_id, remote)).fetchone()
        return None if row is None else (to_pair(row[:-2]), row[-2], row[-1])

    TAKE_OVER_ONE = f"""UPDATE replicas SET holder = ?1, {_LATE} WHERE upload_id = ?2 AND remote = ?3
        AND holder IS NOT DISTINCT FROM ?4"""

    @writes
    def _take_over_one(self, connection: Connection, upload_id: str, remote: str, holder: str | None) -> bool:
        return connection.execute(self.TAKE_OVER_ONE, (self._worker_id, upload_id, remote, holder)).rowcount == 1

    # Goes from holder to holder by the index, however many rows each has; that of rows without one comes last.
    GONE = f"""WITH RECURSIVE found AS (
            (SELECT holder FROM replicas WHERE remote = ?1 AND {IN_WORK} ORDER BY holder LIMIT 1)
            UNION ALL SELECT (SELECT replicas.holder FROM replicas WHERE remote = ?1 AND {IN_WORK}
                AND replicas.holder > found.holder ORDER BY replicas.holder LIMIT 1)
            FROM found WHERE found.holder IS NOT NULL)
        SELECT holder FROM found WHERE holder IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM workers WHERE workers.id = holder)"""
    NOBODYS = f"SELECT 1 FROM replicas WHERE remote = ? AND {IN_WORK} AND holder IS NULL LIMIT 1"

    @reads
    def _gone(self, connection: Connection, remote: str) -> tuple[Sequence[str], bool]:
        """The holders of this remote's replicas that are gone, and whether some have none."""
        gone = [holder for (holder,) in connection.execute(self.GONE, (remote,)).fetchall()]
        return gone, connection.execute(self.NOBODYS, (remote,)).fetchone() is not None

    TAKE_OVER = f"""UPDATE replicas SET holder = ?1, {_LATE} WHERE seq IN (SELECT seq FROM replicas WHERE remote = ?2
        AND {IN_WORK} AND {{whose}} LIMIT ?3 FOR UPDATE SKIP LOCKED)"""
    GONES = TAKE_OVER.format(whose="holder = ANY(?4)")
    NOBODYS_OVER = TAKE_OVER.format(whose="holder IS NULL")

    @writes
    def _take_over(self, connection: Connection, remote: str, gone: Sequence[str], nobodys: bool) -> None:
        if gone:
            connection.execute(self.GONES, (self._worker_id, remote, TAKEN_OVER, list(gone)))
        if nobodys:
            connection.execute(self.NOBODYS_OVER, (self._worker_id, remote, TAKEN_OVER))

    HOLDERS = f"""SELECT remote, CASE WHEN EXISTS (SELECT 1 FROM workers WHERE workers.id = holder) THEN holder
        ELSE ?2 END FROM replicas WHERE upload_id = ?1 AND {IN_WORK}"""

    @reads
    def holders(self, connection: Connection, upload_id: str) -> Mapping[str, str]:
        """See IHeldReplicas."""
        found = connection.execute(self.HOLDERS, (upload_id, self._worker_id)).fetchall()
        return {remote: holder for remote, holder in found if holder is not None}

    # Questions of the transfers

    @deferred
    async def due(self, remote: str, now: float, after: int, limit: int) -> Page:
        """See IReplicas."""
        if self._worker_id is not None and after == 0:
            gone, nobodys = await self._gone(remote)
            if gone or nobodys:
                await self._take_over(remote, gone, nobodys)
        return await self._due(remote, now, after, limit)

    # By the index of these, of which the primary key must not seem to be as good.
    SCAN = f"""SELECT replicas.seq, (retry_at IS NULL OR retry_at <= ?2) AND (state = 'ending'
            OR finished_at IS NOT NULL OR (offset >= needs AND offset > confirmed))
        FROM replicas LEFT JOIN uploads ON uploads.id = replicas.upload_id
        WHERE remote = ?1 AND {{after}} AND {IN_WORK} ORDER BY {{order}}replicas.seq LIMIT ?4"""
    OWN_SCAN = SCAN.format(after="(holder, replicas.seq) > (?5, ?3) AND holder <= ?5", order="holder, ")
    WHOLE_SCAN = SCAN.format(after="replicas.seq > ?3", order="")

    PAIRS = f"{PAIR} WHERE replicas.seq = ANY(?) ORDER BY replicas.seq"

    @reads
    def _due(self, connection: Connection, remote: str, now: float, after: int, limit: int) -> Page:
        values = (remote, float(now), after, limit)
        if self._worker_id is None:
            rows = connection.execute(self.WHOLE_SCAN, values).fetchall()
        else:
            rows = connection.execute(self.OWN_SCAN, (*values, self._worker_id)).fetchall()
        ripe = [seq for seq, is_due in rows if is_due]
        found = [to_pair(row) for row in connection.execute(self.PAIRS, (ripe,)).fetchall()] if ripe else []
        return Page(found, rows[-1][0] if rows and len(rows) == limit else None)

    NEXT_RETRY = f"""SELECT retry_at FROM replicas WHERE remote = ?1 AND {WAITS} AND {_MINE.format(2)}
        ORDER BY retry_at LIMIT 1"""

    @reads
    def next_retry(self, connection: Connection, remote: str) -> float | None:
        row = connection.execute(self.NEXT_RETRY, (remote, self._worker_id)).fetchone()
        return None if row is None else float(row[0])

    # By the index, from holder to holder; rows without one come last.
    _SUMS = f"""WITH page AS (SELECT holder, seq, upload_id, confirmed, state FROM replicas
            WHERE remote = ?1 AND {IN_WORK} AND {{place}} ORDER BY holder, seq LIMIT ?2)
        SELECT SUM(GREATEST(offset - confirmed, 0))::bigint, COUNT(finished_at), MIN(finished_at),
            (SELECT json_build_array(holder, seq) FROM page ORDER BY holder, seq OFFSET ?2 - 1)
        FROM page JOIN uploads ON uploads.id = upload_id WHERE state = 'open'"""
    HELD = _SUMS.format(place="(holder, seq) > (?3, ?4)")
    NOT_HELD = _SUMS.format(place="holder IS NULL AND seq > ?3")

    @deferred
    async def backlog(self, remote: str) -> Backlog:
        """See IReplicas. Goes through all rows, `ROWS` of them in each question."""
        sums = Backlog()
        place: tuple[str | None, int] | None = ("", 0)
        while place is not None:
            more, place = await self._backlog(remote, *place)
            oldest = min((one.oldest for one in (sums, more) if one.oldest is not None), default=None)
            sums = Backlog(sums.size + more.size, sums.uploads + more.uploads, oldest)
        return sums

    @reads
    def _backlog(
        self, connection: Connection, remote: str, holder: str | None, seq: int
    ) -> tuple[Backlog, tuple[str | None, int] | None]:
        """Of the next rows, and behind which to go on; None: these were the last."""
        if holder is None:
            row = connection.execute(self.NOT_HELD, (remote, ROWS, seq)).fetchone()
        else:
            row = connection.execute(self.HELD, (remote, ROWS, holder, seq)).fetchone()
        size, count, oldest, last = row or (0, 0, None, None)
        if last is not None:
            return Backlog(size or 0, count, oldest), tuple(last)
        return Backlog(size or 0, count, oldest), None if holder is None else (None, 0)

    STORE = ReplicaTable.STORE.replace("state = 'stored'", f"state = 'stored', {_FAILED}", 1)

    UNFINISHED = f"SELECT remote, COUNT(*) FROM replicas WHERE {IN_WORK} AND looks < 2 GROUP BY remote"

    HASTEN = f"UPDATE replicas SET retry_at = NULL WHERE remote = ?1 AND {WAITS} AND looks < 2 AND {_MINE.format(2)}"

    @writes
    def hasten(self, connection: Connection, remote: str) -> None:
        connection.execute(self.HASTEN, (remote, self._worker_id))

    AGAIN = f"""UPDATE replicas SET looks = looks + 1, attempts = 0, error = NULL, failing_since = NULL,
            retry_at = {NOW} + CASE looks WHEN 1 THEN {LATE[0]} ELSE {LATE[1]} END
        WHERE upload_id = ? AND remote = ? AND state = 'ending' AND looks IN (1, 2)"""

    @frees
    def ended(self, connection: Connection, replica: Replica) -> None:
        """See IReplicas. One of which something may arrive late is forgotten after its third removal."""
        one = (replica.upload_id, replica.remote)
        if connection.execute(self.AGAIN, one).rowcount == 1:
            connection.execute(self.DROP_PARTS, one)
        else:
            self.forget(connection, replica)

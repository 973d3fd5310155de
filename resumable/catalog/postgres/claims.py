"""On PostgreSQL: who does which piece of background work.

Invariants: a claim moves only when its holder's row is gone, which is looked for after the claim's row was locked: a
holder that is newer than the question is seen. While this worker's row is there nobody takes its claims from it, so
those that it has need not be asked for again.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resumable.catalog.jobs import CatalogTable, writes
from resumable.catalog.postgres.postgres_connection import Connection
from resumable.catalog.postgres.worker_table import PostgresWorkers
from resumable.model.workers import IClaims


@implementer(IClaims)
class PostgresClaims(CatalogTable):
    """IClaims, for the worker of ``workers``, over the same connection; ended with it, `stop` first."""

    def __init__(self, workers: PostgresWorkers) -> None:
        super().__init__(workers.jobs)
        self._workers = workers
        self._id = workers.id
        self._held: dict[str, int] = {}
        self._stopped = False

    def take(self, name: str) -> Deferred[int | None]:
        """See IClaims. One that is held is answered from memory."""
        if name in self._held:
            return succeed(self._held[name])
        if self._stopped:
            return succeed(None)
        return self._take(name).addCallback(self._taken, name)

    def _taken(self, number: int | None, name: str) -> int | None:
        if number is None or self._stopped:  # all are given back after this
            return None
        self._held[name] = number
        return number

    MAKE = "INSERT INTO claims (name) VALUES (?) ON CONFLICT (name) DO NOTHING"
    LOCK = "SELECT holder, number FROM claims WHERE name = ? FOR UPDATE"
    # This worker's row stays until the claim is its own, or isn't.
    ME = "SELECT 1 FROM workers WHERE id = ? FOR KEY SHARE"
    LIVES = "SELECT 1 FROM workers WHERE id = ?"
    MOVE = "UPDATE claims SET holder = ?2, number = number + 1 WHERE name = ?1 RETURNING number"

    @writes
    def _take(self, connection: Connection, name: str) -> int | None:
        self._workers.bury(connection, name)
        if connection.execute(self.ME, (self._id,)).fetchone() is None:
            return None
        connection.execute(self.MAKE, (name,))
        holder, number = connection.execute(self.LOCK, (name,)).fetchone() or (None, 0)
        if holder == self._id:
            return int(number)
        if holder is not None and connection.execute(self.LIVES, (holder,)).fetchone() is not None:
            return None
        row = connection.execute(self.MOVE, (name, self._id)).fetchone()
        return None if row is None else int(row[0])

    def give_back(self, name: str) -> Deferred[None]:
        """See IClaims."""
        self._held.pop(name, None)
        return self._give_back(name)

    @writes
    def _give_back(self, connection: Connection, name: str) -> None:
        connection.execute("UPDATE claims SET holder = NULL WHERE name = ? AND holder = ?", (name, self._id))

    def drop(self, name: str) -> Deferred[None]:
        """See IClaims."""
        self._held.pop(name, None)
        return self._drop(name)

    @writes
    def _drop(self, connection: Connection, name: str) -> None:
        connection.execute("DELETE FROM claims WHERE name = ? AND holder = ?", (name, self._id))

    def stop(self) -> Deferred[None]:
        """Give all back, and take none any more."""
        self._stopped = True
        self._held.clear()
        return self._give_all_back()

    @writes
    def _give_all_back(self, connection: Connection) -> None:
        connection.execute("UPDATE claims SET holder = NULL WHERE holder = ?", (self._id,))

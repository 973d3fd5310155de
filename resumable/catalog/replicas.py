"""IReplicas on SQLite: each method becomes a job for the catalog's one thread.

Changes when IReplicas does. Invariant: as in sqlite.py, what a Deferred answers is durable. What leads to free
space, as storing does where data is dropped once it is stored, may use the space reserve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.catalog import replica_changes as changes
from resumable.catalog import replica_lookups as lookups
from resumable.catalog.batches import Read, Write
from resumable.catalog.outbox import Outbox
from resumable.model.replica import Backlog, IReplicas, Page
from resumable.model.upload import Replica, Upload


@implementer(IReplicas)
class Replicas:
    """The replicas of a catalog that runs what is given to ``read`` and ``write``."""

    def __init__(self, read: Read, write: Write, outbox: Outbox) -> None:
        self._read = read
        self._write = write
        self._outbox = outbox

    def of(self, upload_id: str) -> Deferred[Sequence[Replica]]:
        return self._read(lambda connection: lookups.of(connection, upload_id))

    def get(self, upload_id: str, remote: str) -> Deferred[tuple[Replica, Upload | None] | None]:
        return self._read(lambda connection: lookups.get(connection, upload_id, remote))

    def due(self, remote: str, now: float, after: int, limit: int) -> Deferred[Page]:
        return self._read(lambda connection: lookups.due(connection, remote, now, after, limit))

    def next_retry(self, remote: str) -> Deferred[float | None]:
        return self._read(lambda connection: lookups.next_retry(connection, remote))

    def advance(self, replica: Replica) -> Deferred[bool]:
        return self._write(lambda connection: changes.advance(connection, replica))

    def store(self, replica: Replica, stored: Mapping[str, Any], at: float) -> Deferred[tuple[bool, bool]]:
        """See IReplicas. Without any required replica the upload never counts as stored."""
        return self._write(lambda connection: changes.store(connection, self._outbox, replica, stored, at), True)

    def park(self, replica: Replica, reason: str, at: float) -> Deferred[bool]:
        return self._write(lambda connection: changes.park(connection, self._outbox, replica, reason, at))

    def restart(self, upload_id: str, remote: str | None) -> Deferred[int]:
        """See IReplicas. Of an upload that is gone or dropped, none: there is nothing to send any more."""
        return self._write(lambda connection: changes.restart(connection, upload_id, remote))

    def hasten(self, remote: str) -> Deferred[None]:
        return self._write(lambda connection: changes.hasten(connection, remote))

    def ended(self, replica: Replica) -> Deferred[None]:
        return self._write(lambda connection: changes.ended(connection, replica), True)

    def backlog(self, remote: str) -> Deferred[Backlog]:
        return self._read(lambda connection: lookups.backlog(connection, remote))

    def unfinished(self) -> Deferred[Mapping[str, int]]:
        return self._read(lookups.unfinished)

    def owners(self, remote: str, key: str) -> Deferred[Sequence[str]]:
        return self._read(lambda connection: lookups.owners(connection, remote, key))

    def load_journal(self, upload_id: str, remote: str) -> Deferred[dict[str, Any] | None]:
        return self._read(lambda connection: lookups.journal(connection, upload_id, remote))

    def save_journal(self, upload_id: str, remote: str, value: Mapping[str, Any]) -> Deferred[None]:
        return self._write(lambda connection: changes.save_journal(connection, upload_id, remote, value))

    def load_parts(self, upload_id: str, remote: str) -> Deferred[dict[int, str]]:
        return self._read(lambda connection: lookups.parts(connection, upload_id, remote))

    def save_part(self, upload_id: str, remote: str, number: int, value: str) -> Deferred[None]:
        """See IReplicas. Does nothing when there is no such replica."""
        return self._write(lambda connection: changes.save_part(connection, upload_id, remote, number, value))

    def drop_parts(self, upload_id: str, remote: str) -> Deferred[None]:
        return self._write(lambda connection: changes.drop_parts(connection, upload_id, remote), True)

    def droppable(self, stored_before: float, limit: int) -> Deferred[Sequence[Upload]]:
        return self._read(lambda connection: lookups.droppable(connection, stored_before, limit))

    def drop(self, upload_ids: Sequence[str], at: float) -> Deferred[Sequence[str]]:
        return self._write(lambda connection: changes.drop(connection, upload_ids, at), True)

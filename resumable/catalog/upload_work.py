"""The table of uploads: the work that waits for them, and whose they are.

Invariant: no question but `owners`, for the start, looks at rows that no work waits for: each goes by an index of
schema.py, so its cost does not grow with the number of finished uploads.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from attrs import evolve, frozen

from resumable.catalog.final_table import FinalTable
from resumable.catalog.jobs import Jobs, frees, reads, reads_now, writes
from resumable.catalog.outbox_table import OutboxTable
from resumable.catalog.replica_table import drop_placed, forget_replicas
from resumable.catalog.schema import (
    AWAITS_ANY,
    AWAITS_DIGEST,
    AWAITS_PLACE,
    FIELDS,
    HAS_DATA,
    IS_CLEARED,
    NEEDS_EXPIRY,
    to_placed,
    to_uploads,
)
from resumable.model.upload import Fact, Place, Replica, Upload


@frozen
class Owned:
    """The uploads of one identity ("": nobody): bytes of uploads that are not gone, by their length if that is known,
    else by their offset; how many of these bytes, and how many uploads, are unfinished."""

    owner: str
    size: int
    unfinished_size: int
    unfinished: int


class UploadWork(FinalTable):
    """The part of ICatalog that janitors, placing and quotas ask; facts go to ``outbox``."""

    def __init__(self, jobs: Jobs, outbox: OutboxTable) -> None:
        super().__init__(jobs)
        self.outbox = outbox

    @staticmethod
    def _counted(upload: Upload, replicas: Sequence[Replica]) -> Upload:
        """A new upload; its ``required`` is counted from its replicas, whatever it says."""
        required = sum(replica.required for replica in replicas)
        return upload if upload.required == required else evolve(upload, required=required)

    # Removal of data and of records

    # An append to a partial touches the finals that wait for it.
    EXPIRED = f"""SELECT {FIELDS} FROM uploads WHERE {NEEDS_EXPIRY} AND touched_at < ?1 AND settled_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM pins WHERE partial_id = uploads.id)
        AND (partials IS NULL OR NOT EXISTS (SELECT 1 FROM pins JOIN uploads AS part ON part.id = pins.partial_id
            WHERE pins.final_id = uploads.id AND part.touched_at >= ?1))
        ORDER BY touched_at LIMIT ?2"""

    @reads
    def expired(self, connection: Connection, idle_since: float, limit: int) -> Sequence[Upload]:
        """See ICatalog. An append to a partial also touches the finals that wait for it."""
        return to_uploads(connection.execute(self.EXPIRED, (idle_since, limit)).fetchall())

    REMOVABLE = f"""SELECT id FROM uploads WHERE {HAS_DATA}
        AND NOT EXISTS (SELECT 1 FROM pins WHERE partial_id = uploads.id) ORDER BY gone_at LIMIT ?"""

    @reads
    def removable(self, connection: Connection, limit: int) -> Sequence[str]:
        return [row[0] for row in connection.execute(self.REMOVABLE, (limit,)).fetchall()]

    REMOVED = """UPDATE uploads SET on_disk = 0 WHERE id = ? AND (gone IS NOT NULL OR dropped_at IS NOT NULL)
        AND (gone IS NULL OR placed IS NULL)"""
    NOT_PLACED = "UPDATE uploads SET placed = NULL WHERE id = ? AND gone IS NOT NULL"

    @frees
    def removed(self, connection: Connection, upload_ids: Sequence[str], unplaced: Sequence[str] = ()) -> None:
        connection.executemany(self.NOT_PLACED, [(one,) for one in unplaced])
        connection.executemany(self.REMOVED, [(one,) for one in upload_ids])

    REPLICAS = "SELECT 1 FROM replicas WHERE upload_id = ? LIMIT 1"

    @reads
    def has_remains(self, connection: Connection, upload_id: str) -> bool:
        """See ICatalog."""
        found = connection.execute(self.REPLICAS, (upload_id,)).fetchone()
        return found is not None or self.outbox.tells_of(connection, upload_id)

    FORGETTABLE = f"SELECT id FROM uploads WHERE {IS_CLEARED} AND gone_at < ? ORDER BY gone_at LIMIT ?"

    @frees
    def forget(self, connection: Connection, gone_before: float, limit: int) -> int:
        chosen = connection.execute(self.FORGETTABLE, (gone_before, limit)).fetchall()
        connection.executemany("DELETE FROM uploads WHERE id = ?", chosen)
        forget_replicas(connection, [upload_id for (upload_id,) in chosen])
        return len(chosen)

    # Files that go to their places

    UNPLACED = f"""SELECT {FIELDS} FROM uploads INDEXED BY uploads_in_wait WHERE ({AWAITS_ANY}) AND id > ?
        AND {AWAITS_PLACE} AND finished_at IS NOT NULL AND gone IS NULL ORDER BY id LIMIT ?"""

    @reads
    def unplaced(self, connection: Connection, after: str, limit: int) -> Sequence[Upload]:
        return to_uploads(connection.execute(self.UNPLACED, (after, limit)).fetchall())

    PLACED = f"""UPDATE uploads SET placed = ?2 WHERE id = ?1 AND {AWAITS_PLACE} AND finished_at IS NOT NULL
        AND gone IS NULL"""

    @writes
    def placed(
        self, connection: Connection, upload_id: str, place: Place, at: float, facts: Sequence[Fact] = ()
    ) -> bool:
        if connection.execute(self.PLACED, (upload_id, to_placed(place))).rowcount != 1:
            return False
        drop_placed(connection, upload_id, at)
        self.outbox.take(connection, facts)
        return True

    # Digests of whole files

    ANNOUNCE = "UPDATE uploads SET announced = ?2 WHERE id = ?1 AND finished_at IS NULL AND gone IS NULL"

    @writes
    def announce(self, connection: Connection, upload_id: str, announced: str) -> bool:
        """See ICatalog."""
        return connection.execute(self.ANNOUNCE, (upload_id, announced)).rowcount == 1

    SET_DIGEST = """UPDATE uploads SET digest = ?2 WHERE id = ?1 AND gone IS NULL
        AND uploads.offset = uploads.length"""

    @writes
    def set_digest(self, connection: Connection, upload_id: str, digest: str) -> bool:
        """See ICatalog."""
        return connection.execute(self.SET_DIGEST, (upload_id, digest)).rowcount == 1

    UNDIGESTED = f"""SELECT {FIELDS} FROM uploads INDEXED BY uploads_in_wait WHERE ({AWAITS_ANY}) AND id > ?
        AND {AWAITS_DIGEST} AND finished_at IS NOT NULL AND gone IS NULL ORDER BY id LIMIT ?"""

    @reads
    def undigested(self, connection: Connection, after: str, limit: int) -> Sequence[Upload]:
        """See ICatalog."""
        return to_uploads(connection.execute(self.UNDIGESTED, (after, limit)).fetchall())

    # Owners

    OWNER_OF = "SELECT COALESCE(owner, '') FROM uploads WHERE id = ?"

    @reads
    def owner_of(self, connection: Connection, upload_id: str) -> str | None:
        """The identity that created it, gone or not; "": nobody's, None: unknown or forgotten."""
        row = connection.execute(self.OWNER_OF, (upload_id,)).fetchone()
        return None if row is None else str(row[0])

    # TOTAL, as a SUM of what clients declare could overflow; it is exact below 8 PiB.
    OWNERS = """SELECT IFNULL(owner, ''), TOTAL(IFNULL(length, offset)),
        TOTAL(CASE WHEN finished_at IS NULL THEN IFNULL(length, offset) END), COUNT(*) - COUNT(finished_at)
        FROM uploads WHERE gone IS NULL GROUP BY 1 ORDER BY 1"""

    @reads_now
    def owners(self, connection: Connection) -> Sequence[Owned]:
        """The usage of each owner, each once, nobody ("") included. Blocks, and reads every record: before `start`."""
        rows = connection.execute(self.OWNERS).fetchall()
        return [Owned(owner, int(size), int(unfinished_size), count) for owner, size, unfinished_size, count in rows]

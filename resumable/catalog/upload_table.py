"""The table of uploads: each change of a row, and each question.

Invariants: a change of an offset is one compare-and-set; facts are written only when the change that they report has
landed; no time of a row ever moves backwards. No question but `owners`, for the start, looks at rows that no work waits
for: each goes by an index of schema.py, so its cost does not grow with the number of finished uploads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Final

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resumable.catalog.batches import CatalogJob
from resumable.catalog.final_table import FinalTable
from resumable.catalog.fresh_uploads import FreshUploads
from resumable.catalog.jobs import Jobs, frees, reads, reads_now, writes, writes_now
from resumable.catalog.outbox_table import OutboxTable
from resumable.catalog.replica_table import add_replicas, drop_placed, end_replicas, forget_replicas
from resumable.catalog.schema import (
    AWAITS_PLACE,
    FIELDS,
    HAS_DATA,
    INSERT,
    IS_CLEARED,
    LIMIT,
    NEEDS_EXPIRY,
    find_upload,
    to_placed,
    to_row,
    to_uploads,
)
from resumable.model.upload import Commit, Fact, GoneReason, ICatalog, Place, Replica, Through, Upload

IDS_AT_ONCE: Final = 10_000

CREATE: Final = f"{INSERT} ON CONFLICT (id) DO NOTHING"
_OPEN: Final = "finished_at IS NULL AND gone IS NULL"


@frozen
class Owned:
    """The uploads of one identity ("": nobody): bytes of uploads that are not gone, by their length if that is known,
    else by their offset; how many of these bytes, and how many uploads, are unfinished."""

    owner: str
    size: int
    unfinished_size: int
    unfinished: int


def add_lost(connection: Connection, upload_ids: Sequence[str], at: float) -> int:
    """Tombstones, LOST, for those of these ids that have no record; how many."""
    rows = [to_row(Upload(one, at, at, gone=GoneReason.LOST, gone_at=at)) for one in upload_ids]
    return connection.executemany(CREATE, rows).rowcount


@implementer(ICatalog)
class UploadTable(FinalTable):
    """ICatalog on SQLite; facts go to ``outbox``."""

    def __init__(self, jobs: Jobs, outbox: OutboxTable) -> None:
        super().__init__(jobs)
        self.outbox = outbox
        self._fresh = FreshUploads()

    # From the creation to the end

    def create(
        self,
        upload: Upload,
        facts: Sequence[Fact],
        replicas: Sequence[Replica] = (),
        request: Mapping[str, Any] | None = None,
        through: Through | None = None,
    ) -> Deferred[bool]:
        """See ICatalog. The upload's ``required`` is counted from the replicas, whatever it says."""
        required = sum(replica.required for replica in replicas)
        if upload.required != required:
            upload = evolve(upload, required=required)
        job = CatalogJob(lambda connection: self._create(connection, upload, facts, replicas, request), writes=True)
        made = self.jobs.submit(job, through)
        self._fresh.expect(upload, made)
        return made

    def _create(
        self,
        connection: Connection,
        upload: Upload,
        facts: Sequence[Fact],
        replicas: Sequence[Replica],
        request: Mapping[str, Any] | None,
    ) -> bool:
        waits = bool(upload.partials) and upload.finished_at is None and upload.gone is None
        if waits and self._lacks_partials(connection, upload):
            return False
        if connection.execute(CREATE, to_row(upload)).rowcount != 1:
            return False
        if waits and upload.asked is not None and not self._ask(connection, upload, request):
            connection.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
            return False
        if replicas:
            add_replicas(connection, upload.id, replicas)
        if waits:
            self._pin(connection, upload)
        if facts:
            self.outbox.take(connection, facts)
        return True

    def get(self, upload_id: str) -> Deferred[Upload | None]:
        fresh = self._fresh.get(upload_id)
        return self._get(upload_id) if fresh is None else succeed(fresh)

    @reads
    def _get(self, connection: Connection, upload_id: str) -> Upload | None:
        return find_upload(connection, upload_id)

    @reads
    def get_many(self, connection: Connection, upload_ids: Sequence[str]) -> Mapping[str, Upload]:
        found = (find_upload(connection, upload_id) for upload_id in upload_ids)
        return {upload.id: upload for upload in found if upload is not None}

    BEGIN = f"""UPDATE uploads SET epoch = epoch + 1, boot_id = ?, adoptable = MAX(offset, ?),
        touched_at = MAX(touched_at, ?) WHERE id = ? AND offset = ? AND epoch = ? AND {_OPEN}"""

    def begin(self, upload_id: str, epoch: int, start: int, boot_id: str, adoptable: int, at: float) -> Deferred[bool]:
        """See ICatalog; ``adoptable`` below the offset counts as the offset."""
        self._fresh.changes(upload_id)
        return self._begin(upload_id, epoch, start, boot_id, adoptable, at)

    @writes
    def _begin(
        self,
        connection: Connection,
        upload_id: str,
        epoch: int,
        start: int,
        boot_id: str,
        adoptable: int,
        at: float,
    ) -> bool:
        return connection.execute(self.BEGIN, (boot_id, adoptable, at, upload_id, start, epoch)).rowcount == 1

    COMMIT = f"""UPDATE uploads SET offset = ?1, adoptable = MAX(adoptable, ?1), touched_at = MAX(touched_at, ?2),
        length = IFNULL(?3, length) WHERE id = ?4 AND offset = ?5 AND epoch = ?6 AND {_OPEN}"""
    FINISH = f"""UPDATE uploads SET offset = ?1, adoptable = ?1, touched_at = MAX(touched_at, ?2),
        length = IFNULL(?3, length), finished_at = MAX(touched_at, ?2), placed = IFNULL(placed, ?7)
        WHERE id = ?4 AND offset = ?5 AND epoch = ?6 AND {_OPEN}"""

    def commit(self, change: Commit, through: Through | None = None) -> Deferred[bool]:
        """See ICatalog. What may be adopted stays as `begin` said, but never below the new offset, until the next
        `begin` or the finish, which leaves nothing to adopt. ValueError for an offset that goes back."""
        self._fresh.changes(change.upload_id)
        return self.jobs.submit(CatalogJob(lambda connection: self._commit(connection, change), writes=True), through)

    def _commit(self, connection: Connection, change: Commit) -> bool:
        if change.offset < change.start:
            raise ValueError(f"a commit from {change.start} back to {change.offset}")
        values = (change.offset, change.at, change.length, change.upload_id, change.start, change.epoch)
        if change.finished:
            landed = connection.execute(self.FINISH, (*values, to_placed(change.place)))
        else:
            landed = connection.execute(self.COMMIT, values)
        if landed.rowcount != 1:
            return False
        if change.finished:
            self._made(connection, change.upload_id, change.at)
        self.outbox.take(connection, change.facts)
        return True

    # An upload may have finished since it was found idle. A file in its place is to be removed, though the data file
    # may be gone.
    END = f"""UPDATE uploads SET gone = ?1, gone_at = MAX(touched_at, ?2), settled_at = NULL,
        on_disk = MAX(on_disk, placed IS NOT NULL) WHERE id = ?3 AND gone IS NULL
        AND (?1 <> '{GoneReason.EXPIRED.value}' OR ({NEEDS_EXPIRY}))"""

    def end(
        self,
        upload_id: str,
        gone: GoneReason,
        at: float,
        facts: Sequence[Fact],
        delete: bool = False,
        refusal: Mapping[str, Any] | None = None,
    ) -> Deferred[bool]:
        """See ICatalog."""
        self._fresh.changes(upload_id)
        return self._end(upload_id, gone, at, facts, delete, refusal)

    @frees
    def _end(
        self,
        connection: Connection,
        upload_id: str,
        gone: GoneReason,
        at: float,
        facts: Sequence[Fact],
        delete: bool,
        refusal: Mapping[str, Any] | None,
    ) -> bool:
        if connection.execute(self.END, (gone.value, at, upload_id)).rowcount != 1:
            return False
        end_replicas(connection, upload_id, delete)
        self._unmade(connection, upload_id, at, refusal)
        self.outbox.take(connection, facts)
        return True

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

    REMOVED = """UPDATE uploads SET on_disk = 0 WHERE id = ? AND IFNULL(gone, dropped_at) IS NOT NULL
        AND (gone IS NULL OR placed IS NULL)"""
    NOT_PLACED = "UPDATE uploads SET placed = NULL WHERE id = ? AND gone IS NOT NULL"

    @frees
    def removed(self, connection: Connection, upload_ids: Sequence[str], unplaced: Sequence[str] = ()) -> None:
        connection.executemany(self.NOT_PLACED, [(one,) for one in unplaced])
        connection.executemany(self.REMOVED, [(one,) for one in upload_ids])

    FORGETTABLE = f"SELECT id FROM uploads WHERE {IS_CLEARED} AND gone_at < ? ORDER BY gone_at LIMIT ?"

    @frees
    def forget(self, connection: Connection, gone_before: float, limit: int) -> int:
        chosen = connection.execute(self.FORGETTABLE, (gone_before, limit)).fetchall()
        connection.executemany("DELETE FROM uploads WHERE id = ?", chosen)
        forget_replicas(connection, [upload_id for (upload_id,) in chosen])
        return len(chosen)

    # Files that go to their places

    UNPLACED = f"""SELECT {FIELDS} FROM uploads INDEXED BY uploads_to_place WHERE {AWAITS_PLACE} AND id > ?
        AND finished_at IS NOT NULL AND gone IS NULL ORDER BY id LIMIT ?"""

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

    # Owners

    OWNER_OF = "SELECT IFNULL(owner, '') FROM uploads WHERE id = ?"

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

    # Start-up

    ADOPTABLE = f"""SELECT {FIELDS} FROM uploads INDEXED BY uploads_to_expire WHERE {_OPEN}
        AND adoptable > offset AND boot_id = ? ORDER BY seq"""

    @reads_now
    def adoptable(self, connection: Connection, boot_id: str) -> Sequence[Upload]:
        """Uploads under way in that boot whose data file may hold bytes past the offset. Blocks."""
        return to_uploads(connection.execute(self.ADOPTABLE, (boot_id,)).fetchall())

    ADOPT = f"""UPDATE uploads SET offset = ?1, adoptable = ?1, touched_at = MAX(touched_at, ?2),
        finished_at = CASE WHEN length = ?1 THEN MAX(touched_at, ?2) END,
        placed = IFNULL(placed, CASE WHEN length = ?1 THEN ?4 END)
        WHERE id = ?3 AND offset < ?1 AND adoptable >= ?1 AND IFNULL(length, {LIMIT}) >= ?1 AND {_OPEN}"""

    @writes_now
    def adopted(
        self,
        connection: Connection,
        upload_id: str,
        offset: int,
        at: float,
        facts: Sequence[Fact],
        place: Place | None = None,
    ) -> bool:
        """Move the offset over synced bytes that were found, and finish the upload if that is its length. Blocks.

        False, and nothing recorded, unless ``offset`` is past the row's and within its adoptable bytes.
        """
        if connection.execute(self.ADOPT, (offset, at, upload_id, to_placed(place))).rowcount != 1:
            return False
        self.outbox.take(connection, facts)
        return True

    def ids(self) -> Iterator[str]:
        """The id of every record, gone ones included, oldest first. Blocks while it is iterated."""
        after = 0
        while rows := self._ids(after, IDS_AT_ONCE):
            yield from (upload_id for _, upload_id in rows)
            after = rows[-1][0]

    IDS = "SELECT seq, id FROM uploads WHERE seq > ? ORDER BY seq LIMIT ?"

    @reads_now
    def _ids(self, connection: Connection, after: int, limit: int) -> Sequence[tuple[int, str]]:
        return connection.execute(self.IDS, (after, limit)).fetchall()

    @writes_now
    def record_lost(self, connection: Connection, upload_ids: Sequence[str], at: float) -> int:
        """Answer 410 for data files without a record: tombstones for those unknown. Blocks; answers how many."""
        return add_lost(connection, upload_ids, at)

"""The table of uploads: their life from the creation to the end, and what the start needs.

Invariants: a change of an offset is one compare-and-set; facts are written only when the change that they report has
landed; no time of a row ever moves backwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resumable.catalog.batches import CatalogJob
from resumable.catalog.fresh_uploads import FreshUploads
from resumable.catalog.jobs import Jobs, frees, reads, reads_now, writes, writes_now
from resumable.catalog.outbox_table import OutboxTable
from resumable.catalog.replica_table import add_replicas, end_replicas
from resumable.catalog.schema import (
    FIELDS,
    INSERT,
    LIMIT,
    NEEDS_EXPIRY,
    find_upload,
    to_digest,
    to_placed,
    to_row,
    to_uploads,
)
from resumable.catalog.upload_work import UploadWork
from resumable.model.upload import (
    Commit,
    Fact,
    GoneReason,
    ICatalog,
    Place,
    Replica,
    Segment,
    StoreChange,
    Through,
    Upload,
)

IDS_AT_ONCE: Final = 10_000

CREATE: Final = f"{INSERT} ON CONFLICT (id) DO NOTHING"
_OPEN: Final = "finished_at IS NULL AND gone IS NULL"


def add_lost(connection: Connection, upload_ids: Sequence[str], at: float) -> int:
    """Tombstones, LOST, for those of these ids that have no record; how many."""
    rows = [to_row(Upload(one, at, at, gone=GoneReason.LOST, gone_at=at)) for one in upload_ids]
    return connection.executemany(CREATE, rows).rowcount


@implementer(ICatalog)
class UploadTable(UploadWork):
    """ICatalog on SQLite; facts go to ``outbox``."""

    def __init__(self, jobs: Jobs, outbox: OutboxTable) -> None:
        super().__init__(jobs, outbox)
        self._fresh = FreshUploads()

    # From the creation to the end

    def create(
        self,
        upload: Upload,
        facts: Sequence[Fact],
        replicas: Sequence[Replica] = (),
        request: Mapping[str, Any] | None = None,
        through: Through | None = None,
        segment: Segment | StoreChange | None = None,
    ) -> Deferred[bool]:
        """See ICatalog. The upload's ``required`` is counted from the replicas, whatever it says."""
        upload = self._counted(upload, replicas)
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
        length = COALESCE(?3, length), digest = COALESCE(?7, digest)
        WHERE id = ?4 AND offset = ?5 AND epoch = ?6 AND {_OPEN}"""
    FINISH = f"""UPDATE uploads SET offset = ?1, adoptable = ?1, touched_at = MAX(touched_at, ?2),
        length = COALESCE(?3, length), finished_at = MAX(touched_at, ?2), placed = COALESCE(placed, ?8),
        digest = COALESCE(?7, digest)
        WHERE id = ?4 AND offset = ?5 AND epoch = ?6 AND {_OPEN}"""

    def commit(self, change: Commit, through: Through | None = None) -> Deferred[bool]:
        """See ICatalog. What may be adopted stays as `begin` said, but never below the new offset, until the next
        `begin` or the finish, which leaves nothing to adopt. ValueError for an offset that goes back."""
        self._fresh.changes(change.upload_id)
        return self.jobs.submit(CatalogJob(lambda connection: self._commit(connection, change), writes=True), through)

    def _commit(self, connection: Connection, change: Commit) -> bool:
        if change.offset < change.start:
            raise ValueError(f"a commit from {change.start} back to {change.offset}")
        values = (
            *(change.offset, change.at, change.length, change.upload_id, change.start, change.epoch),
            to_digest(change.digest, change.digest_due),
        )
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

    TOUCH = f"""UPDATE uploads SET touched_at = CASE WHEN touched_at < ?1 THEN ?1 ELSE touched_at END
        WHERE id = ?2 AND epoch = ?3 AND {_OPEN}"""

    def touch(self, upload_id: str, epoch: int, at: float) -> Deferred[bool]:
        """See ICatalog."""
        self._fresh.changes(upload_id)
        return self._touch(upload_id, epoch, at)

    @writes
    def _touch(self, connection: Connection, upload_id: str, epoch: int, at: float) -> bool:
        return connection.execute(self.TOUCH, (at, upload_id, epoch)).rowcount == 1

    def announce(self, upload_id: str, announced: str) -> Deferred[bool]:
        """See ICatalog."""
        self._fresh.changes(upload_id)
        return super().announce(upload_id, announced)

    def set_digest(self, upload_id: str, digest: str) -> Deferred[bool]:
        """See ICatalog."""
        self._fresh.changes(upload_id)
        return super().set_digest(upload_id, digest)

    # An upload may have finished since it was found idle. A file in its place is to be removed, though the data file
    # may be gone.
    END = f"""UPDATE uploads SET gone = ?1, gone_at = MAX(touched_at, ?2), settled_at = NULL,
        on_disk = MAX(on_disk, placed IS NOT NULL) WHERE id = ?3 AND gone IS NULL
        AND (?1 <> '{GoneReason.EXPIRED.value}' OR ({NEEDS_EXPIRY})) AND touched_at <= COALESCE(?4, touched_at)
        AND (?1 <> '{GoneReason.LOST.value}' OR dropped_at IS NULL)"""

    def end(
        self,
        upload_id: str,
        gone: GoneReason,
        at: float,
        facts: Sequence[Fact],
        delete: bool = False,
        refusal: Mapping[str, Any] | None = None,
        idle_since: float | None = None,
    ) -> Deferred[bool]:
        """See ICatalog."""
        self._fresh.changes(upload_id)
        return self._end(upload_id, gone, at, facts, delete, refusal, idle_since)

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
        idle_since: float | None,
    ) -> bool:
        if connection.execute(self.END, (gone.value, at, upload_id, idle_since)).rowcount != 1:
            return False
        end_replicas(connection, upload_id, delete)
        self._unmade(connection, upload_id, at, refusal)
        self.outbox.take(connection, facts)
        return True

    # Start-up

    ADOPTABLE = f"""SELECT {FIELDS} FROM uploads INDEXED BY uploads_to_expire WHERE {_OPEN}
        AND adoptable > offset AND boot_id = ? ORDER BY seq"""

    @reads_now
    def adoptable(self, connection: Connection, boot_id: str) -> Sequence[Upload]:
        """Uploads under way in that boot whose data file may hold bytes past the offset. Blocks."""
        return to_uploads(connection.execute(self.ADOPTABLE, (boot_id,)).fetchall())

    ADOPT = f"""UPDATE uploads SET offset = ?1, adoptable = ?1, touched_at = MAX(touched_at, ?2),
        finished_at = CASE WHEN length = ?1 THEN MAX(touched_at, ?2) END,
        placed = COALESCE(placed, CASE WHEN length = ?1 THEN ?4 END)
        WHERE id = ?3 AND offset < ?1 AND adoptable >= ?1 AND COALESCE(length, {LIMIT}) >= ?1 AND {_OPEN}"""

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

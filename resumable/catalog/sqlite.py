"""ICatalog on SQLite: each method becomes a job for the one thread that has the one connection.

Changes when ICatalog does. Invariant: the reactor never waits for the disk; what a Deferred answers is durable
(batches.py says how). See https://www.sqlite.org/wal.html for the mode it runs in.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.aio.threads import IBatcher
from resumable.catalog import changes, lookups, recovery
from resumable.catalog.batches import Batches, Job, T, connect
from resumable.catalog.letters import Letters
from resumable.catalog.listing import Listing
from resumable.catalog.lookups import Owned
from resumable.catalog.outbox import Outbox
from resumable.catalog.recovery import Opened
from resumable.catalog.replicas import Replicas
from resumable.catalog.schema import migrate
from resumable.catalog.space_reserve import SpaceReserve
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Asked, Commit, Fact, Gone, ICatalog, Place, Replica, Upload

IDS_AT_ONCE: Final = 10_000

AnyJob = Job[Any]
Work = Callable[[list[AnyJob]], Sequence[Any]]


def _nothing(connection: sqlite3.Connection) -> None:
    """The last job: it lets those before it be done."""


@implementer(ICatalog)
class SqliteCatalog:
    """The catalog in the file at ``path``; its log, the space reserve and what was damaged live beside it.

    ``batcher`` is called with the function that does a batch and returns the IBatcher that will call it.
    ``deliverers`` names those who want facts; without any, none is kept. ``now`` dates a damaged catalog.

    `open` first, then `adoptable`, `adopted`, `ids`, `record_lost` as the start-up needs them: these block. Then
    `start`, ICatalog's methods and those of ``replicas``, ``outbox`` and ``listing`` (IListing), then `stop`.
    """

    def __init__(
        self,
        path: str,
        *,
        batcher: Callable[[Work], IBatcher[AnyJob, Any]],
        deliverers: Sequence[str] = (),
        now: Callable[[], float] = time.time,
        connector: Callable[[str], sqlite3.Connection] = connect,
    ) -> None:
        self._path = path
        self._now_is = now
        self._reserve = SpaceReserve(recovery.beside(path, "ballast"))
        self._batches = Batches(path, self._reserve, connector)
        self.timing = self._batches.timing
        self._facts = Outbox(deliverers)
        self._seen = 0
        #: Called when a change with facts for somebody has reached the disk.
        self.on_facts: Callable[[], None] = lambda: None
        self._batcher = batcher(self._work)
        self._started = self._working = False
        self._last = Job(_nothing)
        self.replicas = Replicas(self._read, self._write, self._facts)
        self.outbox = Letters(self._read, self._write)
        self.listing = Listing(self._read)

    # Start-up and end

    def open(self) -> Opened:
        """Make or check, repair, migrate and open the catalog. Blocks; before `start` only.

        A full disk costs the space reserve. Raises CatalogUnavailable when there is no way to go on: another process has
        the catalog, a newer release made it, the directory can't be written, the disk is full.
        """
        try:
            opened = self._open()
        except CatalogUnavailable as error:
            if not (error.no_space and self._reserve.release()):
                raise
            opened = self._open()
        self._reserve.restore()
        return opened

    def _open(self) -> Opened:
        opened = recovery.ready(self._path, self._now_is())
        connection = self._batches.open()
        migrate(connection)
        self._now(Job(self._facts.purge, writes=True))
        return opened

    def adoptable(self, boot_id: str) -> list[Upload]:
        """Uploads under way in that boot whose data file may hold bytes past the offset. Blocks."""
        return self._now(Job(lambda connection: lookups.adoptable(connection, boot_id)))

    def adopted(
        self, upload_id: str, offset: int, at: float, facts: Sequence[Fact], place: Place | None = None
    ) -> bool:
        """Move the offset over synced bytes that were found, and finish the upload if that is its length. Blocks.

        False, and nothing recorded, unless ``offset`` is past the row's and within what it says may be adopted.
        """
        return self._now(Job(lambda c: changes.adopt(c, self._facts, upload_id, offset, at, facts, place), writes=True))

    def ids(self) -> Iterator[str]:
        """The id of every record, gone ones included, oldest first. Blocks while it is iterated."""
        place = 0
        while rows := self._now(Job(partial(lookups.ids, after=place, limit=IDS_AT_ONCE))):
            yield from (upload_id for _, upload_id in rows)
            place = rows[-1][0]

    def record_lost(self, upload_ids: Sequence[str], at: float) -> int:
        """Answer 410 for data files without a record: tombstones for those unknown. Blocks; answers how many."""
        return self._now(Job(lambda connection: changes.record_lost(connection, upload_ids, at), writes=True))

    def start(self) -> None:
        """Ready for ICatalog's methods from now on. Never before the process has forked for good."""
        self._started = self._working = True
        self._batcher.start()

    def stop(self) -> Deferred[None]:
        """Do what was asked, write the log back, close the connection in its thread; may be repeated.

        Where `start` was never called, as when a start-up fails midway, it closes at once.
        """
        if self._working:
            self._working = False
            self._batcher.submit(self._last)
        elif not self._started:
            self._batches.close()
            return succeed(None)
        return self._batcher.stop()

    # ICatalog

    def create(
        self,
        upload: Upload,
        facts: Sequence[Fact],
        replicas: Sequence[Replica] = (),
        request: Mapping[str, Any] | None = None,
    ) -> Deferred[bool]:
        """See ICatalog. The upload's ``required`` is counted from the replicas, whatever it says."""
        return self._write(lambda connection: changes.create(connection, self._facts, upload, facts, replicas, request))

    def get(self, upload_id: str) -> Deferred[Upload | None]:
        return self._read(lambda connection: lookups.get(connection, upload_id))

    def begin(self, upload_id: str, epoch: int, start: int, boot_id: str, adoptable: int, at: float) -> Deferred[bool]:
        """See ICatalog; ``adoptable`` below the offset counts as the offset."""
        return self._write(
            lambda connection: changes.begin(connection, upload_id, epoch, start, boot_id, adoptable, at)
        )

    def commit(self, change: Commit) -> Deferred[bool]:
        """See ICatalog. What may be adopted stays as `begin` said, but never below the new offset, until the next
        `begin` or the finish, which leaves nothing to adopt. ValueError for an offset that goes back."""
        if change.offset < change.start:
            return fail(ValueError(f"a commit from {change.start} back to {change.offset}"))
        return self._write(lambda connection: changes.commit(connection, self._facts, change))

    def end(
        self,
        upload_id: str,
        gone: Gone,
        at: float,
        facts: Sequence[Fact],
        delete: bool = False,
        refusal: Mapping[str, Any] | None = None,
    ) -> Deferred[bool]:
        return self._write(
            lambda connection: changes.end(connection, self._facts, upload_id, gone, at, facts, delete, refusal), True
        )

    def mark_lost(self, upload_id: str, at: float) -> Deferred[bool]:
        """The data file is gone or shorter than the offset: 410 from now on; False as `end`."""
        return self.end(upload_id, Gone.LOST, at, ())

    def removable(self, limit: int) -> Deferred[Sequence[str]]:
        return self._read(lambda connection: lookups.removable(connection, limit))

    def removed(self, upload_ids: Sequence[str], unplaced: Sequence[str] = ()) -> Deferred[None]:
        return self._write(lambda connection: changes.removed(connection, upload_ids, unplaced), True)

    def unplaced(self, after: str, limit: int) -> Deferred[Sequence[Upload]]:
        return self._read(lambda connection: lookups.unplaced(connection, after, limit))

    def placed(self, upload_id: str, place: Place, at: float, facts: Sequence[Fact] = ()) -> Deferred[bool]:
        return self._write(lambda connection: changes.placed(connection, self._facts, upload_id, place, at, facts))

    def expired(self, idle_since: float, limit: int) -> Deferred[Sequence[Upload]]:
        """See ICatalog. An append to a partial also touches the finals that wait for it."""
        return self._read(lambda connection: lookups.expired(connection, idle_since, limit))

    def forget(self, gone_before: float, limit: int) -> Deferred[int]:
        return self._write(lambda connection: changes.forget(connection, gone_before, limit), True)

    def spent(self, used_until: float, limit: int) -> Deferred[Sequence[Upload]]:
        return self._read(lambda connection: lookups.spent(connection, used_until, limit))

    def finals_of(self, partial_id: str, after: str, limit: int) -> Deferred[Sequence[Upload]]:
        return self._read(lambda connection: lookups.finals_of(connection, partial_id, after, limit))

    def assemblable(
        self, after: str, limit: int, partial_id: str | None = None
    ) -> Deferred[tuple[Sequence[str], str | None]]:
        return self._read(lambda connection: lookups.assemblable(connection, after, limit, partial_id))

    def asked(self, digest: str, over_since: float) -> Deferred[Asked | None]:
        return self._read(lambda connection: lookups.asked(connection, digest, over_since))

    def request(self, final_id: str) -> Deferred[Mapping[str, Any] | None]:
        return self._read(lambda connection: lookups.request(connection, final_id))

    def heard(self, digest: str) -> Deferred[None]:
        return self._write(lambda connection: changes.heard(connection, digest), True)

    def forget_asked(self, over_before: float, limit: int) -> Deferred[int]:
        return self._write(lambda connection: changes.forget_asked(connection, over_before, limit), True)

    def get_many(self, upload_ids: Sequence[str]) -> Deferred[Mapping[str, Upload]]:
        return self._read(lambda connection: lookups.get_many(connection, upload_ids))

    # Owners and space

    def owner_of(self, upload_id: str) -> Deferred[str | None]:
        """The identity that created it, gone or not; "": nobody's, None: unknown or forgotten."""
        return self._read(lambda connection: lookups.owner_of(connection, upload_id))

    def owners(self) -> Sequence[Owned]:
        """What everybody has here, each once, nobody ("") included. Blocks, and reads every record: before `start`."""
        return self._now(Job(lookups.owners))

    def check(self) -> Deferred[None]:
        """Change nothing, durably: fires when a change reaches the disk, fails as ICatalog's methods."""
        return self._write(lambda connection: connection.execute("UPDATE batches SET number = number").close())

    def release_reserve(self) -> Deferred[bool]:
        """Give back the space held for a full disk; False when it was given already. `end`, `removed`, `forget`
        and the outbox's `delivered` do so by themselves."""
        return self._read(lambda _: self._reserve.release())

    def restore_reserve(self) -> Deferred[bool]:
        """Hold space back again if there is twice as much; True when it is held."""
        return self._read(lambda _: self._reserve.restore())

    # Jobs

    def _read(self, run: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        return self._submit(Job(run))

    def _write(self, run: Callable[[sqlite3.Connection], T], frees: bool = False) -> Deferred[T]:
        done = self._submit(Job(run, writes=True, frees=frees))
        return done.addCallback(self._tell) if self._facts.wanted else done

    def _tell(self, result: T) -> T:
        if self._seen != self._facts.taken:
            self._seen = self._facts.taken
            self.on_facts()
        return result

    def _submit(self, job: Job[T]) -> Deferred[T]:
        if not self._working:
            return fail(CatalogUnavailable("the catalog is not running"))
        return self._batcher.submit(job)

    def _now(self, job: Job[T]) -> T:
        result = self._batches.run([job])[0]
        if isinstance(result, Failure):
            result.raiseException()
        answer: T = result
        return answer

    def _work(self, jobs: list[AnyJob]) -> Sequence[Any]:
        results = self._batches.run(jobs)
        if jobs[-1] is self._last:
            self._batches.close()
            results[-1] = None
        return results

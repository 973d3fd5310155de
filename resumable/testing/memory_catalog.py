"""A catalog in memory, of one shape of acknowledged bytes or another: what the tests of a spool need of one.

It keeps to the promises of `ICatalog` (those methods that it has). Changes can be lost, with or without their effect,
and can land late: ``fates`` says what becomes of the next ones. ``land`` lets late ones try. All of its work is done in
the call itself, or in the spool's where that takes a change along.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from attrs import define, evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from resumable.model.errors import CatalogUnavailable
from resumable.model.segments import REMOVED_AFTER
from resumable.model.upload import Commit, Fact, GoneReason, Replica, Segment, StoreChange, Through, Upload

Change = Callable[[], Any]


class Fate(enum.Enum):
    """What becomes of a change: it lands; it fails without effect; it lands, and nobody hears of it; it has failed, it
    seems, and may land whenever `MemoryCatalog.land` is called."""

    LANDS = "lands"
    FAILS = "fails"
    UNHEARD = "unheard"
    LATE = "late"


@define
class Row:
    """``whole``: all bytes are in one place; ``on_disk``: its data wasn't removed."""

    upload: Upload
    whole: bool = False
    on_disk: bool = True

    @property
    def open(self) -> bool:
        """Neither finished nor gone."""
        return not self.upload.finished and self.upload.gone is None


R = TypeVar("R", bound=Row)


class MemoryCatalog(Generic[R]):
    """``now`` tells the time, for what is discarded."""

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        self.rows: dict[str, R] = {}
        self.fates: deque[Fate] = deque()
        self._now = now
        self._discarded: dict[str, float] = {}
        self._late: list[Change] = []

    # -- what a shape has beside the upload

    def _new_row(self, upload: Upload) -> R:
        raise NotImplementedError

    def _record(self, row: R, change: Any, start: int, offset: int, finished: bool) -> bool:
        """What a commit says of the bytes; False, and nothing recorded: it isn't what the row knows."""
        raise NotImplementedError

    def _cleared(self, row: R) -> None:
        """Its data was removed."""
        raise NotImplementedError

    # -- of ICatalog

    def create(
        self,
        upload: Upload,
        facts: Sequence[Fact] = (),
        replicas: Sequence[Replica] = (),
        request: Mapping[str, Any] | None = None,
        through: Through | None = None,
        segment: Segment | StoreChange | None = None,
    ) -> Deferred[bool]:
        """See `ICatalog.create`."""
        return self._submit(lambda: self._create(upload, segment), through)

    def get(self, upload_id: str) -> Deferred[Upload | None]:
        """See `ICatalog.get`."""
        row = self.rows.get(upload_id)
        return succeed(None if row is None else row.upload)

    def get_many(self, upload_ids: Sequence[str]) -> Deferred[Mapping[str, Upload]]:
        """See `ICatalog.get_many`."""
        return succeed({each: self.rows[each].upload for each in upload_ids if each in self.rows})

    def begin(self, upload_id: str, epoch: int, start: int, boot_id: str, adoptable: int, at: float) -> Deferred[bool]:
        """See `ICatalog.begin`."""
        return self._submit(lambda: self._begin(upload_id, epoch, start), None)

    def commit(self, change: Commit, through: Through | None = None) -> Deferred[bool]:
        """See `ICatalog.commit`."""
        return self._submit(lambda: self._commit(change), through)

    def announce(self, upload_id: str, announced: str) -> Deferred[bool]:
        """See `ICatalog.announce`."""
        row = self.rows.get(upload_id)
        if row is None or not row.open:
            return succeed(False)
        row.upload = evolve(row.upload, announced=announced)
        return succeed(True)

    def set_digest(self, upload_id: str, digest: str) -> Deferred[bool]:
        """See `ICatalog.set_digest`."""
        row = self.rows.get(upload_id)
        if row is None or row.upload.offset != row.upload.length or row.upload.gone is not None:
            return succeed(False)
        row.upload = evolve(row.upload, digest=digest, digest_due=None)
        return succeed(True)

    def end(
        self, upload_id: str, gone: GoneReason = GoneReason.TERMINATED, at: float = 0.0, facts: Sequence[Fact] = ()
    ) -> Deferred[bool]:
        """See `ICatalog.end`."""
        row = self.rows.get(upload_id)
        if row is None or row.upload.gone is not None:
            return succeed(False)
        row.upload = evolve(row.upload, gone=gone, gone_at=self._now(), epoch=row.upload.epoch + 1)
        return succeed(True)

    def removable(self, limit: int) -> Deferred[Sequence[str]]:
        """See `ICatalog.removable`; of those that are gone."""
        until = self._now() - REMOVED_AFTER
        found = [
            upload_id
            for upload_id, row in self.rows.items()
            if row.on_disk and row.upload.gone is not None and (row.upload.gone_at or 0.0) <= until
        ]
        return succeed(found[:limit])

    def data_removed(self, upload_ids: Sequence[str]) -> Deferred[None]:
        """See `ICatalog.removed`."""
        for upload_id in upload_ids:
            self.rows[upload_id].on_disk = False
            self._cleared(self.rows[upload_id])
        return succeed(None)

    # -- how changes go

    def do(self, changes: Sequence[Any]) -> list[Any]:
        """What a spool's ``record`` is: a result or a Failure for each."""
        return [self._do(change) for change in changes]

    def land(self) -> int:
        """Let all late changes try to land; how many did."""
        late, self._late = self._late, []
        return sum(bool(change()) for change in late)

    @property
    def late(self) -> int:
        """How many changes may land yet."""
        return len(self._late)

    def _submit(self, change: Change, through: Through | None) -> Deferred[Any]:
        if through is not None:
            return through(change)
        result = self._do(change)
        return fail(result) if isinstance(result, Failure) else succeed(result)

    def _do(self, change: Change) -> Any:
        fate = self.fates.popleft() if self.fates else Fate.LANDS
        if fate is Fate.LANDS:
            try:
                return change()
            except ValueError as error:
                return Failure(error)
        if fate is Fate.UNHEARD:
            change()
        elif fate is Fate.LATE:
            self._late.append(change)
        return Failure(CatalogUnavailable("nobody knows what became of it"))

    def _create(self, upload: Upload, segment: Segment | StoreChange | None) -> bool:
        if upload.id in self.rows:
            return False
        row = self._new_row(upload)
        if not self._record(row, segment, 0, upload.offset, upload.finished):
            return False
        self.rows[upload.id] = row
        return True

    def _begin(self, upload_id: str, epoch: int, start: int) -> bool:
        row = self._matching(upload_id, epoch, start)
        if row is not None:
            row.upload = evolve(row.upload, epoch=epoch + 1)
        return row is not None

    def _matching(self, upload_id: str, epoch: int, start: int) -> R | None:
        row = self.rows.get(upload_id)
        if row is None or not row.open:
            return None
        return row if (row.upload.epoch, row.upload.offset) == (epoch, start) else None

    def _commit(self, change: Commit) -> bool:
        row = self._matching(change.upload_id, change.epoch, change.start)
        if row is None or not self._record(row, change.segment, change.start, change.offset, change.finished):
            return False
        length = row.upload.length if change.length is None else change.length
        row.upload = evolve(
            row.upload, offset=change.offset, length=length, finished_at=self._now() if change.finished else None
        )
        if change.digest is not None or change.digest_due is not None:
            row.upload = evolve(row.upload, digest=change.digest, digest_due=change.digest_due)
        return True

    # -- what no row names any more

    def discarded(self, limit: int) -> Deferred[Sequence[str]]:
        """See ISegments, and IStored."""
        until, named = self._now() - REMOVED_AFTER, self._named()
        return succeed([name for name, at in self._discarded.items() if at <= until and name not in named][:limit])

    def removed(self, names: Sequence[str]) -> Deferred[None]:
        """See ISegments, and IStored."""
        for name in names:
            self._discarded.pop(name, None)
        return succeed(None)

    def unknown(self, names: Sequence[str]) -> Deferred[Sequence[str]]:
        """See ISegments, and IStored."""
        known = self._named() | self._discarded.keys()
        return succeed([name for name in names if name not in known])

    def _named(self) -> set[str]:
        """What rows name."""
        raise NotImplementedError

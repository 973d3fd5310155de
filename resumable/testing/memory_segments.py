"""A catalog in memory of uploads whose bytes are in segments: what a segment store's tests need of one.

It keeps to the promises of `ICatalog` (those methods that it has) and `ISegments`. Changes can be lost, with or without
their effect, and can land late: ``fates`` says what becomes of the next ones. ``land`` lets late ones try. All of its
work is done in the call itself, or in the spool's where that takes a change along.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.model.errors import CatalogUnavailable
from resumable.model.segments import MOST_SEGMENTS, REMOVED_AFTER, ISegments, Layout
from resumable.model.upload import WHOLE, Commit, Fact, GoneReason, Replica, Segment, Through, Upload

Change = Callable[[], Any]


class Fate(enum.Enum):
    """What becomes of a change: it lands; it fails without effect; it lands, and nobody hears of it; it has failed, it
    seems, and may land whenever `MemoryUploads.land` is called."""

    LANDS = "lands"
    FAILS = "fails"
    UNHEARD = "unheard"
    LATE = "late"


@define
class _Row:
    upload: Upload
    whole: bool = False
    on_disk: bool = True
    segments: list[Segment] = field(factory=list)


@implementer(ISegments)
class MemoryUploads:
    """``now`` tells the time, for files that are discarded."""

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        self.rows: dict[str, _Row] = {}
        self.fates: deque[Fate] = deque()
        self._now = now
        self._discarded: dict[str, float] = {}
        self._late: list[Change] = []

    # -- of ICatalog

    def create(
        self,
        upload: Upload,
        facts: Sequence[Fact] = (),
        replicas: Sequence[Replica] = (),
        request: Mapping[str, Any] | None = None,
        through: Through | None = None,
        segment: Segment | None = None,
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

    def end(self, upload_id: str, gone: GoneReason = GoneReason.TERMINATED, at: float = 0.0) -> Deferred[bool]:
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
            self.rows[upload_id].segments.clear()
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
            return change()
        if fate is Fate.UNHEARD:
            change()
        elif fate is Fate.LATE:
            self._late.append(change)
        return Failure(CatalogUnavailable("nobody knows what became of it"))

    def _create(self, upload: Upload, segment: Segment | None) -> bool:
        if upload.id in self.rows:
            return False
        row = _Row(upload)
        if not self._record(row, segment, 0, upload.offset, upload.finished):
            return False
        self.rows[upload.id] = row
        return True

    def _begin(self, upload_id: str, epoch: int, start: int) -> bool:
        row = self._matching(upload_id, epoch, start)
        if row is not None:
            row.upload = evolve(row.upload, epoch=epoch + 1)
        return row is not None

    def _matching(self, upload_id: str, epoch: int, start: int) -> _Row | None:
        row = self.rows.get(upload_id)
        if row is None or row.upload.finished or row.upload.gone is not None:
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
        return True

    def _record(self, row: _Row, segment: Segment | None, start: int, offset: int, finished: bool) -> bool:
        """The segment of a commit; False: it isn't what the row knows."""
        if segment is None:
            return start == offset
        if segment.start + segment.size != offset:
            raise ValueError("a segment ends where its commit does")
        if segment.name == WHOLE:
            row.whole = segment.start == start == 0 and finished
            return row.whole
        last = row.segments[-1] if row.segments else None
        if segment.known:
            if last is None or (last.start, last.size, last.name) != (segment.start, segment.known, segment.name):
                return False
            row.segments.pop()
        elif segment.start != start or any(
            segment.name == each.name for other in self.rows.values() for each in other.segments
        ):
            return False
        row.segments.append(Segment(segment.start, segment.size, segment.name))
        return True

    # -- ISegments

    def of(self, upload_id: str) -> Deferred[Layout | None]:
        """See ISegments."""
        return succeed(self._layout(upload_id))

    def of_many(self, upload_ids: Sequence[str]) -> Deferred[Mapping[str, Layout]]:
        """See ISegments."""
        found = {upload_id: self._layout(upload_id) for upload_id in upload_ids}
        return succeed({upload_id: layout for upload_id, layout in found.items() if layout is not None})

    def joinable(self, after: str, limit: int) -> Deferred[Sequence[Layout]]:
        """See ISegments."""
        return succeed(self._layouts(after, limit, lambda row: row.upload.finished and not row.whole))

    def crowded(self, after: str, limit: int) -> Deferred[Sequence[Layout]]:
        """See ISegments."""
        return succeed(
            self._layouts(after, limit, lambda row: not row.upload.finished and len(row.segments) > MOST_SEGMENTS)
        )

    def kept(self, after: str, limit: int) -> Deferred[tuple[Sequence[Layout], str | None]]:
        """See ISegments."""
        page = [each for each in sorted(self.rows) if each > after][:limit]
        kept = self._layouts(after, limit, lambda row: row.upload.id in page and row.upload.offset > 0)
        return succeed((kept, page[-1] if len(page) == limit else None))

    def made_whole(self, upload_id: str) -> Deferred[bool]:
        """See ISegments."""
        row = self.rows.get(upload_id)
        if row is None or row.whole or row.upload.gone is not None or not row.on_disk or not row.upload.finished:
            return succeed(False)
        self._discard(row.segments)
        row.segments, row.whole = [], True
        return succeed(True)

    def joined(self, upload_id: str, replaced: Sequence[Segment], joined: Segment) -> Deferred[bool]:
        """See ISegments."""
        row = self.rows.get(upload_id)
        if row is None or row.upload.gone is not None or row.whole:
            return succeed(False)
        for at in range(len(row.segments) - len(replaced)):
            if row.segments[at : at + len(replaced)] == list(replaced):
                self._discard(replaced)
                row.segments[at : at + len(replaced)] = [Segment(joined.start, joined.size, joined.name)]
                return succeed(True)
        return succeed(False)

    def discarded(self, limit: int) -> Deferred[Sequence[str]]:
        """See ISegments."""
        until = self._now() - REMOVED_AFTER
        return succeed([name for name, at in self._discarded.items() if at <= until][:limit])

    def removed(self, names: Sequence[str]) -> Deferred[None]:
        """See ISegments."""
        for name in names:
            self._discarded.pop(name, None)
        return succeed(None)

    def unknown(self, names: Sequence[str]) -> Deferred[Sequence[str]]:
        """See ISegments."""
        known = {segment.name for row in self.rows.values() for segment in row.segments} | self._discarded.keys()
        return succeed([name for name in names if name not in known])

    def unknown_uploads(self, upload_ids: Sequence[str]) -> Deferred[Sequence[str]]:
        """See ISegments."""
        return succeed(
            [
                each
                for each in upload_ids
                if each not in self.rows or not self.rows[each].on_disk or not self.rows[each].whole
            ]
        )

    def _layout(self, upload_id: str) -> Layout | None:
        row = self.rows.get(upload_id)
        if row is None or not row.on_disk:
            return None
        return Layout(upload_id, row.upload.offset, row.whole, tuple(row.segments))

    def _layouts(self, after: str, limit: int, wanted: Callable[[_Row], bool]) -> list[Layout]:
        found = []
        for upload_id, row in sorted(self.rows.items()):
            layout = self._layout(upload_id)
            if upload_id > after and layout is not None and row.upload.gone is None and wanted(row):
                found.append(layout)
        return found[:limit]

    def _discard(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            self._discarded[segment.name] = self._now()

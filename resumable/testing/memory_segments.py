"""A catalog in memory of uploads whose bytes are in segments: what a segment store's tests need of one.

See `resumable.testing.memory_catalog`; and it keeps to the promises of `ISegments`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resumable.model.segments import MOST_SEGMENTS, ISegments, Layout
from resumable.model.upload import WHOLE, Segment, Upload
from resumable.testing.memory_catalog import Fate, MemoryCatalog, Row

__all__ = ["Fate", "MemoryUploads"]


@define
class _Row(Row):
    segments: list[Segment] = field(factory=list)


@implementer(ISegments)
class MemoryUploads(MemoryCatalog[_Row]):
    """See `MemoryCatalog`."""

    def _new_row(self, upload: Upload) -> _Row:
        return _Row(upload)

    def _cleared(self, row: _Row) -> None:
        row.segments.clear()

    def _record(self, row: _Row, change: Any, start: int, offset: int, finished: bool) -> bool:
        segment: Segment | None = change
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

    def _named(self) -> set[str]:
        return {segment.name for row in self.rows.values() for segment in row.segments}

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

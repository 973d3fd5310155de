"""A catalog in memory of uploads whose bytes are in an object store: what the tests of such a spool need of one.

See `resumable.testing.memory_catalog`; and it keeps to the promises of `IStored`, of which ``stored`` has the changes
and answers. What becomes of the changes of `IStored` that answer whether they landed is said by ``fates``, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resumable.model.stored import IStored, StoredLayout, check_change
from resumable.model.upload import Fact, Piece, StoreChange, StoredPart, Upload
from resumable.testing.memory_catalog import MemoryCatalog, Row


@define
class _Row(Row):
    """``pieces``: with their data."""

    multipart: str | None = None
    reserved: int = 0
    parts: list[StoredPart] = field(factory=list)
    pieces: list[Piece] = field(factory=list)
    made: Mapping[str, Any] | None = None

    @property
    def has_data(self) -> bool:
        return self.on_disk and self.upload.dropped_at is None

    @property
    def may_become_whole(self) -> bool:
        """Finished and not whole; gone only if it is a partial, which a final may need."""
        is_wanted = self.upload.gone is None or self.upload.is_partial
        return self.has_data and self.upload.finished and is_wanted and not self.whole

    def names(self) -> list[str]:
        return [part.name for part in self.parts] + [piece.name for piece in self.pieces]

    def layout(self) -> StoredLayout:
        upload = self.upload
        return StoredLayout(
            *(upload.id, upload.offset, upload.length, upload.epoch, upload.finished, upload.is_partial),
            *(upload.gone is not None, self.whole, self.multipart, self.reserved, tuple(self.parts)),
            *(tuple(evolve(piece, data=None) for piece in self.pieces), self.made),
        )

    def tail(self) -> StoredLayout:
        """With the first and the last part only."""
        layout = self.layout()
        return layout if len(layout.parts) < 3 else evolve(layout, parts=(layout.parts[0], layout.parts[-1]))


@implementer(IStored)
class MemoryStored(MemoryCatalog[_Row]):
    """See `MemoryCatalog`. ``told``: the facts of uploads that became whole."""

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(now)
        self.told: list[Fact] = []

    @property
    def stored(self) -> MemoryStored:
        """As the catalog has it: itself."""
        return self

    def _new_row(self, upload: Upload) -> _Row:
        return _Row(upload)

    def _cleared(self, row: _Row) -> None:
        row.parts.clear()
        row.pieces.clear()

    def _named(self) -> set[str]:
        return {name for row in self.rows.values() for name in row.names()}

    def _record(self, row: _Row, change: Any, start: int, offset: int, finished: bool) -> bool:
        if change is None:
            return start == offset
        check_change(change, start, offset, finished)
        if change.made is not None:
            self._make_whole(row, change.made)
            row.reserved = row.reserved if change.reserved is None else change.reserved
            return True
        return self._store(row, change, offset)

    def _store(self, row: _Row, change: StoreChange, offset: int) -> bool:
        """Parts and piece of a change; all bytes are then in parts or pieces without a gap, else False."""
        parts = [*row.parts, *change.parts]
        new: list[StoredPart | Piece] = [*change.parts]
        new += () if change.piece is None else (change.piece,)
        if change.multipart is not None and row.multipart not in (None, change.multipart):
            return False
        if self._named() & {each.name for each in new}:
            raise ValueError("a name is written once")
        end = change.parts[-1].start + change.parts[-1].size if change.parts else 0
        pieces = [piece for piece in row.pieces if piece.start >= end]
        dropped = [piece for piece in row.pieces if piece.start < end]
        pieces += () if change.piece is None else (change.piece,)
        at = 0
        for start, size in [(each.start, each.size) for each in parts] + [(each.start, each.size) for each in pieces]:
            if start != at:
                return False
            at += size
        if at != offset:
            return False
        row.parts, row.pieces = parts, pieces
        row.reserved = row.reserved if change.reserved is None else change.reserved
        row.multipart = row.multipart or change.multipart
        self._discard([each.name for each in dropped])
        return True

    def _make_whole(self, row: _Row, made: Mapping[str, Any]) -> None:
        self._discard(row.names())
        self._cleared(row)
        row.whole, row.made = True, dict(made)

    def _discard(self, names: Sequence[str]) -> None:
        for name in names:
            if name.startswith("."):
                self._discarded[name] = self._now()

    # -- IStored

    def of(self, upload_id: str) -> Deferred[StoredLayout | None]:
        """See IStored."""
        row = self.rows.get(upload_id)
        return succeed(row.layout() if row is not None and row.has_data else None)

    def tail_of(self, upload_id: str) -> Deferred[StoredLayout | None]:
        """See IStored."""
        return self.tails_of([upload_id]).addCallback(lambda found: found.get(upload_id))

    def of_many(self, upload_ids: Sequence[str]) -> Deferred[Mapping[str, StoredLayout]]:
        """See IStored."""
        rows = {each: self.rows[each] for each in upload_ids if each in self.rows}
        return succeed({upload_id: row.layout() for upload_id, row in rows.items() if row.has_data})

    def tails_of(self, upload_ids: Sequence[str]) -> Deferred[Mapping[str, StoredLayout]]:
        """See IStored."""
        rows = {each: self.rows[each] for each in upload_ids if each in self.rows}
        return succeed({upload_id: row.tail() for upload_id, row in rows.items() if row.has_data})

    def data_of(self, upload_id: str, names: Sequence[str]) -> Deferred[Mapping[str, bytes]]:
        """See IStored."""
        row = self.rows.get(upload_id)
        pieces = () if row is None else row.pieces
        return succeed({each.name: each.data for each in pieces if each.name in names and each.data is not None})

    def keep_multipart(self, upload_id: str, epoch: int, multipart: str) -> Deferred[bool]:
        """See IStored."""

        def keep() -> bool:
            row = self._storing(upload_id, epoch)
            if row is None or row.multipart is not None:
                return False
            row.multipart = multipart
            return True

        return self._submit(keep, None)

    def reserve(self, upload_id: str, epoch: int, reserved: int) -> Deferred[bool]:
        """See IStored."""
        return self._reserve(upload_id, epoch, reserved, lambda row: reserved > row.reserved)

    def unreserve(self, upload_id: str, epoch: int, reserved: int) -> Deferred[bool]:
        """See IStored."""
        return self._reserve(
            upload_id, epoch, reserved, lambda row: reserved < row.reserved and not row.upload.finished
        )

    def _reserve(self, upload_id: str, epoch: int, reserved: int, fits: Callable[[_Row], bool]) -> Deferred[bool]:
        def move() -> bool:
            row = self._storing(upload_id, epoch)
            if row is None or not fits(row):
                return False
            row.reserved = reserved
            return True

        return self._submit(move, None)

    def _storing(self, upload_id: str, epoch: int) -> _Row | None:
        row = self.rows.get(upload_id)
        if row is None or row.whole or not (row.upload.gone is None or row.upload.is_partial) or not row.has_data:
            return None
        return row if row.upload.epoch == epoch else None

    def completable(self, after: str, limit: int) -> Deferred[Sequence[str]]:
        """See IStored."""
        found = [
            upload_id
            for upload_id, row in sorted(self.rows.items())
            if upload_id > after and row.may_become_whole and row.upload.gone is None
        ]
        return succeed(found[:limit])

    def completed(
        self, upload_id: str, made: Mapping[str, Any], at: float, facts: Sequence[Fact] = ()
    ) -> Deferred[bool]:
        """See IStored."""

        def complete() -> bool:
            row = self.rows.get(upload_id)
            if row is None or not row.may_become_whole:
                return False
            self._make_whole(row, made)
            self.told += facts
            return True

        return self._submit(complete, None)

    def add_last(self, upload_id: str, epoch: int, change: StoreChange) -> Deferred[bool]:
        """See IStored."""

        def add() -> bool:
            row = self._storing(upload_id, epoch)
            if row is None or not row.may_become_whole:
                return False
            if change.piece is not None or change.made is not None or not change.parts:
                raise ValueError("only parts are made of a tail")
            check_change(change, row.upload.offset, row.upload.offset, True)
            return self._store(row, evolve(change, reserved=max(row.reserved, change.reserved or 0)), row.upload.offset)

        return self._submit(add, None)

    def discard(self, names: Sequence[str]) -> Deferred[None]:
        """See IStored."""
        self._discard(names)
        return succeed(None)

"""Acknowledged bytes in an object store: the catalog's record of an upload's parts, and of the tail behind them.

Invariants: an upload's parts follow each other without a gap from 0 on, and the pieces of its tail follow the last part
up to the committed offset; or the upload is whole: its object is there. What has a name is written by one worker only,
under a name that nobody else ever writes. An object goes only `REMOVED_AFTER` seconds after the last row that named it.
Sizes and offsets are bytes, times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.model.upload import Fact, Piece, StoreChange, StoredPart

MOST_IN_ROW: Final = 256 * 1024
"""A piece of at most so many bytes is in its row, a larger one in an object. More bytes burden the database, fewer make
more requests to the store."""
RESERVED: Final = 16
"""Part numbers that an append reserves at a time, ahead of those that it sends. Numbers under which a part may still
come late are lost for the upload: more are lost with each death, fewer hold up parts that are sent side by side."""


@frozen
class StoredLayout:
    """Where an upload's committed bytes are; pieces come without their data.

    ``multipart``: the store's handle, None: none was begun. ``reserved``: the highest part number that may have been
    used. ``whole``: the object of all bytes is there, and ``made`` says what the store said of it. ``finished``,
    ``is_partial``, ``gone``: as of the upload.
    """

    upload_id: str
    offset: int
    length: int | None
    epoch: int
    finished: bool = False
    is_partial: bool = False
    gone: bool = False
    whole: bool = False
    multipart: str | None = None
    reserved: int = 0
    parts: Sequence[StoredPart] = ()
    pieces: Sequence[Piece] = ()
    made: Mapping[str, Any] | None = None

    @property
    def parts_end(self) -> int:
        """The offset behind the last part, where the tail begins."""
        return self.parts[-1].start + self.parts[-1].size if self.parts else 0


class IStored(Interface):
    """The parts and tails of all uploads. Every method answers with a Deferred; all fail with CatalogUnavailable.

    Of a partial that is gone, and that a final needs, is said here what is said of one that isn't gone.

    What an append does is recorded by `ICatalog.create` and `ICatalog.commit`; the rest of the life of parts and pieces
    is here.
    """

    def of(upload_id: str) -> Deferred[StoredLayout | None]:
        """Where its bytes are, also of one that is gone; None: it is unknown, or its data was removed or dropped."""

    def tail_of(upload_id: str) -> Deferred[StoredLayout | None]:
        """The same with the first and the last part only (one, if they are the same): an upload may have thousands."""

    def of_many(upload_ids: Sequence[str]) -> Deferred[Mapping[str, StoredLayout]]:
        """As `of`, those that are known and have data."""

    def tails_of(upload_ids: Sequence[str]) -> Deferred[Mapping[str, StoredLayout]]:
        """As `tail_of`, those that are known and have data."""

    def data_of(upload_id: str, names: Sequence[str]) -> Deferred[Mapping[str, bytes]]:
        """The bytes of those pieces of these names that are in rows."""

    def keep_multipart(upload_id: str, epoch: int, multipart: str) -> Deferred[bool]:
        """The multipart was begun for this upload. False, and nothing recorded: it has one, has another epoch, is whole
        or gone. The epoch of a finished upload doesn't change any more."""

    def reserve(upload_id: str, epoch: int, reserved: int) -> Deferred[bool]:
        """Move ``reserved`` ahead to this number. False: the row has another epoch, is whole or gone, or that is not
        ahead. Of several who reserve for a finished upload one gets each number."""

    def unreserve(upload_id: str, epoch: int, reserved: int) -> Deferred[bool]:
        """Move ``reserved`` back to this number: nothing that was sent under those behind it may still come. False: the
        row has another epoch, is finished or gone, or that is not back."""

    def completable(after: str, limit: int) -> Deferred[Sequence[str]]:
        """Ids of finished uploads, not gone and not dropped, that aren't whole; in order, those behind ``after``."""

    def completed(upload_id: str, made: Mapping[str, Any], at: float, facts: Sequence[Fact] = ()) -> Deferred[bool]:
        """The object is there; the rows of parts and pieces go, and their objects are discarded. False: it is gone or
        unfinished, or was whole already. ``facts``: to be told with it."""

    def add_last(upload_id: str, epoch: int, change: StoreChange) -> Deferred[bool]:
        """Record new parts of a finished upload that isn't whole, made from its tail. False, and nothing recorded:
        the parts don't follow its last part, or it is gone or whole."""

    def discarded(limit: int) -> Deferred[Sequence[str]]:
        """Names of objects that no row names, discarded `REMOVED_AFTER` seconds ago or earlier by the catalog's
        clock."""

    def discard(names: Sequence[str]) -> Deferred[None]:
        """Objects of these names are to be removed, unless a row names them; for objects that nobody may record."""

    def removed(names: Sequence[str]) -> Deferred[None]:
        """The objects of these names, answers of `discarded`, are gone from the store."""

    def unknown(names: Sequence[str]) -> Deferred[Sequence[str]]:
        """Those of the names that neither a part nor a piece has, and that aren't discarded either."""


def check_change(change: StoreChange, start: int, offset: int, finished: bool) -> None:
    """Raises ValueError for what can't be of a commit from ``start`` to ``offset``, whatever the row has."""
    parts, piece = change.parts, change.piece
    if change.made is not None:
        if parts or piece is not None or not finished:
            raise ValueError("an object of all bytes is of a finished upload, without parts and piece")
        return
    end = parts[0].start if parts else None
    for part in parts:
        if part.start != end or part.size <= 0:
            raise ValueError(f"the part {part} doesn't follow, or has no bytes")
        end += part.size
    if piece is None:
        if (offset > start and end != offset) or (end or 0) > offset:
            raise ValueError(f"the parts end at {end}, not at {offset}")
        return
    if piece.size <= 0 or piece.start + piece.size != offset or piece.start not in (start, end):
        raise ValueError(f"the piece of {piece.size} bytes at {piece.start} isn't the last of those to {offset}")
    if (piece.data is not None) != piece.in_row or (piece.data is not None and len(piece.data) != piece.size):
        raise ValueError(f"the bytes of the piece {piece.name} belong into its row, or its object")

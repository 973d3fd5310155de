"""Segments: the catalog's record of the files that hold an upload's bytes, where several processes share the uploads.

Invariants: the segments of an upload follow each other without a gap or an overlap, from 0 to the committed offset, or
the upload is whole; what is counted of a segment only grows; a file is removed only `REMOVED_AFTER` seconds after the
last row that named it. Sizes are bytes, times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.model.upload import Segment, StoreChange, Upload

REMOVED_AFTER: Final = 60.0
"""Seconds that a file stays when no row names it any more: readers that looked before may still open it."""
MOST_SEGMENTS: Final = 64
"""An unfinished upload with more of them gets some of them joined."""


@frozen
class Layout:
    """Where an upload's committed bytes are: ``whole``, in the file under its id, or in ``segments``, by their starts.

    ``offset``: the committed offset then.
    """

    upload_id: str
    offset: int
    whole: bool = False
    segments: Sequence[Segment] = ()


class ISegments(Interface):
    """The segments of all uploads. Every method answers with a Deferred; all fail with CatalogUnavailable as ICatalog.

    A segment is recorded by `ICatalog.create` and `ICatalog.commit`; the rest of its life is here.
    """

    def of(upload_id: str) -> Deferred[Layout | None]:
        """Where its bytes are; None: it is unknown, or its data was removed."""

    def of_many(upload_ids: Sequence[str]) -> Deferred[Mapping[str, Layout]]:
        """The same of those that are known and have data."""

    def joinable(after: str, limit: int) -> Deferred[Sequence[Layout]]:
        """Finished uploads, not gone and not dropped, that aren't whole; by id, those behind ``after``."""

    def crowded(after: str, limit: int) -> Deferred[Sequence[Layout]]:
        """Unfinished uploads, not gone, with more than `MOST_SEGMENTS` segments; by id, those behind ``after``."""

    def kept(after: str, limit: int) -> Deferred[tuple[Sequence[Layout], str | None]]:
        """Of the next ``limit`` uploads by id, those behind ``after``, the ones with bytes that are neither gone nor
        dropped; and the last id that was looked at, None: there are no more."""

    def made_whole(upload_id: str) -> Deferred[bool]:
        """The file under its id has all its bytes, durably; its segments are discarded. False: it is gone, or it was
        whole already."""

    def joined(upload_id: str, replaced: Sequence[Segment], joined: Segment) -> Deferred[bool]:
        """``joined`` has the bytes of all of ``replaced``, which are discarded. False, and nothing recorded, unless
        each of these is there with just that size, they follow each other, and the upload's last isn't among them."""

    def discarded(limit: int) -> Deferred[Sequence[str]]:
        """Names of files that no row names, discarded `REMOVED_AFTER` seconds ago or earlier by the catalog's
        clock."""

    def removed(names: Sequence[str]) -> Deferred[None]:
        """The files of these names, answers of `discarded`, are no longer on disk."""

    def unknown(names: Sequence[str]) -> Deferred[Sequence[str]]:
        """Those of the names that no segment has, and that aren't discarded either."""

    def unknown_uploads(upload_ids: Sequence[str]) -> Deferred[Sequence[str]]:
        """Those of the ids whose file under the id is nobody's: unknown, removed, or not whole."""


class IAppendSide(Protocol):
    """An append, as the writer of its bytes sees it."""

    @property
    def committable(self) -> int:
        """The offset up to which commits may go while the end of the body hasn't been seen."""

    @property
    def verifies(self) -> bool:
        """Whether nothing may be committed before the body's end, when it is compared with a checksum."""

    @property
    def withholds(self) -> bool:
        """Whether a hook is asked before the upload is finished: until then its last byte has to be readable."""

    @property
    def is_busy(self) -> bool:
        """Whether a commit or the like is under way."""

    def commit_soon(self) -> None:
        """Commit all that was received, in the background."""

    def confirmed(self) -> None:
        """More bytes are where a commit needs them."""


class ISegmentWriter(Protocol):
    """Where one append's bytes go, as the catalog is to know it, where several processes share the uploads.

    Segments of a directory, or parts and pieces of an object store: a change of the catalog has a `Segment` or a
    `StoreChange`.
    """

    @property
    def small(self) -> int | None:
        """A body up to this size is gathered in memory, and needs only its commit; None: as the use cases have it."""

    def attach(self, upload: Upload, length: int | None, is_new: bool, append: IAppendSide) -> None:
        """The append begins. ``length``: the upload's by this append. ``is_new``: the upload's id was drawn for it, and
        the catalog has no record yet."""

    def detach(self) -> None:
        """The append is over."""

    def takes_first(self, offset: int) -> Deferred[bool]:
        """Whether bytes gathered in memory, up to this offset, may be written only once the append has opened."""

    def gathered(self, chunks: Sequence[bytes], start: int, finishes: bool) -> Deferred[None]:
        """Bytes gathered in memory, from ``start`` on, are about to be committed; ``finishes``: with that the upload is
        finished."""

    def to(self, start: int, offset: int, alone: bool, last: bool) -> Segment | StoreChange | None:
        """What a commit that goes from ``start`` to ``offset`` records; None: nothing.

        ``alone``: the commit finishes the upload, whose bytes are all written by one `put`. ``last``: of the append.
        """

    def landed(self, segment: Any) -> None:
        """The commit with this answer of `to` has landed."""

    def refused(self, segment: Any) -> None:
        """The catalog has answered the commit with this answer of `to`, and has recorded nothing of it."""

    def taken(self) -> None:
        """There was a file under the upload's id: `to` answers with another from now on."""

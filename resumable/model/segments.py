"""Segments: the catalog's record of the files that hold an upload's bytes, where several processes share the uploads.

Invariants: the segments of an upload follow each other without a gap or an overlap, from 0 to the committed offset, or
the upload is whole; what is counted of a segment only grows; a file is removed only `REMOVED_AFTER` seconds after the
last row that named it. Sizes are bytes, times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.model.upload import Segment

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


class ISegmentWriter(Protocol):
    """The file that one append writes, as the catalog is to know it, where several processes share the uploads."""

    def to(self, start: int, offset: int, alone: bool) -> Segment | None:
        """The segment for a commit that goes from ``start`` to ``offset``; None: it needs none.

        ``alone``: the commit finishes the upload, whose bytes are all written by one `put`.
        """

    def landed(self, segment: Segment) -> None:
        """The commit with this segment has landed."""

    def refused(self, segment: Segment) -> None:
        """The catalog has answered the commit with this segment, and has recorded nothing of it."""

    def taken(self) -> None:
        """There was a file under the upload's id: `to` answers with another from now on."""

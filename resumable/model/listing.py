"""Lists and counts of all uploads: the questions of operators to the catalog, which it answers piece by piece.

Invariants: one answer looks at a bounded number of rows, however many there are, so that commits never wait long for
it. A place is the position of a row in the order of creation: although rows come and go meanwhile, no row is seen
twice, and none that stays is missed. Times are seconds since the epoch, sizes are bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.model.upload import Replica, ReplicaState, Upload


class UploadState(enum.Enum):
    """UPLOADING: bytes are missing. ASSEMBLING: a final upload that isn't made yet. FINISHED: all bytes are here.
    STORED: every required remote has them, too. GONE: terminated, expired or lost, and still remembered."""

    UPLOADING = "uploading"
    ASSEMBLING = "assembling"
    FINISHED = "finished"
    STORED = "stored"
    GONE = "gone"


PRESENT: Final = frozenset(UploadState) - {UploadState.GONE}


def state_of(upload: Upload) -> UploadState:
    """The state that the upload is in."""
    if upload.gone is not None:
        return UploadState.GONE
    if upload.stored_at is not None:
        return UploadState.STORED
    if upload.finished:
        return UploadState.FINISHED
    return UploadState.ASSEMBLING if upload.is_final else UploadState.UPLOADING


@frozen
class Filter:
    """Uploads in one of these states that also match each field that isn't None.

    ``owner``: "" is nobody. ``remote``: there is a replica in it. ``replica``: a replica (in that remote) is in this
    state. ``..._after`` is from that time on, ``..._before`` is before it. ``idle_since``: not touched since.
    ``min_size`` is compared with the length, or with the offset while the length isn't known. ``id_prefix``: the id
    begins with it (ASCII, not empty).
    """

    states: frozenset[UploadState] = PRESENT
    owner: str | None = None
    remote: str | None = None
    replica: ReplicaState | None = None
    created_after: float | None = None
    created_before: float | None = None
    finished_after: float | None = None
    finished_before: float | None = None
    idle_since: float | None = None
    min_size: int | None = None
    id_prefix: str | None = None


@frozen
class Found:
    """Uploads with their replicas, in the wanted order. ``place``: where to go on; None: there are no more."""

    uploads: Sequence[tuple[Upload, Sequence[Replica]]]
    place: int | None


@frozen
class Counted:
    """How many rows of this piece are in each state: of uploads, or of replicas by remote. ``place``: see Found."""

    uploads: Mapping[UploadState, int] = field(factory=dict)
    replicas: Mapping[tuple[str, ReplicaState], int] = field(factory=dict)
    place: int | None = None


@frozen
class Parked:
    """Ids of uploads with parked replicas. ``place``: see Found."""

    upload_ids: Sequence[str]
    place: int | None


class IListing(Interface):
    """Pages of uploads. Every method returns a Deferred, which fails with CatalogUnavailable as those of ICatalog do.

    It reads at most `catalog.upload_listing.ROWS` rows after ``place`` (None: from the first row on).
    """

    def look(wanted: Filter, place: int | None, limit: int, newest: bool = False) -> Deferred[Found]:
        """Uploads that match, ``limit`` at most; oldest first, or newest."""

    def count_uploads(place: int | None) -> Deferred[Counted]:
        """How many of the next uploads are in each state."""

    def count_replicas(place: int | None) -> Deferred[Counted]:
        """How many of the next replicas are in each remote and state."""

    def parked(remote: str, place: int | None) -> Deferred[Parked]:
        """The next uploads whose replica in this remote is parked."""

    def unfinished() -> Deferred[int]:
        """How many uploads are UPLOADING or ASSEMBLING, or are partials that a final may be made of. Reads only their
        entries in an index."""

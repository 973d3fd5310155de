"""The spool as the use cases see it: whether an upload has one data file or several segments is behind this.

Protocols, as these methods are typed by what they answer with. Sizes and offsets are bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from resumable.model.replica import ICopy
from resumable.model.upload import Segment, StoreChange, Through, Upload
from resumable.spool.datafile import RunningDigest
from resumable.spool.placing import PlaceDirectory, Rules
from resumable.spool.reader import Reader
from resumable.spool.sink import Sink


class IAssembly(Protocol):
    """See `resumable.spool.assembly.Assembly`. ``segment``: for the commit that finishes the final, once `name` has
    fired."""

    length: int
    copied: int
    complete: bool

    @property
    def segment(self) -> Segment | StoreChange | None:
        """What the commit records; None: nothing but the offset."""

    @property
    def steps_left(self) -> int:
        """The whole steps that are to come after the next one."""

    def next_size(self, shared: bool) -> int:
        """The bytes of the next step; ``shared``: while others want to copy as well."""

    def look(self) -> Deferred[None]:
        """Look for what an earlier run has left, and for the sources. Fails with OSError."""

    def copy(self, size: int) -> Deferred[None]:
        """Copy one step's bytes, `next_size` of them. Fails with OSError, SpoolDamaged."""

    def name(self) -> Deferred[None]:
        """All is copied: the final may be committed when this fires."""

    def discard(self) -> Deferred[None]:
        """Give the copy up. No commit that names it has landed, nor will."""


class IStoredFile(Protocol):
    """The object that is the file of a finished upload."""

    @property
    def digest(self) -> str | None:
        """The value for Repr-Digest, where the store has confirmed one."""

    def open_copy(self, upload_id: str, start: int, size: int) -> Deferred[ICopy]:
        """See IReplication."""

    def signed_url(self, upload_id: str, content_type: str, disposition: str, lifetime: float) -> Deferred[str | None]:
        """See IReplication."""


class IStoredFiles(Protocol):
    """The objects of all finished uploads."""

    def find(self, upload: Upload, seconds: float) -> Deferred[IStoredFile | None]:
        """The object of this finished upload; None: it isn't there yet, also after so many seconds."""


class ISpool(Protocol):
    """The upload directory. `resumable.spool.Spool` and `resumable.spool.segments.SegmentSpool` are the two shapes."""

    def start(self) -> None:
        """Make the directories that are missing and begin to work. Blocks; raises OSError."""

    def stop(self) -> Deferred[None]:
        """Fires when every `put` has been answered. Sinks and readers are their users' to close."""

    def path(self, upload_id: str) -> str:
        """Where a finished upload's file lies. Raises ValueError for an invalid id."""

    def through(
        self, upload_id: str, offset: int, chunks: Sequence[bytes], segment: Any = None, is_new: bool = False
    ) -> Through | None:
        """How a small append is written in one go, and its change of the catalog recorded after that. None: its bytes
        are there by now, or go with the change.

        ``segment``: what the sink's `segments` says of it. ``is_new``: the upload's id was drawn for this, and the
        change makes its record: if that is refused for good, the bytes may go. Fails with OSError, SpoolDamaged; then
        nothing is recorded. FileExistsError: the segment can't be taken, see `ISegmentWriter.taken`.
        """

    def sink(self, upload_id: str, offset: int, *, ceiling: int | None, digest: RunningDigest | None = None) -> Sink:
        """A queue for the upload's bytes from ``offset`` on. It takes no byte at or past the offset ``ceiling``.

        ``digest`` is fed with the written bytes, in order, in a thread.
        """

    def check(self, upload: Upload) -> Deferred[None]:
        """Fails with SpoolDamaged if the committed bytes of this upload are known to be missing; OSError."""

    def read(self, upload_id: str, offset: int, size: int) -> Deferred[bytes]:
        """Up to ``size`` bytes, fewer only at the end. Fails with OSError."""

    def reader(self, upload_id: str) -> Deferred[Reader]:
        """The upload's bytes, for many reads; whoever gets it closes it. Fails with OSError; FileNotFoundError: its
        data isn't here."""

    def free(self) -> Deferred[int]:
        """Bytes that may still be written to the file system."""

    def remove(self, upload_ids: Sequence[str]) -> Deferred[Mapping[str, OSError]]:
        """Remove the data of these uploads; durable when it fires. Answers why some of it can't be removed now, by id:
        that keeps no other. Fails with OSError where none of it can."""

    def discard(self, upload_id: str) -> Deferred[None]:
        """A creation has failed, and the catalog had no record of it a moment ago: remove what nobody will miss. Fails
        with OSError."""

    def assembly(self, final_id: str, sources: Sequence[tuple[str, int]]) -> IAssembly:
        """Copying of the sources, (upload id, length) in order, into the file of ``final_id``. One for a final at a
        time."""

    def whole(self, upload_ids: Sequence[str]) -> Deferred[Collection[str]]:
        """Those of these finished uploads whose bytes are all in the file under the id."""

    def places(self, root: str, rules: Rules) -> PlaceDirectory:
        """The directory ``root``, on the same file system, for finished files. Its methods block."""

    def opened(self, fd: int, size: int) -> Reader:
        """A reader of a file that is open."""

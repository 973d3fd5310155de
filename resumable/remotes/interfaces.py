"""The interfaces of a remote: five operations, and a few more that some have.

`resumable.testing.contract` tests every promise made here; docs/writing-a-backend.md shows a backend from end to end.

Invariant: a backend needs nothing that is only in memory. It saves in its journal whatever must outlive the process,
and its next step before it asks the store, so that a crash at any point leaves a record of
everything that may be in the store.

Every method answers with a Deferred and never blocks. Failures are `RemoteError`; its subclasses say what to do
(resumable/remotes/errors.py). ValueError: the caller broke the contract. An error of ``data.read`` comes through
unchanged, as it isn't the remote's fault. Whether a call that failed, was cancelled or whose answer was lost has had
its effect is unknown: all five may be repeated, in this process or the next. Cancelling a Deferred gives the call up as
soon as possible. The caller makes one call at a time for one upload, except for the calls that `IPartRemote` allows;
uploads are independent. Sizes and offsets are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, fields, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from resumable.remotes.errors import (
    AuthFailed,
    Conflict,
    NotThere,
    OutOfStep,
    Permanent,
    RemoteError,
    Throttled,
    Transient,
    Unusable,
)
from resumable.remotes.plan import Part, Plan

__all__ = [
    "AuthFailed",
    "Conflict",
    "IClosable",
    "IContent",
    "IDeletable",
    "IJournal",
    "IKeyed",
    "ILoan",
    "IPartJournal",
    "IPartRemote",
    "IPlanned",
    "IProbe",
    "IRegion",
    "IRemoteStorage",
    "ISweeper",
    "IWholeRemote",
    "Intent",
    "NotThere",
    "OutOfStep",
    "Part",
    "Permanent",
    "Plan",
    "RegionLost",
    "RemoteError",
    "Stored",
    "Throttled",
    "Transient",
    "Unfinished",
    "Unusable",
]


class RegionLost(Exception):
    """The spool has fewer bytes than it committed."""


@frozen
class Stored:
    """An object that a remote has for good.

    ``location`` is a URL for people, without secrets (``s3://bucket/key``). ``etag`` is the store's, opaque, in
    quotes or not as the store gave it. ``checksum`` is ``algorithm:value`` as the store confirmed it.
    """

    location: str
    key: str
    size: int
    etag: str | None = None
    version: str | None = None
    checksum: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return {each.name: getattr(self, each.name) for each in fields(Stored)}


@frozen
class Intent:
    """What is fixed before the store is asked to make an object: its ``key``, and the ``record`` that the journal has
    until the object is there. ``own``: that record as the backend has it in memory.
    """

    key: str
    record: Mapping[str, Any]
    own: Any = field(eq=False, repr=False)


@frozen
class Unfinished:
    """Something in the store that was begun and not finished.

    ``handle`` is the store's own name for it. ``upload_id`` is known only where the store can tell it.
    ``started_at`` is in seconds since the epoch, None where the store doesn't tell.
    """

    key: str
    handle: str
    started_at: float | None = None
    upload_id: str | None = None


class IContent(Interface):
    """Bytes that a request is made of."""

    size = Attribute("int: how many bytes it has")

    def read(offset: int, size: int) -> Deferred[bytes]:
        """Exactly the ``size`` bytes from ``offset`` on (0 is its first byte).

        Fails with RegionLost, OSError; ValueError for bytes that do not lie in it. Ask for at most 256 KiB.
        """


class IRegion(IContent):
    """A stretch of an upload's spool file. It may be read again and again, for retries, and by several readers."""

    def scan(offset: int, size: int, feed: Callable[[bytes], object]) -> Deferred[None]:
        """Give ``feed`` these bytes piece by piece, in order, in the thread that reads them: for digests.

        Fails as `read`, and with the errors of ``feed``. Ask for at most 1 MiB.
        """

    def lend() -> ILoan:
        """The same bytes for a thread of the backend's own, which reads them itself. ValueError once it is closed."""


class ILoan(Interface):
    """A region that a thread reads without the reactor. The spool keeps its file open until it is given back."""

    def read(offset: int, size: int) -> bytes:
        """As `IContent.read`, but blocks, and raises as that fails. For one thread at a time."""

    def give_back() -> None:
        """To be called in the reactor, once no thread reads; nothing is read after it. May be repeated."""


class IJournal(Interface):
    """A backend's durable records, one for each upload. One journal belongs to one remote."""

    def load(upload_id: str) -> Deferred[dict[str, Any] | None]:
        """The record saved last, as a value of its own that may be changed; None: nothing was."""

    def save(upload_id: str, value: Mapping[str, Any]) -> Deferred[None]:
        """Remember ``value``, whose JSON is some KiB at most, instead of the older one. Durable when it fires."""


class IPartJournal(IJournal):
    """A journal that also keeps one short string for each part, so that 10,000 of them aren't saved 10,000 times.

    Journals given to backends by the service provide this.
    """

    def save_part(upload_id: str, number: int, value: str) -> Deferred[None]:
        """Remember ``value`` (an ETag, a checksum) for part ``number``. Durable when it fires."""

    def load_parts(upload_id: str) -> Deferred[dict[int, str]]:
        """The record of each part."""

    def drop_parts(upload_id: str) -> Deferred[None]:
        """Forget the parts: the multipart they belonged to is over."""


class IRemoteStorage(Interface):
    """A store that takes uploads. The life of a replica is initiate, write..., finalize; or abort at any point."""

    def initiate_upload(upload_id: str, size: int | None, metadata: Mapping[str, bytes]) -> Deferred[str]:
        """Get ready for an upload of ``size`` bytes; None while the length is deferred. Answers the object's key.

        Idempotent: repeated for an upload that is under way or stored it changes nothing and answers the same key.
        Once the length is known it is called again with it, before the last chunk is written; a size that differs
        from one given earlier is a ValueError. Key and part plan are fixed and saved in the journal by the first call,
        before the store is asked; it need not ask the store at all. After `abort_upload` it begins anew.

        ``metadata`` is that of the upload: keys and decoded values. Permanent: the store can't hold that size.
        """

    def write_chunk(upload_id: str, offset: int, data: IRegion, size: int) -> Deferred[None]:
        """Write ``data``, of ``size`` bytes, at ``offset`` of the object. Fires when the store has confirmed them all.

        ``size`` equals ``data.size``. Chunks come in order, each at most at `get_upload_progress`; bytes that are
        confirmed already may be written again, and are the same. A chunk further on fails with OutOfStep. Bytes past
        the declared size are a ValueError. On failure any leading part of the chunk may be there.

        A chunk that is the whole object (offset 0, and its size is the declared one) comes only once the upload is
        finished: it may make the object visible. So may the last one of a plan that is ``closing``. Every other must
        not, before `finalize_upload`.
        NotThere: initiate first. Memory is bounded by the bytes in flight, not by ``size``.
        """

    def finalize_upload(upload_id: str) -> Deferred[Stored]:
        """Make the object visible, whole, exactly once. Called only after all bytes have been confirmed.

        An upload of no bytes is finalised without a chunk, or with an empty one. Idempotent: repeated after success,
        also in another process, it answers an equal Stored and stores nothing. After a lost answer it finds out
        whether the object is there and is this upload's before it does anything twice. OutOfStep: bytes are
        missing, or the size was never given. NotThere: initiate, and write all again. Conflict: see there.
        """

    def abort_upload(upload_id: str) -> Deferred[None]:
        """Remove the unfinished parts of the upload from the store. Never removes an object that was finalised.

        Idempotent; does nothing for an upload that was never initiated. When it has fired, nothing unfinished of
        the upload is left in the store. Repeated after that, it removes what another process has begun late.
        """

    def get_upload_progress(upload_id: str) -> Deferred[int]:
        """How many bytes, from the first on without a gap, the store has confirmed. The truth after a restart.

        The size of the object once it is finalised. Never more than the store would still have after losing its
        power, if the store promises that at all. NotThere: never initiated, aborted, or the store has lost it.
        """


class IKeyed(IRemoteStorage):
    """A remote in which an upload can be given a key. Without this, it has that of the remote's own making."""

    def initiate_upload(
        upload_id: str, size: int | None, metadata: Mapping[str, bytes], key: str | None = None
    ) -> Deferred[str]:
        """``key``: the object's, as it is, relative and safe as `resumable.model.keys` makes them; None: the remote
        makes one.

        Counts for the first call only, as anything else that it fixes. It may be another object's, or be given to
        several uploads: then it is as with any key that doesn't have the upload's id in it.
        """


class IWholeRemote(IKeyed):
    """A remote that makes a small object with one request, and nothing before it.

    Its journal needs no save of its own then: its caller saves the first record with the new upload, and the last one
    with the outcome.
    """

    def intend(upload_id: str, size: int, metadata: Mapping[str, bytes], key: str | None = None) -> Intent | None:
        """What `initiate_upload` would fix and save, for a new upload. Does nothing, and answers at once.

        None: the upload has to be initiated, because it takes more than one request, or because that will fail.
        """

    def write_whole(upload_id: str, intent: Intent, data: IRegion) -> Deferred[tuple[Stored, Mapping[str, Any]]]:
        """Make the object of ``data``: all bytes of a finished upload, whose ``intent.record`` is in the journal.

        Instead of `initiate_upload`, `write_chunk` and `finalize_upload`; fails as these do. Answers what is stored,
        and the record that the journal is to have from now on. Until it has that, and after any failure, all is as
        after a lost answer to `write_chunk`: this may be repeated in the same process, or it goes on with
        `initiate_upload`; it does so after NotThere and OutOfStep.
        """


class IPlanned(Interface):
    """A remote that says where its chunks are cut. Without this, the engine cuts them as it likes."""

    def part_plan(upload_id: str) -> Deferred[Plan]:
        """The plan that `initiate_upload` fixed; every chunk then is a part of it. NotThere: it isn't initiated."""


class IPartRemote(IPlanned):
    """A remote that takes parts in any order and several at once.

    `write_chunk` then never fails with OutOfStep for a gap; it may run several times at once for one upload, with
    different parts, but not beside another call for the same upload.
    """

    def confirmed_parts(upload_id: str) -> Deferred[Sequence[Part]]:
        """The parts that the store has, in order, those behind a gap too: they need not be sent again.

        Of a finalised upload, all. NotThere: as `get_upload_progress`.
        """


class IDeletable(Interface):
    """A remote that can delete its objects."""

    def delete_object(upload_id: str) -> Deferred[bool]:
        """Delete the object that `finalize_upload` made, also one whose answer was lost.

        True: it was there. False: it is gone already, was never made, or is no longer ours; a foreign object under
        the key stays. Idempotent; nothing of the upload is left in the store when it has fired and `abort_upload` too.
        """


class IProbe(Interface):
    """A remote that can tell at start-up whether it would work."""

    def probe() -> Deferred[None]:
        """Try credentials, bucket, region and rights with as little effect as possible; leaves nothing behind.

        RemoteError: it wouldn't; ``reason`` names the fault in one line and ``advice`` the remedy.
        """


class ISweeper(Interface):
    """A remote that can list the unfinished uploads in the store, ours or not."""

    def list_unfinished(limit: int, after: Unfinished | None) -> Deferred[Sequence[Unfinished]]:
        """The next ``limit`` at most, in the store's order, that follow ``after`` (None: from the first on).

        Only under the remote's own prefix. None left: an empty sequence.
        """

    def discard(found: Unfinished, upload_id: str, dry_run: bool) -> Deferred[bool]:
        """Remove ``found``, a leftover of this upload, from the store. Idempotent.

        False, and nothing happens: the upload is still working with it. ``dry_run``: only answer.
        """


class IClosable(Interface):
    """A remote that holds connections or files of its own."""

    def close() -> Deferred[None]:
        """Give them back. Nothing is asked of the remote after this; calls under way may fail."""

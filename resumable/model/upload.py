"""The records of uploads and replicas that rooms pass to each other, and the interfaces of the catalog and of a body.

Nothing here does any work. A record is a frozen value; an interface lists its promises, its answers
and its errors. Sizes are bytes, times are seconds since the epoch (UTC).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import Attribute, Interface


class GoneReason(enum.Enum):
    """Why an upload that was once here answers 410."""

    EXPIRED = "expired"
    TERMINATED = "terminated"
    LOST = "lost"


class FactKind(enum.Enum):
    """The kinds of facts for the outside; a fact is written in the transaction of the change that it reports."""

    CREATED = "created"
    FINISHED = "finished"
    TERMINATED = "terminated"
    EXPIRED = "expired"
    STORED = "stored"
    FAILED = "failed"
    PLACED = "placed"


@frozen
class Fact:
    """Something that happened to one upload, for the outbox."""

    kind: FactKind
    upload_id: str
    at: float
    data: Mapping[str, object] = field(factory=dict)


@frozen
class Place:
    """Where a finished upload's file is to be found, or is to go, by its path below the place directory.

    ``stamp`` tells it from others' files there; None: it isn't placed yet, and may end up beside ``path``.
    """

    path: str
    stamp: str | None = None


@frozen(slots=False)  # each append makes two: with slots that takes half as long again
class Upload:
    """One row of the catalog.

    ``offset`` is the committed offset: every byte below it was written and synced before the row was.
    ``epoch`` counts the appends that took the hold through the catalog; an offset commit names the epoch it belongs to,
    so a commit of an evicted append can never land.
    ``adoptable`` is the offset up to which bytes found in the data file may be adopted after a crash, provided the
    machine is still in the boot named ``boot_id``; it equals ``offset`` where nothing may be. ``metadata`` and
    ``concat`` are the request's header values, the latter with paths for URLs. ``partials`` are the ids of a final
    upload's partial uploads, in order. ``required`` counts the remotes that must have it, ``stored_at`` is when the
    last of them had; since ``dropped_at`` there is no local data any more. ``owner``: the identity that created it,
    None is nobody. ``max_size``: a limit that a hook or a token gave it, None is none. ``place``: where its file goes
    once it is finished; None: it stays under its id. The placed file is the local copy since ``dropped_at``. ``asked``:
    the digest of the request for this final upload, by which the same request is known again. ``draft``: it was made
    by the IETF draft. ``announced``: the digests of the whole file that the client has told; ``digest``: those that
    were computed of it; both as the dictionary of RFC 9530 (``sha-256=:...:``). ``digest_due``: the algorithm of the
    one that is to be computed once it is finished; None: none is, or it was.
    """

    id: str
    created_at: float
    touched_at: float
    length: int | None = None
    offset: int = 0
    metadata: str | None = None
    concat: str | None = None
    partials: tuple[str, ...] = ()
    finished_at: float | None = None
    gone: GoneReason | None = None
    gone_at: float | None = None
    epoch: int = 0
    boot_id: str | None = None
    adoptable: int = 0
    required: int = 0
    stored_at: float | None = None
    dropped_at: float | None = None
    owner: str | None = None
    max_size: int | None = None
    place: Place | None = None
    asked: str | None = None
    draft: bool = False
    announced: str | None = None
    digest: str | None = None
    digest_due: str | None = None

    def at(self, offset: int, length: int | None, touched_at: float, finished_at: float | None) -> Upload:
        """The record after an append. What `attrs.evolve` does, in half the time: each append has one."""
        return Upload(
            *(self.id, self.created_at, touched_at, length, offset, self.metadata, self.concat, self.partials),
            *(finished_at, self.gone, self.gone_at, self.epoch, self.boot_id, self.adoptable, self.required),
            *(self.stored_at, self.dropped_at, self.owner, self.max_size, self.place, self.asked),
            *(self.draft, self.announced, self.digest, self.digest_due),
        )

    @property
    def is_final(self) -> bool:
        """Whether it is made of partial uploads."""
        return bool(self.partials)

    @property
    def is_partial(self) -> bool:
        """Whether final uploads may be made of it."""
        return self.concat is not None and not self.partials

    @property
    def finished(self) -> bool:
        """Whether it has all its bytes."""
        return self.finished_at is not None

    @property
    def placed(self) -> bool:
        """Whether its file was given its place, and may still be there."""
        return self.place is not None and self.place.stamp is not None


class ReplicaState(enum.Enum):
    """OPEN: under way or waiting. STORED: finalised. PARKED: given up until somebody restarts it. ENDING: its upload
    is gone, and its object or parts are to be removed from the store; the row goes when that is done."""

    OPEN = "open"
    STORED = "stored"
    PARKED = "parked"
    ENDING = "ending"


@frozen
class Replica:
    """One upload's copy in one remote.

    ``required``: it counts for "stored". ``key`` is None before it was initiated. ``confirmed``: bytes, from the first
    on without a gap, that the remote has; to be believed only if ``run`` names this run of the daemon, else the remote
    is asked. ``needs``: below this committed offset an unfinished upload has nothing to send. ``attempts`` failed since
    something last worked; ``error`` is the last failure, in one line, without secrets; ``retry_at``: not before.
    ``failing_since``: when the first of these attempts failed. ``stored``: the remote's words (location, etag, ...).
    ``delete``: ENDING, and the finalised object is to go too. ``seq``: its place in the order of creation.
    ``intent``: of a new one, the first record of the backend's journal; it is never read back.
    """

    upload_id: str
    remote: str
    required: bool = True
    state: ReplicaState = ReplicaState.OPEN
    key: str | None = None
    confirmed: int = 0
    needs: int = 0
    run: str = ""
    attempts: int = 0
    error: str | None = None
    retry_at: float | None = None
    failing_since: float | None = None
    stored_at: float | None = None
    stored: Mapping[str, Any] | None = None
    delete: bool = False
    seq: int = 0
    intent: Mapping[str, Any] | None = None


@frozen
class Segment:
    """A stretch of an upload's committed bytes, in a file of its own, where several processes share the uploads.

    ``size`` bytes from the offset ``start`` on. ``name``: the file's; a name is written by one worker only, and never
    again by another. `WHOLE`: the file that is the upload's under its id. ``known``: the size that the catalog has of
    it; 0: it is new.
    """

    start: int
    size: int
    name: str
    known: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all bytes of the upload are in one place, under its name."""
        return self.name == WHOLE


WHOLE: Final = ""
"""The name of a segment that has all bytes of a finished upload, and whose file is called after the upload's id."""


@frozen
class StoredPart:
    """A part that the store has confirmed. ``number``: in the store's multipart; numbers ascend, and may jump.

    ``name``: with random bits; one that begins with a dot is that of an object. ``receipt``: the store's words on it
    (an ETag, a checksum), for `IObjectStore`.
    """

    start: int
    size: int
    number: int
    name: str
    receipt: str


@frozen
class Piece:
    """A stretch of the tail. Its bytes are in the object called ``name``, if that begins with a dot, else in the row.

    ``data``: the bytes of a piece that is to be recorded in its row; None in answers.
    """

    start: int
    size: int
    name: str
    data: bytes | None = None

    @property
    def in_row(self) -> bool:
        """Whether its bytes are in the row."""
        return not self.name.startswith(".")


@frozen
class StoreChange:
    """What a commit records beside the offset; in the place of a `Segment` in `Commit` and `ICatalog.create`.

    ``parts``: new ones, which follow the last part; pieces that start before their end are dropped, and their objects
    discarded. ``piece``: the new last bytes. ``reserved``: see `StoredLayout`; it is set as it is, None: it stays.
    ``multipart``: for a row that has none, and whose parts all come with this change. ``made``: the object of all bytes
    is there, under its key, so that the upload is whole; there are no parts and no piece then.
    """

    reserved: int | None = None
    parts: Sequence[StoredPart] = ()
    piece: Piece | None = None
    multipart: str | None = None
    made: Mapping[str, Any] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all bytes of the upload are in one place, under its name."""
        return self.made is not None


@frozen(slots=False)  # as Upload
class Commit:
    """A compare-and-set of one upload's offset.

    It lands only if the row still has offset ``start`` and epoch ``epoch`` and is neither finished nor gone. ``length``
    is the one to record (None leaves it). ``finished`` marks it finished in the same transaction; ``place`` says where
    its file is to go then, unless the row does. ``touched_at`` never moves a row's time backwards.

    Where several processes share the uploads: ``segment`` has the bytes from ``start`` to ``offset``, None where there
    are none, and it lands only if the catalog has its ``known`` bytes of it, or it says what an object store got;
    ``last``: of its append, which isn't under
    way after it. ``digest``: that of the whole upload, of a change that brings
    its last byte or finishes it; None leaves it. ``digest_due``: see `Upload`; of a change that finishes, without that.
    """

    upload_id: str
    epoch: int
    start: int
    offset: int
    at: float
    length: int | None = None
    finished: bool = False
    facts: Sequence[Fact] = ()
    place: Place | None = None
    segment: Segment | StoreChange | None = None
    last: bool = True
    digest: str | None = None
    digest_due: str | None = None


@frozen
class Asked:
    """The final upload that a request has made. ``refusal``: why it is gone, where that was an answer."""

    upload: Upload
    refusal: Mapping[str, Any] | None = None


Through: TypeAlias = Callable[[Any], Deferred[Any]]
"""Takes a change to a thread that does other work first, and then the change, with others in one transaction; answers
as the change does, or fails as that work does: then nothing has changed."""


class ICatalog(Interface):
    """The durable record of uploads. Every method answers with a Deferred.

    A change has reached the disk when its Deferred fires. All fail with CatalogUnavailable when the catalog can neither
    take a change nor prove that it did.
    """

    def create(
        upload: Upload,
        facts: Sequence[Fact],
        replicas: Sequence[Replica] = (),
        request: Mapping[str, Any] | None = None,
        through: Through | None = None,
        segment: Segment | StoreChange | None = None,
    ) -> Deferred[bool]:
        """Record a new upload and its replicas; False when its id is taken (also by one that is gone).

        Of a final also when one of its partials is gone, or when another is on its way that the same request has made
        (`Upload.asked`). ``request``: the answer of `request`. ``segment``: see Commit.
        """

    def get(upload_id: str) -> Deferred[Upload | None]:
        """The record, gone ones included; None when it is unknown or forgotten."""

    def begin(upload_id: str, epoch: int, start: int, boot_id: str, adoptable: int, at: float) -> Deferred[bool]:
        """Open an append that will write before it commits.

        Compare-and-set on (``start``, ``epoch``); the row's epoch becomes ``epoch + 1``; bytes may be adopted up to
        ``adoptable`` after a crash. False when it does not match, is finished or is gone.
        """

    def commit(change: Commit, through: Through | None = None) -> Deferred[bool]:
        """Move the offset; False when the compare-and-set does not match."""

    def touch(upload_id: str, epoch: int, at: float) -> Deferred[bool]:
        """Move the row's time to ``at``, never backwards; False when it has another epoch, is finished or is gone."""

    def end(
        upload_id: str,
        gone: GoneReason,
        at: float,
        facts: Sequence[Fact],
        delete: bool = False,
        refusal: Mapping[str, Any] | None = None,
        idle_since: float | None = None,
    ) -> Deferred[bool]:
        """Mark an upload gone; False when it is unknown or gone already, or finished and no partial, which never
        expires, or dropped, which has no data to lose, or when it was touched after ``idle_since``. Its data may go
        once `removable` says so.

        Its replicas that are not STORED become ENDING; with ``delete`` the STORED ones too, their objects are to go.
        ``refusal``: of a final, the answer of `asked`; without one the request that has made it is forgotten.
        """

    def has_remains(upload_id: str) -> Deferred[bool]:
        """Whether something of an upload of that id has yet to be done, though its record may be forgotten: an event to
        be delivered, an object to be removed. Another upload can't have the id before that."""

    def removable(limit: int) -> Deferred[Sequence[str]]:
        """Ids of uploads whose data may still be on disk, and need not: gone ones (never LOST) that no unassembled
        final needs, placed files included, and dropped ones, whose placed files stay."""

    def removed(upload_ids: Sequence[str], unplaced: Sequence[str] = ()) -> Deferred[None]:
        """The data of these is no longer on disk, and neither are the placed files of ``unplaced``: without that a gone
        upload that has a place stays removable."""

    def unplaced(after: str, limit: int) -> Deferred[Sequence[Upload]]:
        """Finished uploads, not gone, whose files wait for their places; by id, those behind ``after``."""

    def placed(upload_id: str, place: Place, at: float, facts: Sequence[Fact] = ()) -> Deferred[bool]:
        """The file is in its place for good; False, and nothing recorded, when the upload is gone or didn't wait.

        As soon as no replica needs the data any more, ``dropped_at`` is set: the placed file is the local copy then.
        """

    def announce(upload_id: str, announced: str) -> Deferred[bool]:
        """Record `Upload.announced`, in the place of what was; False when it is unknown, finished or gone."""

    def set_digest(upload_id: str, digest: str) -> Deferred[bool]:
        """Record the digest of an upload that has all its bytes, so that none is due; False when it lacks some, is
        unknown or gone."""

    def undigested(after: str, limit: int) -> Deferred[Sequence[Upload]]:
        """Finished uploads, not gone, whose digest is due (`Upload.digest_due`); by id, those behind ``after``."""

    def expired(idle_since: float, limit: int) -> Deferred[Sequence[Upload]]:
        """Unfinished uploads and finished partials that are not gone, untouched since ``idle_since``.

        A partial that an unfinished final needs is left out, and one that a finished final has used (see `spent`); so
        is a final of which a partial was touched since.
        """

    def spent(used_until: float, limit: int) -> Deferred[Sequence[Upload]]:
        """Partials, not gone, that no unfinished final needs; the last final that used one was finished at that time,
        or earlier."""

    def forget(gone_before: float, limit: int) -> Deferred[int]:
        """Drop the records of uploads gone before that time whose data is removed; answers how many."""

    def finals_of(partial_id: str, after: str, limit: int) -> Deferred[Sequence[Upload]]:
        """Unfinished finals, not gone, that name this partial; by id, those behind ``after``."""

    def assemblable(
        after: str, limit: int, partial_id: str | None = None
    ) -> Deferred[tuple[Sequence[str], str | None]]:
        """Looks at the next ``limit`` unfinished finals (that name this partial) whose ids are behind ``after``: the
        ids of those that don't wait for a partial, and where to go on; None: these were the last."""

    def asked(digest: str, over_since: float) -> Deferred[Asked | None]:
        """The final that a request of this digest has made, if it is on its way, or was over at that time or later.

        One that remotes are required to have is on its way until they have it.
        """

    def request(final_id: str) -> Deferred[Mapping[str, Any] | None]:
        """The request that has made this final, as long as it is unfinished and not gone."""

    def heard(digest: str) -> Deferred[None]:
        """The refusal of the final that this request has made was heard: the same request begins anew."""

    def forget_asked(over_before: float, limit: int) -> Deferred[int]:
        """Drop the answers of `asked` to requests over before that time; answers how many."""

    def get_many(upload_ids: Sequence[str]) -> Deferred[Mapping[str, Upload]]:
        """Those of the ids that are known."""


class IInterim(Interface):
    """What the client of a request that is under way is told before its answer (the draft's 104). Never fails."""

    def created(upload: Upload) -> None:
        """The upload that the request makes is there: from now on its client can resume it."""

    def committed(offset: int) -> None:
        """So far it is durable by now, and more is to come."""


class IBody(Interface):
    """The bytes that one request carries, while they arrive."""

    length = Attribute("int | None: the declared Content-Length; None when the body is chunked. 0: no body.")
    trailers = Attribute("Mapping[str, str]: trailer fields by lower-case name; empty before the end.")

    def deliver(consumer: IConsumer) -> Deferred[None]:
        """Register as a push producer with ``consumer`` and write it everything that arrives.

        Called at most once. Sends ``100 Continue`` first if the client waits for it. Fires with None at the body's end;
        fails with BodyLost. Before it fires, all that was received has been written to the consumer, even if that had
        asked for a pause, and the consumer's producer is unregistered.
        """

    def discard() -> None:
        """Write nothing more to the consumer; bytes that still arrive are dropped. The Deferred of `deliver` never
        fires."""

"""The bytes of one append on their way from scratch to the object store: parts, a piece, or the whole object.

Invariants: a part is sent only under a number that the row has reserved for this append's epoch, or under a name that
nobody else has; the bytes of a part that was begun never change; the offset that `store` answers is confirmed by the
store, or in the piece that goes with the commit. An object that is found under the upload's key counts only with the
token that this append gave it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Final, Protocol, TypeVar

from attrs import Factory, define, evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import Waiters, deferred
from resumable.model.errors import CatalogUnavailable
from resumable.model.segments import IAppendSide
from resumable.model.stored import MOST_IN_ROW, RESERVED, IStored, StoredLayout
from resumable.model.upload import Piece, StoreChange, StoredPart, Upload
from resumable.protocol import digests
from resumable.protocol.errors import Held, TooLarge
from resumable.remotes.errors import Conflict, NotThere, RemoteError, Throttled, Transient
from resumable.remotes.interfaces import IRegion
from resumable.remotes.object_store import IObjectStore, Made, ObjectProperties
from resumable.remotes.plan import ObjectTooLarge
from resumable.remotes.regions import BytesRegion
from resumable.spool.files import DRAWN_ID
from resumable.spool.objects.errors import LostObjects, StoreFailed, store_failed
from resumable.spool.objects.object_names import ObjectNames
from resumable.spool.objects.part_sizes import may_be_part, size_at
from resumable.spool.objects.scratch import Scratch

T = TypeVar("T")

AT_ONCE: Final = 4
"""Parts of one append that are sent side by side."""
AHEAD: Final = 8
"""Parts by which a client may be ahead of the store. With more it waits longer for the answer to its last byte, and a
proxy may give it up; with fewer the line to the store has pauses."""
PAUSES: Final = (0.2, 0.6, 1.8)
"""Seconds before a request to the store is repeated; longer ones keep clients waiting that could try another node."""
REMEMBERED: Final = 16_384
"""Uploads whose tails are known; more take memory, with fewer more small appends ask the catalog."""
MOST_GATHERED: Final = 128 << 20
"""Bytes of small bodies that may wait in memory for their commits; those that come then go to scratch. Fewer make more
work for a busy database, more are memory that thousands of clients take while it says nothing."""
AT_A_TIME: Final = 16
"""Pieces of a tail that are fetched from the catalog together: `MOST_IN_ROW` bytes each at most are in memory."""


class KnownTails:
    """Where the tails of uploads begin whose last commits were this worker's: no question for each small append.

    Invariant: a tail begins where it did as long as the offset is the same, until the upload is finished.
    """

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._known: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def add(self, upload_id: str, offset: int, begins: int) -> None:
        """At this offset the tail begins there."""
        self._known.pop(upload_id, None)
        self._known[upload_id] = (offset, begins)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)

    def begins(self, upload_id: str, offset: int) -> int | None:
        """Where it begins; None: it isn't known."""
        known = self._known.get(upload_id)
        return known[1] if known is not None and known[0] == offset else None


@define
class Gathered:
    """``size``: bytes of small bodies that wait in memory for their commits."""

    size: int = 0


@frozen
class StoreContext:
    """Common to all appends. ``slots``: requests with a body that may be under way at once. ``is_down``: whether
    the store is known not to work. ``lost`` tells of objects that vanished."""

    names: ObjectNames
    store: IObjectStore
    stored: IStored
    scratch: Scratch
    clock: IReactorTime
    rng: Random
    slots: DeferredSemaphore
    is_down: Callable[[], bool] = lambda: False
    tails: KnownTails = field(factory=KnownTails)
    gathered: Gathered = field(factory=Gathered)
    lost: LostObjects = field(default=Factory(lambda self: LostObjects(self.stored), takes_self=True))
    log: Logger = field(factory=Logger)

    async def ask(self, call: Callable[[], Deferred[T]], is_final: type[RemoteError] | None = None) -> T:
        """The store's answer; what may work the next time is tried a few times. Raises StoreFailed, but ``is_final`` as
        it is; and errors of reading the bytes."""
        for seconds in (*PAUSES, None):
            try:
                return await call()
            except RemoteError as error:
                if is_final is not None and isinstance(error, is_final):
                    raise
                long = isinstance(error, Throttled) and (error.retry_after or 0.0) > sum(PAUSES)
                if seconds is None or long or not isinstance(error, Transient):
                    raise store_failed(error) from error
                await deferLater(self.clock, seconds * (0.5 + self.rng.random()))
        raise AssertionError("the last try answers or fails")


class IScratchBytes(Protocol):
    """The sink, whose bytes are in scratch; offsets are the upload's."""

    def region(self, start: int, size: int) -> IRegion:
        """These bytes, which are in it."""

    def place(self, start: int, data: bytes) -> Deferred[None]:
        """Write bytes of the tail, before all others."""

    def drop(self, start: int, end: int) -> None:
        """Give these bytes back; nobody reads them any more. Of lent ones that happens later, and takes along what was
        placed there meanwhile."""

    def lent(self, start: int, end: int) -> Callable[[], None]:
        """Keep these bytes, whoever drops them, until the answer is called."""

    def is_lent(self, start: int, end: int) -> bool:
        """Whether some of them are kept, also by a thread: a request that was given up may still send from there."""

    def sent(self) -> None:
        """A part was sent, or has failed to be."""


class AppendParts:
    """`ISegmentWriter` of an object store, for the append of ``upload_id`` that begins at ``offset``."""

    def __init__(self, context: StoreContext, upload_id: str, offset: int, bytes_: IScratchBytes) -> None:
        self._context = context
        self._id = upload_id
        self._offset = offset
        self._bytes = bytes_
        self._append: IAppendSide | None = None
        self._upload: Upload | None = None
        self._length: int | None = None
        self._is_new = False
        self._layout = StoredLayout(upload_id, offset, None, 1)
        #: Where the next part begins, and its number; up to where parts are confirmed; from where on bytes are here.
        self._next = self._ready = 0
        self._number = 1
        #: The highest number that is reserved; that this has asked for, in order; under which the store has a part, or
        #: may still get one.
        self._reserved = self._asked = self._used = 0
        self._held_from = offset
        #: Parts that are confirmed and not recorded, by their starts; pieces that are recorded, and one that is to be.
        self._parts: dict[int, StoredPart] = {}
        self._tail: list[Piece] = []
        self._piece: Piece | None = None
        self._gathered = 0
        self._made: Made | None = None
        self._first: int | None = None
        self._handle: str | None = None
        self._flying: dict[Deferred[None], None] = {}
        self._began = False
        self._changed = Waiters()
        self._lock = DeferredLock()
        self.failure: Failure | None = None

    # -- ISegmentWriter

    @property
    def small(self) -> int:
        """See `ISegmentWriter`: what goes into the row of a piece."""
        return MOST_IN_ROW

    def attach(self, upload: Upload, length: int | None, is_new: bool, append: IAppendSide) -> None:
        """See `ISegmentWriter`."""
        self._upload, self._length, self._is_new, self._append = upload, length, is_new, append

    def detach(self) -> None:
        """The append is over."""
        self._append = None
        self._context.gathered.size -= self._gathered
        self._gathered = 0

    @property
    def stays(self) -> bool:
        """Whether no byte may leave before the end of the body, when all are verified."""
        return self._append is not None and self._append.verifies

    def _may_put(self, offset: int) -> bool:
        """Whether the upload's object may be made of its first ``offset`` bytes with one request."""
        store = self._context.store
        if self._next or self._handle is not None or offset > self._size():
            return False
        return store.conditional or self._is_unknown

    @property
    def _is_unknown(self) -> bool:
        """Whether nobody else can have heard of the upload: its id was drawn, and the catalog has no record yet."""
        return self._is_new and not self._began and DRAWN_ID.fullmatch(self._id) is not None

    @deferred
    async def takes_first(self, offset: int) -> bool:
        """See `ISegmentWriter`: whether the tail and these bytes make up a part, or too many wait in memory."""
        store = self._context.store
        if self._context.gathered.size + offset - self._offset > MOST_GATHERED:
            return True
        least = store.limits.smallest_part if store.limits.equal else store.part_size
        if offset < least:
            return False
        begins = self._context.tails.begins(self._id, self._offset)
        if begins is None:
            layout = await self._context.stored.tail_of(self._id)
            if layout is None or layout.offset != self._offset:
                return False  # the commit will say so
            begins = layout.parts_end
            self._context.tails.add(self._id, self._offset, begins)
        # Equal parts have the size of the first, which isn't known yet.
        return offset - begins >= (least if store.limits.equal else self._size_of(begins, 1, None))

    @deferred
    async def gathered(self, chunks: Sequence[bytes], start: int, finishes: bool) -> None:
        """See `ISegmentWriter`."""
        data = b"".join(chunks)
        self._gathered = len(data)
        self._context.gathered.size += len(data)
        if finishes and start == 0 and self._may_put(len(data)):
            self._made = await self._put(BytesRegion(data))
        if self._made is None and data:
            self._piece = Piece(start, len(data), self._context.names.label(), data)

    def to(self, start: int, offset: int, alone: bool, last: bool) -> StoreChange | None:
        """See `ISegmentWriter`."""
        if self._made is not None:
            return StoreChange(made=self._made.to_json())
        if offset == start:
            return None
        end = min(self._ready, offset)
        parts = tuple(part for at, part in sorted(self._parts.items()) if at + part.size <= end)
        reserved = None
        if last and self._began and not self._flying:
            reserved = self._used
        elif parts:
            reserved = self._asked = max(self._asked, self._number - 1 + RESERVED)
        piece = self._piece
        return StoreChange(reserved, parts, piece if piece is not None and piece.start + piece.size == offset else None)

    def landed(self, segment: StoreChange) -> None:
        """See `ISegmentWriter`."""
        if segment.made is not None:
            return
        if segment.reserved is not None:
            self._reserved = segment.reserved
        for part in segment.parts:
            del self._parts[part.start]
            self._first = self._first or part.size
        if segment.parts:
            end = segment.parts[-1].start + segment.parts[-1].size
            self._tail = [each for each in self._tail if each.start >= end]
        if segment.piece is not None:
            self._tail.append(segment.piece)
            if self._piece is segment.piece:
                self._piece = None
            end = segment.piece.start + segment.piece.size
            if self._began or end < self._context.store.part_size:
                self._context.tails.add(self._id, end, self._tail[0].start if self._began else 0)
            elif (begins := self._context.tails.begins(self._id, segment.piece.start)) is not None:
                self._context.tails.add(self._id, end, begins)
        if self._context.scratch.full:
            self._relieve(self._tail_end)
            self._context.clock.callLater(0, self.relieve)  # of what came meanwhile
        self._bytes.sent()

    def refused(self, segment: StoreChange) -> None:
        """See `ISegmentWriter`. An object that nobody else can have made goes, and those of a piece and of parts."""
        if segment.made is not None and self._is_unknown:
            self._context.store.remove([self._key]).addErrback(self._not_removed)
        written = [*segment.parts, *(() if segment.piece is None else (segment.piece,))]
        names = [each.name for each in written if each.name.startswith(".")]
        if names:
            self._context.stored.discard(names).addErrback(self._not_removed)

    def taken(self) -> None:
        """See `ISegmentWriter`: an object that is in the way never says so."""

    # -- the sink's side

    @property
    def ready(self) -> int:
        """The offset up to which parts are confirmed; the append's first before that."""
        return max(self._ready, self._offset)

    @property
    def part_size(self) -> int:
        """Bytes of the next part, unless the upload ends before."""
        return self._size()

    @property
    def far(self) -> int:
        """How many bytes a client may be ahead of what the store has confirmed."""
        return AHEAD * self._size()

    @property
    def begins(self) -> int:
        """Where the tail begins: the offset that scratch begins with."""
        return self._layout.parts_end

    @deferred
    async def began(self, epoch: int) -> None:
        """The row is this append's, with that epoch. Fails with Held, CatalogUnavailable."""
        if self._offset or not self._is_new:
            layout = await self._context.stored.tail_of(self._id)
            if layout is None or layout.epoch != epoch or layout.offset != self._offset:
                raise Held("Another request has taken this upload over.")
            self._adopt(layout)
            self._reserved = self._asked = self._used = layout.reserved
            self._number = layout.reserved + 1
        self._layout = evolve(self._layout, epoch=epoch)
        self._began = True

    def _adopt(self, layout: StoredLayout) -> None:
        self._layout, self._tail, self._handle = layout, list(layout.pieces), layout.multipart
        self._next = self._ready = layout.parts_end
        self._first = layout.parts[0].size if layout.parts else None

    def fill(self, written: int) -> None:
        """Bytes up to ``written`` are in scratch: send the parts that they make up."""
        if self._append is None or not self._began or self.failure is not None:
            return
        end = min(written, self._append.committable)
        while len(self._flying) < AT_ONCE:
            size = self._size()
            if (
                self.failure is not None
                or self._next + size > end
                or (self._length is not None and self._next + size >= self._length)
                or (self._next + size == end and self._may_end(end))
            ):
                return
            self._send(size)

    @deferred
    async def store(self, offset: int, finishes: bool) -> int:
        """Have all bytes up to ``offset``, which are in scratch, in the store or in the piece of the next commit.

        Answers the offset that a commit may go to now, no lower. ``finishes``: that commit finishes the upload. Fails
        with StoreFailed, CatalogUnavailable, errors of scratch.
        """
        if finishes and self._may_put(offset):
            self._made = await self._lock.run(self._put_all, offset)
            if self._made is not None:
                return offset
            finishes = False  # what is in the way is left to whoever completes the upload
        while self.failure is None:
            while len(self._flying) < AT_ONCE and (size := self._next_size(offset, finishes)) and not self.failure:
                self._send(size)
            if self._ready >= offset or not self._flying:
                break
            await self._changed.wait()
        if self.failure is not None:
            self.failure.raiseException()
        start = max(self._next, self._tail_end)
        if offset > start:
            self._piece = await self._write_piece(start, offset - start)
        return max(offset, self._ready)

    @deferred
    async def stop(self) -> None:
        """Nothing is under way when this fires."""
        for each in tuple(self._flying):
            each.cancel()
        while self._flying:
            await self._changed.wait()
        if self._reserved > self._used:
            # Else a client that tries again and again while the store or a quota refuses would use up all numbers.
            unreserved = self._context.stored.unreserve(self._id, self._layout.epoch, self._used)
            unreserved.addErrback(lambda failure: failure.trap(CatalogUnavailable) and None)

    @property
    def busy(self) -> bool:
        """Whether parts are on their way."""
        return bool(self._flying)

    def relieve(self) -> None:
        """Have scratch give back what it can of this append's bytes."""
        if self._append is None or not self._began:
            return
        if self._tail:
            self._relieve(self._tail_end)
        if not self._append.is_busy:
            self._append.commit_soon()

    # -- parts

    @property
    def _key(self) -> str:
        return self._context.names.key(self._id, self._upload is not None and self._upload.is_partial)

    @property
    def _tail_end(self) -> int:
        return self._tail[-1].start + self._tail[-1].size if self._tail else self._next

    def _size(self) -> int:
        """Of the next part, unless the upload ends before. A tail that was gathered for a larger one goes into it
        whole: a piece belongs to one part."""
        size, limits = self._size_of(self._next, self._number, self._first), self._context.store.limits
        if limits.equal and self._first is not None:
            return size
        tail = self._tail_end - self._next
        return size if tail <= size else tail + -tail % limits.multiple_of

    def _size_of(self, start: int, number: int, first: int | None) -> int:
        """See `size_at`. The append fails where the store can't take an upload of that length."""
        store = self._context.store
        try:
            return size_at(store.limits, store.part_size, self._length, start, number, first)
        except ObjectTooLarge as error:
            self._failed(Failure(TooLarge(f"The store can't take this upload: {error}.")))
            return int(store.limits.largest_part)

    def _may_end(self, offset: int) -> bool:
        """Whether this may be the upload's end; of an unknown length any offset, where its last byte is withheld."""
        if self._length is None:
            return self._append is not None and self._append.withholds
        return offset == self._length

    def _next_size(self, offset: int, finishes: bool) -> int:
        """Bytes of the next part of an append that ends at ``offset``; 0: there is none."""
        size, left = self._size(), offset - self._next
        ends = self._may_end(offset)
        if left >= size and (finishes or not ends or left > size):
            return size
        if finishes and left > 0:
            return left
        if left >= size or (ends and not finishes):
            return 0  # its bytes can be read as long as hooks are asked
        return left if may_be_part(self._context.store.limits, left, self._number, self._length) else 0

    def _send(self, size: int) -> None:
        start, number = self._next, self._number
        self._next, self._number = start + size, number + 1
        self._first = self._first or size
        sending = Deferred.fromCoroutine(self._one(start, size, number))
        self._flying[sending] = None
        sending.addErrback(self._failed).addBoth(self._over, sending)

    async def _one(self, start: int, size: int, number: int) -> None:
        context = self._context
        await self._lock.acquire()
        try:
            handle = await self._prepare(start, number)
        finally:
            self._lock.release()
        new = context.names.new(self._id) if context.store.part_objects else context.names.label()
        name = context.names.object(new) if context.store.part_objects else new
        region = self._bytes.region(start, size)
        await context.slots.acquire()
        done = 0  # requests that the store has done, or may still do: what comes late has the same bytes

        async def sent() -> str:
            nonlocal done
            done += 1
            try:
                return await context.store.write_part(self._key, handle, number, name, region)
            except RemoteError as error:
                done -= error.undone
                raise

        try:
            receipt = await context.ask(lambda: Deferred.fromCoroutine(sent()))
        finally:
            context.slots.release()
            if done:
                self._used = max(self._used, number)
        self._parts[start] = StoredPart(start, size, number, new, receipt)
        self._bytes.drop(start, start + size)
        while (part := self._parts.get(self._ready)) is not None:
            self._ready += part.size
        if self._append is not None:
            self._append.confirmed()

    async def _prepare(self, start: int, number: int) -> str:
        """The multipart's handle; the number is reserved by then, and the part's bytes are in scratch."""
        context, epoch = self._context, self._layout.epoch
        if context.is_down():
            raise StoreFailed("the object store doesn't work at the moment")
        if start < self._held_from:
            await self._load(start)
        if self._handle is None:
            handle = await context.ask(lambda: context.store.begin(self._key, self._properties(context.names.token())))
            if not await context.stored.keep_multipart(self._id, epoch, handle):
                await context.ask(lambda: context.store.abandon(self._key, handle, ()))
                raise Held("Another request has taken this upload over.")
            self._handle = handle
        if context.store.numbered and number > self._reserved:
            ahead = self._asked = max(self._asked, number - 1) + RESERVED  # a commit under way may reserve some, too
            if not await context.stored.reserve(self._id, epoch, ahead):
                raise Held("Another request has taken this upload over.")
            self._reserved = ahead
        return self._handle

    def _failed(self, failure: Failure) -> None:
        if self.failure is None:
            self.failure = failure

    def _over(self, _: object, sending: Deferred[None]) -> None:
        del self._flying[sending]
        self._changed.fire()
        self._bytes.sent()

    def _properties(self, token: str) -> ObjectProperties:
        values: Mapping[str, bytes] = {}
        if self._upload is not None:
            values = digests.object_metadata(self._upload.metadata, self._upload.digest)
        return ObjectProperties(self._id, token, values)

    # -- the whole object, pieces, the tail

    @deferred
    async def _put_all(self, offset: int) -> Made | None:
        """See `_put`; of the first ``offset`` bytes."""
        await self._load(0)
        return await self._put(self._bytes.region(0, offset))

    async def _put(self, data: IRegion) -> Made | None:
        """The object, made with one request; None: another one is there."""
        context, token = self._context, self._context.names.token()
        properties, only_new = self._properties(token), context.store.conditional
        await context.slots.acquire()
        try:
            return await context.ask(
                lambda: context.store.put(self._key, data, properties, only_new), is_final=Conflict
            )
        except Conflict:
            found = await context.ask(lambda: context.store.find(self._key))
            return found if found is not None and found.token == token and found.size == data.size else None
        finally:
            context.slots.release()

    async def _write_piece(self, start: int, size: int) -> Piece:
        returned = self._bytes.lent(start, start + size)  # meanwhile a part with them may be sent, and dropped
        try:
            return await self._piece_of(start, size)
        finally:
            returned()

    async def _piece_of(self, start: int, size: int) -> Piece:
        context, region = self._context, self._bytes.region(start, size)
        if size <= MOST_IN_ROW:
            return Piece(start, size, context.names.label(), await region.read(0, size))
        name = context.names.new(self._id)
        await context.slots.acquire()
        try:
            await context.ask(lambda: context.store.write(context.names.object(name), region))
        finally:
            context.slots.release()
        return Piece(start, size, name)

    async def _load(self, start: int) -> None:
        """Have the bytes from ``start`` on in scratch, of which other appends have stored the first."""
        if start >= self._held_from:
            return
        wanted = [each for each in self._tail if start <= each.start < self._held_from]
        rows = [each for each in wanted if each.in_row]
        for at in range(0, len(rows), AT_A_TIME):
            some = rows[at : at + AT_A_TIME]
            data = await self._context.stored.data_of(self._id, [each.name for each in some])
            for each in some:
                if len(data.get(each.name, b"")) != each.size:
                    raise Held("Another request has taken this upload over.")
                await self._bytes.place(each.start, data[each.name])
        for each in wanted:
            if not each.in_row:
                await self._context.ask(partial(fetched, self._context, each, self._bytes.place))
        self._held_from = start

    def _relieve(self, end: int) -> None:
        """Give back what is in scratch of the tail, which is in the store up to ``end``."""
        start = max(self._held_from, self._next)
        if not (self._flying or self._lock.locked or self._held_from >= end or self._bytes.is_lent(start, end)):
            self._bytes.drop(start, end)
            self._held_from = end

    def _not_removed(self, failure: Failure) -> None:
        self._context.log.warn(
            "an object that no upload has stays until it is swept: {reason}",
            upload=self._id,
            reason=failure.getErrorMessage(),
        )


@deferred
async def fetched(context: StoreContext, piece: Piece, place: Callable[[int, bytes], Awaitable[None]]) -> None:
    """Give ``place`` the bytes of a piece that is an object, with their offsets. Fails with RemoteError."""
    stream = await context.store.open(context.names.object(piece.name), 0, piece.size)
    try:
        done = 0
        while done < piece.size:
            data = await stream.read()
            if not data:
                raise NotThere("an object of a tail has fewer bytes than it should")
            await place(piece.start + done, data)
            done += len(data)
    finally:
        stream.close()

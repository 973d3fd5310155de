"""One append: from the body, through the spool, to the committed offset; and the pauses of its client.

Invariants: the committed offset never passes bytes that were written and synced (design.md 1); received bytes are
committed however the body ends, except for an append with a checksum (2); the hold is released only after the last
write is confirmed (3).

A body that stays small is gathered in memory and put in one group step with others. Any other is *opened*: the
catalog learns of it before its first byte is written, the sink streams, and commits follow as it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.model.errors import BodyLost, CatalogUnavailable
from resumable.model.hooks import Arrived
from resumable.model.principal import NOBODY, Principal
from resumable.model.upload import IBody, IInterim, Upload
from resumable.protocol import tus
from resumable.protocol.checksum import Checksum, Digest
from resumable.protocol.digests import Hashes, check_content
from resumable.protocol.errors import (
    BadRequest,
    ChecksumMismatch,
    Gone,
    Held,
    InconsistentLength,
    NoSpace,
    TakenOver,
    TooLarge,
    TusError,
    Unavailable,
)
from resumable.protocol.rules import AppendPlan
from resumable.spool.direct import AHEAD
from resumable.spool.objects.errors import StoreFailed
from resumable.spool.sink import Sink
from resumable.uploads.context import LAGGING, HookContext, UploadContext, log
from resumable.uploads.finishing import check_repeated
from resumable.uploads.holds import IHolder
from resumable.uploads.limits import FREE, IAccount, settle
from resumable.uploads.record import AppendRecord

#: A body up to this size is gathered in memory and committed in one group step, unless its writer has another one.
SMALL = 64 * 1024
#: A long append commits whenever this much is new.
PART = 8 * 1024 * 1024
PAUSE = Sink.pause
#: Room that is reserved ahead for bytes of an unknown length, where the catalog counts them.
PORTION = 64 * 1024 * 1024

Algorithms: TypeAlias = Mapping[str, Callable[[], Digest]]


@implementer(IHolder)
class RunningAppend:
    """An append under way: `run` drives it, newer requests talk to it as the holder, `release` ends it."""

    __slots__ = (
        "_account",
        "_algorithms",
        "_announcing",
        "_asking",
        "_body",
        "_checksum",
        "_content",
        "_context",
        "_digest",
        "_end",
        "_gate",
        "_heard",
        "_interim",
        "_listening",
        "_lock",
        "_plan",
        "_reason",
        "_received",
        "_record",
        "_released",
        "_repeats",
        "_sink",
        "_small",
        "_starting",
        "_trailer",
        "_waiting",
        "_whole",
        "draft",
    )

    _plan: AppendPlan
    _sink: Sink | None
    _gate: Gate | None

    def __init__(
        self,
        context: UploadContext,
        upload: Upload,
        start: int,
        body: IBody,
        algorithms: Algorithms,
        hooks: HookContext,
        new: bool = False,
        draft: bool = False,
        interim: IInterim | None = None,
    ) -> None:
        """``upload``: the record as known so far; `run` gets the record as it is under the hold. ``new`` says that
        the catalog has no record yet. ``draft``: it is the draft's; ``interim``: tells its client, where that wants to
        know, what happens before the answer."""
        self._context = context
        self.draft, self._interim = draft, interim
        self._announcing: list[Callable[[], object]] | None = None
        self._record = AppendRecord(context, upload, start, hooks, new)
        self._repeats = False
        self._account: IAccount = FREE
        self._asking: Deferred[None] | None = None
        self._body = body
        self._algorithms = algorithms
        self._checksum: Checksum | None = None
        self._trailer = self._listening = self._released = False
        self._sink = self._gate = None
        self._end: Deferred[None] = Deferred()
        self._reason: BaseException | None = None
        self._waiting: list[Deferred[None]] = []
        self._starting: list[Deferred[None]] = []
        self._lock = DeferredLock()
        self._received, self._small = start, SMALL
        self._heard = self._record.committed_at

    @property
    def upload(self) -> Upload:
        """The record as this append knows it."""
        return self._record.upload

    @property
    def recorded(self) -> bool:
        """Whether the catalog has a record of the upload."""
        return not self._record.is_new

    @property
    def committed(self) -> int:
        """The offset that the catalog has."""
        return self._record.committed

    @property
    def known(self) -> tuple[int, int] | None:
        """See `IHolder.known`."""
        if not self._listening or self._end.called or self._lock.locked or self._record.is_new:
            return None
        return self._record.upload.epoch, self.committed

    @property
    def committed_at(self) -> float:
        """When that was last moved, or the append made (reactor seconds)."""
        return self._record.committed_at

    @property
    def verifies(self) -> bool:
        """See `IAppendSide`."""
        ceiling = self._plan.commit_ceiling
        return ceiling is not None and ceiling <= self._plan.start

    @property
    def withholds(self) -> bool:
        """See `IAppendSide`."""
        return self.draft or self._context.withholds(self.upload)

    @property
    def is_busy(self) -> bool:
        """Whether a commit or the like is under way: another one would only wait for it."""
        return bool(self._lock.locked)

    # The holder, as newer requests see it

    @property
    def position(self) -> int:
        """See `IHolder.position`."""
        return self._received

    @property
    def received(self) -> int | None:
        return None if self._sink is None else self._received

    @property
    def committable(self) -> int:
        """How far commits may go while the end of the body hasn't been seen."""
        if self._sink is None or self._repeats:
            return self.committed
        return self._plan.committable(self._received)

    @property
    def heard(self) -> float:
        """Time in which we don't want its bytes yet, pause it, or do its last commit is not the client's silence.

        Nor is time in which a thread takes its bytes: that ends soon when none come."""
        busy = not self._listening or self._end.called
        if self._sink is not None and (self._sink.paused or self._sink.receiving):
            busy = True
        return self._context.clock.seconds() if busy else self._heard

    async def settle(self) -> None:
        if not self._listening and not self._end.called:
            # Its first bytes may have come while the catalog recorded it: they count as well.
            waiter: Deferred[None] = Deferred()
            self._starting.append(waiter)
            await waiter
        await self._catch_up()
        if not self._end.called:
            try:
                await self._commit()
            except (Held, Gone) as overtaken:  # by another process: a look at the upload is answered all the same
                self._stop(overtaken)
            except StoreFailed as error:
                log.debug("a look tells of what was committed before: {reason}", reason=error.strerror)
        # The body may have ended while that waited: its last bytes are to be seen as well.
        if self._end.called:
            await self._until_released()

    async def evict(self, reason: BaseException | None = None) -> None:
        await self._catch_up()
        self._stop(reason or TakenOver())
        await self._until_released()

    async def _catch_up(self) -> None:
        """What a thread has taken from the client counts as received."""
        if self._sink is not None and self._sink.receiving:
            await self._sink.halt()

    def commit_soon(self) -> None:
        """Commit the received bytes, in the background; a failure ends the append."""
        Deferred.fromCoroutine(self._commit()).addErrback(self._failed)

    def confirmed(self) -> None:
        """See `IAppendSide`."""
        if not (self._end.called or self._lock.locked) and self._record.opened and self._is_due():
            self._commit_ready()

    def _commit_ready(self) -> None:
        """The same for what is worth it while more bytes come."""
        Deferred.fromCoroutine(self._commit(wholly=False)).addErrback(self._failed)

    @property
    def touched_at(self) -> float:
        """When the row's time was last moved, or the append made (reactor seconds)."""
        return self._record.touched_at

    def touch_soon(self) -> None:
        """Move the row's time, in the background, so that the upload doesn't expire under a slow client. An append that
        was overtaken ends."""
        Deferred.fromCoroutine(self._touch()).addErrback(self._failed)

    async def _touch(self) -> None:
        await self._lock.acquire()
        try:
            if self._sink is not None and not self._end.called:
                await self._record.touch()
        except CatalogUnavailable as error:
            log.debug("an append could not keep its upload from expiring: {reason}", reason=str(error))
        finally:
            self._lock.release()

    # The append itself

    async def run(
        self,
        upload: Upload,
        plan: AppendPlan,
        *,
        checksum: Checksum | None = None,
        trailer: bool = False,
        content: Sequence[Checksum] = (),
        repeats: bool = False,
        account: IAccount = FREE,
        by: Principal = NOBODY,
    ) -> Upload:
        """Receive the body and commit it; answers the upload as it then is.

        Raises the reason why the body ended early, or the failure; the bytes that may be kept are committed by then.
        ``trailer``: the checksum comes after the body. ``content``: what else the body must have, by keys of
        `digests.ALGORITHMS`. ``repeats``: all bytes of the upload are here, and nothing is
        written; at most, its withheld last byte is looked at. ``account`` has room for the upload's length, or else for
        as much of the body as was declared.
        """
        self._account = account
        self._plan = self._record.plan = plan
        self._record.upload, self._repeats = upload, repeats
        self._checksum, self._trailer, self._content = checksum, trailer, content
        self._whole = self._context.digests.along(upload) if plan.start == 0 and plan.may_finish and not repeats else ()
        self._record.hashing = bool(self._whole)
        self._digest = digest = self._new_digest(checksum)
        self._sink = sink = self._context.spool.sink(upload.id, plan.start, ceiling=plan.ceiling, digest=digest)
        self._record.segments = sink.segments
        if sink.segments is not None:
            sink.segments.attach(upload, plan.length, self._record.is_new, self)
            self._small = sink.segments.small or SMALL
        sink.on_write = self._arrived
        sink.on_failure = self._failed
        sink.on_resume = self._listen
        if by.pace is not None:
            sink.direct = False  # it would be far beyond its rate before anybody knows
        sink.ahead = self._ahead
        if not repeats:
            sink.on_pressure = self._open_soon
            self._gate = Gate(self._context, sink, self._stop, by.pace)
        await self._receive(sink)
        await self._conclude(sink)
        return self.upload

    def _new_digest(self, checksum: Checksum | None) -> BodyDigest | None:
        """All that is to be known of the body's bytes; None: nothing is."""
        if checksum is None and not self._content and not self._whole:
            return None
        return BodyDigest(
            None if checksum is None else self._algorithms[checksum.algorithm](),
            Hashes({*(each.algorithm for each in self._content), *self._whole}),
        )

    async def release(self) -> None:
        """Let go of the file and of the hold, however the append ended. Never raises."""
        self._stop(None)
        sink = self._sink
        if sink is not None:
            if not sink.over:
                leftover = self._record.opened and max(self._received, sink.received) > self.committed
                leftover = leftover and self._record.segments is None  # it is nobody's, and nobody is to come after it
                await sink.close(self.committed if leftover else None)
            if sink.segments is not None:
                sink.segments.detach()
            # No circle of references stays for the garbage collector, which would take longer than all of this.
            sink.on_write = sink.on_failure = sink.on_pressure = sink.on_resume = sink.ahead = self._gate = None
        settle(self._account, self.upload)  # before another append begins, which may use the room
        self._context.holds.release(self.upload.id, self)
        if self._record.joinable:
            self._context.joinable(self.upload.id)  # with its last segment closed
        self._released = True
        for waiter in self._waiting:
            waiter.callback(None)

    async def _receive(self, sink: Sink) -> None:
        length = self._body.length
        if length is not None and length > self._small and not self._end.called:
            await self._open(sink)
            total = self._plan.start + length
            if self._plan.length is None and self._account.asks(total) and not self._end.called:
                await self._account.reserve(total, self.upload.epoch)
        if not self._end.called:
            if self._gate is not None:
                self._gate.check()
            self._listen()
            self._body.deliver(sink).addCallbacks(self._stop, self._failed)
            self._started()
            if self._interim is not None and self._record.is_new and not self._end.called:
                self._announcing = self._context.announcing.add(self._open_soon)
        if not self._end.called:
            await self._end

    def _ahead(self) -> int:
        """Several appends that nobody counts for a moment must not use up what is left above the reserve."""
        return int(min(AHEAD, self._context.space.room / 8))

    def _started(self) -> None:
        starting, self._starting = self._starting, []
        for waiter in starting:
            waiter.callback(None)

    def _listen(self) -> None:
        """From now on the client may send."""
        self._listening = True
        self._heard = self._context.clock.seconds()

    def _arrived(self) -> None:
        """Called by the sink after each write of the body."""
        sink = self._sink
        assert sink is not None
        self._heard = self._context.clock.seconds()
        received, before = sink.received, self._received
        if self._plan.length is None and not self._fits(received):
            return
        self._received = received
        if not self._repeats and not self._context.space.spend(received - before):
            self._stop(NoSpace())
        if sink.overrun:
            # Told at once: a body without an end holds nothing.
            self._stop(self._plan.overrun())
        if self._end.called or self._gate is None:
            return
        self._gate.check(received - before)
        self._context.progress.arrived(self._record.upload.id, self._seen)
        if self._lock.locked:
            return
        if not self._record.opened:
            if received - self._plan.start > self._small:
                self._open_soon()
        elif self._is_due():
            self._commit_ready()

    def _seen(self) -> Arrived | None:
        """See IProgress."""
        return None if self._end.called else self._record.seen(self._received)

    def _fits(self, received: int) -> bool:
        """Whether there is room for all received bytes of an unknown length. Bytes without room stay out of account,
        and are never committed; the client is paused while room is asked for."""
        if self._end.called or self._asking is not None:
            return False
        if self._account.asks(received):
            if self._gate is not None:
                self._gate.wait(True)
            asking = self._asking = Deferred()
            making = Deferred.fromCoroutine(self._make_room()).addErrback(self._no_room)
            making.addCallback(asking.callback)
            return False
        try:
            self._account.reach(received)
        except TusError as refusal:
            self._stop(refusal)
            return False
        return True

    async def _make_room(self) -> None:
        """Have all that was received counted."""
        sink = self._sink
        assert sink is not None
        if not self._record.opened:  # what has no record counts nowhere
            await self._lock.run(lambda: Deferred.fromCoroutine(self._open(sink)))
        while self._account.asks(received := sink.received):
            await self._account.reserve(received, self.upload.epoch, PORTION)
        self._asking = None
        if self._end.called:
            self._context.space.spend(received - self._received)
            self._received = received
            return
        if self._gate is not None:
            self._gate.wait(False)
        self._arrived()

    def _no_room(self, failure: Failure) -> None:
        self._asking = None
        if self._end.called:
            self._reason = self._reason or failure.value
        self._stop(failure.value)

    def _stop(self, reason: BaseException | None) -> None:
        """The body's end, or ours: the first one counts. None means that all of it was received."""
        if self._end.called:
            return
        self._reason = reason
        if self._gate is not None:
            self._gate.close()
        if self._announcing is not None:
            self._announcing.clear()
        if reason is not None and not isinstance(reason, BodyLost):
            self._body.discard()
        self._end.callback(None)
        self._started()

    def _failed(self, failure: Failure) -> None:
        self._stop(failure.value)

    def _open_soon(self) -> None:
        """Stop gathering, start writing."""
        sink = self._sink
        if sink is not None and not self._end.called and not self._lock.locked:
            self._lock.run(lambda: Deferred.fromCoroutine(self._open(sink))).addErrback(self._failed)

    async def _open(self, sink: Sink) -> None:
        """Tell the catalog that bytes will be written before they are committed, then let the sink write."""
        if self._record.opened:
            return
        new = self._record.is_new
        if not new:
            # First, as an older append that a crash cut off may have left bytes there: they must not become adoptable.
            await sink.prepare()
        await self._record.open()
        if self._record.segments is not None:
            await sink.began(self._record.upload.epoch)
        sink.start()
        if new and self._interim is not None:
            self._interim.created(self.upload)

    async def _commit(self, wholly: bool = True) -> None:
        """Commit while the body is still coming: as far as possible, or as far as it is worth it."""
        sink = self._sink
        if sink is None:
            return
        await self._lock.acquire()
        try:
            upto = self.committable if wholly else self._ready
            if self._end.called or upto <= self.committed:
                return
            await self._open(sink)
            synced = min(await sink.sync(upto), self._received)  # not what there was no room for
            await self._record.commit(self._plan.committable(synced), whole=False, last=False)
            if self._interim is not None and not self._end.called:
                self._interim.committed(self.committed)
        finally:
            self._lock.release()
        if self._is_due() and not self._end.called:
            self._commit_ready()

    @property
    def _ready(self) -> int:
        """`committable`, as far as a commit is worth it while more bytes come."""
        sink = self._sink
        if sink is None or self._repeats:
            return self.committed
        return self._plan.committable(min(sink.ready, self._received))

    def _is_due(self) -> bool:
        """Whether enough is new for a commit."""
        sink = self._sink
        if sink is None or self._ready - self.committed < (PART if sink.worthwhile is None else sink.worthwhile):
            return False
        return not self._context.others.several or self._heard - self.committed_at >= sink.pause

    async def _conclude(self, sink: Sink) -> None:
        """After the end of the body: verify, write the rest, commit, and raise the failure."""
        await self._catch_up()
        if self._asking is not None:
            await self._asking
        if self._lock.locked:  # for one that began before the end: none begins after it
            await self._lock.acquire()
            self._lock.release()
        reason = self._reason
        length = self._plan.length
        if reason is None and self._plan.ends and length is not None and self._received != length:
            reason = InconsistentLength(length, self._received)
        whole = reason is None
        await self._take_first(sink)
        gathered = [] if self._record.opened else sink.take()
        if whole:
            await self._verify(sink, gathered)
        if sink.failure is None:
            await self._flush(sink, gathered, whole)
        elif reason is None:
            reason = sink.failure.value
        if isinstance(reason, TooLarge):
            reason = TooLarge(reason.detail, offset=self.committed)
        if reason is not None:
            raise reason

    async def _take_first(self, sink: Sink) -> None:
        """A small append takes the row before it brings about more than its commit."""
        segments = self._record.segments
        if segments is None or self._record.opened or self._repeats or sink.failure is not None:
            return
        if self._received > self.committed and await segments.takes_first(self._received):
            await self._open(sink)

    async def _flush(self, sink: Sink, gathered: list[bytes], whole: bool) -> None:
        """Bring the bytes that may be kept to the disk and into the catalog."""
        if self._repeats:
            if whole:
                await check_repeated(self._context, self.upload, gathered)
                self._record.upload = evolve(self.upload, offset=self._received)
            return
        offset = self._received if whole else self._plan.committable(self._received)
        if self._record.opened:
            if offset > self.committed:
                offset = min(await sink.sync(offset, self._record.finishes(offset, whole)), offset)
        elif self._record.is_new and not whole:
            # Its client never learns where it is: there is nothing to come back to.
            return
        elif offset > self.committed or (whole and self._ends_at(offset)):
            await self._record.put(offset, whole, _first(gathered, offset - self.committed))
            return
        await self._record.commit(offset, whole)

    def _ends_at(self, offset: int) -> bool:
        """Whether the upload has all its bytes, without one by this append: the file is made, or cut to these bytes, as
        an append that failed may have left more in it."""
        return offset in (self._plan.length, self._plan.length_at(offset)) and not (offset and self._record.segments)

    async def _verify(self, sink: Sink, gathered: list[bytes]) -> None:
        """T41: "Once the entire request has been received, the Server MUST verify the uploaded chunk". Content-Digest
        goes the same way."""
        checksum = self._checksum
        if checksum is None:
            checksum = tus.trailer_checksum(self._body.trailers, self._trailer, self._algorithms)
        digest, late = self._digest, checksum is not None and self._checksum is None
        if checksum is None and digest is None:
            return
        if late and self.committed > self._plan.start:
            raise BadRequest("Upload-Checksum came as a trailer that no Trailer field had announced.")
        await sink.drained()
        if sink.failure is not None:
            return  # the disk has failed, and the client's bytes may be right
        if digest is None or late or not self._record.opened:
            digest = self._new_digest(checksum)
            assert digest is not None, "there is something to be known"
            for chunk in gathered:
                digest.update(chunk)
            if self._record.opened:
                await sink.feed(self._plan.start, self._received, digest)
        if checksum is not None and digest.checksum() != checksum.digest:
            raise ChecksumMismatch("The body does not match its Upload-Checksum; nothing of it was kept.")
        for each in self._content:
            check_content(each, digest.hashes.digest(each.algorithm))
        self._record.digest = digest.hashes.text(self._whole)

    async def _until_released(self) -> None:
        if not self._released:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter


class BodyDigest:
    """The running checksum of a body, where it has one, and its other digests."""

    __slots__ = ("_checksum", "hashes")

    def __init__(self, checksum: Digest | None, hashes: Hashes) -> None:
        self._checksum = checksum
        self.hashes = hashes

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""
        if self._checksum is not None:
            self._checksum.update(data)
        self.hashes.update(data)

    def checksum(self) -> bytes | None:
        """Of all bytes so far."""
        return None if self._checksum is None else self._checksum.digest()


def _first(chunks: list[bytes], size: int) -> list[bytes]:
    """The chunks that make up the first ``size`` bytes."""
    taken: list[bytes] = []
    for chunk in chunks:
        if size <= 0:
            break
        taken.append(chunk[:size] if len(chunk) > size else chunk)
        size -= len(chunk)
    return taken


class Lagging(Unavailable):
    """A pause took too long; the connection is to be closed, so that another server may be tried."""


class Gate:
    """Pauses one append's client while the remotes lag too far behind the spool, and when it sends too fast.

    `check` when bytes came or are about to, `close` at the append's end. ``pace``: see `Principal`. Invariant: such a
    pause is ours, so no guard against silent clients counts it, and it is bounded. A pause for the lag ends with
    everything received committed, if not before.
    """

    __slots__ = ("_admitted", "_context", "_give_up", "_pace", "_pausing", "_sink", "_timer", "_waiting")

    def __init__(
        self,
        context: UploadContext,
        sink: Sink,
        give_up: Callable[[Lagging], None],
        pace: Callable[[int], float] | None = None,
    ) -> None:
        self._context = context
        self._sink = sink
        self._give_up = give_up
        self._pace = pace
        self._timer: IDelayedCall | None = None
        self._pausing: IDelayedCall | None = None
        self._waiting = False
        self._admitted: Deferred[None] | None = None

    def check(self, size: int = 0) -> None:
        """``size`` bytes came: pause the sink's producer if the lag is too large, until it no longer is, or for as
        long as it was too fast."""
        context = self._context
        if self._pace is not None:
            self._slow_down(self._pace(size))
        if self._timer is not None or context.replication.admits():
            return
        self._sink.hold(True)
        self._timer = context.clock.callLater(context.limits.max_pause, self._overdue)
        admitted = self._admitted = context.replication.when_admitted()
        admitted.addCallbacks(self._open, _cancelled)

    def wait(self, waits: bool) -> None:
        """Pause it until there is room for its bytes, or no longer for that."""
        self._waiting = waits
        self._sink.hold(waits or self._timer is not None or self._pausing is not None)

    def close(self) -> None:
        """No pause any more, and none left behind."""
        for timer in (self._timer, self._pausing):
            if timer is not None and timer.active():
                timer.cancel()
        if self._admitted is not None:
            self._admitted.cancel()

    def _slow_down(self, seconds: float) -> None:
        if seconds > 0 and self._pausing is None:
            self._sink.hold(True)
            self._pausing = self._context.clock.callLater(seconds, self._paused)

    def _paused(self) -> None:
        self._pausing = None
        self._sink.hold(self._waiting or self._timer is not None)

    def _open(self, _: None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sink.hold(self._waiting or self._pausing is not None)

    def _overdue(self) -> None:
        self._give_up(Lagging(LAGGING, self._context.limits.retry_after))


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)

"""The queue between one request's body and one upload's data file.

Invariants: bytes reach the file in order and without gaps; at most one write of a sink is under way; the offset
that `sync` answers was written and synced before. After a failed write or sync nothing more is written or synced
through this sink, and unsynced bytes are cut off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.aio.threads import IPool
from resumable.model.segments import ISegmentWriter
from resumable.spool.budget import Budget
from resumable.spool.datafile import DataFile, RunningDigest
from resumable.spool.direct import AHEAD, WORTHWHILE, DirectTransfer, Ending, IDirectConsumer

HIGH = 8 << 20
"""Bytes queued in one sink at which its producer is paused."""
LOW = 4 << 20
"""Bytes queued in one sink at which its producer may go on."""
TURN = 4 << 20
"""Bytes after which a sink's write gives its thread to the next one."""


class SinkClosed(Exception):
    """The sink was closed before it could do this."""


@implementer(IConsumer, IDirectConsumer)
class Sink:
    """Takes the bytes of one append from ``offset`` on.

    It only gathers until `start`; gathered bytes may be taken back with `take`. All offsets are absolute.
    Everything is called in the reactor; files are touched in the pool's threads.

    ``received``: the offset after everything taken in, queued or written. ``written``: after the bytes in
    the file. ``durable``: after the synced bytes. ``overrun``: bytes arrived past ``ceiling``, and were dropped.
    ``failure``: why nothing more is taken. ``direct``: whether bytes may come by `receive`; ``ahead``: how many
    of them before the reactor knows.

    Hooks: ``on_write()`` after bytes were taken in or dropped for the ceiling; ``on_failure(failure)`` once;
    ``on_pressure()`` when memory is short and this sink only gathers: whoever sets it starts the sink soon, and
    until then it is paused; ``on_resume()`` before a paused producer may go on.
    """

    __slots__ = (
        "_budget",
        "_closing",
        "_count",
        "_draining",
        "_file",
        "_halting",
        "_held",
        "_paused",
        "_pool",
        "_producer",
        "_queue",
        "_started",
        "_syncing",
        "_transfer",
        "_transferred",
        "_truncate_to",
        "_waiting",
        "_writing",
        "ahead",
        "ceiling",
        "direct",
        "durable",
        "failure",
        "offset",
        "on_failure",
        "on_pressure",
        "on_resume",
        "on_write",
        "overrun",
        "received",
        "segments",
        "upload_id",
        "written",
    )

    _log = Logger()
    #: New bytes, up to `ready`, that are worth a commit while more come; None: as the use cases have it.
    worthwhile: int | None = None
    #: Seconds between two such commits, where others read the catalog too: each costs its database about a millisecond.
    pause = 0.025

    def __init__(
        self, upload_id: str, offset: int, file: DataFile, *, ceiling: int | None, pool: IPool, budget: Budget
    ) -> None:
        self.upload_id = upload_id
        self.offset = self.received = self.written = self.durable = offset
        self.ceiling = ceiling
        self.overrun = False
        #: None where the upload has one data file.
        self.segments: ISegmentWriter | None = None
        self.failure: Failure | None = None
        self.on_write: Callable[[], None] | None = None
        self.on_failure: Callable[[Failure], None] | None = None
        self.on_pressure: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self._file, self._pool, self._budget = file, pool, budget
        self.direct = not file.digests
        self.ahead: Callable[[], int] | None = None
        self._transfer: DirectTransfer | None = None
        self._transferred: Deferred[Ending] | None = None
        self._count: Callable[[int], None] = lambda size: None
        self._halting: list[Deferred[None]] = []
        self._queue: deque[bytes] = deque()
        self._producer: IPushProducer | None = None
        self._paused = self._held = self._started = self._writing = self._syncing = False
        self._waiting: list[tuple[int, Deferred[int]]] = []
        self._draining: list[Deferred[None]] = []
        self._closing: list[Deferred[None]] | None = None
        self._truncate_to: int | None = None

    # -- taking in

    @property
    def queued(self) -> int:
        """Bytes in memory: received and not known to be written."""
        return self.received - self.written

    @property
    def ready(self) -> int:
        """The offset up to which a commit is worth its while as long as more bytes come."""
        return self.received

    @property
    def paused(self) -> bool:
        """Whether the producer was asked to wait: its silence is ours."""
        return self._paused

    @property
    def receiving(self) -> bool:
        """Whether `receive` is under way."""
        return self._transfer is not None

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._started

    @property
    def over(self) -> bool:
        """Whether it takes nothing more, and no file is open or about to be: `close` has nothing to do."""
        return self._closing is not None and not (self._writing or self._syncing or self._file.is_open)

    def write(self, data: bytes) -> None:
        """Take ``data`` in; drop it after a failure, and the bytes past ``ceiling``."""
        if self.failure is not None or self._closing is not None:
            return
        if self.ceiling is not None and self.received + len(data) > self.ceiling:
            self.overrun = True
            data = data[: self.ceiling - self.received]
        if data:
            self.received += len(data)
            self._queue.append(data)
            self._budget.add(self, len(data))
            self._write_on()
            self._pace()
        if self.on_write is not None:
            self.on_write()

    def receive(self, source: int, size: int, arrived: Callable[[int], None]) -> Deferred[Ending] | None:
        """See `IDirectConsumer.receive`."""
        if not self.direct or not self._started or self._producer is None or self._paused or self.receiving:
            return None
        end = self.received + size
        if self.ceiling is not None:
            end = min(end, self.ceiling)
        if end <= self.received or self.failure is not None or self._closing is not None:
            return None
        ahead = self._ahead()
        if ahead < WORTHWHILE:
            return None
        self._transfer = DirectTransfer(source, self.received, end, ahead, self._tell, self._pool)
        self._count = arrived
        done = self._transferred = Deferred()
        self._write_on()
        return done

    def halt(self) -> Deferred[None]:
        """Fires soon, when what `receive` has brought by then is counted; it may begin again after that."""
        if self._transfer is None:
            return succeed(None)
        self._transfer.limit = 0
        done: Deferred[None] = Deferred()
        self._halting.append(done)
        return done

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if not streaming:
            raise RuntimeError("a sink takes push producers only")
        if self._producer is not None:
            raise RuntimeError("another producer is registered")
        self._producer, self._paused = cast(IPushProducer, producer), False
        self._pace()

    def unregisterProducer(self) -> None:
        self._producer, self._paused = None, False
        self._no_further()

    def hold(self, held: bool) -> None:
        """Have the producer wait, however little is queued; False: it may go on, if the queue lets it."""
        self._held = held
        self._pace()

    def squeeze(self) -> None:
        """Memory is short (see `Budget`)."""
        if not self._started and self.on_pressure is not None:
            self.on_pressure()
        self._pace()

    def ease(self) -> None:
        """Memory is no longer short (see `Budget`)."""
        self._pace()

    def _pace(self) -> None:
        if self._producer is None:
            return
        over = self.failure is not None or self._closing is not None
        queued, held = (0, False) if over else (self.queued, self._held)
        # a sink that only gathers, and has no `on_pressure`, would wait for ever
        short = self._budget.over and (self._started or self.on_pressure is not None)
        if not self._paused and (held or (queued and (queued >= HIGH or short))):
            self._paused = True
            self._no_further()
            self._producer.pauseProducing()
        elif self._paused and not held and (not queued or (queued <= LOW and not short)):
            self._paused = False
            if self.on_resume is not None:
                self.on_resume()
            self._producer.resumeProducing()

    def take(self) -> list[bytes]:
        """The bytes that a sink gathered before its start. It is empty and closed afterwards; feeds no digest."""
        if self._started:
            raise RuntimeError("the sink was started")
        gathered = list(self._queue)
        self._drop()
        self._closing = []
        self._pace()
        return gathered

    # -- writing

    def prepare(self) -> Deferred[None]:
        """Open the file now, once and before `start`; bytes past ``offset`` are cut off when this fires.

        Fails with the sink's failure (OSError, SpoolDamaged).
        """
        self._writing = True
        return self._pool.run(self._file.open).addCallbacks(self._prepared, self._prepare_failed)

    def began(self, epoch: int) -> Deferred[None]:
        """The catalog has said yes to this append, which has that epoch; before `start`, where several processes share
        the uploads. Fails as `prepare`, and with Held."""
        return succeed(None)

    def start(self) -> None:
        """From now on bytes go to the file, the gathered ones first. The file is opened with the first byte."""
        if not self._started:
            self._started = True
            self._write_on()
            self._pace()

    def drained(self) -> Deferred[None]:
        """Fires when nothing is queued in a started sink, be it written or dropped."""
        if not self._queue and not self._writing:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._draining.append(done)
        return done

    @deferred
    async def feed(self, start: int, end: int, digest: RunningDigest) -> None:
        """Give the bytes from ``start`` to ``end``, which are written, to ``digest`` in a thread. For a drained sink
        that nobody closes meanwhile. Fails with OSError, SpoolDamaged."""
        while start < end:
            start = await self._pool.run(self._file.feed, start, end, digest)

    def sync(self, upto: int | None = None, finishes: bool = False) -> Deferred[int]:
        """The offset that is durable now: all that was received before the call, or more. Starts the sink.

        ``upto``: no more than that has to be; ``finishes``: the commit that follows ends there, and finishes the
        upload.

        The first one makes a new file's name durable too. Calls that come together share a sync. Fails with the
        sink's failure (OSError, SpoolDamaged), or SinkClosed.
        """
        if self.failure is not None:
            return fail(self.failure)
        if self._closing is not None:
            return fail(SinkClosed(self.upload_id))
        if self.received <= self.durable:
            return succeed(self.durable)
        answer: Deferred[int] = Deferred()
        self._waiting.append((self.received, answer))
        self.start()
        self._sync_on()
        return answer

    def close(self, truncate_to: int | None = None) -> Deferred[None]:
        """No more writes; queued bytes are dropped. Fires when no thread is at it and the file is closed.

        ``truncate_to``: cut the file there, if it was opened. After a failure it is cut to the bytes durable at
        most. Never fails: the next append cuts the file before it writes. Only the first call's ``truncate_to`` counts.
        """
        done: Deferred[None] = Deferred()
        if self._closing is None:
            self._closing = []
            self._truncate_to = truncate_to
            self._no_further()
            self._queue.clear()
        self._closing.append(done)
        self._go_on()
        return done

    def _prepared(self, _: None) -> None:
        self._writing = False
        self._go_on()

    def _prepare_failed(self, failure: Failure) -> Failure:
        self._write_failed(failure)
        return failure

    def _write_on(self) -> None:
        if not self._started or self._writing or self.failure is not None:
            return
        if self._transfer is not None:
            self._writing = True
            self._pool.run(self._file.receive, self._queue, self._transfer).addCallbacks(
                self._moved, self._write_failed
            )
        elif self._queue:
            self._writing = True
            self._pool.run(self._file.write, self._queue, TURN).addCallbacks(self._wrote, self._write_failed)

    def _wrote(self, position: int) -> None:
        self._writing = False
        if self.failure is None:
            count, self.written = position - self.written, position
            self._budget.release(self, count)
        self._go_on()

    def _write_failed(self, failure: Failure) -> None:
        self._writing = False
        if self._transfer is not None:
            self._count_to(self._transfer, self._transfer.taken)
        self._fail(failure)

    def _tell(self) -> None:
        """In a thread."""
        self._pool.tell(self._reached)

    def _reached(self) -> None:
        """The transfer has put bytes into the file, after the queued ones."""
        transfer = self._transfer
        if transfer is None:
            return
        position = transfer.put
        if self.failure is None and position > self.written:
            self._budget.release(self, self.queued)
            self.received = self.written = position
        if transfer.limit:
            transfer.limit = min(transfer.end, position + self._ahead())
        if position > transfer.counted:
            self._count_to(transfer, position)
            if self.on_write is not None:
                self.on_write()
        self._sync_on()

    def _count_to(self, transfer: DirectTransfer, position: int) -> None:
        came, transfer.counted = position - transfer.counted, position
        self._count(came)

    def _moved(self, _: object) -> None:
        """The transfer is over."""
        transfer = self._transfer
        assert transfer is not None
        self._writing = False
        try:
            self._reached()
        except Exception:  # of a hook: written to in the ordinary way, its connection would be lost
            self._fail(Failure())
        self._transfer_over(transfer.ending or Ending.LATER)
        self._go_on()

    def _transfer_over(self, ending: Ending) -> None:
        if self._transfer is None:
            return
        halting, self._halting = self._halting, []
        transferred, self._transfer, self._transferred = self._transferred, None, None
        assert transferred is not None
        for done in halting:
            done.callback(None)
        transferred.callback(ending)

    def _ahead(self) -> int:
        return AHEAD if self.ahead is None else self.ahead()

    def _no_further(self) -> None:
        if self._transfer is not None:
            self._transfer.limit = 0

    def _sync_on(self) -> None:
        if self._waiting and self._waiting[0][0] <= self.written and not self._syncing and self.failure is None:
            self._syncing = True
            self._pool.run(self._file.sync).addCallbacks(self._synced, self._sync_failed, callbackArgs=(self.written,))

    def _synced(self, _: None, offset: int) -> None:
        """These bytes are durable, even if a write of later ones has failed meanwhile."""
        self._syncing = False
        self.durable = offset
        ready = [answer for target, answer in self._waiting if target <= offset]
        del self._waiting[: len(ready)]
        for answer in ready:
            answer.callback(offset)
        if self.failure is not None:
            self._give_up(self.failure)
        self._go_on()

    def _sync_failed(self, failure: Failure) -> None:
        self._syncing = False
        self._give_up(self.failure or failure)
        self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        if self.failure is None:
            self.failure = failure
            self._no_further()
            self._drop()
            if not self._syncing:
                self._give_up(failure)
            if self.on_failure is not None:
                self.on_failure(failure)
        self._go_on()

    def _give_up(self, reason: Failure | SinkClosed) -> None:
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            answer.errback(reason)

    def _drop(self) -> None:
        self._queue.clear()
        self._budget.release(self, self.queued)
        self.received = self.written

    def _go_on(self) -> None:
        """Something has changed: start what can be started, and answer the waiting Deferreds."""
        if not self._writing and (self.failure is not None or self._closing is not None):
            self._transfer_over(Ending.LATER)
        self._write_on()
        self._sync_on()
        self._pace()
        if not self._writing and not self._queue:
            draining, self._draining = self._draining, []
            for done in draining:
                done.callback(None)
        if self._closing is not None and not self._writing and not self._syncing:
            self._close_file()

    def _close_file(self) -> None:
        self._drop()
        self._give_up(SinkClosed(self.upload_id))
        if not self._file.is_open:
            self._closed()
            return
        cut = self._truncate_to
        if self.failure is not None:
            cut = self.durable if cut is None else min(cut, self.durable)
        self._syncing = True  # the file is busy
        self._pool.run(self._file.close, cut).addErrback(self._close_failed).addCallback(self._file_closed)

    def _close_failed(self, failure: Failure) -> None:
        self._log.failure("closing failed", failure, upload=self.upload_id)

    def _file_closed(self, _: None) -> None:
        self._syncing = False
        self._closed()

    def _closed(self) -> None:
        closing, self._closing = self._closing or [], []
        for done in closing:
            done.callback(None)

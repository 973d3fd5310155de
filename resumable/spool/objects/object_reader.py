"""Reading finished uploads from their objects, as replication reads data files.

Invariants: a byte that is answered is the object's at that offset, and all that was asked for comes or the read fails;
what reads on where another read has ended goes on with its stream. Of each upload that is read there are at most
`STREAMS` streams that rest, each with `PIECE` bytes or a little more.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from attrs import define, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import blockingCallFromThread

from resumable.aio.deferreds import deferred
from resumable.aio.threads import IPool
from resumable.remotes.errors import NotThere, RemoteError, Throttled, Transient
from resumable.remotes.object_store import IObjectStore
from resumable.remotes.reading import IObjectStream
from resumable.spool.datafile import NotWhole
from resumable.spool.objects.append_parts import StoreContext
from resumable.spool.objects.errors import StoreFailed, store_failed
from resumable.spool.reader import PIECE, Loan, Reader

T = TypeVar("T")

SPAN: Final = 8 << 20
"""Bytes that are asked for at once where nobody has said how far will be read. With more of them more comes that nobody
wants, with fewer there are more requests."""
STREAMS: Final = 16
"""Streams that rest between two reads; as many regions as may be read at once without a request for each read."""
ENDS: Final = 64
"""Ends of regions that are remembered."""


@frozen
class WholeObjects:
    """The objects of finished uploads. ``pool`` runs what wants bytes in a thread."""

    context: StoreContext
    pool: IPool
    reactor: IReactorFromThreads

    @deferred
    async def reader(self, upload_id: str) -> ObjectReader:
        """The bytes of an upload. Fails with FileNotFoundError: there are none (any more); NotWhole: its object isn't
        there yet. Asks only the catalog."""
        layout = await self.context.stored.tail_of(upload_id)
        if layout is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), upload_id)
        if not layout.whole:
            raise NotWhole(upload_id, "its object is not there yet")
        return self.opened(upload_id, self.context.names.key(upload_id, layout.is_partial), layout.offset)

    def opened(self, upload_id: str, key: str, size: int) -> ObjectReader:
        """The same of an upload's object of this size that is known to be there."""
        context = self.context
        return ObjectReader(
            context.store, key, size, self.pool, self.reactor, lambda: context.lost.missed(upload_id, key)
        )

    @deferred
    async def read_start(self, start: tuple[str, int]) -> bytes:
        """Up to so many bytes from an upload's start on, with one request. Fails as `reader`, and StoreFailed."""
        upload_id, size = start
        reader = await self.reader(upload_id)
        try:
            reader.reach(min(size, reader.size))
            return await reader.read(0, size)
        finally:
            await reader.close()


@define(eq=False)
class _Span:
    """An answer of the store that is read. ``offset``: of its next byte; ``ahead``: bytes that have come, used up to
    ``used``."""

    stream: IObjectStream
    offset: int
    end: int
    ahead: bytes = b""
    used: int = 0

    async def take(self, most: int) -> bytes:
        """The next bytes, at least one. Raises RemoteError."""
        if self.used == len(self.ahead):
            self.ahead, self.used = await self.stream.read(), 0
            if not self.ahead or self.offset + len(self.ahead) > self.end:
                raise Transient("the object ended before its end" if not self.ahead else "the object is too long")
        piece = self.ahead[self.used : self.used + most]
        self.used += len(piece)
        self.offset += len(piece)
        return piece


class ObjectReader(Reader):
    """See `Reader`; ``size``: the object's. Reads fail with StoreFailed.

    An open reader keeps nobody from removing the object. ``missed`` is called when the store doesn't have it.
    """

    def __init__(
        self,
        store: IObjectStore,
        key: str,
        size: int,
        pool: IPool,
        reactor: IReactorFromThreads,
        missed: Callable[[], Awaitable[None]],
    ) -> None:
        self.size = size  # what Reader.__init__ does beside that is about a file
        self._pool = pool
        self._fd = -1
        self._reading = 0
        self._closing = None
        self._store = store
        self._key = key
        self._reactor = reactor
        self._missed = missed
        self._resting: deque[_Span] = deque()
        self._ends: deque[int] = deque(maxlen=ENDS)

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See `Reader.read`."""
        return self._reads(self.read_lent(offset, size))

    def scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> Deferred[int]:
        """See `Reader.scan`."""
        return self._reads(self._scan_all(offset, size, feed))

    def reach(self, end: int) -> Deferred[None] | None:
        """See `Reader.reach`. What is read up to there is one stream's."""
        if end not in self._ends:
            self._ends.append(end)
        return None

    def lend(self) -> Loan:
        """See `Reader.lend`."""
        if self._closing is not None:
            raise ValueError("the reader is closed")
        self._reading += 1
        return ObjectLoan(self, self._reactor, lambda: self._one_read(None))

    def close(self) -> Deferred[None]:
        """See `Reader.close`."""
        closed = super().close()
        while self._resting:
            self._resting.pop().stream.close()
        return closed

    def _reads(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        if self._closing is not None:
            work.close()
            return fail(ValueError("the reader is closed"))
        self._reading += 1
        return Deferred.fromCoroutine(work).addBoth(self._one_read)

    async def read_lent(self, offset: int, size: int) -> bytes:
        """As `read`, also while it waits to be closed."""
        left = max(0, min(size, self.size - offset))
        pieces = []
        while left:
            pieces.append(await self._piece(offset, left))
            offset += len(pieces[-1])
            left -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _scan_all(self, offset: int, size: int, feed: Callable[[bytes], object]) -> int:
        fed, size = 0, max(0, min(size, self.size - offset))
        while fed < size:
            piece = await self._piece(offset + fed, min(PIECE, size - fed))
            await self._pool.run(feed, piece)
            fed += len(piece)
        return fed

    async def _piece(self, offset: int, most: int) -> bytes:
        """At least one byte. What fails is tried once more, with a request from there on."""
        try:
            return await self._from_stream(offset, most)
        except Transient as error:
            if isinstance(error, Throttled):
                raise store_failed(error) from error
        except RemoteError as error:
            raise await self._failed(error) from error
        try:
            return await self._from_stream(offset, most)
        except RemoteError as error:
            raise await self._failed(error) from error

    async def _failed(self, error: RemoteError) -> StoreFailed:
        if isinstance(error, NotThere):
            await self._missed()
        return store_failed(error)

    async def _from_stream(self, offset: int, most: int) -> bytes:
        span = next((each for each in self._resting if each.offset == offset), None)
        if span is None:
            end = self._end_behind(offset)
            span = _Span(await self._store.open(self._key, offset, end - offset), offset, end)
        else:
            self._resting.remove(span)
        try:
            piece = await span.take(most)
        except BaseException:
            span.stream.close()
            raise
        if span.offset == span.end or self._closing is not None:
            span.stream.close()
        else:
            self._resting.append(span)
            if len(self._resting) > STREAMS:
                self._resting.popleft().stream.close()
        return piece

    def _end_behind(self, offset: int) -> int:
        """How far a stream from there on goes."""
        return min(self.size, min((each for each in self._ends if each > offset), default=offset + SPAN))


class ObjectLoan(Loan):
    """An object in the hands of another thread."""

    def __init__(self, reader: ObjectReader, reactor: IReactorFromThreads, returned: Callable[[], object]) -> None:
        self.descriptor = None
        self._reader = reader
        self._reactor = reactor
        self._returned = returned

    def read(self, offset: int, size: int) -> bytes:
        """See `Loan.read`. Raises StoreFailed."""
        data: bytes = blockingCallFromThread(self._reactor, self._start, offset, size)
        return data

    def _start(self, offset: int, size: int) -> Any:
        """In the reactor."""
        return Deferred.fromCoroutine(self._reader.read_lent(offset, size))

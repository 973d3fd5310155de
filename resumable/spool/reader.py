"""Reading a data file piece by piece, for a download or a remote.

Invariant: the descriptor is closed only when no thread reads through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.threads import IPool
from resumable.spool.disk import IDisk

T = TypeVar("T")
#: Bytes that a scan holds at once: they stay in the processor's cache.
PIECE: Final = 256 * 1024


class Loan:
    """The reader's file in the hands of another thread. ``returned`` is called once, in the reactor.

    ``descriptor``: the kernel's, open until then; None: it has none.
    """

    def __init__(self, disk: IDisk, fd: int, returned: Callable[[], object]) -> None:
        self.descriptor: int | None = disk.descriptor(fd)
        self._disk = disk
        self._fd = fd
        self._returned: Callable[[], object] | None = returned

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end of the file. Blocks. Raises OSError."""
        return self._disk.read(self._fd, size, offset)

    def give_back(self) -> None:
        """To be called in the reactor, once no thread reads. May be repeated."""
        returned, self._returned = self._returned, None
        if returned is not None:
            returned()


class Reader:
    """An open file. ``size``: its bytes when it was opened; removing the file doesn't disturb the reader."""

    _log = Logger()

    def __init__(self, disk: IDisk, pool: IPool, fd: int, size: int) -> None:
        self.size = size
        self._disk = disk
        self._pool = pool
        self._fd = fd
        self._reading = 0
        self._closing: list[Deferred[None]] | None = None

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Up to ``size`` bytes, fewer only at the end of the file. Fails with OSError, ValueError once closed."""
        if self._closing is not None:
            return fail(ValueError("the reader is closed"))
        self._reading += 1
        return self._pool.run(self._disk.read, self._fd, size, offset).addBoth(self._one_read)

    def scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> Deferred[int]:
        """Give ``feed`` up to ``size`` bytes in the thread that reads them; answers how many. Fails as `read`."""
        if self._closing is not None:
            return fail(ValueError("the reader is closed"))
        self._reading += 1
        return self._pool.run(self._scan, offset, size, feed).addBoth(self._one_read)

    def _scan(self, offset: int, size: int, feed: Callable[[bytes], object]) -> int:
        """In a thread."""
        fed = 0
        while fed < size and (piece := self._disk.read(self._fd, min(PIECE, size - fed), offset + fed)):
            feed(piece)
            fed += len(piece)
        return fed

    def reach(self, end: int) -> Deferred[None] | None:
        """The bytes up to ``end`` are committed by now, and about to be read: None, if they can be; else fires then.

        Fails with OSError.
        """
        return None

    def lend(self) -> Loan:
        """For a thread that isn't the pool's. ValueError once closed."""
        if self._closing is not None:
            raise ValueError("the reader is closed")
        self._reading += 1
        return Loan(self._disk, self._fd, lambda: self._one_read(None))

    def close(self) -> Deferred[None]:
        """Fires when the file is closed, which waits for reads under way and loans. Never fails; may be repeated."""
        done: Deferred[None] = Deferred()
        if self._closing is None:
            self._closing = []
        self._closing.append(done)
        self._close_file()
        return done

    def _one_read(self, result: T) -> T:
        self._reading -= 1
        self._close_file()
        return result

    def _close_file(self) -> None:
        """Close it if that was asked for and no read is under way; then answer the waiting Deferreds."""
        if self._closing is None or self._reading:
            return
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._reading = 1  # by the one that closes
            self._pool.run(self._disk.close, fd).addErrback(self._close_failed).addCallback(self._file_closed)
        else:
            closing, self._closing = self._closing, []
            for done in closing:
                done.callback(None)

    def _close_failed(self, failure: Failure) -> None:
        self._log.failure("closing a reader failed", failure)

    def _file_closed(self, _: None) -> None:
        self._reading = 0
        self._close_file()

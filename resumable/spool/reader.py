"""Reading a data file piece by piece, for a download or a remote.

One reason to change: how committed bytes are read back.

Invariant: the descriptor is closed only when no thread reads through it.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.spool.disk import IDisk
from resumable.threads import IPool


class Reader:
    """An open file. ``size`` is what it had when it was opened; removing the file doesn't disturb the reader."""

    _log = Logger()

    def __init__(self, disk: IDisk, pool: IPool, fd: int, size: int) -> None:
        self.size = size
        self._disk = disk
        self._pool = pool
        self._fd = fd
        self._reading = 0
        self._closed = False

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Up to ``size`` bytes, fewer only at the end of the file. Fails with OSError, ValueError once closed."""
        if self._closed:
            return fail(ValueError("the reader is closed"))
        self._reading += 1
        return self._pool.run(self._disk.read, self._fd, size, offset).addBoth(self._one_read)

    def close(self) -> None:
        """Close the file, as soon as reads under way are over. May be repeated."""
        if not self._closed:
            self._closed = True
            self._close_file()

    def _one_read(self, result: bytes | Failure) -> bytes | Failure:
        self._reading -= 1
        if self._closed:
            self._close_file()
        return result

    def _close_file(self) -> None:
        if not self._reading:
            self._pool.run(self._disk.close, self._fd).addErrback(lambda f: self._log.failure("closing failed", f))

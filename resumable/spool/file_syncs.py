"""Syncs of the files of one step: one after the other where the disk is quick, several at once where it isn't.

A file system with a journal writes it once for all syncs that wait for it: on ext4, 32 new files were durable in 5 ms
by 8 syncs at once, and in 86 ms one after the other. One sync of the whole file system (``syncfs``) is quicker still,
but it also waits for the unsynced bytes of everybody else. Where a sync is no work (tmpfs), threads would only cost.

Invariant: each file's own sync has answered for it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Final

from resumable.spool.disk import IDisk

AT_ONCE: Final = 8
SLOW: Final = 200e-6
"""Seconds; syncs that take longer are done several at once. More: a fast disk waits in turn; less: a disk that needs no
threads gets them whenever the interpreter is busy."""


class FileSyncs:
    """Used by one thread at a time. ``seconds``: a clock."""

    def __init__(self, disk: IDisk, seconds: Callable[[], float] = perf_counter) -> None:
        self._disk = disk
        self._seconds = seconds
        self._usual = 0.0
        self._threads: ThreadPoolExecutor | None = None
        self._alone = False

    def sync(self, fds: Sequence[int]) -> list[OSError | None]:
        """Make the content of each durable; its error, or None."""
        if len(fds) > 1 and self._usual > SLOW and not self._alone:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(AT_ONCE, "sync")
            try:
                done = list(self._threads.map(self._one, fds))
            except RuntimeError as error:  # the system gives us no thread
                return self._refused(self._threads, len(fds), str(error))
        else:
            done = [self._one(fd) for fd in fds]
        if done:
            # The middle one, as a busy interpreter keeps some waiting; and it takes some slow steps to be believed.
            middle = sorted(seconds for _, seconds in done)[(len(done) - 1) // 2]
            self._usual = min(middle, 2 * self._usual + SLOW / 20)
        return [error for error, _ in done]

    def stop(self) -> None:
        """End the threads, which have nothing to do."""
        if self._threads is not None:
            self._threads.shutdown()

    def _refused(self, threads: ThreadPoolExecutor, count: int, reason: str) -> list[OSError | None]:
        """All of this step fail: syncs that began may have seen errors that a second one would not. Then no threads."""
        threads.shutdown(cancel_futures=True)  # no file is closed while a sync of it is under way
        self._threads, self._alone = None, True
        return [OSError(errno.EAGAIN, reason) for _ in range(count)]

    def _one(self, fd: int) -> tuple[OSError | None, float]:
        began, failed = self._seconds(), None
        try:
            self._disk.fdatasync(fd)
        except OSError as error:
            failed = error
        return failed, self._seconds() - began

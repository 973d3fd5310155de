"""From a socket to a file without a copy in this process: splice(2) through a pipe, which only Linux has.

Invariant: `Splicer.put` writes all that this thread's last `Splicer.take` has taken, and nothing else: what was taken
and not put is thrown away with its pipe. Each thread has one pipe: the kernel gives an unprivileged user 64 of this
size.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import sys
import threading
from typing import Final

PIPE: Final = 1 << 20
"""Bytes of the pipe, and so of one move. With 512 KiB it takes a third longer."""

_UNABLE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


class CannotSplice(Exception):
    """Not here, or not now; no byte was taken from the socket."""


class _Pipe:
    """Both ends of a pipe, closed with it, and how many bytes are in it. Raises CannotSplice where it can't be had in
    full size."""

    def __init__(self) -> None:
        self.output = self.input = -1
        self.filled = 0
        try:
            self.output, self.input = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            if sys.platform == "linux":
                fcntl.fcntl(self.input, fcntl.F_SETPIPE_SZ, PIPE)
        except OSError as error:
            raise CannotSplice(str(error)) from error

    def __del__(self) -> None:
        for fd in (self.output, self.input):
            if fd >= 0:
                os.close(fd)


class Splicer:
    """Moves bytes, in any number of threads."""

    def __init__(self) -> None:
        self._able = sys.platform == "linux" and hasattr(os, "splice")
        self._local = threading.local()

    def take(self, source: int, count: int, patience: float) -> int | None:
        """See `IDisk.take`."""
        if not self._able:
            raise CannotSplice("splice(2) doesn't work here")
        pipe: _Pipe | None = getattr(self._local, "pipe", None)
        if pipe is None or pipe.filled:
            pipe = self._local.pipe = _Pipe()
        size = _taken(source, pipe.input, min(count, PIPE), patience)
        pipe.filled = size or 0
        return size

    def put(self, target: int, offset: int) -> None:
        """See `IDisk.put`."""
        pipe: _Pipe = self._local.pipe
        left = pipe.filled
        while left and self._able:
            try:
                moved = os.splice(pipe.output, target, left, offset_dst=offset)
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
                moved = 0
            self._able = bool(moved)  # else this file system can't
            offset += moved
            left -= moved
        while left:
            data = os.read(pipe.output, left)
            left -= len(data)
            while data:
                written = os.pwrite(target, data, offset)
                offset += written
                data = data[written:]
        pipe.filled = 0


def _taken(source: int, pipe: int, count: int, patience: float) -> int | None:
    """The bytes that have come into the pipe; 0 at the end of the connection; None when none came for so long."""
    for waited in (False, True):
        try:
            return os.splice(source, pipe, count)
        except BlockingIOError:
            if waited or not _readable(source, patience):
                return None
        except OSError as error:
            if error.errno in _UNABLE:
                raise CannotSplice(str(error)) from error
            return 0  # it was reset: its reader is told by the socket itself
    return None


def _readable(source: int, patience: float) -> bool:
    if patience <= 0:
        return False
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(patience * 1000))

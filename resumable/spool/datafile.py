"""An upload's data file: while it is appended to, and after a crash. Everything here blocks.

Invariants: the file of an append was exactly as long as its committed offset before the first write, and bytes follow
each other without a gap; after a crash, bytes past the committed offset count only when they are synced again; no data
file is ever deleted here.
"""

from __future__ import annotations

import errno
import sys
from collections import deque
from contextlib import suppress
from typing import Any, Protocol, cast

from twisted.logger import Logger

from resumable.spool.direct import DirectTransfer
from resumable.spool.disk import COPY_BUFFER, IDisk

_log = Logger()


class SpoolDamaged(Exception):
    """A data file lacks bytes that are known to be committed. ``found`` is its size, None when it is missing."""

    def __init__(self, upload_id: str, expected: int, found: int | None) -> None:
        super().__init__(f"upload {upload_id}: expected at least {expected} bytes, found {found}")
        self.upload_id = upload_id
        self.expected = expected
        self.found = found


class NotReadable(OSError):
    """Committed bytes can't be read here at the moment, which says nothing of whether they are there."""

    def __init__(self, upload_id: str, reason: str) -> None:
        super().__init__(errno.ESTALE, f"upload {upload_id}: {reason}")


class NotWhole(NotReadable):
    """The upload's object isn't there yet: it is unfinished, or is being completed."""


def open_at(disk: IDisk, path: str, upload_id: str, offset: int) -> int:
    """A descriptor of the file, which is ``offset`` bytes long now.

    At 0 the file is made (or emptied); elsewhere it has to be there: what it has past ``offset`` was never
    committed and is cut off. Raises SpoolDamaged, OSError.
    """
    if offset == 0:
        return disk.open(path, create=True)
    try:
        fd = disk.open(path)
    except FileNotFoundError:
        raise SpoolDamaged(upload_id, offset, None) from None
    try:
        size = disk.size(fd)
        if size < offset:
            raise SpoolDamaged(upload_id, offset, size)
        if size > offset:
            disk.truncate(fd, offset)
    except Exception:
        disk.close(fd)
        raise
    return fd


class RunningDigest(Protocol):
    """An object of hashlib's, or one like it."""

    def update(self, data: bytes, /) -> object:
        """Take the next bytes."""


class DataFile:
    """One file, opened with its first byte or before. One thread may write while another syncs; only one of each."""

    __slots__ = (
        "_begins",
        "_digest",
        "_directory",
        "_disk",
        "_fd",
        "_path",
        "_position",
        "_unsynced_name",
        "_upload_id",
    )

    def __init__(
        self, disk: IDisk, directory: str, path: str, upload_id: str, offset: int, digest: RunningDigest | None
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._path = path
        self._upload_id = upload_id
        self._position = offset
        self._digest = digest
        self._fd = -1
        #: The upload's offset at which the file begins.
        self._begins = 0
        self._unsynced_name = False

    @property
    def is_open(self) -> bool:
        """Whether it holds a descriptor."""
        return self._fd >= 0

    def open(self) -> None:
        """Open it, cut to the offset where the append begins. Raises SpoolDamaged, OSError."""
        self._unsynced_name = self._position == 0
        self._fd = open_at(self._disk, self._path, self._upload_id, self._position)

    def write(self, queue: deque[bytes], limit: int) -> int:
        """Write the queued bytes, also those that come meanwhile, up to ``limit``; answers the offset afterwards."""
        if self._fd < 0:
            self.open()
        while limit > 0 and (batch := _taken(queue, limit)):
            self._disk.writev(self._fd, batch, self._position - self._begins)
            size = sum(map(len, batch))
            self._position += size
            limit -= size
            if self._digest is not None:
                for data in batch:
                    self._digest.update(data)
        return self._position

    def receive(self, queue: deque[bytes], transfer: DirectTransfer) -> object:
        """Write the queued bytes, then move those that follow; see `DirectTransfer.move`."""
        self.write(queue, sys.maxsize)
        try:
            return transfer.move(self._moving(), self._fd)
        finally:
            self._position = transfer.put

    def _moving(self) -> IDisk:
        """For a `DirectTransfer`, whose offsets are the upload's, and which begins where the file ends now."""
        return cast(IDisk, _Shifted(self._disk, self._begins)) if self._begins else self._disk

    @property
    def digests(self) -> bool:
        """Whether the bytes have to pass through this process."""
        return self._digest is not None

    def sync(self) -> None:
        """Make all bytes written before durable, and the file's name."""
        self._disk.fdatasync(self._fd)
        if self._unsynced_name:
            self._disk.sync_directory(self._directory)
            self._unsynced_name = False

    def feed(self, start: int, end: int, digest: RunningDigest) -> int:
        """Give ``digest`` some of the written bytes from ``start`` on, none past ``end``; the offset after them.
        Raises SpoolDamaged, OSError."""
        data = self._disk.read(self._fd, min(COPY_BUFFER, end - start), start - self._begins)
        if not data:
            raise self._missing(start, end)
        digest.update(data)
        return start + len(data)

    def close(self, truncate_to: int | None) -> None:
        """Close it, cut first if asked to. No write or sync may be under way."""
        fd, self._fd = self._fd, -1
        try:
            if truncate_to is not None and self._disk.size(fd) > truncate_to:
                self._disk.truncate(fd, truncate_to)
        finally:
            self._disk.close(fd)

    def _missing(self, start: int, end: int) -> Exception:
        """What to say of written bytes that aren't there."""
        return SpoolDamaged(self._upload_id, end, start)


class _Shifted:
    """A disk for a `DirectTransfer`, whose offsets are the upload's, into a file that begins at ``begins``."""

    def __init__(self, disk: IDisk, begins: int) -> None:
        self.take: Any = disk.take
        self._disk = disk
        self._begins = begins

    def put(self, fd: int, offset: int) -> None:
        self._disk.put(fd, offset - self._begins)


def _taken(queue: deque[bytes], limit: int) -> list[bytes]:
    """The first of the queue, until they are ``limit`` bytes. The reactor may append to it or clear it meanwhile."""
    batch: list[bytes] = []
    with suppress(IndexError):
        while limit > 0:
            batch.append(queue.popleft())
            limit -= len(batch[-1])
    return batch


def adopt(disk: IDisk, directory: str, path: str, upload_id: str, committed: int, limit: int) -> int:
    """Keep bytes past the committed offset, up to ``limit``. Answers the offset up to which the file is durable now.

    The caller knows that the machine has not been down since the bytes were written. They are written once
    more before the sync: where the crashed process had a sync that failed, the kernel took the pages for clean,
    and a sync alone would not bring them to the disk.
    """
    try:
        size = disk.file_size(path)
        offset = min(limit, size) if size is not None else committed
        if offset <= committed:
            return committed
        fd = disk.open(path)
        try:
            for position in range(committed, offset, COPY_BUFFER):
                disk.writev(fd, [disk.read(fd, min(COPY_BUFFER, offset - position), position)], position)
            disk.fdatasync(fd)
        finally:
            disk.close(fd)
        disk.sync_directory(directory)
    except OSError:
        _log.failure("bytes past the committed offset are not adopted", upload=upload_id, offset=committed)
        return committed
    return offset


def set_aside(disk: IDisk, directory: str, orphans: str, path: str) -> None:
    """Move a file to ``orphans``, under a name that is free there."""
    name = path.rpartition("/")[2]
    target, number = f"{orphans}/{name}", 0
    while disk.file_size(target) is not None:
        number += 1
        target = f"{orphans}/{name}.{number}"
    disk.rename(path, target)
    disk.sync_directory(orphans)
    disk.sync_directory(directory)

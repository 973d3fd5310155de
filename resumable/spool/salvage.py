"""What start-up does with the files that it finds; everything here blocks, before the reactor runs.

One reason to change: what may be believed of a file after a crash.

Invariant: bytes past the committed offset count only when they were synced now; no data file is ever deleted.
"""

from __future__ import annotations

from twisted.logger import Logger

from resumable.spool.disk import COPY_BUFFER, IDisk

_log = Logger()


def adopt(disk: IDisk, directory: str, path: str, upload_id: str, committed: int, limit: int) -> int:
    """The offset up to which the file may be believed: at least ``committed``, at most ``limit``; durable now.

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

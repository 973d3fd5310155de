"""How an upload's data file is opened to be appended to.

One reason to change: what must hold for the file before a byte is written to it.

Invariant: the file of an open append was exactly as long as its committed offset before the first write.
"""

from __future__ import annotations

from resumable.spool.disk import IDisk


class SpoolDamaged(Exception):
    """A data file lacks bytes that are known to be committed. ``found`` is its size, None when it is missing."""

    def __init__(self, upload_id: str, expected: int, found: int | None) -> None:
        super().__init__(f"upload {upload_id}: expected at least {expected} bytes, found {found}")
        self.upload_id = upload_id
        self.expected = expected
        self.found = found


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

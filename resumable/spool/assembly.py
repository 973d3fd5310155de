"""Copying the data of several uploads into one regular file.

The bytes are copied in steps to a working file; a step begins only after the one before was synced, and none goes past
a multiple of STEP.
Invariant, on which a restart relies: of a working file of any size, everything below the last multiple of STEP
that is smaller than the size was synced. So the size alone tells where to go on: the last step is done again,
whether it was finished, torn by a crash, or failed to sync. The file gets its name when all of it is durable;
a file with the name and the length is therefore complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from twisted.internet.defer import Deferred

from resumable.aio.threads import IPool
from resumable.model.upload import Segment
from resumable.spool.datafile import SpoolDamaged
from resumable.spool.disk import IDisk

STEP = 8 << 20
"""Bytes copied before a sync, and before the thread goes back to the pool, at most. Smaller steps sync more often,
larger ones repeat more after a crash and make others wait longer, as well as taking more room beside shared blocks.
A release that changes it has to give the working files another directory, unless it raises it to a multiple: what is
on disk was synced in the old steps."""
SHARES = 4
"""While others want to copy as well, a step is cut into so many: that is how long they wait for the disk. More of them
sync more often, fewer make small finals wait longer."""


class Assembly:
    """One final upload's copying. ``sources`` are (path, upload id, length), in order; a source may recur.

    `look` first, then `copy` until ``complete``, then `name`; or `discard` instead of going on. One call at a time.
    They fail with OSError, and with Stopped when no thread would do it.
    """

    def __init__(
        self,
        disk: IDisk,
        pool: IPool,
        working_path: str,
        final_path: str,
        sources: Sequence[tuple[str, str, int]],
        step: int = STEP,
    ) -> None:
        self._disk = disk
        self._pool = pool
        self._working_path = working_path
        self._final_path = final_path
        self._sources = sources
        self._step = step
        self.length = sum(length for _, _, length in sources)
        #: Bytes that are copied, and durable as far as the working file is.
        self.copied = 0
        self.complete = False
        #: The final's bytes, as the commit that finishes it records them; None where it has a data file.
        self.segment: Segment | None = None

    @property
    def steps_left(self) -> int:
        """The whole steps that are to come after the next one."""
        return max(0, self.length - self.copied - 1) // self._step

    def next_size(self, shared: bool) -> int:
        """The bytes of the next step; ``shared``: while others want to copy as well."""
        most = max(1, self._step // SHARES) if shared else self._step
        return min(most, self._step - self.copied % self._step, self.length - self.copied)

    def look(self) -> Deferred[None]:
        """Look for the working file of an earlier run."""
        return self._pool.run(self._look)

    def copy(self, size: int) -> Deferred[None]:
        """Copy one step's bytes, `next_size` of them, and sync them. Fails with SpoolDamaged for a source that is
        missing or short, too."""
        return self._pool.run(lambda: self._copy_step(size))

    def name(self) -> Deferred[None]:
        """Give the complete file its name, for good."""
        return self._pool.run(self._name_it)

    def discard(self) -> Deferred[None]:
        """Give back the working file's space."""
        return self._pool.run(self._discard)

    def _look(self) -> None:
        if self._disk.file_size(self._final_path) == self.length:
            self.copied, self.complete = self.length, True  # all that is left is to make sure of its name
            return
        size = self._disk.file_size(self._working_path) or 0
        self.copied = max(0, size - 1) // self._step * self._step

    def _copy_step(self, size: int) -> None:
        start, end = self.copied, self.copied + size
        target = self._disk.open(self._working_path, create=not start)
        try:
            if not start:
                self._disk.sync_directory(self._working_path.rpartition("/")[0])
            self._disk.truncate(target, start)
            for path, upload_id, source_offset, target_offset, count in self._pieces(start, end):
                self._copy(path, upload_id, source_offset, target, target_offset, count)
            self._disk.fdatasync(target)
        finally:
            self._disk.close(target)
        self.copied, self.complete = end, end == self.length

    def _discard(self) -> None:
        self.copied, self.complete = 0, False
        self._disk.unlink(self._working_path)
        self._disk.sync_directory(self._working_path.rpartition("/")[0])

    def _pieces(self, start: int, end: int) -> Iterator[tuple[str, str, int, int, int]]:
        """The stretches of sources that make up the final's bytes from ``start`` to ``end``."""
        position = 0
        for path, upload_id, length in self._sources:
            low, high = max(start, position), min(end, position + length)
            if low < high:
                yield path, upload_id, low - position, low, high - low
            position += length

    def _copy(self, path: str, upload_id: str, offset: int, target: int, target_offset: int, count: int) -> None:
        try:
            source = self._disk.open(path, read_only=True)
        except FileNotFoundError:
            raise SpoolDamaged(upload_id, offset + count, None) from None
        try:
            while count:
                copied = self._disk.copy_range(source, target, offset, target_offset, count)
                if not copied:
                    raise SpoolDamaged(upload_id, offset + count, self._disk.size(source))
                offset += copied
                target_offset += copied
                count -= copied
        finally:
            self._disk.close(source)

    def _name_it(self) -> None:
        if self._disk.file_size(self._working_path) is not None:
            self._disk.rename(self._working_path, self._final_path)
        self._disk.sync_directory(self._final_path.rpartition("/")[0])

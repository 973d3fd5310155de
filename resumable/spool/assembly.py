"""Copying the data of several uploads into one regular file.

One reason to change: how a final upload's file comes to be.

The bytes are copied in steps of STEP bytes to a working file; a step begins only after the one before was synced.
Invariant, and what a restart goes by: of a working file of any size, everything below the last multiple of STEP
that is smaller than the size was synced. So the size alone tells where to go on: the last step is done again,
whether it was finished, torn by a crash, or failed to sync. The file gets its name when all of it is durable;
a file with the name and the length is therefore complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from resumable.spool.datafile import SpoolDamaged
from resumable.spool.disk import IDisk
from resumable.threads import IPool, Stopped

STEP = 64 << 20
"""Bytes copied before a sync, and before the thread goes back to the pool. A smaller step syncs more often, a larger
one repeats more after a crash and makes the pool's other users wait longer. A release that changes it may only raise
it, to a multiple: what is on disk was synced in the old steps."""


class Assembly:
    """One final upload's copying. ``sources`` are (path, upload id, length), in order; a source may recur."""

    def __init__(
        self,
        disk: IDisk,
        pool: IPool,
        working_path: str,
        final_path: str,
        sources: Sequence[tuple[str, str, int]],
        step: int = STEP,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._disk = disk
        self._pool = pool
        self._working_path = working_path
        self._final_path = final_path
        self._sources = sources
        self._step = step
        self._stopping = stopping
        self._length = sum(length for _, _, length in sources)

    async def run(self) -> None:
        """Copy, sync, rename. Raises SpoolDamaged for a source that is missing or short, OSError, and Stopped."""
        step = await self._pool.run(self._begin)
        while step is not None:
            if self._stopping():
                raise Stopped("the next start goes on with it")
            step = await self._pool.run(self._copy_step, step)
        await self._pool.run(self._name_it)

    def _begin(self) -> int | None:
        """The step to go on with; None when all was done and only the end has to be made sure of."""
        if self._disk.file_size(self._final_path) == self._length:
            return None
        size = self._disk.file_size(self._working_path)
        if size is None:
            self._disk.close(self._disk.open(self._working_path, create=True))
            self._disk.sync_directory(self._working_path.rpartition("/")[0])
        return max(0, size - 1) // self._step if size else 0

    def _copy_step(self, step: int) -> int | None:
        """Copy one step's bytes and sync them; the next step, None after the last."""
        start, end = step * self._step, min((step + 1) * self._step, self._length)
        target = self._disk.open(self._working_path)
        try:
            self._disk.truncate(target, start)
            for path, upload_id, source_offset, target_offset, count in self._pieces(start, end):
                self._copy(path, upload_id, source_offset, target, target_offset, count)
            self._disk.fdatasync(target)
        finally:
            self._disk.close(target)
        return step + 1 if end < self._length else None

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

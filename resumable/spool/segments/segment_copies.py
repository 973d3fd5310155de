"""Copies of segments into one file: a final upload of its partials, a finished upload of its segments, several segments
of an unfinished one.

Invariants: the target has a name of its own until all bytes are durable; what is copied of a segment is what the
catalog counts. A copy goes on only within the process that began it: after a crash another begins, under another name.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred

from resumable.aio.deferreds import deferred
from resumable.aio.threads import IPool
from resumable.model.upload import Segment
from resumable.spool.assembly import Assembly
from resumable.spool.datafile import NotReadable, SpoolDamaged
from resumable.spool.disk import IDisk
from resumable.spool.segments.segment_reader import GONE

Sources = Sequence[tuple[str, str, int]]


class SegmentCopy(Assembly):
    """See `Assembly`. ``locate`` finds the sources: (path, upload id, bytes from the file's start), in order; it fails
    with NotReadable. Instead of SpoolDamaged `copy` fails with NotReadable."""

    def __init__(
        self,
        disk: IDisk,
        pool: IPool,
        working_path: str,
        final_path: str,
        length: int,
        locate: Callable[[], Deferred[Sources]],
        segment: Segment,
        step: int,
    ) -> None:
        super().__init__(disk, pool, working_path, final_path, (), step)
        self.length = length
        self.segment = segment
        self._locate = locate

    @deferred
    async def look(self) -> None:
        """Find the sources, as the catalog has them now."""
        self._sources = await self._locate()

    @deferred
    async def copy(self, size: int) -> None:
        """See `Assembly.copy`. The same bytes may have moved to another file since they were looked for."""
        try:
            await super().copy(size)
        except NotReadable:
            await self.look()
            await super().copy(size)

    def _copy(self, path: str, upload_id: str, offset: int, target: int, target_offset: int, count: int) -> None:
        try:
            super()._copy(path, upload_id, offset, target, target_offset, count)
        except SpoolDamaged as damage:
            raise NotReadable(upload_id, str(damage)) from None
        except OSError as error:
            if error.errno in GONE and error.errno != errno.ENOENT:
                raise NotReadable(upload_id, "a segment is gone") from None
            raise

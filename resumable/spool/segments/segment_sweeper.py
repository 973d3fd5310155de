"""Removes files that no row names: replaced segments, and what crashes and lost appends have left.

Invariants: nothing is removed unless the directory's marker is seen in the same step, before and after. A file without
a row goes only when it is older than `OLD` by the directory's own clock: by then no worker that wrote it is alive, so
no commit of it can land. The file under an id goes only if its upload has no data: where a row has some, the next join
replaces the file. A name that no server has drawn may be an operator's file, so it stays: no append writes there, see
`SegmentFile.to`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.logger import Logger

from resumable.aio.threads import IPool
from resumable.model.segments import ISegments
from resumable.spool.files import DRAWN_ID
from resumable.spool.segments.segment_directory import FOLDERS, SegmentDirectory

OLD: Final = 86_400.0
"""Seconds. A worker that wasn't heard of for that long has lost its row, and records nothing."""
PAGE: Final = 256
"""Names that are looked at together."""


class SegmentSweeper:
    """By one worker at a time. Fails with CatalogUnavailable, OSError, Stopped."""

    _log = Logger()

    def __init__(self, names: SegmentDirectory, segments: ISegments, pool: IPool) -> None:
        self._names = names
        self._segments = segments
        self._pool = pool
        #: Files removed since the start.
        self.removed = 0
        self._stopping = False

    def stop(self) -> None:
        """End a sweep that is under way after its next step."""
        self._stopping = True

    async def sweep_discarded(self) -> None:
        """Remove the files of segments that others replaced, or whose upload has become one file."""
        while not self._stopping and (names := await self._segments.discarded(PAGE)):
            paths = {self._names.segment_path(name): name for name in names}
            gone = await self._pool.run(self._unlink, list(paths), None)
            if gone is None:
                self._unmounted()
                return
            if not gone:
                return  # none of them can be removed now
            await self._segments.removed([paths[path] for path in gone])

    async def sweep_unknown(self) -> None:
        """Remove old files that no row names."""
        if not await self._pool.run(self._names.is_ours):
            self._unmounted()
            return
        before = await self._pool.run(self._names.now) - int(OLD * 1e9)
        for folder in FOLDERS:
            for page in await self._pages(f"{self._names.segments}/{folder}"):
                unknown = await self._segments.unknown([f"{folder}/{name}" for name in page])
                await self._remove_old([f"{self._names.segments}/{name}" for name in unknown], before)
        for path in (self._names.finals, self._names.placing):
            for page in await self._pages(path):
                await self._remove_old([f"{path}/{name}" for name in page], before)
        for page in await self._pages(self._names.root):
            ids = [name for name in page if DRAWN_ID.fullmatch(name)]
            unknown = await self._segments.unknown_uploads(ids) if ids else []
            known = await self._segments.of_many(unknown) if unknown else {}
            await self._remove_old([self._names.upload_path(each) for each in unknown if each not in known], before)

    async def _pages(self, path: str) -> list[list[str]]:
        """The names in a directory; none once it is over."""
        if self._stopping:
            return []
        names = await self._pool.run(lambda: sorted(self._names.disk.names(path)))
        return [names[at : at + PAGE] for at in range(0, len(names), PAGE)]

    async def _remove_old(self, paths: Sequence[str], before: int) -> None:
        if paths and not self._stopping and await self._pool.run(self._unlink, paths, before) is None:
            self._unmounted()

    def _unlink(self, paths: Sequence[str], before: int | None) -> Sequence[str] | None:
        """In a thread: remove those that were changed before that time, None: at any time. Those that are gone then;
        one that can't be removed keeps no other. None: the directory wasn't ours all the while."""
        disk = self._names.disk
        if not self._names.is_ours():
            return None
        gone: list[str] = []
        for path in paths:
            try:
                if before is not None:
                    facts = disk.look(path)
                    if facts is None or not facts.is_file or facts.modified >= before:
                        continue
                self.removed += disk.unlink(path)
            except OSError as error:
                self._log.warn("a file can't be removed: {reason}", path=path, reason=error.strerror)
            else:
                gone.append(path)
        return gone if self._names.is_ours() else None

    def _unmounted(self) -> None:
        self._log.warn(
            "the upload directory {path} doesn't show its marker, so nothing in it is removed; is it mounted?",
            path=self._names.root,
        )

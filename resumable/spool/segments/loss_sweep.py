"""Finds committed bytes whose files are missing, and calls uploads lost for it, where several processes share them.

Invariants: a file is missing only where the directory's marker was seen before and after the look, and where the row,
read again after it, still names the file; and only while all workers that live use this directory, not a copy of it:
each has left its sign there. An upload is lost only when one of its files was missing at each look of an
hour, by one worker's steady clock: a directory that was away, or that nobody looked at, begins the hour anew. A file
that is shorter than what the row counts of it is missing, too, if it stays shorter than that: one that grows may be
seen late at each look, over a network file system.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from attrs import define, frozen
from twisted.logger import Logger

from resumable.aio.threads import IPool
from resumable.model.segments import ISegments, Layout
from resumable.spool.segments.segment_directory import SegmentDirectory

LOST_AFTER: Final = 3600.0
"""Seconds for which a file has to be missing."""
AGAIN: Final = 300.0
"""Seconds between two looks at what is missing, and between two rounds over all uploads."""
LONGEST_PAUSE: Final = 2 * AGAIN
"""Seconds between two looks at a file: after a longer pause it isn't known whether it was missing all the while."""
PAGE: Final = 256
"""Uploads that are looked at together."""
PAGES: Final = 8
"""Pages of one step. With a step each 10 seconds a million uploads take an hour and a half."""
MOST: Final = 4096
"""Missing files, and uploads that somebody couldn't read, that are remembered. The rest is left to a later round."""


@frozen
class _Short:
    """A file that has ``found`` bytes, not the ``size`` that the row counts."""

    path: str
    size: int
    found: int


@define
class _Miss:
    """The file ``path`` has less than ``size`` bytes, as many as the row counted at the first look. ``since``,
    ``looked``: the first and the last look (steady seconds)."""

    path: str
    size: int
    since: float
    looked: float


class LossSweep:
    """By one worker at a time.

    ``lose`` calls an upload lost; False: it is gone, or doesn't need its data. ``strangers``: workers that use another
    directory than this one, by their signs. ``seconds``: a clock that nobody sets.
    """

    _log = Logger()

    def __init__(
        self,
        names: SegmentDirectory,
        segments: ISegments,
        pool: IPool,
        lose: Callable[[str], Awaitable[bool]],
        *,
        strangers: Callable[[], Awaitable[Sequence[str]]],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = names
        self._segments = segments
        self._pool = pool
        self._lose = lose
        self._strangers = strangers
        self._seconds = seconds
        self._missed: dict[str, _Miss] = {}
        self._suspects: dict[str, None] = {}
        self._after = ""
        self._next_round = seconds()
        self._stopping = False
        self._told: set[str] = set()

    def suspect(self, upload_id: str) -> None:
        """Somebody couldn't read its bytes: the next step looks at it first."""
        if len(self._suspects) < MOST:
            self._suspects[upload_id] = None

    def stop(self) -> None:
        """End a step that is under way after its next page."""
        self._stopping = True

    async def step(self) -> None:
        """Look at what is suspected or missing, then at the next pages of all uploads. Fails with CatalogUnavailable,
        OSError, Stopped."""
        due = self._seconds() - AGAIN
        again = (each for each, miss in self._missed.items() if miss.looked <= due)
        first = list(islice(dict.fromkeys([*self._suspects, *again]), PAGE))
        for upload_id in first:
            self._suspects.pop(upload_id, None)
        if first:
            await self._look(first, await self._segments.of_many(first))
        for _ in range(PAGES):
            if self._stopping or self._seconds() < self._next_round:
                return
            layouts, last = await self._segments.kept(self._after, PAGE)
            self._after = last or ""
            if last is None:
                self._next_round = self._seconds() + AGAIN
            page = {layout.upload_id: layout for layout in layouts}
            await self._look(list(page), page)

    async def _look(self, upload_ids: Iterable[str], layouts: Mapping[str, Layout]) -> None:
        missing = await self._missing(layouts)
        if missing:
            missing = await self._missing(await self._segments.of_many(list(missing)))
        if missing and await self._is_another():
            self._missed.clear()
            return
        now = self._seconds()
        for upload_id in upload_ids:
            if upload_id not in missing:
                self._missed.pop(upload_id, None)
        for upload_id, short in missing.items():
            await self._miss(upload_id, short, now)

    async def _is_another(self) -> bool:
        """Whether others use another directory, perhaps a copy of this one: then what is missing here may be there."""
        strangers = set(await self._strangers())
        if strangers - self._told:
            self._log.error(
                "the upload directory {path} is not the one that workers {workers} use: files are missing here",
                path=self._names.root,
                workers=sorted(strangers),
            )
        self._told = strangers
        return bool(strangers)

    async def _missing(self, layouts: Mapping[str, Layout]) -> Mapping[str, _Short]:
        """The first missing file of each upload that lacks one. Without the marker nothing is, nor was before."""
        if not layouts:
            return {}
        try:
            missing = await self._pool.run(self._look_at_files, list(layouts.values()))
        except OSError:
            self._missed.clear()
            raise
        if missing is None:
            self._missed.clear()
            return {}
        return missing

    def _look_at_files(self, layouts: Iterable[Layout]) -> Mapping[str, _Short] | None:
        """In a thread. None: the directory wasn't ours all the while. Raises OSError when that isn't known."""
        if not self._names.is_ours():
            return None
        missing: dict[str, _Short] = {}
        failed: OSError | None = None
        for layout in layouts:
            try:
                short = self._first_missing(layout)
            except OSError as error:  # it may be there
                failed = error
            else:
                if short is not None:
                    missing[layout.upload_id] = short
        if failed is not None:
            self._log.warn("{path} can't be looked at: {reason}", path=failed.filename, reason=failed.strerror)
        return missing if self._names.is_ours() else None

    def _first_missing(self, layout: Layout) -> _Short | None:
        for path, size in self._names.files(layout):
            facts = self._names.disk.look(path)
            found = facts.size if facts is not None and facts.is_file else -1
            if found < size:
                return _Short(path, size, found)
        return None

    async def _miss(self, upload_id: str, short: _Short, now: float) -> None:
        miss, path = self._missed.get(upload_id), short.path
        if miss is not None and now - miss.looked > LONGEST_PAUSE:
            miss = None  # the catalog was away, or another worker had the claim
        if miss is None or miss.path != path or short.found >= miss.size:
            self._missed.pop(upload_id, None)
            if len(self._missed) < MOST:
                self._missed[upload_id] = _Miss(path, short.size, now, now)
                self._log.warn(
                    "{path} is missing, or lacks committed bytes; if it isn't back in an hour, upload {upload} is lost",
                    upload=upload_id,
                    path=path,
                )
        elif now - miss.since < LOST_AFTER:
            miss.looked = now
        else:
            if await self._lose(upload_id):
                self._log.error("{path} was missing for an hour: upload {upload} is lost", upload=upload_id, path=path)
            del self._missed[upload_id]

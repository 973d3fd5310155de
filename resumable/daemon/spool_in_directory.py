"""Acknowledged bytes as segments in an upload directory that several processes share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred

from resumable.aio.threads import Batcher
from resumable.daemon.shared_spool import LONG_ROUND, ROUND, WHOLE_ROUND, Round, SharedParts
from resumable.model.errors import CatalogUnavailable, StartupError
from resumable.spool import Disk
from resumable.spool.segments import LossSweep, SegmentDirectory, SegmentSpool, SegmentSweeper
from resumable.spool.segments.segment_directory import OTHER
from resumable.spool.segments.segment_spool import UNMARKED
from resumable.uploads.context import UploadContext
from resumable.uploads.holds import JOINER, SWEEPER
from resumable.uploads.janitor import Endings
from resumable.uploads.joining import Joiner
from resumable.uploads.other_workers import UNREADABLE


class SpoolInDirectory:
    """See `ISharedSpool`."""

    #: What isn't committed is lost to the others when this one dies.
    worthwhile: Final = 1
    files: Final = None
    state: Final = None

    def __init__(self, parts: SharedParts) -> None:
        self._parts = parts
        catalog, opened = parts.catalog, parts.opened
        self._names = names = SegmentDirectory(
            Disk(parts.settings.modes),
            str(parts.settings.upload_dir),
            installation=opened.installation,
            worker_id=parts.workers.id,
            new_name=lambda: secrets.token_hex(8),
        )
        if opened.store is not None:
            raise StartupError(f"The uploads of this catalog are in {opened.store}: name it with --spool.")
        names.check(opened.is_new, opened.directory)
        self._check_signs()
        self.spool = SegmentSpool(
            names,
            catalog.segments,
            batcher=lambda work: Batcher(parts.reactor, work, name="puts"),
            pool=parts.pool,
            budget=parts.budget,
            record=catalog.jobs.do,
            may_mark=opened.is_new,
            agree=catalog.agree,
        )
        self.read_start: Callable[[tuple[str, int]], Deferred[bytes]] = self.spool.read_start
        self._sweeper = SegmentSweeper(names, catalog.segments, parts.pool)
        self._joiner: Joiner | None = None
        self._losses: LossSweep | None = None

    def _check_signs(self) -> None:
        """See that those who live use this directory, not another one with the same marker. Raises StartupError."""
        names, signed = self._names, self._parts.catalog.signed
        try:  # those that end in between are no longer there the second time
            another = names.unsigned(signed()) and names.unsigned(signed())
        except CatalogUnavailable as error:
            raise StartupError(f"--catalog: {error}") from error
        except OSError as error:
            raise StartupError(f"The upload directory {names.root} can't be read: {error.strerror}.") from error
        if another:
            raise StartupError(f"The upload directory {names.root} {OTHER}.")

    def start(self) -> None:
        """See `ISharedSpool.start`."""
        self.spool.start()
        self._names.sign()

    def begin(self, context: UploadContext, late: Callable[[], None]) -> Sequence[Round]:
        """See `ISharedSpool.begin`."""
        segments, pool = self._parts.catalog.segments, self._parts.pool
        self._joiner = joiner = Joiner(context, self.spool, segments, late)
        self._losses = losses = LossSweep(self._names, segments, pool, Endings(context).lose, strangers=self._strangers)
        self._parts.others.listen(UNREADABLE, losses.suspect)
        return [
            Round(joiner.sweep, ROUND, JOINER),
            Round(joiner.gather, LONG_ROUND, JOINER),
            Round(self._sweeper.sweep_discarded, ROUND, SWEEPER),
            Round(losses.step, ROUND, SWEEPER),
            Round(self._sweep_whole, WHOLE_ROUND, SWEEPER),
        ]

    def ending(self) -> None:
        """See `ISharedSpool.ending`."""
        self._sweeper.stop()
        if self._losses is not None:
            self._losses.stop()

    def closing(self) -> Sequence[Callable[[], object]]:
        """See `ISharedSpool.closing`."""
        return [self._end_joiner, self.spool.stop]

    def last(self) -> Sequence[Callable[[], object]]:
        """See `ISharedSpool.last`."""
        return [lambda: self._parts.pool.run(self._names.take_sign)]

    def stop_threads(self) -> None:
        """See `ISharedSpool.stop_threads`. This worker's sign stays, as its row may."""
        self.spool.stop()

    async def lost(self) -> str | None:
        """See `ISharedSpool.lost`."""
        try:
            return None if await self.spool.is_ours() else UNMARKED
        except OSError as error:
            return f"the upload directory can't be read: {error.strerror}"

    async def _end_joiner(self) -> None:
        if self._joiner is not None:
            await self._joiner.stop()

    async def _sweep_whole(self) -> None:
        await self._sweeper.sweep_unknown()
        await self._parts.pool.run(self._names.drop_signs, await self._parts.workers.signed())

    async def _strangers(self) -> Sequence[str]:
        """Workers that live, and whose sign isn't in this directory: it isn't the one that they use."""
        pool, names, signed = self._parts.pool, self._names, self._parts.workers.signed
        missing = await pool.run(names.unsigned, await signed())
        return await pool.run(names.unsigned, await signed()) if missing else ()

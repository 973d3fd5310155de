"""Digests of finished uploads that have none yet, in the background.

Invariants: what is due and fails is tried again, each time later, and at the next start; of several processes one makes
an upload's; a digest that is there is never made anew. No more than one file is read for this at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.logger import Logger

from resumable.aio.threads import IPool
from resumable.model.errors import level_of
from resumable.model.upload import Upload
from resumable.protocol import digests
from resumable.protocol.digests import Hashes
from resumable.protocol.errors import Gone, Stopping, TusError
from resumable.spool.datafile import SpoolDamaged
from resumable.spool.reader import Reader
from resumable.uploads.background import REMEMBERED, BackgroundWork, Retries
from resumable.uploads.context import UploadContext
from resumable.uploads.digest_rules import scan
from resumable.uploads.other_workers import digest_claim
from resumable.uploads.status import Elsewhere

log = Logger()

PAGE: Final = 64
SOONEST: Final = 30.0
LATEST: Final = 3600.0
"""Seconds after a failure, and after many, until an upload is tried again."""
PATIENCE: Final = 60.0
"""Seconds for which an object that is being completed is waited for."""
PIECE: Final = 1 << 20
"""Bytes of a remote's copy that are read and hashed at once."""


class Digester:
    """`start` when the catalog runs; `stop` while it still does."""

    def __init__(
        self,
        context: UploadContext,
        read: Callable[[str], Awaitable[tuple[Upload, Reader]]],
        pool: IPool | None = None,
    ) -> None:
        """``read``: opens a finished upload's file here. ``pool``: hashes what only remotes have; None: nobody does."""
        self._context = context
        self._read = read
        self._pool = pool
        self._background = BackgroundWork("making digests", self._work)
        self._retries = Retries(context.clock, SOONEST, LATEST, REMEMBERED)
        #: Digests that were made here since the start; of these, those that differ from what had been announced.
        self.made = self.differing = 0
        context.listeners.digest_due.append(self.wake)

    def start(self) -> None:
        """Take up what an earlier run left."""
        self.sweep()

    def sweep(self) -> None:
        """Look for all that is due, including what has failed before."""
        self._background.add_all()

    def wake(self, upload_id: str) -> None:
        """This upload is finished, and its digest is due."""
        self._background.add(upload_id)

    async def stop(self) -> None:
        """No file is read any more; the next start begins anew with the one that was."""
        await self._background.stop()

    async def _work(self) -> None:
        while self._background.waits:
            ids = self._background.take(1)
            await (self._one(ids[0]) if ids else self._look())

    async def _look(self) -> None:
        """Whatever is due, once."""
        after = ""
        while not self._background.stopping and (found := await self._context.catalog.undigested(after, PAGE)):
            after = found[-1].id
            for upload in found:
                if not self._background.stopping and self._retries.is_due(upload.id):
                    await self._one(upload.id)

    async def _one(self, upload_id: str) -> None:
        """Unless another process does it."""
        context, claim = self._context, digest_claim(upload_id)
        if not await context.others.claim(claim):
            return
        try:
            upload = await context.catalog.get(upload_id)
            if upload is not None and upload.finished and not upload.gone and upload.digest_due is not None:
                await self._make(upload)
            self._retries.worked(upload_id)
        except (Stopping, Gone):
            pass
        except (TusError, SpoolDamaged, OSError) as error:
            self._retries.failed(upload_id)
            log.emit(level_of(error), "a digest is made later: {reason}", upload=upload_id, reason=str(error))
        finally:
            await context.others.drop(claim)

    async def _make(self, upload: Upload) -> None:
        algorithms = list(dict.fromkeys([*filter(None, [upload.digest_due]), *digests.read(upload.announced)]))
        hashes = Hashes(algorithms)
        if upload.offset:
            await self._feed(upload, hashes)
        digest = hashes.text(algorithms)
        if digest is None or not await self._context.catalog.set_digest(upload.id, digest):
            return
        self.made += 1
        if upload.place is not None and not upload.placed:
            self._context.place_planned(upload.id)
        if digests.refusal(upload.announced, digest, draft=False) is not None:
            self.differing += 1
            log.error(
                "a finished upload has another digest than its client announced; it could not be read before",
                upload=upload.id,
                announced=upload.announced,
                digest=digest,
            )

    async def _feed(self, upload: Upload, hashes: Hashes) -> None:
        """All of its bytes, from wherever they are."""
        context, reader = self._context, None
        if context.objects is not None:
            await context.objects.find(upload, PATIENCE)
            reader = await context.spool.reader(upload.id)
        else:
            try:
                _, reader = await self._read(upload.id)
            except Elsewhere:
                if self._pool is None:
                    raise
        if reader is not None:
            await scan(reader, upload.id, upload.offset, hashes, lambda: self._background.stopping)
        elif self._pool is not None:
            await self._feed_copy(upload, hashes, self._pool)

    async def _feed_copy(self, upload: Upload, hashes: Hashes, pool: IPool) -> None:
        """What only remotes have."""
        offset = 0
        copy = await self._context.replication.open_copy(upload.id, 0, upload.offset)
        try:
            while offset < upload.offset:
                if self._background.stopping:
                    raise Stopping()
                data = await copy.read(offset, min(PIECE, upload.offset - offset))
                if not data:
                    raise SpoolDamaged(upload.id, upload.offset, offset)
                await pool.run(hashes.update, data)
                offset += len(data)
        finally:
            copy.close()

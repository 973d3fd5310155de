"""The catalog's record of one upload, as one append changes it: the commit of its offset.

Invariant: every change is a compare-and-set on the committed offset and the epoch, so an append that has lost its
hold, here or in another process, changes nothing; facts go with the change that they tell of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from attrs import evolve

from resumable.model.hooks import Arrived, view
from resumable.model.segments import ISegmentWriter
from resumable.model.upload import Commit, FactKind, Segment, StoreChange, Through, Upload
from resumable.protocol import digests
from resumable.protocol.errors import Gone, Held, TusError
from resumable.protocol.rules import AppendPlan
from resumable.uploads.context import HookContext, UploadContext


class AppendRecord:
    """One append's side of the catalog. ``is_new``: the catalog has no record yet; ``opened``: see `open`.

    ``joinable``: it has finished the upload, whose bytes aren't in one file. ``hashing``: whether the digest of the
    whole upload is being made of this append's body; then nothing is finished before the end of that, when ``digest``
    is the text.
    """

    __slots__ = (
        "_context",
        "_hooks",
        "committed",
        "committed_at",
        "digest",
        "hashing",
        "is_new",
        "joinable",
        "opened",
        "plan",
        "segments",
        "touched_at",
        "upload",
    )

    plan: AppendPlan
    segments: ISegmentWriter | None

    def __init__(self, context: UploadContext, upload: Upload, start: int, hooks: HookContext, is_new: bool) -> None:
        self._context = context
        self._hooks = hooks
        self.upload = upload
        self.committed = start
        self.committed_at = self.touched_at = context.clock.seconds()
        self.is_new, self.opened, self.joinable = is_new, False, False
        self.segments = None
        self.hashing = False
        self.digest: str | None = None

    async def open(self) -> None:
        """Say that bytes will be written before they are committed, and up to where a restart may adopt them.

        Raises Held or Gone when the upload is no longer what this append goes by.
        """
        context, upload, ceiling = self._context, self.upload, self.plan.commit_ceiling
        adoptable = 2**63 - 1 if ceiling is None else ceiling
        if self.is_new:
            upload = evolve(upload, epoch=1, boot_id=context.boot_id, adoptable=adoptable)
            matched = await self._create(upload, FactKind.CREATED)
        elif await context.catalog.begin(
            upload.id, upload.epoch, self.committed, context.boot_id, adoptable, context.wall()
        ):
            matched = evolve(upload, epoch=upload.epoch + 1)
        else:
            matched = None
        if matched is None:
            raise await self._overtaken()
        self.upload, self.is_new, self.opened = matched, False, True

    async def put(self, offset: int, whole: bool, chunks: Sequence[bytes]) -> None:
        """Write these bytes, which lead to ``offset``, and commit that. As `commit`; OSError, SpoolDamaged."""
        if self.segments is not None:
            await self.segments.gathered(chunks, self.committed, self.finishes(offset, whole))
        try:
            await self.commit(offset, whole, chunks=chunks)
        except FileExistsError:
            if self.segments is None:
                raise
            self.segments.taken()
            await self.commit(offset, whole, chunks=chunks)

    def finishes(self, offset: int, whole: bool) -> bool:
        """Whether a commit of that offset finishes the upload; ``whole`` as in `commit`."""
        return self._finishes(self.upload, offset, self._lengths(offset, whole)[1], whole)

    def _finishes(self, upload: Upload, offset: int, length: int | None, whole: bool) -> bool:
        seen = whole or not (self.hashing or self.plan.ends)  # all that decides it
        if not (self.plan.finishes and seen):
            return False
        return self._context.finishes(self._digested(upload, whole), offset, length)

    def _digested(self, upload: Upload, whole: bool) -> Upload:
        """With the digest that is known by the end of the body."""
        if self.digest is None or not whole:
            return upload
        return evolve(upload, digest=digests.joined(upload.digest, self.digest), digest_due=None)

    def _lengths(self, offset: int, whole: bool) -> tuple[int | None, int | None]:
        """The length that a commit records, None: none; and the upload's after it."""
        new_length = self.plan.length_at(offset) if whole else self.plan.early_length
        return new_length, self.upload.length if new_length is None else new_length

    async def commit(self, offset: int, whole: bool, last: bool = True, chunks: Sequence[bytes] | None = None) -> None:
        """Commit ``offset``, with whatever else becomes true by it. ``whole``: the body has been seen to its end.

        ``last``: of this append. ``chunks``: the bytes, if they are to be written first. Raises Held or Gone as `open`.
        """
        if self.segments is not None and whole and offset == self.committed and not (self.opened or self.is_new):
            await self.open()  # so that an older append elsewhere, which stands at this offset too, commits no more
        context, upload = self._context, self.upload
        new_length, length = self._lengths(offset, whole)
        finished = self._finishes(upload, offset, length, whole)
        segment = None
        if self.segments is not None:
            segment = self.segments.to(self.committed, offset, finished and chunks is not None, last)
        through: Through | None = None
        if chunks is not None:
            through = context.spool.through(upload.id, self.committed, chunks, segment, self.is_new)
        digested = self._digested(upload, whole) if offset == length else upload
        known = (self.committed, upload.length, upload.finished, upload.digest)
        if not self.is_new and (offset, length, finished, digested.digest) == known:
            if through is not None:
                await through(None)
            return
        now = context.wall()
        touched = max(now, upload.touched_at)
        after = digested.at(offset, length, touched, now if finished else None)
        after = context.finishing(after) if finished else after
        told = [FactKind.FINISHED] if finished else []
        landed: Upload | None = None
        try:
            if self.is_new:
                landed = await self._create(after, FactKind.CREATED, *told, through=through, segment=segment)
            elif await context.catalog.commit(
                Commit(
                    upload.id,
                    upload.epoch,
                    self.committed,
                    offset,
                    now,
                    new_length,
                    finished,
                    context.told(after, context.facts(after, self._hooks.request, *told), segment),
                    after.place,
                    segment,
                    last,
                    None if after.digest == upload.digest else after.digest,
                    after.digest_due if finished and after.digest is None else None,
                ),
                through,
            ):
                landed = after
                context.committed(after)
        except TusError:
            self._refused(segment)
            raise
        if landed is None:
            self._refused(segment)
            raise await self._overtaken()
        if segment is not None and self.segments is not None:
            self.segments.landed(segment)
        self.joinable = finished and self.segments is not None and (segment is None or not segment.is_whole)
        self.upload, self.is_new = landed, False
        self.committed = offset
        self.committed_at = self.touched_at = context.clock.seconds()

    async def touch(self) -> None:
        """Move the row's time to now. Raises Held or Gone when the upload is another append's, CatalogUnavailable."""
        if self.is_new:
            return
        context, upload = self._context, self.upload
        self.touched_at = context.clock.seconds()
        if not await context.catalog.touch(upload.id, upload.epoch, context.wall()):
            raise await self._overtaken()

    def seen(self, received: int) -> Arrived | None:
        """How far it is, for hooks. None while the catalog has no record, and at its end, which is an event."""
        if self.is_new or received == self.upload.length:
            return None
        return Arrived(view(self.upload), received, self._hooks.request)

    def _refused(self, segment: Segment | StoreChange | None) -> None:
        if segment is not None and self.segments is not None:
            self.segments.refused(segment)

    def _create(
        self,
        upload: Upload,
        *told: FactKind,
        through: Through | None = None,
        segment: Segment | StoreChange | None = None,
    ) -> Awaitable[Upload | None]:
        facts = self._context.facts(upload, self._hooks.request, *told)
        return self._context.create(upload, facts, self._hooks.changes, through=through, segment=segment)

    async def _overtaken(self) -> Exception:
        """Why a compare-and-set did not match."""
        row = await self._context.catalog.get(self.upload.id)
        if row is None or row.gone is not None:
            return Gone("The upload was removed.")
        return Held("Another request has taken this upload over.")

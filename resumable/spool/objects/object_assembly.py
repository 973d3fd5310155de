"""A final upload's object, made of its partials' objects: copied inside the store where sizes allow, else through here.

Invariants: each assembly writes to a multipart of its own, begun by it and known to nobody until a commit records it;
a part is counted once the store has confirmed it, and other bytes never go under a number that was used. Nothing goes
on with another's copy: after a crash a new one begins, and the old multipart is swept. Bytes that come through here are
in a scratch file without a name, of one part at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import deferred
from resumable.model.stored import StoredLayout
from resumable.model.upload import StoreChange, StoredPart
from resumable.remotes.errors import Conflict, NotThere, Permanent
from resumable.remotes.interfaces import IRegion
from resumable.remotes.object_store import ObjectProperties
from resumable.remotes.plan import ObjectTooLarge
from resumable.remotes.regions import RegionWindow
from resumable.spool.datafile import NotReadable, NotWhole
from resumable.spool.objects.copy_plan import CopyStep, SourceStretch, plan_copies
from resumable.spool.objects.errors import StoreFailed
from resumable.spool.objects.object_reader import WholeObjects
from resumable.spool.reader import PIECE, Reader

T = TypeVar("T")

log = Logger()

ABREAST: Final = 4
"""Parts that are copied inside the store at once."""
PATIENCE: Final = 5.0
"""Seconds that a final waits for a partial that was just finished to become an object."""


@frozen
class AssemblyTools:
    """What all assemblies use. ``metadata_of``: an upload's, keys and decoded values.

    ``when_whole``: answers whether the object of a finished upload is there, after so many seconds at the latest.
    """

    objects: WholeObjects
    metadata_of: Callable[[str], Deferred[Mapping[str, bytes]]]
    when_whole: Callable[[str, float], Deferred[bool]]


class ObjectAssembly:
    """See `resumable.spool.interfaces.IAssembly`; ``sources``: (upload id, length), in order.

    Fails with StoreFailed, NotReadable: the final is tried again later. What fits one part is one PUT, where the store
    can refuse to replace what is there.
    """

    def __init__(self, tools: AssemblyTools, final_id: str, sources: Sequence[tuple[str, int]]) -> None:
        self._tools = tools
        self._context = tools.objects.context
        self._store, self._names = self._context.store, self._context.names
        self._final_id = final_id
        self._key = self._names.key(final_id, is_partial=False)
        self._sources = sources
        self._sizes = [size for _, size in sources]
        #: Those of the sources' objects.
        self._keys: Sequence[str] = ()
        self.length = sum(self._sizes)
        self.copied = 0
        self.complete = False
        self.segment: StoreChange | None = None
        self._puts = self.length <= self._store.part_size and bool(self._store.conditional)
        self._steps: list[CopyStep] = []
        self._handle: str | None = None
        self._parts: list[StoredPart] = []
        #: Names of parts, also of those that failed; the highest number is how many there are.
        self._written: list[str] = []

    # -- steps

    @property
    def steps_left(self) -> int:
        """See IAssembly."""
        return max(0, len(self._steps) - 1) // ABREAST

    def next_size(self, shared: bool) -> int:
        """See IAssembly. Steps are what they are, also while others copy."""
        return self.length if self._puts else sum(step.size for step in self._next())

    @deferred
    async def look(self) -> None:
        """See IAssembly. Sources that were just finished are waited for. Fails with NotReadable, CatalogUnavailable."""
        layouts = await self._layouts()
        late = [each for each, layout in layouts.items() if not layout.whole]
        for upload_id in late:
            if not await self._tools.when_whole(upload_id, PATIENCE):
                raise NotWhole(upload_id, "its object is not there yet")
        if late:
            layouts = await self._layouts()
        keys = []
        for upload_id, size in self._sources:
            layout = layouts.get(upload_id)
            if layout is None or not layout.whole or layout.offset != size:
                raise NotReadable(upload_id, "its object isn't what it was")
            keys.append(self._names.key(upload_id, layout.is_partial))
        self._keys = keys
        self._plan()

    @deferred
    async def copy(self, size: int) -> None:
        """See IAssembly."""
        if self._puts:
            await self._put()
        else:
            await self._copy_next()

    @deferred
    async def name(self) -> None:
        """See IAssembly. Nothing is visible before the final's commit, or it is there already."""
        if self.segment is None:
            self.segment = StoreChange(len(self._written), tuple(self._parts), multipart=self._handle)

    @deferred
    async def discard(self) -> None:
        """See IAssembly. What a failure leaves is swept."""
        handle, written, self._handle, self._written = self._handle, self._written, None, []
        self.copied, self.complete, self.segment, self._parts = 0, False, None, []
        if handle is None:
            return
        try:
            layout = await self._context.stored.tail_of(self._final_id)
            if layout is None or layout.multipart != handle:
                await self._store.abandon(self._key, handle, [self._whole_name(each) for each in written])
        except Exception as error:
            log.debug("a copy is left to the sweep: {reason}", upload=self._final_id, reason=str(error))

    # -- the work

    async def _layouts(self) -> Mapping[str, StoredLayout]:
        return await self._context.stored.tails_of(list(dict.fromkeys(upload_id for upload_id, _ in self._sources)))

    def _plan(self, inside: bool = True) -> None:
        """Of what isn't copied yet."""
        limits, size, ranges = self._store.limits, self._store.part_size, self._store.copies_ranges
        numbers = limits.parts - len(self._written)
        try:
            planned = plan_copies(
                self._sizes, limits, size, inside=inside, ranges=ranges, start=self.copied, numbers=numbers
            )
        except ObjectTooLarge as error:
            raise NotReadable(self._final_id, str(error)) from error
        self._steps = list(planned)

    def _next(self) -> Sequence[CopyStep]:
        """The steps that are made together: several that the store makes by itself, or one."""
        count = 1
        while count < min(ABREAST, len(self._steps)) and all(each.inside for each in self._steps[: count + 1]):
            count += 1
        return self._steps[:count]

    async def _put(self) -> None:
        """All bytes with one request. Where somebody's object is in the way it becomes a multipart: by claim its
        Complete may replace one that an earlier assembly has left, whose token no row has."""
        properties = await self._properties()
        stretches = [SourceStretch(number, 0, size) for number, size in enumerate(self._sizes) if size]
        try:
            made = await self._through_here(
                stretches,
                lambda region: self._context.ask(
                    lambda: self._store.put(self._key, region, properties, True), is_final=Conflict
                ),
            )
        except Conflict:
            found = await self._context.ask(lambda: self._store.find(self._key))
            if found is None or found.token != properties.token:  # else an answer was lost
                self._puts = False
                self.complete = not self.length  # of no bytes there is no part: whoever completes it puts an object
                return
            made = found
        self.copied, self.complete, self.segment = self.length, True, StoreChange(made=made.to_json())

    async def _copy_next(self) -> None:
        steps = self._next()
        if steps and self._handle is None:
            properties = await self._properties()
            self._handle = await self._context.ask(lambda: self._store.begin(self._key, properties))
        writes, start = [], self.copied
        for step in steps:
            name = self._names.new(self._final_id) if self._store.part_objects else self._names.label()
            self._written.append(name)
            part = StoredPart(start, step.size, len(self._written), name, "")
            writes.append(Deferred.fromCoroutine(self._part(str(self._handle), part, step)))
            start += step.size
        outcomes = await DeferredList(writes, consumeErrors=True)
        for (_, outcome), step in zip(outcomes, steps, strict=True):
            if isinstance(outcome, Failure):
                if not step.inside or not isinstance(outcome.value, Permanent):
                    outcome.raiseException()
                log.info("partials are copied through here: {reason}", reason=str(outcome.value))
                self._plan(inside=False)
                return
            self._parts.append(outcome)
            self._steps.pop(0)
            self.copied += step.size
        self.complete = not self._steps

    async def _part(self, handle: str, part: StoredPart, step: CopyStep) -> StoredPart:
        """Write it; the same with its receipt. Raises StoreFailed, OSError; Permanent: the store doesn't copy it."""
        store, ask, number, name = self._store, self._context.ask, part.number, self._whole_name(part.name)
        if step.inside:
            (stretch,) = step.stretches
            source, start, size = self._keys[stretch.source], stretch.start, stretch.size
            try:
                receipt = await ask(
                    lambda: store.copy_part(self._key, handle, number, name, source, start, size), is_final=Permanent
                )
            except StoreFailed as error:
                if isinstance(error.__cause__, NotThere) and await ask(lambda: store.find(source)) is None:
                    await self._context.lost.missed(self._sources[stretch.source][0], source)
                raise
        else:
            receipt = await self._through_here(
                step.stretches,
                lambda region: ask(lambda: store.write_part(self._key, handle, number, name, region)),
            )
        return evolve(part, receipt=receipt)

    def _whole_name(self, name: str) -> str:
        """As the store calls a part that the catalog calls so."""
        return self._names.object(name) if self._store.part_objects else name

    async def _properties(self) -> ObjectProperties:
        return ObjectProperties(self._final_id, self._names.token(), await self._tools.metadata_of(self._final_id))

    # -- bytes that come through here

    async def _through_here(self, stretches: Sequence[SourceStretch], send: Callable[[IRegion], Awaitable[T]]) -> T:
        """What ``send`` answers, which gets these bytes in a file of scratch. Raises OSError."""
        scratch, pool, size = self._context.scratch, self._tools.objects.pool, sum(each.size for each in stretches)
        scratch.take(self, size)
        try:
            fd = await pool.run(scratch.open)
            data = Reader(scratch.disk, pool, fd, size)
            try:
                await self._gather(stretches, fd)
                await self._context.slots.acquire()
                try:
                    return await send(RegionWindow(data, 0, size))
                finally:
                    self._context.slots.release()
            finally:
                await data.close()
        finally:
            scratch.give_back(self, size)

    async def _gather(self, stretches: Sequence[SourceStretch], fd: int) -> None:
        gathered = 0
        for stretch in stretches:
            (source_id, size), key = self._sources[stretch.source], self._keys[stretch.source]
            source = self._tools.objects.opened(source_id, key, size)
            end = stretch.start + stretch.size
            source.reach(end)
            try:
                for offset in range(stretch.start, end, PIECE):
                    piece = await source.read(offset, min(PIECE, end - offset))
                    await self._tools.objects.pool.run(self._context.scratch.disk.writev, fd, [piece], gathered)
                    gathered += len(piece)
            finally:
                await source.close()

    def scratch_full(self, full: bool) -> None:
        """See IScratchUser. One part at a time is in it, and has to be whole."""

    def trim(self) -> None:
        """See IScratchUser."""

    def relieve(self) -> None:
        """See IScratchUser."""

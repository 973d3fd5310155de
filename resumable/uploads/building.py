"""One final upload, from its partials' bytes to its finished record; and turns at copying.

Invariants: a final's data file gets its name only when whole, and its offset is committed only after that; nothing is
copied before there is room for all of it, and a copy that can't go on gives back the room that it has taken; a final
that is refused leaves its partials as they were. Of several processes only the one that has its claim builds it.

In an object store the final's commit names a multipart that has all bytes, and unpins the partials before that is
completed. They may go then: the copies in it are the store's own, confirmed before the commit, and nothing is read from
a partial again. Whoever still copies, frozen or late, writes to a multipart of its own, which no row names: it finds no
source any more, or its commit doesn't match.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count

from attrs import define, evolve
from twisted.internet.defer import Deferred

from resumable.aio.threads import Stopped
from resumable.model.hooks import Granted, QuestionKind, RequestView, refusal_as_data, request_from_data
from resumable.model.upload import Commit, FactKind, GoneReason, StoreChange, Upload
from resumable.protocol import digests, rules
from resumable.protocol.errors import ChecksumMismatch, Refused, Stopping, TooLarge, Unavailable
from resumable.spool import SpoolDamaged
from resumable.spool.interfaces import IAssembly
from resumable.uploads.context import UploadContext, log
from resumable.uploads.digest_rules import hashed
from resumable.uploads.janitor import Endings
from resumable.uploads.limits import Claim, account_of, settle
from resumable.uploads.other_workers import NEWS, final_claim

#: Steps of copying at once: more of them leave fewer threads to everybody else.
AT_ONCE = 2


@define(eq=False)
class AssemblyJob:
    """One final that is being put together. ``claim``: its room on the disk, if it has that. ``over``: called at the
    end. ``gone``: its upload is."""

    claim: Claim | None = None
    over: Callable[[], None] = lambda: None
    gone: bool = False


class BuiltElsewhere(Exception):
    """Another process puts the final together."""


class Building:
    """Builds them, a few steps of all of them at a time. ``stopping``: no step begins any more."""

    def __init__(self, context: UploadContext, endings: Endings) -> None:
        self._context = context
        self._endings = endings
        self._turns = CopyTurns(AT_ONCE)
        self._copying = 0
        self.stopping = False

    async def build(self, final_id: str, job: AssemblyJob) -> Granted | None:
        """The hooks' answer; None: the final waits for a partial, was finished before, or has ended without an answer.

        Raises Refused, TooLarge, or the error that keeps it from being finished now; Stopped; BuiltElsewhere.
        """
        context = self._context
        final = await context.catalog.get(final_id)
        if final is None or final.gone or final.finished:
            return None
        partials = await context.catalog.get_many(tuple(dict.fromkeys(final.partials)))
        found = [partials.get(each) for each in final.partials]
        # A partial that is gone before it was finished never will be, and one that is lost has no bytes.
        if any(each is None or (each.gone and (not each.finished or each.gone is GoneReason.LOST)) for each in found):
            await self._endings.end(final, GoneReason.TERMINATED)
            return None
        ready = [each for each in found if each is not None and each.finished]
        if len(ready) < len(found):
            return None
        if not context.others.several:
            return await self._build(final, ready, job)
        claim = final_claim(final_id)
        if not await context.others.claim(claim):
            raise BuiltElsewhere()
        try:
            row = await context.catalog.get(final_id)
            if row is None or row.gone or row.finished:
                return None  # by another process, since it was looked at
            return await self._build(row, ready, job)
        finally:
            await context.others.drop(claim)
            context.others.tell(NEWS, final_id)

    async def _build(self, final: Upload, ready: Sequence[Upload], job: AssemblyJob) -> Granted | None:
        """See `build`; the partials are finished."""
        context = self._context
        account = account_of(context.quota, final)
        try:
            rules.final_length((each.length for each in ready), context.largest(final.max_size))
            total = sum(each.offset for each in ready)
            if account.asks(total):
                await account.reserve(total, final.epoch)
            account.reach(total)
        except TooLarge:
            await self._endings.end(final, GoneReason.TERMINATED)
            raise
        try:
            final = await self._digested(final, ready, job)
            assembly = None if job.gone else await self._copy(final, ready, job)
            if assembly is None or job.gone:
                return None
            final, granted = await self._finish(final, sum(each.offset for each in ready), assembly)
            return granted
        except ChecksumMismatch:
            await self._endings.end(final, GoneReason.TERMINATED)
            raise
        except SpoolDamaged as damage:
            if context.others.several:  # it may be there for another look
                raise Unavailable("A partial upload can't be read at the moment.") from damage
            log.error("a partial's data file is shorter than its committed offset", upload=damage.upload_id)
            await self._endings.end(next(each for each in ready if each.id == damage.upload_id), GoneReason.LOST)
            await self._endings.end(final, GoneReason.TERMINATED)
            return None
        finally:
            settle(account, final)

    async def _digested(self, final: Upload, partials: Sequence[Upload], job: AssemblyJob) -> Upload:
        """The record, with the digests that its client has announced. Raises ChecksumMismatch: they are others."""
        context = self._context
        if not digests.lacking(final.announced, final.digest):
            return final
        algorithms = context.digests.along(final)
        try:
            digest = await hashed(
                *(context.spool, [(each.id, each.offset) for each in partials], algorithms),
                stopping=lambda: self.stopping or job.gone,
                turns=context.digests.turns,
            )
        except Stopping:
            if not job.gone:
                raise
            return final
        if (wrong := digests.refusal(final.announced, digest, final.draft)) is not None:
            raise wrong
        return evolve(final, digest=digest, digest_due=None)

    async def _copy(self, final: Upload, partials: Sequence[Upload], job: AssemblyJob) -> IAssembly:
        """Copy all bytes into its data file, unless it is gone. A failure gives back the room that was taken."""
        assembly = self._context.spool.assembly(final.id, [(each.id, each.offset) for each in partials])
        await assembly.look()
        try:
            if job.claim is None:
                job.claim = await self._context.space.claim(self._context.spool, assembly.length - assembly.copied)
            await self._copy_all(assembly, job.claim, job)
            if not job.gone:
                await assembly.name()
        except Stopped:
            raise
        except Exception:
            await assembly.discard()
            raise
        if job.gone:
            await assembly.discard()
        return assembly

    async def _copy_all(self, assembly: IAssembly, claim: Claim, job: AssemblyJob) -> None:
        """Step by step, each in its turn."""
        self._copying += 1
        try:
            while not (assembly.complete or job.gone):
                await self._turns.take(assembly.steps_left)
                try:
                    if not job.gone:  # while it waited
                        await self._step(assembly, claim)
                finally:
                    self._turns.give_back()
        finally:
            self._copying -= 1

    async def _step(self, assembly: IAssembly, claim: Claim) -> None:
        if self.stopping:
            raise Stopped("the next start goes on with it")
        size = assembly.next_size(shared=self._copying > 1)
        claim.check(size)
        await assembly.copy(size)
        claim.spend(size)

    async def _finish(self, final: Upload, length: int, assembly: IAssembly) -> tuple[Upload, Granted]:
        """Ask hooks, and commit that it is finished; the record."""
        context, segment = self._context, assembly.segment
        request = await self._request(final)
        after = evolve(final, length=length, offset=length)
        try:
            granted = await context.questions.ask(QuestionKind.FINISH, after, request)
        except Refused as refused:
            await self._endings.end(final, GoneReason.TERMINATED, request, refusal_as_data(refused))
            await _give_up(assembly)
            raise
        now = context.wall()
        after = context.finishing(evolve(after, touched_at=max(now, final.touched_at), finished_at=now))
        facts = context.told(after, context.facts(after, request, FactKind.FINISHED), segment)
        commit = Commit(
            final.id, final.epoch, 0, length, now, length, True, facts, after.place, segment, digest=after.digest
        )
        if await context.catalog.commit(commit):
            context.committed(after)
            if isinstance(segment, StoreChange) and not segment.is_whole:
                context.joinable(final.id)
            return after, granted
        await _give_up(assembly)
        row = await context.catalog.get(final.id)
        if row is None or row.gone:  # its data file may have got its name after the janitor had looked for it
            await context.spool.remove([final.id])
        return final, granted

    async def _request(self, final: Upload) -> RequestView | None:
        """The one that has asked for it, where anybody is shown it."""
        context = self._context
        if not (context.records_facts or context.questions.asks(QuestionKind.FINISH)):
            return None
        said = await context.catalog.request(final.id)
        return None if said is None else request_from_data(said)


async def _give_up(assembly: IAssembly) -> None:
    """No commit that names it lands: what it has made in a store is of no use. A data file goes with its upload."""
    if isinstance(assembly.segment, StoreChange):
        await assembly.discard()


#: How many later finals go before one for each step that this one has left.
BEHIND = 16
#: Steps that count for that, at most.
COUNTED = 16


class CopyTurns:
    """Turns at copying, among final uploads that are put together at once. `take` one, copy a step, `give_back`.

    ``at_once``: how many have a turn at a time. Invariant: everybody gets one: a final with many steps lets
    later finals go first, but only so many.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._numbers = count()
        self._waiting: list[tuple[int, int, Deferred[None]]] = []

    def take(self, left: int) -> Deferred[None]:
        """Fires when it is the turn of one that has so many whole steps ``left`` after it."""
        turn: Deferred[None] = Deferred()
        number = next(self._numbers)
        heappush(self._waiting, (number + BEHIND * min(left, COUNTED), number, turn))
        self._next()
        return turn

    def give_back(self) -> None:
        """The next one may have it."""
        self._free += 1
        self._next()

    def _next(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            heappop(self._waiting)[2].callback(None)

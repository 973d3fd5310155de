"""The rights of holds.py where several processes share the uploads: each has holds of its own, and the rows decide.

Invariants: safety rests on the row's epoch alone: of two appends in two processes the one that took the row last goes
on, and the other one's next commit fails. Within a process an upload has at most one holder; the newer append has the
hold as soon as the older one has committed what it received, however lively that is. A look at an upload waits for
another process `PATIENCE` seconds at most, and never ends what that one receives, unless its client is silent.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.aio.deferreds import Timer
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import ICatalog
from resumable.model.workers import IClaims, IWake, IWorkers
from resumable.protocol.errors import Gone
from resumable.uploads.holds import Hold, HoldMoved, IHolder, IHolds, IRoles, LocalHolds
from resumable.uploads.other_workers import ENDED

log = Logger()

PATIENCE: Final = 0.1
"""Seconds that a look at an upload waits until its keeper, another process, has committed what it has."""
AGAIN: Final = 1.0
"""Seconds until a role that another process has is asked for again."""

SETTLE: Final = "settle"
"""To an upload's keeper: commit what you have."""
INTERRUPT: Final = "interrupt"
"""To an upload's keeper: commit what you have, and end it if it is the draft's."""
SETTLED: Final = "settled"
"""The keeper's answer: the row has it now."""


@implementer(IHolds)
class SharedHolds(LocalHolds):
    """The holds of one of several processes."""

    def __init__(self, clock: IReactorTime, catalog: ICatalog, workers: IWorkers, wake: IWake) -> None:
        super().__init__(clock)
        self._catalog = catalog
        self._workers = workers
        self._wake_up = wake
        self._settling: dict[str, list[Deferred[None]]] = {}
        wake.listen(SETTLE, lambda worker_id, upload_id: self._asked(worker_id, upload_id, False))
        wake.listen(INTERRUPT, lambda worker_id, upload_id: self._asked(worker_id, upload_id, True))
        wake.listen(SETTLED, lambda _, upload_id: self._answered(upload_id))
        wake.listen(ENDED, lambda _, upload_id: self._ended(upload_id))

    async def under_way(self, upload_id: str) -> bool:
        return self.held(upload_id) or await self._workers.keeper(upload_id) is not None

    async def settle(self, upload_id: str) -> None:
        await self._look(upload_id, False)

    async def interrupt(self, upload_id: str) -> None:
        await self._look(upload_id, True)

    async def _look(self, upload_id: str, interrupts: bool) -> None:
        hold = self._holds.get(upload_id)
        if hold is not None:
            await self._settle_here(upload_id, interrupts)
            if self._holds.get(upload_id) is hold:
                return  # it has committed, so it is no other process's
        await self._settle_elsewhere(upload_id, INTERRUPT if interrupts else SETTLE)

    async def _make_way(self, upload_id: str, hold: Hold, offset: int) -> None:
        """A live holder makes way, too, and one that has been overtaken elsewhere."""
        present = hold.holder
        if present.position != offset and not await self._overtaken(upload_id, present):
            raise HoldMoved
        self.takeovers += 1
        await present.evict()

    async def _overtaken(self, upload_id: str, holder: IHolder) -> bool:
        """Whether another process's append has taken the upload over from this holder, which doesn't know it yet."""
        known = holder.known
        if known is None:
            return False
        try:
            row = await self._catalog.get(upload_id)
        except CatalogUnavailable:
            return False  # whoever reads the row says so
        return row is not None and holder.known == known != (row.epoch, row.offset)

    async def _settle_elsewhere(self, upload_id: str, word: str) -> None:
        """Have the keeper commit. Whatever goes wrong, the row says how far it is."""
        try:
            keeper = await self._workers.keeper(upload_id)
        except CatalogUnavailable:
            return  # whoever reads the row says so
        if keeper is None:
            return
        waiter: Deferred[None] = Deferred()
        waiting = self._settling.setdefault(upload_id, [])
        waiting.append(waiter)
        timer = Timer(self._clock, lambda: waiter.callback(None))
        timer.set(PATIENCE)
        self._wake_up.tell(keeper, word, upload_id)
        try:
            await waiter
        finally:
            timer.clear()
            waiting.remove(waiter)
            if not waiting and self._settling.get(upload_id) is waiting:
                del self._settling[upload_id]

    def _asked(self, worker_id: str, upload_id: str, interrupts: bool) -> None:
        """Another process looks at an upload that this one may have under way."""
        done = Deferred.fromCoroutine(self._settle_here(upload_id, interrupts))
        done.addErrback(_log, "an append could not commit for another worker", upload_id)
        done.addCallback(lambda _: self._wake_up.tell(worker_id, SETTLED, upload_id))

    def _answered(self, upload_id: str) -> None:
        for waiter in tuple(self._settling.get(upload_id, ())):
            if not waiter.called:
                waiter.callback(None)

    def _ended(self, upload_id: str) -> None:
        """Another process has ended the upload: its append here can't commit any more."""
        if self.held(upload_id):
            done = Deferred.fromCoroutine(self.evict(upload_id, Gone("The upload was removed.")))
            done.addErrback(_log, "an append of a removed upload could not end", upload_id)


def _log(failure: Failure, said: str, upload_id: str) -> None:
    if failure.check(CatalogUnavailable):  # told by the catalog; and a worker that was taken for dead ends
        log.debug(said, upload=upload_id)
    else:
        log.failure(said, failure, upload=upload_id)


@implementer(IRoles)
class SharedRoles:
    """Roles by claims: granted as long as this process lives, and until `stop`. A catalog that fails grants nothing."""

    def __init__(self, claims: IClaims, clock: IReactorTime) -> None:
        self._claims = claims
        self._clock = clock
        self._held: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._stopped = False

    def granted(self, role: str) -> Deferred[bool]:
        """See IRoles. A role that another has is asked for once in `AGAIN` seconds, however often it is wanted."""
        if role in self._held:
            return succeed(True)
        now = self._clock.seconds()
        if self._stopped or now < self._not_before.get(role, now):
            return succeed(False)
        self._not_before[role] = now + AGAIN
        taken: Deferred[int | None] = self._claims.take(role)
        return taken.addCallbacks(self._taken, _refused, callbackArgs=(role,), errbackArgs=(role,))

    async def stop(self) -> None:
        """Another process may have them now. Its work is over before this is called."""
        self._stopped = True
        held, self._held = self._held, set()
        for role in held:
            try:
                await self._claims.give_back(role)
            except CatalogUnavailable as error:
                log.warn("a role is given up with its process only: {reason}", role=role, reason=str(error))

    def _taken(self, number: int | None, role: str) -> bool:
        if number is None or self._stopped:
            return False
        self._held.add(role)
        return True


def _refused(failure: Failure, role: str) -> bool:
    failure.trap(CatalogUnavailable)
    log.debug("who has a role is not known: {reason}", role=role, reason=failure.getErrorMessage())
    return False

"""Replication in one of several workers that share the uploads: each replica is sent on by its holder.

Invariants: only a replica's holder works on it; a holder changes only when its row is gone. A message only wakes: each
may be lost, and is late then by a second where somebody waits for the upload, else by one pass over the catalog
(`resumable.replication.work_queue.NOW_AND_THEN`). Whatever is remembered here is bounded. Times are seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from attrs import define, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.aio.deferreds import TaskGroup, Timer
from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable
from resumable.model.replica import ICopy, IHeldReplicas, IReplicas, IReplication, TransferProgress
from resumable.model.upload import Replica, Upload
from resumable.model.workers import IWake
from resumable.replication.service import Replication

EVERY: Final = 1.0
"""Seconds between two looks at uploads that somebody waits for, and between two messages of one upload's bytes."""
KNOWN: Final = 16_384
"""Uploads whose replicas' holders are remembered."""
FRESH: Final = 10.0
"""Seconds that other workers are remembered as holders: one of them may have died."""

COMMITTED: Final = "committed"
"""The topic of messages to holders: the upload, which the text names, has more bytes."""
WANTED: Final = "wanted"
"""The topic of messages to holders: somebody waits until the upload is stored."""
STORED: Final = "stored"
"""The topic of messages to all: every required replica of the upload is stored."""
RESTARTED: Final = "restarted"
"""The topic of messages to all: parked replicas of the upload are open again."""
HASTEN: Final = "hasten"
"""The topic of messages to all: the remote, which the text names, is back."""

_log = Logger()


@frozen
class SharedTier:
    """Parts of a worker that shares the uploads with others. ``get_many``: ICatalog's. ``clock`` measures."""

    worker_id: str
    replicas: IHeldReplicas
    get_many: Callable[[Sequence[str]], Deferred[Mapping[str, Upload]]]
    wake: IWake
    clock: IReactorTime


Make = Callable[[IReplicas, Callable[[str], None]], Replication]
"""Makes this worker's replication, of these replicas; it is given the listener for uploads that are stored."""


class _OwnReplicas(proxyForInterface(IReplicas, "held")):  # type: ignore[misc]
    """The catalog's replicas, for this worker's transfers."""

    held: IHeldReplicas

    def __init__(self, held: IHeldReplicas, hastened: Callable[[str], None]) -> None:
        super().__init__(held)
        self._hastened = hastened

    def hasten(self, remote: str) -> Deferred[None]:
        """See IReplicas. The other workers are told: it is back for their replicas, too."""

        def tell(_: None) -> None:
            self._hastened(remote)

        return self.held.hasten(remote).addCallback(tell)


@frozen
class _Holders:
    """Who holds the replicas of an upload that are open or ending. ``until``: believed; None: for ever."""

    mine: bool
    others: frozenset[str] = frozenset()
    until: float | None = None


@define(eq=False)
class _Wait:
    """Requests that wait until one upload is stored. ``looks``: at its row since then."""

    waiting: list[Deferred[None]]
    looks: int = 0


@implementer(IReplication)
class SharedReplication:
    """``own``: this worker's replication, which sends on what this worker holds; `start` and `stop` it there.

    The lag, and so `admits`, is the catalog's sum over all workers, as old as this worker's last question for it, moved
    by its own commits and transfers since.
    """

    def __init__(self, tier: SharedTier, make: Make) -> None:
        self._tier = tier
        self._clock = tier.clock
        self._tell = tier.wake.tell
        self.own = make(_OwnReplicas(tier.replicas, self._hastened), self._stored)
        self.acknowledges = self.own.acknowledges
        self._holders: OrderedDict[str, _Holders] = OrderedDict()
        self._asking: dict[str, Upload] = {}
        self._told: set[str] = set()  # within the last second
        self._again: set[str] = set()  # has more bytes since
        self._named: dict[str, bool] = {}  # by other workers; whether somebody waits for it
        self._reading = False
        self._waits: dict[str, _Wait] = {}
        self._tasks = TaskGroup(_failed)
        self._pause = Timer(tier.clock, self._tell_again)
        self._next_look = Timer(tier.clock, self._look)
        self._stopped = False
        for topic, listener in (
            (COMMITTED, lambda upload_id: self._heard(upload_id, wanted=False)),
            (WANTED, lambda upload_id: self._heard(upload_id, wanted=True)),
            (STORED, self._fire),
            (RESTARTED, self.own.restarted),
            (HASTEN, lambda remote: self._tasks.start(self._hasten(remote))),
        ):
            tier.wake.listen(topic, _hearing(listener))

    def start(self) -> None:
        """See Replication."""
        self.own.start()

    async def stop(self) -> None:
        """See Replication. Whoever waits until an upload is stored waits on, and is told nothing more."""
        self._stopped = True
        self._pause.clear()
        self._next_look.clear()
        self._tasks.cancel()
        await self._tasks.ended()
        await self.own.stop()

    def workers_died(self) -> None:
        """Rows of workers are gone: look at once for replicas that they held."""
        for upload_id, holders in tuple(self._holders.items()):
            if holders.others:
                del self._holders[upload_id]
        self.own.look()

    # -- IReplication

    def chosen(
        self, upload: Upload, remotes: Collection[str] | None = None, key: str | None = None, drawn: bool = False
    ) -> Sequence[Replica]:
        """See IReplication. This worker will hold them."""
        replicas = self.own.chosen(upload, remotes, key, drawn)
        self._remember(upload.id, _Holders(mine=bool(replicas)))
        return replicas

    def committed(self, upload: Upload) -> None:
        """See IReplication."""
        if upload.is_partial or self._stopped:
            return
        holders = self._known(upload.id)
        if holders is not None:
            self._committed(upload, holders)
        elif upload.id in self._asking:
            self._asking[upload.id] = upload
        else:
            self._asking[upload.id] = upload
            self._tasks.start(self._ask(upload.id))

    def ended(self, upload_id: str) -> None:
        """See IReplication. The use cases tell every worker. What nobody remembers is found by its holder's next pass
        over the catalog."""
        holders = self._holders.pop(upload_id, None)
        if (holders is not None and holders.mine) or self.own.remembers(upload_id):
            self.own.ended(upload_id)

    def restarted(self, upload_id: str) -> None:
        """See IReplication."""
        self.own.restarted(upload_id)
        self._tell(None, RESTARTED, upload_id)

    def when_stored(self, upload_id: str) -> Deferred[None]:
        """See IReplication. Fires also when the upload is gone, or forgotten. Its replicas that wait for a retry are
        tried now."""
        self.own.hurry(upload_id)
        stored: Deferred[None] = Deferred(lambda cancelled: self._no_longer(upload_id, cancelled))
        self._waits.setdefault(upload_id, _Wait([])).waiting.append(stored)
        if not self._next_look.pending and not self._stopped:
            self._next_look.set(EVERY)
        return stored

    def progress(self, upload_id: str) -> Mapping[str, TransferProgress]:
        """See IReplication. That of transfers of this worker; the rows have the bytes that others have confirmed."""
        return self.own.progress(upload_id)

    def open_copy(self, upload_id: str, start: int, size: int) -> Deferred[ICopy]:
        """See IReplication."""
        return self.own.open_copy(upload_id, start, size)

    def signed_url(self, upload_id: str, content_type: str, disposition: str, lifetime: float) -> Deferred[str | None]:
        """See IReplication."""
        return self.own.signed_url(upload_id, content_type, disposition, lifetime)

    def admits(self) -> bool:
        """See IReplication."""
        return self.own.admits()

    def when_admitted(self) -> Deferred[None]:
        """See IReplication."""
        return self.own.when_admitted()

    # -- who holds what

    def _known(self, upload_id: str) -> _Holders | None:
        holders = self._holders.get(upload_id)
        if holders is None or (holders.until is not None and holders.until < self._clock.seconds()):
            return None
        return holders

    def _remember(self, upload_id: str, holders: _Holders) -> None:
        self._holders[upload_id] = holders
        self._holders.move_to_end(upload_id)
        if len(self._holders) > KNOWN:
            self._holders.popitem(last=False)

    async def _find(self, upload_id: str) -> _Holders:
        """Ask the catalog. Where it doesn't answer: perhaps this worker, which is found out when it is worked on."""
        try:
            found = set((await self._tier.replicas.holders(upload_id)).values())
        except (CatalogUnavailable, Stopped) as error:
            _log.debug("who replicates it is not known: {reason}", upload=upload_id, reason=str(error))
            return _Holders(mine=True)
        others = frozenset(found - {self._tier.worker_id})
        holders = _Holders(self._tier.worker_id in found, others, self._clock.seconds() + FRESH if others else None)
        self._remember(upload_id, holders)
        return holders

    async def _ask(self, upload_id: str) -> None:
        try:
            holders = await self._find(upload_id)
        finally:
            upload = self._asking.pop(upload_id)
        self._committed(upload, holders)

    # -- bytes for other workers' replicas

    def _committed(self, upload: Upload, holders: _Holders) -> None:
        if holders.mine:
            self.own.committed(upload)
        if not holders.others or self._stopped:
            return
        if upload.id in self._told and not upload.finished:
            self._again.add(upload.id)
            return
        self._again.discard(upload.id)
        self._tell_holders(upload.id, holders)

    def _tell_holders(self, upload_id: str, holders: _Holders) -> None:
        for worker in sorted(holders.others):
            self._tell(worker, COMMITTED, upload_id)
        self._told.add(upload_id)
        if not self._pause.pending:
            self._pause.set(EVERY)

    def _tell_again(self) -> None:
        again, self._again, self._told = self._again, set(), set()
        for upload_id in again:
            holders = self._holders.get(upload_id)
            if holders is not None:
                self._tell_holders(upload_id, holders)

    # -- messages

    def _heard(self, upload_id: str, *, wanted: bool) -> None:
        """Another worker says that the upload has more bytes, or is waited for."""
        if self._stopped:
            return
        self._named[upload_id] = wanted or self._named.get(upload_id, False)
        if not self._reading:
            self._reading = True
            self._tasks.start(self._read())

    async def _read(self) -> None:
        """Read the uploads that other workers have named, together; those named meanwhile after them."""
        try:
            while self._named and not self._stopped:
                named, self._named = self._named, {}
                for upload_id, upload in (await self._tier.get_many(tuple(named))).items():
                    if upload.gone is None:
                        self.own.committed(upload)
                        if named[upload_id]:
                            self.own.hurry(upload_id)
        except CatalogUnavailable as error:
            _log.debug("news of other workers' uploads wait for the next look: {reason}", reason=str(error))
        finally:
            self._reading = False

    def _hastened(self, remote: str) -> None:
        self._tell(None, HASTEN, remote)

    async def _hasten(self, remote: str) -> None:
        """Another worker has found that the remote is back."""
        if remote not in self.own.queues or self._stopped:
            return
        try:
            await self._tier.replicas.hasten(remote)
        except CatalogUnavailable as error:
            _log.debug("retries wait: {reason}", remote=remote, reason=str(error))
        if not self._stopped:
            self.own.look(remote)

    # -- waiting until it is stored

    def _stored(self, upload_id: str) -> None:
        """This worker has stored the last required replica."""
        self._fire(upload_id)
        if self.acknowledges:
            self._tell(None, STORED, upload_id)

    def _fire(self, upload_id: str) -> None:
        wait = self._waits.pop(upload_id, None)
        for stored in () if wait is None else wait.waiting:
            stored.callback(None)

    def _no_longer(self, upload_id: str, stored: Deferred[None]) -> None:
        wait = self._waits.get(upload_id)
        if wait is not None and stored in wait.waiting:
            wait.waiting.remove(stored)
            if not wait.waiting:
                del self._waits[upload_id]

    def _look(self) -> None:
        if self._waits and not self._stopped:
            self._tasks.start(self._look_at(tuple(self._waits)))

    async def _look_at(self, upload_ids: Sequence[str]) -> None:
        try:
            rows = await self._tier.get_many(upload_ids)
        except (CatalogUnavailable, Stopped):
            rows = None
        for upload_id in upload_ids if rows is not None else ():
            upload = rows.get(upload_id) if rows else None
            wait = self._waits.get(upload_id)
            if upload is None or upload.gone or upload.stored_at is not None:
                self._fire(upload_id)
            elif wait is not None:
                wait.looks += 1
                if wait.looks & (wait.looks - 1) == 0:  # after 1, 2, 4, 8, ... seconds, should a message be lost
                    await self._want(upload_id)
        if self._waits and not self._stopped:
            self._next_look.set(EVERY)

    async def _want(self, upload_id: str) -> None:
        known = self._known(upload_id)
        holders = known if known is not None and not known.others else await self._find(upload_id)
        if holders.mine:
            self.own.hurry(upload_id)
        for worker in sorted(holders.others):
            self._tell(worker, WANTED, upload_id)


def _hearing(listener: Callable[[str], Any]) -> Callable[[str, str], None]:
    def hear(worker_id: str, text: str) -> None:
        listener(text)

    return hear


def _failed(failure: Failure) -> None:
    if not failure.check(CancelledError, Stopped):  # the worker stops
        _log.failure("replication of shared uploads failed unexpectedly", failure)

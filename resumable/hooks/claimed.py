"""All deliverers of one worker; where several workers share the outbox, one for each hook in all of them together.

Invariants: a shared hook's deliverer runs only while its worker has the claim ``hook:<name>``, and gives it back only
after its last record; a claim that was granted stays granted, so it isn't asked again. Whatever message is lost, the
outbox is looked at each second. Events have their ids and numbers in the outbox, so it makes no difference to a
receiver which worker delivers; one that was under way when its worker died comes again. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import TaskGroup, Timer
from resumable.hooks.deliver import Deliverer
from resumable.model.errors import CatalogUnavailable
from resumable.model.workers import IClaims, IWake

log = Logger()

EVERY: Final = 1.0
"""Seconds between two questions for the claim, and between two looks at the outbox."""
ALL_EVERY: Final = 30
"""In every so many looks the whole outbox is looked at: no commit is that late, but a message may have been lost."""
AT_MOST: Final = 0.1
"""Seconds between two messages to the workers that deliver, at least: one is enough for thousands of facts."""

FACTS: Final = "facts"
"""The topic of messages that there are new facts."""
LATE: Final = "late"
"""The topic of messages that an event may go now that was passed over."""
REPLAYED: Final = "replayed"
"""The topic of messages that dead events wait again."""
FREE: Final = "hook"
"""The topic of messages that the claim of a hook, which the text names, was given back."""


@frozen
class SharedHooks:
    """Parts of a worker that shares the outbox with others."""

    claims: IClaims
    wake: IWake


class IDeliverers(Protocol):
    """The deliverers of all hooks, in one worker."""

    def start(self) -> None:
        """Deliver the events that wait, and those that come."""

    def wake(self, *, replayed: bool = False) -> None:
        """This worker has committed facts, or dead events were ``replayed``. Costs next to nothing."""

    def late(self) -> None:
        """An event may go now that had to wait for something else than its turn. Costs next to nothing."""

    async def stop(self, grace: float = 5.0) -> None:
        """Begin nothing more; events under way get ``grace`` seconds."""


class LocalDeliverers:
    """Those of the only worker."""

    def __init__(self, deliverers: Sequence[Deliverer]) -> None:
        self._deliverers = deliverers

    def start(self) -> None:
        """See IDeliverers."""
        for deliverer in self._deliverers:
            deliverer.start()

    def wake(self, *, replayed: bool = False) -> None:
        """See IDeliverers."""
        for deliverer in self._deliverers:
            deliverer.wake(replayed=replayed)

    def late(self) -> None:
        """See IDeliverers."""
        for deliverer in self._deliverers:
            deliverer.wake(replayed=True)

    async def stop(self, grace: float = 5.0) -> None:
        """See IDeliverers."""
        await DeferredList([Deferred.fromCoroutine(deliverer.stop(grace)) for deliverer in self._deliverers])


class SharedDeliverers:
    """Those of one of several workers. It tells the others of its facts, unless it delivers all of them itself."""

    def __init__(self, deliverers: Sequence[Deliverer], shared: SharedHooks, clock: IReactorTime) -> None:
        self._tell = shared.wake.tell
        self._deliverers = {each.name: ClaimedDeliverer(each, shared, clock) for each in deliverers}
        self._pause = Timer(clock, self._again)
        self._stopped = False
        self._untold: set[str] = set()
        shared.wake.listen(FACTS, lambda worker, text: self._wake())
        shared.wake.listen(LATE, lambda worker, text: self._look_back())
        shared.wake.listen(REPLAYED, lambda worker, text: self._wake(replayed=True))
        shared.wake.listen(FREE, lambda worker, name: self._is_free(name))

    def start(self) -> None:
        """See IDeliverers. Ask for the claims."""
        for deliverer in self._deliverers.values():
            deliverer.start()

    def wake(self, *, replayed: bool = False) -> None:
        """See IDeliverers."""
        self._wake(replayed=replayed)
        if replayed:
            self._tell(None, REPLAYED, "")
        else:
            self._tell_soon(FACTS)

    def late(self) -> None:
        """See IDeliverers. In shared uploads: the upload's file was put together, which its hook may read."""
        self._look_back()
        self._tell_soon(LATE)

    async def stop(self, grace: float = 5.0) -> None:
        """See IDeliverers. The claims are given back, and the others are told."""
        await DeferredList([Deferred.fromCoroutine(each.stop(grace)) for each in self._deliverers.values()])
        self._stopped = True
        self._pause.clear()
        for topic in self._untold:
            self._tell(None, topic, "")

    def _tell_soon(self, topic: str) -> None:
        if self._stopped or all(deliverer.granted for deliverer in self._deliverers.values()):
            return
        if self._pause.pending:
            self._untold.add(topic)
        else:
            self._tell(None, topic, "")
            self._pause.set(AT_MOST)

    def _again(self) -> None:
        untold, self._untold = self._untold, set()
        for topic in untold:
            self._tell(None, topic, "")
        if untold:
            self._pause.set(AT_MOST)

    def _look_back(self) -> None:
        for deliverer in self._deliverers.values():
            deliverer.look_back()

    def _wake(self, *, replayed: bool = False) -> None:
        for deliverer in self._deliverers.values():
            deliverer.wake(replayed=replayed)

    def _is_free(self, name: str) -> None:
        deliverer = self._deliverers.get(name)
        if deliverer is not None:
            deliverer.ask()


class ClaimedDeliverer:
    """Runs one deliverer as long as this worker has its claim; once, as a claim that is there stays."""

    def __init__(self, deliverer: Deliverer, shared: SharedHooks, clock: IReactorTime) -> None:
        self.name = deliverer.name
        self._deliverer = deliverer
        self._claim = f"hook:{deliverer.name}"
        self._shared = shared
        self.granted = False
        self._running = False
        self._looks = 0
        self._failing = False
        self._asking = TaskGroup(self._failed)
        self._alarm = Timer(clock, self._look)

    def start(self) -> None:
        """Ask for the claim, now and each second after that."""
        self._running = True
        self._look()

    def wake(self, *, replayed: bool = False) -> None:
        """See `Deliverer.wake`; nothing where another worker has the claim."""
        if self.granted:
            self._deliverer.wake(replayed=replayed)

    def look_back(self) -> None:
        """See `Deliverer.look_back`."""
        if self.granted:
            self._deliverer.look_back()

    def ask(self) -> None:
        """Ask for the claim, which may be free."""
        if self._running and not self.granted and not len(self._asking):
            self._asking.start(self._take())

    async def stop(self, grace: float = 5.0) -> None:
        """See `Deliverer.stop`. The claim is given back, and the other workers are told."""
        self._running = False
        self._alarm.clear()
        await self._asking.ended()
        if not self.granted:
            return
        await self._deliverer.stop(grace)
        self.granted = False
        try:
            await self._shared.claims.give_back(self._claim)
        except CatalogUnavailable as error:  # it is free once this worker's row is gone
            log.warn("the claim {claim} can't be given back: {reason}", claim=self._claim, reason=str(error))
        else:
            self._shared.wake.tell(None, FREE, self.name)

    def _look(self) -> None:
        self._alarm.set(EVERY)
        if not self.granted:
            self.ask()
            return
        self._looks += 1
        if self._looks % ALL_EVERY:
            self._deliverer.look_back()
        else:
            self._deliverer.wake(replayed=True)

    async def _take(self) -> None:
        try:
            number = await self._shared.claims.take(self._claim)
        except CatalogUnavailable as error:
            if not self._failing:
                log.debug("hook {hook}: who delivers is not known: {reason}", hook=self.name, reason=str(error))
            self._failing = True
            return
        self._failing = False
        self.granted = number is not None
        if self.granted and self._running:
            log.info("events go to hook {hook} from here", hook=self.name, claim=number)
            self._deliverer.start()

    def _failed(self, failure: Failure) -> None:
        log.failure("the claim of hook {hook} failed unexpectedly", failure, hook=self.name)

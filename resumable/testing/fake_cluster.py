"""Several workers in one process, for tests: what they tell each other, who lives, and who has which claim.

`FakeCluster` is what they share; each `FakeWorker` is an IWorkers, IWake and IClaims of one of them. Their answers and
messages come with the next turn of the worker's own clock: a worker whose clock stands still is frozen. Messages may
be lost, late or doubled, as a test wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import define, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.model.errors import CatalogUnavailable
from resumable.model.workers import BURIED, IClaims, IDrainRecord, IWake, IWorkers, Listener, Worker

T = TypeVar("T")


@frozen
class Message:
    """From one worker to another."""

    sender: str
    receiver: FakeWorker
    topic: str
    text: str


@define
class _Claim:
    holder: str
    number: int


class FakeCluster:
    """The workers of one catalog.

    ``held_back``: messages wait in ``messages`` until `deliver` or `lose`; else they come by themselves. ``down``: the
    catalog is unavailable, and with it claims and questions about workers.
    """

    def __init__(self) -> None:
        self.workers: dict[str, FakeWorker] = {}
        self.messages: list[Message] = []
        self.held_back = False
        self.down = False
        self.claims: dict[str, _Claim] = {}
        self.draining_since: float | None = None

    def join(self, clock: IReactorTime, keeps: Callable[[str], bool] = lambda upload_id: False) -> FakeWorker:
        """A new worker. ``keeps``: whether it has an append to that upload under way."""
        worker = FakeWorker(self, f"{len(self.workers) + 1:016x}", clock, keeps)
        self.workers[worker.id] = worker
        return worker

    def deliver(self, message: Message | None = None) -> None:
        """Let this message arrive, or all that are held back."""
        for each in tuple(self.messages) if message is None else (message,):
            self.messages.remove(each)
            each.receiver.receive(each)

    def lose(self) -> None:
        """None of the messages that are held back will arrive."""
        self.messages.clear()

    def bury(self, worker: FakeWorker) -> None:
        """It was declared dead: its claims are free, and all others are told."""
        worker.lives = False
        for each in self.workers.values():
            if each.lives:
                self.send(Message("", each, BURIED, ""))

    def send(self, message: Message) -> None:
        """It arrives, unless it is held back."""
        if self.held_back:
            self.messages.append(message)
        else:
            message.receiver.receive(message)

    def free(self, name: str) -> bool:
        """Whether nobody who lives has that claim."""
        claim = self.claims.get(name)
        return claim is None or not self.workers[claim.holder].lives


@implementer(IWorkers, IWake, IClaims, IDrainRecord)
class FakeWorker:
    """One worker's side of the cluster. ``lives``: it has its row. ``told``: all that it has told, in order."""

    def __init__(self, cluster: FakeCluster, worker_id: str, clock: IReactorTime, keeps: Callable[[str], bool]) -> None:
        self.id = worker_id
        self.lives = True
        self.keeps = keeps
        self.told: list[tuple[str, str]] = []
        self._cluster = cluster
        self._clock = clock
        self._listeners: dict[str, list[Listener]] = {}
        self._numbers: dict[str, int] = {}

    # IWorkers

    def all(self) -> Deferred[Sequence[Worker]]:
        """See IWorkers."""
        return self._answer(lambda: [Worker(each.id, "node", 1, 0.0) for each in self._living()])

    def keeper(self, upload_id: str) -> Deferred[str | None]:
        """See IWorkers."""
        return self._answer(
            lambda: next((each.id for each in self._living() if each is not self and each.keeps(upload_id)), None)
        )

    def declare_dead(self, worker_id: str) -> Deferred[bool]:
        """See IWorkers."""

        def declare() -> bool:
            worker = self._cluster.workers.get(worker_id)
            lived = worker is not None and worker.lives
            if worker is not None and lived:
                self._cluster.bury(worker)
            return lived

        return self._answer(declare)

    def bury_dead(self) -> Deferred[Sequence[str]]:
        """See IWorkers; none is without a heartbeat here."""
        return self._answer(lambda: ())

    # IWake

    def tell(self, worker_id: str | None, topic: str, text: str) -> None:
        """See IWake."""
        self.told.append((topic, text))
        for each in self._living():
            if each is self or worker_id not in (None, each.id):
                continue
            self._cluster.send(Message(self.id, each, topic, text))

    def listen(self, topic: str, listener: Listener) -> None:
        """See IWake."""
        self._listeners.setdefault(topic, []).append(listener)

    def receive(self, message: Message) -> None:
        """With the next turn of its clock."""
        for listener in self._listeners.get(message.topic, ()):
            self._clock.callLater(0, listener, message.sender, message.text)

    # IClaims

    def take(self, name: str) -> Deferred[int | None]:
        """See IClaims."""

        def take() -> int | None:
            if not self.lives:
                raise CatalogUnavailable("this worker was taken for dead, and ends")
            claim = self._cluster.claims.get(name)
            if claim is None:
                claim = self._cluster.claims[name] = _Claim(self.id, 1)
            elif claim.holder != self.id and self._cluster.free(name):
                claim.holder, claim.number = self.id, claim.number + 1
            return claim.number if claim.holder == self.id else None

        return self._answer(take)

    def give_back(self, name: str) -> Deferred[None]:
        """See IClaims."""
        return self.drop(name)

    def drop(self, name: str) -> Deferred[None]:
        """See IClaims."""

        def drop() -> None:
            claim = self._cluster.claims.get(name)
            if claim is not None and claim.holder == self.id:
                del self._cluster.claims[name]

        return self._answer(drop)

    # IDrainRecord

    def draining_since(self) -> Deferred[float | None]:
        """See IDrainRecord."""
        return self._answer(lambda: self._cluster.draining_since)

    def drain(self, since: float) -> Deferred[None]:
        """See IDrainRecord."""

        def drain() -> None:
            if self._cluster.draining_since is None:
                self._cluster.draining_since = since

        return self._answer(drain)

    def fill(self) -> Deferred[None]:
        """See IDrainRecord."""

        def fill() -> None:
            self._cluster.draining_since = None

        return self._answer(fill)

    def _living(self) -> Sequence[FakeWorker]:
        return [each for each in self._cluster.workers.values() if each.lives]

    def _answer(self, work: Callable[[], T]) -> Deferred[T]:
        """Done at once in the catalog; known here a turn later."""
        if self._cluster.down:
            return fail(CatalogUnavailable("down"))
        outcome: T | Failure
        try:
            outcome = work()
        except CatalogUnavailable:
            outcome = Failure()
        answer: Deferred[T] = Deferred()
        self._clock.callLater(0, _fire, answer, outcome)
        return answer


def _fire(answer: Deferred[T], outcome: T | Failure) -> None:
    if not answer.called:
        answer.callback(outcome)

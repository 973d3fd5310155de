"""Workers that share claims and messages, in memory."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resumable.model.workers import IClaims, IWake, Listener


class Cluster:
    """``lossy``: messages are lost. ``told``: those that were sent: who, to whom, topic, text."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.holders: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.told: list[tuple[str, str | None, str, str]] = []
        self.lossy = False

    def join(self, name: str) -> Member:
        member = self.members[name] = Member(self, name)
        return member

    def die(self, name: str) -> None:
        """Its row is gone: its claims are free, and it hears nothing."""
        del self.members[name]
        self.holders = {claim: holder for claim, holder in self.holders.items() if holder != name}

    def topics(self) -> list[str]:
        return [topic for _, _, topic, _ in self.told]


@implementer(IClaims, IWake)
class Member:
    """One worker's claims and messages. ``broken``: what questions for a claim fail with. ``asked``: how many were."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.id = name
        self.broken: Exception | None = None
        self.asked = 0
        self._cluster = cluster
        self._listeners: dict[str, list[Listener]] = {}

    def take(self, name: str) -> Deferred[int | None]:
        self.asked += 1
        if self.broken is not None:
            return fail(self.broken)
        if self.id not in self._cluster.members:
            return succeed(None)
        if self._cluster.holders.setdefault(name, self.id) != self.id:
            return succeed(None)
        return succeed(self._cluster.numbers.setdefault(name, 1))

    def give_back(self, name: str) -> Deferred[None]:
        if self.broken is not None:
            return fail(self.broken)
        if self._cluster.holders.get(name) == self.id:
            del self._cluster.holders[name]
            self._cluster.numbers[name] += 1
        return succeed(None)

    def tell(self, worker_id: str | None, topic: str, text: str) -> None:
        self._cluster.told.append((self.id, worker_id, topic, text))
        if self._cluster.lossy:
            return
        for name, member in list(self._cluster.members.items()):
            if name == worker_id or (worker_id is None and name != self.id):
                for listener in member._listeners.get(topic, []):
                    listener(self.id, text)

    def listen(self, topic: str, listener: Callable[[str, str], None]) -> None:
        self._listeners.setdefault(topic, []).append(listener)

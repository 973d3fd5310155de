"""Several workers on the catalog, the spool and the stores of one rig."""

from __future__ import annotations

from random import Random
from typing import Any

from attrs import evolve
from twisted.internet.defer import succeed
from twisted.python.components import proxyForInterface
from zope.interface import implementer

from resumable.catalog.postgres.postgres_replicas import LATE
from resumable.model.replica import IHeldReplicas, IReplicas, Page
from resumable.replication.context import Remote
from resumable.replication.journal import CatalogJournal
from resumable.replication.service import Replication
from resumable.replication.shared import SharedReplication, SharedTier
from tests.cluster import Cluster
from tests.replication.rig import Counting, Rig


@implementer(IHeldReplicas)
class HeldReplicas(proxyForInterface(IReplicas, "all")):
    """Those of a catalog, as the worker of this name sees them; what was taken over is removed again as in
    `PostgresReplicaTable`."""

    def __init__(self, room: Workers, name: str) -> None:
        super().__init__(room.rig.catalog.replicas)
        self._cluster = room.cluster
        self._name = name
        self._holders_of = room.holders
        self._looks = room.looks
        self._wall = room.rig.wall

    def _holds(self, upload_id: str, remote: str) -> bool:
        holder = self._holders_of.get((upload_id, remote))
        if holder not in self._cluster.members:
            self._holders_of[upload_id, remote] = self._name
            if holder is not None:
                self._looks[upload_id, remote] = list(LATE)
        return self._holders_of[upload_id, remote] == self._name

    def ended(self, replica):
        looks = self._looks.get((replica.upload_id, replica.remote))
        if not looks:
            return self.all.ended(replica)
        return self.all.advance(evolve(replica, retry_at=self._wall() + looks.pop(0)))

    def own(self, upload_id, remote):
        found = self.all.get(upload_id, remote)
        return found.addCallback(lambda pair: pair if pair and self._holds(upload_id, remote) else None)

    def holders(self, upload_id):
        found = {remote: name for (each, remote), name in self._holders_of.items() if each == upload_id}
        alive = self._cluster.members
        return succeed({remote: name if name in alive else self._name for remote, name in found.items()})

    def due(self, remote, now, after, limit):
        def own(page):
            return Page([pair for pair in page.due if self._holds(pair[0].upload_id, remote)], page.after)

        return self.all.due(remote, now, after, limit).addCallback(own)


class Worker:
    """One of them: its replication, stores' backends and counts."""

    def __init__(self, room: Workers, name: str) -> None:
        rig = room.rig
        self.name = name
        self.member = room.cluster.join(name)
        self.replicas = Counting(HeldReplicas(room, name))
        self.remotes: dict[str, Any] = {}
        self._holders = room.holders

        def make(replicas, stored):
            remotes = []
            for remote, make in rig.makes.items():
                journal = CatalogJournal(replicas, remote)
                self.remotes[remote] = make(rig, remote, journal)
                remotes.append(Remote(remote, self.remotes[remote], journal=journal, **rig.specs.get(remote, {})))
            return Replication(
                remotes,
                replicas,
                rig.spool.reader,
                rig.reads.submit,
                clock=rig.clock,
                wall=rig.wall,
                rng=Random(1),
                run=f"run-{name}",
                limits=rig.limits,
                stored=stored,
            )

        tier = SharedTier(name, self.replicas, rig.catalog.get_many, self.member, rig.clock)
        self.replication = SharedReplication(tier, make)
        self.replication.start()

    def chosen(self, upload, *args, **options):
        replicas = self.replication.chosen(upload, *args, **options)
        self._holders.update({(upload.id, each.remote): self.name for each in replicas})
        return replicas

    def calls(self, upload_id: str, remote: str = "a") -> list[str]:
        return [name for name, each in self.remotes[remote].calls if each == upload_id]


class Workers:
    """``holders``: by upload and remote. ``looks``: pauses before those that were taken over are removed again. `at`
    chooses who serves the rig's clients."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        rig.ask(rig.replication.stop())
        self.cluster = Cluster()
        self.holders: dict[tuple[str, str], str] = {}
        self.looks: dict[tuple[str, str], list[float]] = {}
        self.workers: dict[str, Worker] = {}

    def join(self, name: str) -> Worker:
        worker = self.workers[name] = Worker(self, name)
        return worker

    def at(self, name: str) -> Rig:
        """The rig, whose clients talk to this worker."""
        worker = self.workers[name]

        def tell_all(upload_id: str) -> None:
            """As the use cases do."""
            for other in self.workers.values():
                if other is worker or not self.cluster.lossy:
                    other.replication.ended(upload_id)

        class Serving:
            chosen = worker.chosen
            committed = worker.replication.committed
            ended = staticmethod(tell_all)
            restarted = worker.replication.restarted
            progress = worker.replication.progress

        self.rig.replication = Serving()
        return self.rig

    def die(self, name: str) -> None:
        """It does nothing more, its row is gone, and the others know."""
        self.cluster.die(name)
        self.rig.ask(self.workers[name].replication.stop())
        del self.workers[name]

    def stop(self) -> None:
        for worker in self.workers.values():
            self.rig.ask(worker.replication.stop())

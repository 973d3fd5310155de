"""Replication, as the use cases see it: it sends every committed byte on to the remotes.

Invariant: nothing here blocks, waits or raises; a remote that fails shows in the catalog and in the log, never in an
append.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from resumable.aio.deferreds import Waiters
from resumable.model.replica import ICopy, IReplicas, IReplication, TransferProgress
from resumable.model.upload import Replica, Upload
from resumable.remotes.reading import Presented
from resumable.replication.context import Remote, ReplicationContext, ReplicationLimits, SpoolSource
from resumable.replication.copies import Copies
from resumable.replication.remote_queue import RemoteQueue
from resumable.replication.transfer import SMALL, intended

SMALL_MEMORY = 4 << 20
"""Bytes of small uploads that are read, on their way or waiting for a slot, of all remotes together. More are read
together when many wait."""


@implementer(IReplication)
class Replication:
    """Sends the bytes of uploads on to the remotes that were chosen for each.

    ``open`` is the spool's `reader`, ``read`` submits an upload's id and a size to a batcher of its `read_all`.
    ``clock`` measures spans, ``wall`` tells the time of day. ``run`` is another in each run of the daemon: a remote's
    progress that an earlier run recorded is asked for again. ``stored`` is called with the id of each upload that has
    become stored in every required remote.

    Each remote may have its share of ``limits.total`` parts on their way, and of `SMALL_MEMORY`, and no more, so that
    one that hangs takes nothing away from the others. Replicas in the catalog whose remote isn't among ``remotes`` are
    left alone.
    ValueError: two remotes have the same name.
    """

    def __init__(
        self,
        remotes: Sequence[Remote],
        replicas: IReplicas,
        open: Callable[[str], Deferred[SpoolSource]],
        read: Callable[[tuple[str, int]], Deferred[bytes]],
        *,
        clock: IReactorTime,
        wall: Callable[[], float],
        rng: Random,
        run: str,
        limits: ReplicationLimits | None = None,
        stored: Callable[[str], None] | None = None,
    ) -> None:
        limits = limits or ReplicationLimits()
        slots = max(1, min(limits.per_remote, limits.total // max(1, len(remotes))))
        memory = max(SMALL, SMALL_MEMORY // max(1, len(remotes)))
        context = ReplicationContext(replicas, open, read, clock, wall, rng, run, limits, memory)
        self.acknowledges = limits.acknowledges
        self._run = run
        self.queues = {each.name: RemoteQueue(each, context, slots, self._stored, self._caught_up) for each in remotes}
        if len(self.queues) != len(remotes):
            raise ValueError("two remotes have the same name")
        self._copies = Copies({each.name: each.backend for each in remotes}, replicas, clock)
        self._on_stored = stored
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._refused = Waiters()

    # -- start and stop

    def start(self) -> None:
        """Look through the catalog for work, and begin it."""
        for queue in self.queues.values():
            queue.start()

    async def stop(self) -> None:
        """Give up the work under way. Nothing is asked of the catalog or a remote after this."""
        await gatherResults([Deferred.fromCoroutine(queue.stop()) for queue in self.queues.values()])

    # -- IReplication

    def chosen(
        self, upload: Upload, remotes: Collection[str] | None = None, key: str | None = None, drawn: bool = False
    ) -> Sequence[Replica]:
        """See IReplication."""
        if upload.is_partial:
            return ()
        replicas = []
        for name, queue in self.queues.items():
            replica = intent = None
            if (remotes is None or name in remotes) and queue.remote.accepts(upload):
                intent = intended(queue.remote, upload, key) if drawn else None
                chosen, record = (key, None) if intent is None else (intent.key, intent.record)
                # with this run's name: the remote has nothing of it, and needn't be asked
                required = queue.remote.required
                replica = Replica(upload.id, name, required, key=chosen, run=self._run, intent=record)
                replicas.append(replica)
            queue.chosen(upload, replica, intent)
        return replicas

    def committed(self, upload: Upload) -> None:
        """See IReplication."""
        if not upload.is_partial:
            for queue in self.queues.values():
                queue.committed(upload)

    def ended(self, upload_id: str) -> None:
        """See IReplication."""
        for queue in self.queues.values():
            queue.ended(upload_id)

    def restarted(self, upload_id: str) -> None:
        """See IReplication."""
        for queue in self.queues.values():
            queue.restarted(upload_id)

    def when_stored(self, upload_id: str) -> Deferred[None]:
        """See IReplication. Its replicas that wait for a retry are tried now, because somebody asked again."""
        self.hurry(upload_id)
        stored: Deferred[None] = Deferred(lambda cancelled: self._no_longer(upload_id, cancelled))
        self._waiting.setdefault(upload_id, []).append(stored)
        return stored

    def progress(self, upload_id: str) -> Mapping[str, TransferProgress]:
        """See IReplication."""
        found = {name: queue.progress(upload_id) for name, queue in self.queues.items()}
        return {name: progress for name, progress in found.items() if progress is not None}

    def open_copy(self, upload_id: str, start: int, size: int) -> Deferred[ICopy]:
        """See IReplication."""
        return self._copies.open(upload_id, start, size)

    def signed_url(self, upload_id: str, content_type: str, disposition: str, lifetime: float) -> Deferred[str | None]:
        """See IReplication."""
        return self._copies.signed_url(upload_id, Presented(content_type, disposition, lifetime))

    def admits(self) -> bool:
        """See IReplication."""
        return not any(queue.lag.over for queue in self.queues.values() if queue.lag is not None)

    def when_admitted(self) -> Deferred[None]:
        """See IReplication."""
        return succeed(None) if self.admits() else self._refused.wait()

    # -- where several workers share the uploads

    def hurry(self, upload_id: str) -> None:
        """Somebody waits for the upload: its replicas that wait for a retry are tried now."""
        for queue in self.queues.values():
            queue.hurry(upload_id)

    def look(self, remote: str | None = None) -> None:
        """The catalog may have work, for this remote or for all, that nobody has told of."""
        for name, queue in self.queues.items():
            if remote is None or name == remote:
                queue.search()

    def remembers(self, upload_id: str) -> bool:
        """Whether some replica of the upload is worked on, or its progress is remembered."""
        return any(queue.remembers(upload_id) for queue in self.queues.values())

    # -- for operators

    @property
    def stored(self) -> int:
        """Uploads that became stored in every required remote since the start."""
        return sum(queue.counts.completed for queue in self.queues.values())

    # -- news of the queues

    def _stored(self, upload_id: str) -> None:
        for stored in self._waiting.pop(upload_id, []):
            stored.callback(None)
        if self._on_stored is not None:
            self._on_stored(upload_id)

    def _no_longer(self, upload_id: str, stored: Deferred[None]) -> None:
        waiting = self._waiting[upload_id]
        waiting.remove(stored)
        if not waiting:
            del self._waiting[upload_id]

    def _caught_up(self) -> None:
        if self._refused and self.admits():
            self._refused.fire()

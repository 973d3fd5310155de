"""Shared by all parts of replication: the operator's limits, a remote, its counts, and the dependencies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from resumable.model.replica import IReplicas
from resumable.model.upload import Upload
from resumable.remotes.interfaces import IRemoteStorage
from resumable.remotes.plan import PART_SIZE
from resumable.remotes.regions import Readable
from resumable.replication.journal import CatalogJournal


@frozen
class ReplicationLimits:
    """The operator's limits. Sizes in bytes, times in seconds.

    ``part_size``: the chunks of remotes without a plan of their own. ``per_upload``, ``per_remote``, ``total``: parts
    on their way at once. More of them are faster over a long line; fewer need less memory and leave more of the line
    to the clients.

    ``base_delay``, ``max_delay``: a retry waits a random part of ``base_delay``, doubled with each failure in a row, at
    most ``max_delay``. With shorter pauses a remote is used sooner after an outage, and has more load during it. A
    replica is parked after ``attempts`` failures in a row (0: never), or when it has failed for ``give_up_after``
    (None: never). A call is given up after ``try_timeout``, and the time of its bytes at ``slowest`` bytes a second.

    ``max_lag``: bytes, and ``max_lag_age``: age of the oldest finished upload, past which no client may send.
    ``acknowledges``: a finished upload is acknowledged only once it is stored (`--ack remote`).
    ``whole_only``: the spool gives out no byte before all are in one object (NotWhole), so nothing begins before that.
    """

    part_size: int = PART_SIZE
    per_upload: int = 4
    per_remote: int = 16
    total: int = 32
    base_delay: float = 1.0
    max_delay: float = 60.0
    attempts: int = 0
    give_up_after: float | None = None
    try_timeout: float = 300.0
    slowest: int = 64 * 1024
    max_lag: int | None = None
    max_lag_age: float | None = None
    acknowledges: bool = False
    whole_only: bool = False


def _always(upload: Upload) -> bool:
    return True


@frozen
class Remote:
    """A remote under the operator's name for it. ``accepts`` decides whether a new upload gets a replica in it.

    ``journal``: the backend's, if replication may save records of small uploads in it (see `IWholeRemote`).
    """

    name: str
    backend: IRemoteStorage
    required: bool = True
    accepts: Callable[[Upload], bool] = _always
    journal: CatalogJournal | None = None


@define
class RemoteCounts:
    """Counters of one remote since the start. ``failures``: by the name of the error's class; ``opened``: outages.

    ``completed``: uploads of which this was the last required remote to get a copy.
    """

    parts: int = 0
    bytes: int = 0
    stored: int = 0
    completed: int = 0
    parked: int = 0
    removed: int = 0
    retries: int = 0
    opened: int = 0
    failures: Counter[str] = field(factory=Counter)


class SpoolSource(Readable, Protocol):
    """The bytes of an upload in the spool: its `Reader`."""

    def reach(self, end: int) -> Deferred[None] | None:
        """See `Reader.reach`."""

    def close(self) -> Deferred[None]:
        """Close the file; fires when that is done."""


@frozen
class ReplicationContext:
    """The dependencies that all remotes share. ``open`` opens an upload's spool file, ``read`` gives up to so many
    bytes from its start on. ``memory``: bytes of one remote's small uploads that are read.

    ``clock`` measures spans, ``wall`` tells the time of day for records. ``run`` names this run of the daemon.
    """

    replicas: IReplicas
    open: Callable[[str], Deferred[SpoolSource]]
    read: Callable[[tuple[str, int]], Deferred[bytes]]
    clock: IReactorTime
    wall: Callable[[], float]
    rng: Random
    run: str
    limits: ReplicationLimits
    memory: int

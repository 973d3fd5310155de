"""What the operator says about replication, what is counted of it, and what it works with.

One reason to change: a knob or a figure. Nothing here does any work.
"""

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


@frozen
class ReplicationLimits:
    """Bounds and times. Sizes in bytes, times in seconds.

    ``part_size``: the chunks of remotes without a plan of their own. ``per_upload``, ``per_remote``, ``total``: parts
    on their way at once. More: faster over a long line; fewer: less memory, and clients' own traffic suffers less.

    ``base_delay``, ``max_delay``: a retry waits a random part of ``base_delay``, doubled with each failure in a row, at
    most ``max_delay``. Smaller: sooner back, more load on a store that suffers. ``attempts`` in a row (0: for ever) and
    ``give_up_after`` seconds of failing (None: never): then the replica is parked. ``try_timeout``: a call that hasn't
    answered is given up after that, and what ``slowest`` bytes a second need.

    ``max_lag`` bytes, and ``max_lag_age`` of the oldest upload that finished: past these no client may send.
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


def _always(upload: Upload) -> bool:
    return True


@frozen
class Remote:
    """A remote as the operator named it. ``accepts`` is asked about each new upload."""

    name: str
    backend: IRemoteStorage
    required: bool = True
    accepts: Callable[[Upload], bool] = _always


@define
class RemoteCounts:
    """What one remote has seen since the start; only ever grows. ``failures`` by the name of their class.

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
    """The spool's Reader."""

    def close(self) -> Deferred[None]:
        """Fires when the file is closed."""


@frozen
class ReplicationContext:
    """What all remotes of one engine share. ``open`` opens an upload's spool file.

    ``clock`` measures spans, ``wall`` tells the time of day for records. ``run`` names this run of the daemon.
    """

    replicas: IReplicas
    open: Callable[[str], Deferred[SpoolSource]]
    clock: IReactorTime
    wall: Callable[[], float]
    rng: Random
    run: str
    limits: ReplicationLimits

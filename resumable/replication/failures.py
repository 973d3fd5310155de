"""A failure of a transfer goes into the catalog and the log.

One reason to change: what is recorded and said of failures. Invariant: a replica that begins to fail is logged once
and one that is given up once, however often it fails between.
"""

from __future__ import annotations

from random import Random

from attrs import evolve, frozen
from twisted.logger import Logger

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Replica, ReplicaState
from resumable.remotes.interfaces import RegionLost, RemoteError, Throttled
from resumable.remotes.plan import TooLarge
from resumable.replication.context import RemoteCounts, ReplicationContext, ReplicationLimits
from resumable.replication.progress import ReplicaProgress
from resumable.replication.transfer import Transfer

_log = Logger()


class FailureRecorder:
    """Those of one remote."""

    def __init__(self, remote: str, context: ReplicationContext, counts: RemoteCounts) -> None:
        self._remote = remote
        self._context = context
        self._counts = counts

    async def record(
        self, progress: ReplicaProgress, transfer: Transfer, failure: TransferFailure, counts: bool
    ) -> bool:
        """Whether the replica is tried again; else it is parked. ``counts``: this was one of its attempts.

        Raises CatalogUnavailable, Overtaken.
        """
        was, now, limits = progress.replica, self._context.wall(), self._context.limits
        replica = progress.replica = after_failure(
            was, failure, now=now, rng=self._context.rng, limits=limits, counts=counts
        )
        progress.hurried, progress.not_before = False, now + (failure.asked or 0.0)
        why = reason_to_park(replica, failure, now=now, limits=limits)
        if why is not None:
            await self._park(replica, why, now)
            return False
        self._counts.retries += 1
        say = _log.warn if was.error is None else _log.debug
        say("failed, will try again: {reason}", upload=was.upload_id, remote=self._remote, reason=failure.reason)
        await transfer.save()
        return True

    async def _park(self, replica: Replica, why: str, now: float) -> None:
        if await self._context.replicas.park(replica, why, now):
            self._counts.parked += 1
            _log.error("given up: {reason}", upload=replica.upload_id, remote=self._remote, reason=why)


LONGEST_ASKED = 3600.0
"""Seconds; a store that asks for more is asked again after this."""


@frozen
class Backoff:
    """``base`` seconds, doubled with each failure in a row up to ``most``."""

    base: float
    most: float

    def ceiling(self, failures: int) -> float:
        """The longest pause after so many failures in a row (1: the first)."""
        return min(self.most, self.base * 2.0 ** min(failures - 1, 62))

    def pause(self, failures: int, rng: Random, asked: float | None = None) -> float:
        """Anything up to the ceiling, and at least what was ``asked`` for."""
        return max(rng.uniform(0, self.ceiling(failures)), min(asked or 0.0, LONGEST_ASKED))


@frozen
class TransferFailure:
    """``about_remote``: other uploads will fare the same. ``hopeless``: trying again won't help. ``ours``: it is the
    catalog, which nobody has to answer for. ``unforeseen``: it ought to be in the log with all its traceback."""

    kind: str
    reason: str
    about_remote: bool = False
    hopeless: bool = False
    ours: bool = False
    unforeseen: bool = False
    asked: float | None = None


def classified(error: BaseException) -> TransferFailure:
    """What this failure of a transfer is."""
    kind = type(error).__name__
    if isinstance(error, RemoteError):
        asked = error.retry_after if isinstance(error, Throttled) else None
        reason = f"{error.reason} ({error.advice})" if error.advice else error.reason
        return TransferFailure(kind, _line(reason), error.about_remote, hopeless=not error.may_retry, asked=asked)
    if isinstance(error, CatalogUnavailable):
        return TransferFailure(kind, _line(f"the catalog: {error}"), ours=True)
    if isinstance(error, RegionLost):
        return TransferFailure(kind, _line(f"the local data is damaged: {error}"), hopeless=True)
    if isinstance(error, TooLarge):
        return TransferFailure(kind, _line(str(error)), hopeless=True)
    if isinstance(error, OSError):
        return TransferFailure(kind, _line(f"the spool: {error.strerror or kind}"))
    return TransferFailure(kind, f"unexpected: {kind}", unforeseen=True)


def after_failure(
    replica: Replica,
    failure: TransferFailure,
    *,
    now: float,
    rng: Random,
    limits: ReplicationLimits,
    counts: bool = True,
) -> Replica:
    """The replica with its failure and the time of the next try. ``counts``: it is one of its attempts."""
    attempts = replica.attempts + counts
    pause = Backoff(limits.base_delay, limits.max_delay).pause(max(1, attempts), rng, failure.asked)
    return evolve(
        replica,
        attempts=attempts,
        error=failure.reason,
        retry_at=now + pause,
        failing_since=now if replica.failing_since is None else replica.failing_since,
    )


def reason_to_park(replica: Replica, failure: TransferFailure, *, now: float, limits: ReplicationLimits) -> str | None:
    """Why it is given up, None if it isn't. What has to be removed from a store never is."""
    if replica.state is not ReplicaState.OPEN:
        return None
    if failure.hopeless:
        return failure.reason
    if limits.attempts and replica.attempts >= limits.attempts:
        return f"{replica.attempts} attempts failed: {failure.reason}"
    since = now if replica.failing_since is None else replica.failing_since
    if limits.give_up_after is not None and now - since >= limits.give_up_after:
        return f"failed for {now - since:.0f} s: {failure.reason}"
    return None


def _line(text: str) -> str:
    return " ".join(text.split())[:500]

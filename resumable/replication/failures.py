"""The consequence of a failed transfer for its replica: when it is tried again, or that it is parked.

Invariants: a replica that begins to fail is logged once, and one that is parked once, however often it fails between;
a failure is kept and shown as one line without secrets: a remote's own reason, or for anything unforeseen only
the name of its class.
"""

from __future__ import annotations

import enum
from random import Random

from attrs import evolve, frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Replica, ReplicaState
from resumable.remotes.interfaces import RegionLost, RemoteError, Throttled
from resumable.remotes.plan import ObjectTooLarge
from resumable.replication.context import RemoteCounts, ReplicationContext, ReplicationLimits
from resumable.replication.transfer import Job, Overtaken

LONGEST_ASKED = 3600.0
"""Seconds; a store that asks for a longer pause is asked again after this."""

_log = Logger()


@frozen
class Backoff:
    """Pauses after failures: up to ``base`` seconds, doubled with each failure in a row, at most ``most``.

    A pause is longer than that only if the store asked for it.
    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("full jitter").
    """

    base: float
    most: float

    def ceiling(self, failures: int) -> float:
        """The longest pause, in seconds, after so many failures in a row (1: the first)."""
        return min(self.most, self.base * 2.0 ** min(failures - 1, 62))

    def pause(self, failures: int, rng: Random, asked: float | None = None) -> float:
        """A random number of seconds up to the ceiling, at least as many as the store ``asked`` for."""
        return max(rng.uniform(0, self.ceiling(failures)), min(asked or 0.0, LONGEST_ASKED))


@frozen
class TransferFailure:
    """A failure, by the name of its class (``kind``) and in one line for people (``reason``).

    ``about_remote``: other uploads will fail in the same way. ``hopeless``: another try won't help. ``ours``: the
    catalog failed, which counts against no replica. ``unforeseen``: its traceback belongs in the log. ``asked``: the
    pause in seconds that the store asked for.
    """

    kind: str
    reason: str
    about_remote: bool = False
    hopeless: bool = False
    ours: bool = False
    unforeseen: bool = False
    asked: float | None = None


def classified(error: BaseException) -> TransferFailure:
    """The meaning of an exception that ended a transfer."""
    kind = type(error).__name__
    if isinstance(error, RemoteError):
        asked = error.retry_after if isinstance(error, Throttled) else None
        reason = f"{error.reason} ({error.advice})" if error.advice else error.reason
        return TransferFailure(kind, _line(reason), error.about_remote, hopeless=not error.may_retry, asked=asked)
    if isinstance(error, CatalogUnavailable):
        return TransferFailure(kind, _line(f"the catalog: {error}"), ours=True)
    if isinstance(error, RegionLost):
        return TransferFailure(kind, _line(f"the local data is damaged: {error}"), hopeless=True)
    if isinstance(error, ObjectTooLarge):
        return TransferFailure("TooLarge", _line(str(error)), hopeless=True)
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
    is_attempt: bool = True,
) -> Replica:
    """The replica with the failure and the time of its next try. ``is_attempt``: count it among its attempts."""
    attempts = replica.attempts + is_attempt
    pause = Backoff(limits.base_delay, limits.max_delay).pause(max(1, attempts), rng, failure.asked)
    return evolve(
        replica,
        attempts=attempts,
        error=failure.reason,
        retry_at=now + pause,
        failing_since=now if replica.failing_since is None else replica.failing_since,
    )


def reason_to_park(replica: Replica, failure: TransferFailure, *, now: float, limits: ReplicationLimits) -> str | None:
    """Why the replica is to be parked, None if it isn't. One that has to be removed from a store never is."""
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


class Reaction(enum.Enum):
    """RETRY: at the replica's ``retry_at``. PARKED: it isn't tried again. OVERTAKEN: its row has changed meanwhile.
    LATER: nothing was recorded, because the catalog doesn't work or the transfer had not begun."""

    RETRY = "retry"
    PARKED = "parked"
    OVERTAKEN = "overtaken"
    LATER = "later"


class FailureRecorder:
    """Records the failures of one remote's transfers in the catalog, in the log and in ``counts``."""

    def __init__(self, remote: str, context: ReplicationContext, counts: RemoteCounts) -> None:
        self._remote = remote
        self._context = context
        self._counts = counts

    def count(self, job: Job, error: Exception) -> TransferFailure:
        """Count the exception that ended a job; its meaning."""
        failure = classified(error)
        self._counts.failures[failure.kind] += 1
        if failure.unforeseen:
            _log.failure("unexpected failure", Failure(error), upload=job.upload_id, remote=self._remote)
        return failure

    async def record(self, job: Job, failure: TransferFailure, is_attempt: bool) -> Reaction:
        """Record it, and answer the next step. ``is_attempt``: it was one of the replica's attempts."""
        if failure.ours or job.progress is None or job.transfer is None:
            _log.debug("later: {reason}", upload=job.upload_id, remote=self._remote, reason=failure.reason)
            return Reaction.LATER
        now, limits, was = self._context.wall(), self._context.limits, job.progress.replica
        replica = after_failure(was, failure, now=now, rng=self._context.rng, limits=limits, is_attempt=is_attempt)
        job.progress.failed(replica, now + (failure.asked or 0.0))
        why = reason_to_park(replica, failure, now=now, limits=limits)
        try:
            if why is not None:
                await self._park(replica, why, now)
                return Reaction.PARKED
            self._counts.retries += 1
            say = _log.warn if was.error is None else _log.debug
            say("failed, will try again: {reason}", upload=job.upload_id, remote=self._remote, reason=failure.reason)
            await job.transfer.save()
        except CatalogUnavailable:
            _log.warn("a failure could not be recorded", upload=job.upload_id, remote=self._remote)
            return Reaction.LATER
        except Overtaken:
            return Reaction.OVERTAKEN
        return Reaction.RETRY

    async def _park(self, replica: Replica, why: str, now: float) -> None:
        if await self._context.replicas.park(replica, why, now):
            self._counts.parked += 1
            _log.error("given up: {reason}", upload=replica.upload_id, remote=self._remote, reason=why)

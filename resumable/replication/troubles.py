"""What a failure means for a replica.

One reason to change: the reaction to a kind of failure. Pure.

Invariant: what is kept and shown of a failure is one line without secrets: a remote's own reason, or for anything
unforeseen only the name of its class.
"""

from __future__ import annotations

from random import Random

from attrs import evolve, frozen

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Replica, ReplicaState
from resumable.remotes.interfaces import RegionLost, RemoteError, Throttled
from resumable.remotes.plan import ObjectTooLarge
from resumable.replication.backoff import Backoff
from resumable.replication.settings import Limits


@frozen
class Trouble:
    """``about_remote``: other uploads will fare the same. ``hopeless``: trying again won't help. ``ours``: it is the
    catalog, which nobody has to answer for. ``unforeseen``: it ought to be in the log with all its traceback."""

    kind: str
    reason: str
    about_remote: bool = False
    hopeless: bool = False
    ours: bool = False
    unforeseen: bool = False
    asked: float | None = None


def sorted_out(error: BaseException) -> Trouble:
    """What this failure of a turn is."""
    kind = type(error).__name__
    if isinstance(error, RemoteError):
        asked = error.retry_after if isinstance(error, Throttled) else None
        reason = f"{error.reason} ({error.advice})" if error.advice else error.reason
        return Trouble(kind, _line(reason), error.about_remote, hopeless=not error.may_retry, asked=asked)
    if isinstance(error, CatalogUnavailable):
        return Trouble(kind, _line(f"the catalog: {error}"), ours=True)
    if isinstance(error, RegionLost):
        return Trouble(kind, _line(f"the local data is damaged: {error}"), hopeless=True)
    if isinstance(error, ObjectTooLarge):
        return Trouble(kind, _line(str(error)), hopeless=True)
    if isinstance(error, OSError):
        return Trouble(kind, _line(f"the spool: {error.strerror or kind}"))
    return Trouble(kind, f"unexpected: {kind}", unforeseen=True)


def after(
    replica: Replica, trouble: Trouble, *, now: float, rng: Random, limits: Limits, counts: bool = True
) -> Replica:
    """The replica with its failure and the time of the next try. ``counts``: it is one of its attempts."""
    attempts = replica.attempts + counts
    pause = Backoff(limits.base_delay, limits.max_delay).pause(max(1, attempts), rng, trouble.asked)
    return evolve(
        replica,
        attempts=attempts,
        error=trouble.reason,
        retry_at=now + pause,
        failing_since=now if replica.failing_since is None else replica.failing_since,
    )


def gives_up(replica: Replica, trouble: Trouble, *, now: float, limits: Limits) -> str | None:
    """Why it is given up, None if it isn't. What has to be removed from a store never is."""
    if replica.state is not ReplicaState.OPEN:
        return None
    if trouble.hopeless:
        return trouble.reason
    if limits.attempts and replica.attempts >= limits.attempts:
        return f"{replica.attempts} attempts failed: {trouble.reason}"
    since = now if replica.failing_since is None else replica.failing_since
    if limits.give_up_after is not None and now - since >= limits.give_up_after:
        return f"failed for {now - since:.0f} s: {trouble.reason}"
    return None


def _line(text: str) -> str:
    return " ".join(text.split())[:500]

"""Probes of the remotes, before anybody depends on them.

Used at start-up and by ``--check``.

Invariant: every remote gets an answer within the time-out, and each answer is one line that names the fault and the
change that helps, without a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.remotes.errors import AuthFailed, NotThere, Permanent, RemoteError, Throttled, Transient, Unusable
from resumable.remotes.interfaces import IProbe

PATIENCE = 30.0
"""Seconds that a remote may take; requests have time-outs of their own."""

#: Where an error brings no advice of its own; the first class that fits counts.
ADVICE: Sequence[tuple[type[RemoteError], str]] = (
    (AuthFailed, "correct the credentials, or give them the rights that docs/remotes.md lists"),
    (Unusable, "compare the remote's URL with what the store supports"),
    (Throttled, "wait, or ask the store's operator for more"),
    (Transient, "check that the store is up, and its address and port; it is tried again anyway"),
    (NotThere, "check the address: something answers there, but not as this store would"),
    (Permanent, "compare the remote's URL with what the store supports"),
    (RemoteError, "see the log"),
)
_log = Logger()


def probe(
    remotes: Iterable[tuple[str, object]], clock: IReactorTime, patience: float = PATIENCE
) -> Deferred[Mapping[str, str | None]]:
    """The fault of each remote, by its name; None: no fault that it can tell.

    All are asked at once; one that doesn't provide `IProbe` is taken to work. Never fails.
    """
    named = list(remotes)
    asked: Deferred[list[str | None]] = gatherResults([_asked(name, each, clock, patience) for name, each in named])
    return asked.addCallback(lambda answers: dict(zip((name for name, _ in named), answers, strict=True)))


def _asked(name: str, remote: object, clock: IReactorTime, patience: float) -> Deferred[str | None]:
    if not IProbe.providedBy(remote):
        return Deferred.fromCoroutine(_nothing())
    answer: Deferred[None] = remote.probe()
    answer.addTimeout(patience, clock)
    return answer.addCallbacks(lambda _: None, lambda failure: _told(name, failure, patience))


def _told(name: str, failure: Failure, patience: float) -> str:
    error = failure.value
    if isinstance(error, RemoteError):
        return f"{error.reason}; {advice(error)}"
    if isinstance(error, TimeoutError | CancelledError):
        return f"no answer in {patience:.0f} s; check its address, and what lies between"
    _log.failure("the probe of {remote} failed", failure, remote=name)
    return f"it could not be tried ({type(error).__name__}); see the log"


def advice(error: RemoteError) -> str:
    """The change that helps, in a few words; never empty."""
    return error.advice or next(words for kind, words in ADVICE if isinstance(error, kind))


async def _nothing() -> None:
    return None

"""The other workers of the same catalog, as the use cases see them: what they tell each other, and whose turn it is.

Invariants: a message only wakes, and may be lost: whoever waits for another worker also looks at the row each second;
what a claim was granted for is done by this worker alone until it is dropped. Of one process there are no others:
nothing here is asked, told or waited for then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import Timer
from resumable.model.workers import IClaims, IWake
from resumable.uploads.holds import IRoles

log = Logger()

LOOK: Final = 1.0
"""Seconds between two looks at a row that another worker may change."""

# Topics of messages; the text is an upload's id, or empty.
NEWS: Final = "news"
"""Something has happened that somebody may wait for."""
ENDED: Final = "ended"
"""The upload is gone."""
PARTIAL: Final = "partial"
"""The partial has finished, and there are finals that wait for it."""
PLACE: Final = "place"
"""The upload is finished, and its file has a place to go to."""
UNREADABLE: Final = "unreadable"
"""Committed bytes of the upload couldn't be read."""
DRAIN: Final = "drain"
"""A drain has begun or ended."""

Heard = Callable[[str], object]
"""Called with an upload's id."""


class IOtherWorkers(Protocol):
    """The other workers. ``several``: whether there may be any; if not, nothing else here need be called."""

    several: bool

    def tell(self, topic: str, upload_id: str) -> None:
        """Tell all others. Never fails."""

    def listen(self, topic: str, heard: Heard) -> None:
        """Call this one, too, for each message of the topic."""

    def news(self, upload_id: str, within: float = LOOK) -> Deferred[None]:
        """Fires when there is news of the upload, and after so many seconds, `LOOK` at the most. May be cancelled."""

    def heard(self, upload_id: str) -> None:
        """There is news of the upload here: `news` fires."""

    def claim(self, name: str) -> Deferred[bool]:
        """Whether this worker alone may do that now, until `drop`. Fails with CatalogUnavailable: then it is dropped as
        soon as that can be done, as it may have been granted."""

    def drop(self, name: str) -> Deferred[None]:
        """It is done: another may claim it. Never fails; it is tried again until the catalog has recorded it."""

    def granted(self, role: str) -> Deferred[bool]:
        """See IRoles."""


class NoOtherWorkers:
    """There is one process."""

    several = False

    def tell(self, topic: str, upload_id: str) -> None: ...

    def listen(self, topic: str, heard: Heard) -> None: ...

    def news(self, upload_id: str, within: float = LOOK) -> Deferred[None]:
        return Deferred()

    def heard(self, upload_id: str) -> None: ...

    def claim(self, name: str) -> Deferred[bool]:
        return succeed(True)

    def drop(self, name: str) -> Deferred[None]:
        return succeed(None)

    def granted(self, role: str) -> Deferred[bool]:
        return succeed(True)


class OtherWorkers:
    """The other workers of a shared catalog. `stop` when no use case runs any more."""

    several = True

    def __init__(self, clock: IReactorTime, wake: IWake, claims: IClaims, roles: IRoles) -> None:
        self._clock = clock
        self._wake = wake
        self._claims = claims
        self._roles = roles
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._own_ears: dict[str, list[Heard]] = {}
        #: Claims that the catalog couldn't drop yet.
        self._undropped: set[str] = set()
        self._again = Timer(clock, self._drop_again)
        self.listen(NEWS, self.heard)

    def tell(self, topic: str, upload_id: str) -> None:
        """See IOtherWorkers. News, and what can't be read, are heard here, too."""
        self._wake.tell(None, topic, upload_id)
        for heard in self._own_ears.get(topic, ()):
            _call(heard, topic, upload_id)

    def listen(self, topic: str, heard: Heard) -> None:
        self._wake.listen(topic, lambda _, text: _call(heard, topic, text))
        if topic in (NEWS, UNREADABLE):
            self._own_ears.setdefault(topic, []).append(heard)

    def news(self, upload_id: str, within: float = LOOK) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        waiting = self._waiting.setdefault(upload_id, [])
        waiting.append(waiter)
        timer = Timer(self._clock, lambda: waiter.callback(None))
        timer.set(min(within, LOOK))

        def over(outcome: Failure | None) -> Failure | None:
            timer.clear()
            waiting.remove(waiter)
            if not waiting and self._waiting.get(upload_id) is waiting:
                del self._waiting[upload_id]
            return outcome

        return waiter.addBoth(over)

    def heard(self, upload_id: str) -> None:
        for waiter in tuple(self._waiting.get(upload_id, ())):
            if not waiter.called:
                waiter.callback(None)

    def claim(self, name: str) -> Deferred[bool]:
        self._undropped.discard(name)
        taken: Deferred[int | None] = self._claims.take(name)
        return taken.addCallbacks(lambda number: number is not None, self._not_known, errbackArgs=(name,))

    def drop(self, name: str) -> Deferred[None]:
        dropped: Deferred[None] = self._claims.drop(name)
        return dropped.addErrback(self._not_dropped, name)

    def granted(self, role: str) -> Deferred[bool]:
        return Deferred.fromCoroutine(_asked(self._roles, role))

    def stop(self) -> None:
        """No timer is left."""
        self._again.clear()

    def _not_known(self, failure: Failure, name: str) -> Failure:
        self._drop_later(name)
        return failure

    def _not_dropped(self, failure: Failure, name: str) -> None:
        log.debug("a claim will be dropped later: {reason}", claim=name, reason=failure.getErrorMessage())
        self._drop_later(name)

    def _drop_later(self, name: str) -> None:
        self._undropped.add(name)
        if not self._again.pending:
            self._again.set(LOOK)

    def _drop_again(self) -> None:
        undropped, self._undropped = self._undropped, set()
        for name in undropped:
            self.drop(name)


async def _asked(roles: IRoles, role: str) -> bool:
    granted: bool = await roles.granted(role)
    return granted


def _call(heard: Heard, topic: str, text: str) -> None:
    try:
        heard(text)
    except Exception:
        log.failure("a message of another worker could not be followed", topic=topic, text=text)


def final_claim(final_id: str) -> str:
    """Who has it puts the final together, or ends it."""
    return f"final:{final_id}"


def finish_claim(upload_id: str) -> str:
    """Who has it asks whether the upload may finish."""
    return f"finish:{upload_id}"


def digest_claim(upload_id: str) -> str:
    """Who has it makes the finished upload's digest."""
    return f"digest:{upload_id}"


def join_claim(upload_id: str) -> str:
    """Who has it copies the upload's segments into one file."""
    return f"join:{upload_id}"

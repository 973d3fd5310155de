"""Workers: processes that share one catalog; what they tell each other, and who does which background work.

Invariants: a worker's row is there while it lives, and every change that it makes holds on to it; once the row is gone
it changes nothing more, and ends. Safety never rests on a clock or a message: a message only wakes, the row tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

HEARTBEAT: Final = 1.0
"""Seconds between two heartbeats."""
DEAD_AFTER: Final = 10.0
"""Seconds without a heartbeat after which another worker may declare one dead."""

BURIED: Final = "buried"
"""The topic of messages to all that the row of a worker is gone: what it had begun is to be taken up."""

Listener = Callable[[str, str], None]
"""Called in the reactor with the id of the worker that told it, and the text."""


@frozen
class Worker:
    """One process. ``node``: the machine's name; ``options``: what must agree between all of them, by flag."""

    id: str
    node: str
    pid: int
    started_at: float
    options: Mapping[str, str] = field(factory=dict)


class IWorkers(Interface):
    """The processes of one catalog. Methods answer with Deferreds that fail with CatalogUnavailable."""

    id = Attribute("str: this worker's, 16 hexadecimal digits, new at each start.")

    def all() -> Deferred[Sequence[Worker]]:
        """Those with a fresh heartbeat, this one included; oldest first."""

    def keeper(upload_id: str) -> Deferred[str | None]:
        """The worker, other than this one and with a fresh heartbeat, that has an append to the upload under way."""

    def declare_dead(worker_id: str) -> Deferred[bool]:
        """Delete the row of a worker that is known to have ended; waits for its last transaction."""

    def bury_dead() -> Deferred[Sequence[str]]:
        """Delete the rows of workers without a heartbeat for `DEAD_AFTER` seconds; answers their ids."""


class IWake(Interface):
    """Messages between workers: each may be lost, late or doubled. Nothing here blocks, waits or raises."""

    def tell(worker_id: str | None, topic: str, text: str) -> None:
        """Tell one worker, or (None) all others. ``topic`` has no blank; messages that are alike are told once."""

    def listen(topic: str, listener: Listener) -> None:
        """Call this one, too, for each message of the topic."""


class IClaims(Interface):
    """Who does which piece of background work. A claim moves only when its holder's row is gone, or gives it back."""

    def take(name: str) -> Deferred[int | None]:
        """Get it, or keep it: its number, which has grown if it changed hands. None: another worker that lives has it.
        Fails with CatalogUnavailable."""

    def give_back(name: str) -> Deferred[None]:
        """Another may take it now."""

    def drop(name: str) -> Deferred[None]:
        """It is ours, and the work is done for good: forget it. The next one to take it begins with any number.

        Another's, or one that is unknown, stays as it is. Fails with CatalogUnavailable.
        """


class IDrainRecord(Interface):
    """Whether the workers of one catalog drain. Methods answer with Deferreds that fail with CatalogUnavailable."""

    def draining_since() -> Deferred[float | None]:
        """When the drain began (seconds since the epoch); None: uploads may begin."""

    def drain(since: float) -> Deferred[None]:
        """No upload begins any more, at no worker. Again changes nothing."""

    def fill() -> Deferred[None]:
        """Uploads may begin."""

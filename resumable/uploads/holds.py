"""Rights that only one may have at a time: holds, which appends have on their uploads, and roles, which workers have.

Invariant: an upload has at most one holder, and the hold changes hands only after the old holder has confirmed
its last write. A live holder is never evicted by polling; a silent or half-open one never delays another
request for longer than `SILENCE`.
One process has every role. Several processes over a shared catalog ask here, and nowhere else, whether a role is
theirs; see shared_holds.py.
"""

from __future__ import annotations

from collections.abc import Awaitable

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import Attribute, Interface, implementer

#: A holder that has received nothing for this many seconds is silent.
SILENCE = 0.25


class HoldMoved(Exception):
    """The offset asked for is not where the holder is: the newer request can't match."""


class IHolder(Interface):
    """An append that may have the hold."""

    position = Attribute("int: the absolute offset received so far, committed or not.")
    received = Attribute("int | None: the same, once the append was found to fit its upload; None before.")
    known = Attribute("tuple[int, int] | None: epoch and offset of its upload's row; None while it may change them.")
    draft = Attribute("bool: it is an append of the draft.")
    heard = Attribute("float: when it last received a byte, or was free to receive one (reactor seconds).")

    def settle() -> Awaitable[None]:
        """Commit all that was received so far; the append goes on."""

    def evict(reason: BaseException | None = None) -> Awaitable[None]:
        """End the append, commit all that was received; fires once the last write is confirmed and the hold released.

        ``reason``: the error for its client; None: another request has come.
        """


class IHolds(Interface):
    """The exclusive right to append, per upload."""

    count = Attribute("int: uploads that are held.")
    takeovers = Attribute("int: how often a hold was taken over from a silent holder, since the start.")

    def take(upload_id: str, holder: IHolder, offset: int) -> Awaitable[None]:
        """Get the hold for an append at ``offset``.

        Waits for a live holder that stands at that offset, takes over from a silent one; where several processes
        share the uploads, from a live one, too. Fails with HoldMoved when the present holder has moved from that
        offset, without disturbing it.
        """

    def settle(upload_id: str) -> Awaitable[None]:
        """Bring the committed offset up to date: a live holder commits, a silent one is evicted. One in another process
        is asked to, and waited for only briefly."""

    def interrupt(upload_id: str) -> Awaitable[None]:
        """As `settle`; but an append of the draft ends, live or not."""

    def evict(upload_id: str, reason: BaseException | None = None) -> Awaitable[None]:
        """End the holder's append, for that reason."""

    def release(upload_id: str, holder: IHolder) -> None:
        """Give the hold back."""

    def held(upload_id: str) -> bool:
        """Whether a request has it."""

    def under_way(upload_id: str) -> Awaitable[bool]:
        """Whether a request has it, in this process or in another one. Fails with CatalogUnavailable."""

    def received(upload_id: str) -> int | None:
        """How far its holder has received, committed or not; None when no append is running. Disturbs no append."""


@define(slots=True)
class Hold:
    """``waiting``: fired when the holder has let go, or counts as silent."""

    holder: IHolder
    waiting: list[Deferred[None]] = field(factory=list)


@implementer(IHolds)
class LocalHolds:
    """Holds of one process."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._holds: dict[str, Hold] = {}
        #: How often a hold was taken over from a silent holder.
        self.takeovers = 0

    async def take(self, upload_id: str, holder: IHolder, offset: int) -> None:
        while (hold := self._holds.get(upload_id)) is not None:
            await self._make_way(upload_id, hold, offset)
        self._holds[upload_id] = Hold(holder)

    async def settle(self, upload_id: str) -> None:
        await self._settle_here(upload_id, False)

    async def interrupt(self, upload_id: str) -> None:
        await self._settle_here(upload_id, True)

    async def _settle_here(self, upload_id: str, interrupts: bool) -> None:
        hold = self._holds.get(upload_id)
        if hold is None:
            return
        holder = hold.holder
        if self._patience(holder) > 0 and not (interrupts and holder.draft):
            await holder.settle()
        else:
            self.takeovers += 1
            await holder.evict()

    async def evict(self, upload_id: str, reason: BaseException | None = None) -> None:
        while (hold := self._holds.get(upload_id)) is not None:
            await hold.holder.evict(reason)

    def release(self, upload_id: str, holder: IHolder) -> None:
        hold = self._holds.get(upload_id)
        if hold is None or hold.holder is not holder:
            return
        del self._holds[upload_id]
        for waiter in hold.waiting:
            if not waiter.called:
                waiter.callback(None)

    def held(self, upload_id: str) -> bool:
        return upload_id in self._holds

    async def under_way(self, upload_id: str) -> bool:
        return self.held(upload_id)

    @property
    def count(self) -> int:
        """See `IHolds.count`."""
        return len(self._holds)

    def received(self, upload_id: str) -> int | None:
        hold = self._holds.get(upload_id)
        received: int | None = None if hold is None else hold.holder.received
        return received

    async def _make_way(self, upload_id: str, hold: Hold, offset: int) -> None:
        """One step towards the end of this hold, for an append at ``offset``. Raises HoldMoved."""
        present = hold.holder
        if present.position != offset:
            raise HoldMoved
        patience = self._patience(present)
        if patience > 0:
            await self._released_or_silent(hold, patience)
        else:
            self.takeovers += 1
            await present.evict()

    def _patience(self, holder: IHolder) -> float:
        """Seconds until this holder counts as silent, if it stays as it is."""
        heard: float = holder.heard
        return heard + SILENCE - self._clock.seconds()

    async def _released_or_silent(self, hold: Hold, patience: float) -> None:
        waiter: Deferred[None] = Deferred()
        hold.waiting.append(waiter)
        timer = self._clock.callLater(patience, self._wake, hold, waiter)
        try:
            await waiter
        finally:
            if timer.active():
                timer.cancel()

    @staticmethod
    def _wake(hold: Hold, waiter: Deferred[None]) -> None:
        hold.waiting.remove(waiter)
        waiter.callback(None)


#: Work that only one worker may do at a time.
JANITOR = "janitor"
ASSEMBLER = "assembler"
JOINER = "joiner"
SWEEPER = "sweeper"


class IRoles(Interface):
    """Grants single-worker roles."""

    def granted(role: str) -> Awaitable[bool]:
        """Whether this worker may do the role's work now."""


@implementer(IRoles)
class LocalRoles:
    """Roles of the only process: the lock on the upload directory has granted them all."""

    def granted(self, role: str) -> Awaitable[bool]:
        return succeed(True)

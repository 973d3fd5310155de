"""The one who is asked about each request: authorizers first, then whose upload it is.

Reason to change: how the answers of several authorizers make one, or what binds an upload to somebody. Invariant: what
fails opens nothing; somebody who was let in can't tell an upload of somebody else from one that never was; nothing is
looked up for somebody who wasn't let in, and that counts against their address.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from resumable.auth.interfaces import ALL, Action, Ask, IAuthorizer, Identity
from resumable.model.errors import CatalogUnavailable
from resumable.networks import counted
from resumable.protocol.errors import Forbidden, NotFound, TusError, Unauthorized, Unavailable

log = Logger()

UNKNOWN = "There is no such upload."


@implementer(IAuthorizer)
class Open:
    """Lets everybody in as nobody in particular."""

    def authorize(self, ask: Ask) -> Deferred[Identity]:
        """See `IAuthorizer.authorize`."""
        return succeed(Identity(""))


@implementer(IAuthorizer)
class AnyOf:
    """Any of several may let in, asked in order.

    If none does: one that can't tell makes it 503, else one that knows and refuses 403, else 401 with all challenges.
    """

    def __init__(self, authorizers: Sequence[IAuthorizer]) -> None:
        self._authorizers = authorizers

    def authorize(self, ask: Ask) -> Deferred[Identity]:
        """See `IAuthorizer.authorize`."""
        return Deferred.fromCoroutine(self._authorize(ask))

    async def _authorize(self, ask: Ask) -> Identity:
        refusals = []
        for authorizer in self._authorizers:
            try:
                return await ask_one(authorizer, ask)
            except TusError as refusal:
                refusals.append(refusal)
        unauthorized = [refusal for refusal in refusals if isinstance(refusal, Unauthorized)]
        others = [refusal for refusal in refusals if not isinstance(refusal, Unauthorized)]
        if others:
            raise max(others, key=lambda refusal: refusal.status)
        # who sent something wrong is told so, not that something else is missing
        told = max(
            reversed(unauthorized), key=lambda refusal: any("error=" in challenge for challenge in refusal.challenges)
        )
        challenges = dict.fromkeys(challenge for refusal in unauthorized for challenge in refusal.challenges)
        raise Unauthorized(told.detail, list(challenges))


async def ask_one(authorizer: IAuthorizer, ask: Ask) -> Identity:
    """What one authorizer answers; whatever goes wrong in it is Unavailable."""
    try:
        identity = await authorizer.authorize(ask)
        if not isinstance(identity, Identity):
            raise TypeError(f"{type(authorizer).__name__} answers {type(identity).__name__}")
        return identity
    except (TusError, CancelledError):
        raise
    except Exception:
        log.failure("an authorizer failed; nobody was let in by it")
        raise Unavailable("Whether you may do this can't be told now.", retry_after=5) from None


class IRequestRates(Protocol):
    """Counts requests."""

    def request(self, name: str) -> None:
        """One more by that name. Raises TooManyRequests."""

    def refused(self, address: str) -> None:
        """One more from there that wasn't let in. Raises TooManyRequests."""


class Guard:
    """Asked about every request but OPTIONS.

    ``owner_of`` answers with the name that an upload is bound to, "" for one that is bound to nobody, None for an
    upload that is unknown or forgotten; uploads that are gone keep their owner. ``admins``: names that may do
    everything, with everybody's uploads. ``wall``: seconds since the epoch.
    """

    def __init__(
        self,
        authorizer: IAuthorizer,
        owner_of: Callable[[str], Deferred[str | None]],
        wall: Callable[[], float],
        *,
        admins: frozenset[str] = frozenset(),
        rates: IRequestRates | None = None,
    ) -> None:
        self._authorizer = authorizer
        self._owner_of = owner_of
        self._wall = wall
        self._admins = admins - {""}
        self._rates = rates

    async def check(self, ask: Ask) -> Identity:
        """Who it is that may do this.

        Raises Unauthorized, Forbidden, NotFound (unknown, or somebody else's), TooManyRequests, Unavailable.
        """
        address = counted(ask.peer)
        try:
            identity = await ask_one(self._authorizer, ask)
        except (Unauthorized, Forbidden):
            if self._rates is not None:
                self._rates.refused(address)
            raise
        if self._rates is not None:
            self._rates.request(identity.name or address)
        if identity.limits.until is not None and self._wall() >= identity.limits.until:
            raise Unavailable("These credentials have just expired.")
        if ask.action not in self._actions(identity):
            raise Forbidden("You may not do this.")
        if ask.upload_id is not None:
            await self.own(identity, ask.upload_id)
        return identity

    async def own(self, identity: Identity, upload_id: str) -> None:
        """That the upload is theirs, for uploads that a request names elsewhere than in its URL.

        Raises NotFound, Unavailable.
        """
        try:
            owner = await self._owner_of(upload_id)
        except CatalogUnavailable as problem:
            log.error("whose upload it is isn't known: {reason}", upload=upload_id, reason=str(problem))
            raise Unavailable("Whether you may do this can't be told now.", retry_after=5) from None
        if owner is None or not (owner in ("", identity.name) or self.is_admin(identity)):
            raise NotFound(UNKNOWN)

    def is_admin(self, identity: Identity) -> bool:
        """Whether they may do everything, with everybody's uploads."""
        return Action.ADMIN in self._actions(identity)

    def _actions(self, identity: Identity) -> frozenset[Action]:
        return ALL if identity.name in self._admins else identity.actions

"""The guard decides about each request: it asks the authorizers, then the catalog for the upload's owner.

Invariants: a failure opens nothing. A principal can't tell another's upload from one that never was. Nothing is looked
up for a request that isn't let in, and the attempt counts against its address.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.auth.interfaces import AuthRequest, IAuthorizer
from resumable.model.errors import CatalogUnavailable
from resumable.model.principal import ALL, Principal
from resumable.networks import counted
from resumable.protocol.errors import Forbidden, NotFound, TusError, Unauthorized, Unavailable

log = Logger()

UNKNOWN = "There is no such upload."


@implementer(IAuthorizer)
class AnyOf:
    """Any of several may let in, asked in order.

    If none does: one that can't tell makes it 503, else one that knows and refuses 403, else 401 with all challenges.
    """

    def __init__(self, authorizers: Sequence[IAuthorizer]) -> None:
        self._authorizers = authorizers

    @deferred
    async def authorize(self, request: AuthRequest) -> Principal:
        """See `IAuthorizer.authorize`."""
        refusals = []
        for authorizer in self._authorizers:
            try:
                return await ask_one(authorizer, request)
            except TusError as refusal:
                refusals.append(refusal)
        unauthorized = [refusal for refusal in refusals if isinstance(refusal, Unauthorized)]
        others = [refusal for refusal in refusals if not isinstance(refusal, Unauthorized)]
        if others:
            raise max(others, key=lambda refusal: refusal.status)
        # a wrong credential is named, rather than another one that is missing
        told = max(
            reversed(unauthorized), key=lambda refusal: any("error=" in challenge for challenge in refusal.challenges)
        )
        challenges = dict.fromkeys(challenge for refusal in unauthorized for challenge in refusal.challenges)
        raise Unauthorized(told.detail, list(challenges))


async def ask_one(authorizer: IAuthorizer, request: AuthRequest) -> Principal:
    """The answer of one authorizer. Raises Unavailable for whatever goes wrong in it."""
    try:
        principal = await authorizer.authorize(request)
        if not isinstance(principal, Principal):
            raise TypeError(f"{type(authorizer).__name__} answers {type(principal).__name__}")
        return principal
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


class AccessGuard:
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

    async def check(self, request: AuthRequest) -> Principal:
        """The principal that may do this.

        Raises Unauthorized, Forbidden, NotFound (unknown, or somebody else's), TooManyRequests, Unavailable.
        """
        address = counted(request.peer)
        try:
            principal = await ask_one(self._authorizer, request)
        except (Unauthorized, Forbidden):
            if self._rates is not None:
                self._rates.refused(address)
            raise
        if self._rates is not None:
            self._rates.request(principal.name or address)
        if principal.until is not None and self._wall() >= principal.until:
            raise Unavailable("These credentials have just expired.")
        if principal.name in self._admins:
            principal = evolve(principal, actions=ALL)
        if request.action not in principal.actions:
            raise Forbidden("You may not do this.")
        if request.upload_id is not None:
            await self.own(principal, request.upload_id)
        return principal

    async def own(self, principal: Principal, upload_id: str) -> None:
        """That the upload is theirs, for uploads that a request names elsewhere than in its URL.

        Raises NotFound, Unavailable.
        """
        try:
            owner = await self._owner_of(upload_id)
        except CatalogUnavailable as problem:
            log.debug("whose upload it is isn't known: {reason}", upload=upload_id, reason=str(problem))
            raise Unavailable("Whether you may do this can't be told now.", retry_after=5) from None
        if owner is None or not (owner in ("", principal.name) or principal.is_admin):
            raise NotFound(UNKNOWN)

"""Every request is asked about before anything is done for it.

Reason to change: what of a request goes into the question, or what of its answer the use cases need. Invariant: nothing
of a body is read, and no upload looked up, for somebody who wasn't let in; where nobody is asked, that costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from attrs import field, frozen

from resumable.auth.certificates import subject_of
from resumable.auth.guard import Guard
from resumable.auth.interfaces import Action, Ask, Identity
from resumable.auth.rates import Rates
from resumable.http.origin import Origin
from resumable.http.request import StreamingRequest
from resumable.http.routing import target_of
from resumable.model.principal import NOBODY, Principal
from resumable.networks import counted
from resumable.protocol.errors import BadRequest, Forbidden, NotFound
from resumable.protocol.tus import Creation

_FOR_ADMINS = frozenset({Action.LIST, Action.ADMIN})


@frozen
class Entrant:
    """Somebody who was let in: who it is, what uploads are told of them, and whether they may do everything."""

    identity: Identity = field(factory=lambda: Identity(""))
    caller: Principal = NOBODY
    is_admin: bool = False


ANYBODY = Entrant()


class Entry:
    """``guard`` None: nobody is asked, and nobody may do what is for admins. ``rates``: those that it counts by."""

    def __init__(self, origin: Origin, guard: Guard | None = None, rates: Rates | None = None) -> None:
        self._origin = origin
        self.guard = guard
        self._rates = rates if rates is not None and (rates.of_requests or rates.of_bytes) else None
        #: Whether `admit` would let in anybody for everyday things: who asks need not wait for it.
        self.open = guard is None and self._rates is None

    async def admit(
        self, request: StreamingRequest, action: Action, upload_id: str | None = None, creation: Creation | None = None
    ) -> Entrant:
        """Who it is that may do this. Raises what `Guard.check` does."""
        peer = self._origin.peer(request)
        if self.guard is not None:
            ask = self._ask(request, action, upload_id, creation, peer)
            identity = await self.guard.check(ask)
        elif action in _FOR_ADMINS:
            raise Forbidden("You may not do this.")
        else:
            identity = Identity("")
            if self._rates is not None:
                self._rates.request(counted(peer))
        pace, is_admin = None, self.guard is not None and self.guard.is_admin(identity)
        if self._rates is not None and self._rates.of_bytes:
            pace = partial(self._rates.received, identity.name or counted(peer))
        return Entrant(identity, Principal(identity.name, identity.limits.max_size, pace), is_admin)

    def refused(self, request: StreamingRequest) -> None:
        """Somebody wasn't let in whom nobody here was asked about. Raises TooManyRequests."""
        if self._rates is not None:
            self._rates.refused(counted(self._origin.peer(request)))

    async def own(self, entrant: Entrant, partial_ids: Sequence[str]) -> None:
        """That these partial uploads are theirs. Raises BadRequest, the same as for one that isn't there."""
        if self.guard is not None:
            for partial_id in partial_ids:
                try:
                    await self.guard.own(entrant.identity, partial_id)
                except NotFound:
                    raise BadRequest(f"Upload-Concat: {partial_id} is no partial upload here.") from None

    def _ask(
        self, request: StreamingRequest, action: Action, upload_id: str | None, creation: Creation | None, peer: str
    ) -> Ask:
        path, query = target_of(request)
        scheme, host = self._origin.place(request)
        return Ask(
            action,
            request.method.decode("latin-1"),
            path,
            query,
            {
                name.decode("latin-1").lower(): tuple(line.decode("latin-1").strip(" \t") for line in lines)
                for name, lines in request.requestHeaders.getAllRawHeaders()
            },
            upload_id,
            scheme,
            host,
            peer,
            subject_of(request.channel.transport),
            None if creation is None else creation.length,
            None if creation is None else creation.metadata,
            self._origin.prefix(request),
        )

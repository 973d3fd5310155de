"""A request as authorizers and hooks are shown it, and the principal that a request is admitted as.

Invariants: nothing of a body is read, and no upload looked up, for somebody who wasn't let in; where nobody is asked,
that costs nothing. Of the client's headers hooks see those only that the operator has chosen, and of its URL no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from urllib.parse import unquote

from attrs import evolve

from resumable.auth.credentials import subject_of
from resumable.auth.guard import AccessGuard
from resumable.auth.interfaces import AuthRequest, uri_of
from resumable.auth.rates import Rates
from resumable.auth.signed import without_token
from resumable.http.origin import Origin
from resumable.http.request import StreamingRequest
from resumable.model.hooks import RequestView
from resumable.model.principal import NOBODY, Action, Principal
from resumable.networks import counted
from resumable.protocol.errors import BadRequest, Forbidden, NotFound
from resumable.protocol.requests import Creation
from resumable.uploads.context import HookContext

_FOR_ADMINS = frozenset({Action.LIST, Action.ADMIN})


class Admission:
    """Admits requests. ``guard`` None: nobody is asked, and nobody may do what is for admins. ``rates``: those that
    the guard counts by. ``forward``: lower-case names of the headers that hooks see; None: there are no hooks."""

    def __init__(
        self,
        origin: Origin,
        guard: AccessGuard | None = None,
        rates: Rates | None = None,
        forward: Sequence[str] | None = None,
    ) -> None:
        self._origin = origin
        self.guard = guard
        self._rates = rates if rates is not None and (rates.of_requests or rates.of_bytes) else None
        self._forward = [(name, name.encode("latin-1")) for name in forward or ()]
        #: Whether there are hooks that `hook_context` is for.
        self.has_hooks = forward is not None
        #: Whether `admit` would admit anybody for everyday things: a route need not wait for it.
        self.open = guard is None and self._rates is None

    async def admit(
        self, request: StreamingRequest, action: Action, upload_id: str | None = None, creation: Creation | None = None
    ) -> Principal:
        """The principal who may do this. Raises what `AccessGuard.check` does."""
        peer, principal = self._origin.peer(request), NOBODY
        if self.guard is not None:
            principal = await self.guard.check(self._auth_request(request, action, upload_id, creation, peer))
        elif action in _FOR_ADMINS:
            raise Forbidden("You may not do this.")
        elif self._rates is not None:
            self._rates.request(counted(peer))
        if self._rates is not None and self._rates.of_bytes:
            principal = evolve(principal, pace=partial(self._rates.received, principal.name or counted(peer)))
        return principal

    def refused(self, request: StreamingRequest) -> None:
        """Count a request that wasn't let in, though no guard was asked about it. Raises TooManyRequests."""
        if self._rates is not None:
            self._rates.refused(counted(self._origin.peer(request)))

    async def own(self, principal: Principal, partial_ids: Sequence[str]) -> None:
        """Check that these partial uploads are theirs. Raises BadRequest, the same as for one that isn't there."""
        if self.guard is not None:
            for partial_id in partial_ids:
                try:
                    await self.guard.own(principal, partial_id)
                except NotFound:
                    raise BadRequest(f"Upload-Concat: {partial_id} is no partial upload here.") from None

    def hook_context(self, request: StreamingRequest) -> HookContext:
        """The request as hooks see it."""
        given = ((name, request.requestHeaders.getRawHeaders(raw)) for name, raw in self._forward)
        headers = {name: tuple(map(text_of, lines)) for name, lines in given if lines}
        method, uri = request.method.decode("latin-1"), without_token(uri_of(*_target_of(request)))
        protocol, version = request.speaks or (None, None)
        return HookContext(
            RequestView(method, uri, self._address(request), headers, request.known_as, protocol, version)
        )

    def _address(self, request: StreamingRequest) -> str:
        """The client's address; with the port, where that is known."""
        peer = self._origin.peer(request)
        client = request.getClientAddress()  # type: ignore[no-untyped-call]
        if not peer or getattr(client, "host", None) != peer:
            return peer
        return f"[{peer}]:{client.port}" if ":" in peer else f"{peer}:{client.port}"

    def _auth_request(
        self, request: StreamingRequest, action: Action, upload_id: str | None, creation: Creation | None, peer: str
    ) -> AuthRequest:
        path, query = _target_of(request)
        scheme, host = self._origin.place(request)
        return AuthRequest(
            action,
            method=request.method.decode("latin-1"),
            path=path,
            query=query,
            headers={
                name.decode("latin-1").lower(): tuple(line.decode("latin-1").strip(" \t") for line in lines)
                for name, lines in request.requestHeaders.getAllRawHeaders()
            },
            upload_id=upload_id,
            scheme=scheme,
            host=host,
            peer=peer,
            tls=subject_of(request.channel.transport),
            length=None if creation is None else creation.length,
            metadata=None if creation is None else creation.metadata,
            prefix=self._origin.prefix(request),
        )


def _target_of(request: StreamingRequest) -> tuple[str, str]:
    """The path that is routed, decoded, however the client has spelt it; and the query as it came."""
    path, _, query = request.uri.decode("latin-1").partition("?")
    return unquote(path), query


def text_of(line: bytes) -> str:
    """A field's value: UTF-8 where it can be that, as a receiver in any other language would take it."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")

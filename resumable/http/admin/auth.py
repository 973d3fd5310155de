"""Authorisation of the admin API, by the listener that a request came to.

Invariants: an address proves nothing, not even a loopback one: behind a local proxy everybody has that. A page of
another site, which a browser of an operator's may have open, changes nothing and reads nothing. A wrong token counts
against its sender's rate, as any refused request does. Spec: RFC 6750 (bearer tokens), RFC 6454 (Origin), Fetch
Metadata.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final, Protocol

from resumable.auth.secret import Secret
from resumable.http.admission import Admission
from resumable.http.request import StreamingRequest
from resumable.model.principal import Action
from resumable.protocol.errors import Forbidden, Unauthorized

CHALLENGE: Final = 'Bearer realm="resumable"'
_OURS: Final = (None, b"none", b"same-origin")


class AdminAuth(Protocol):
    """Asked about each request."""

    async def check(self, request: StreamingRequest, action: Action) -> None:
        """STATUS: to see metrics, LIST: to see uploads, ADMIN: to change something.

        Raises Unauthorized, Forbidden, TooManyRequests, Unavailable.
        """


class SocketAuth:
    """The permissions of a Unix socket have let them in."""

    async def check(self, request: StreamingRequest, action: Action) -> None:
        """See `AdminAuth.check`."""
        check_page(request)


class TokenAuth:
    """Metrics for anybody, everything else for clients with the token; None: for nobody."""

    def __init__(self, token: Secret | None, admission: Admission) -> None:
        self._token = token
        self._admission = admission

    async def check(self, request: StreamingRequest, action: Action) -> None:
        """See `AdminAuth.check`."""
        if action is Action.STATUS:
            return
        check_page(request)
        if self._token is None:
            raise Forbidden("The admin API is on Unix sockets, and elsewhere with --admin-token-file only.")
        lines = request.requestHeaders.getRawHeaders(b"authorization", [])
        scheme, _, given = (lines[0] if len(lines) == 1 else b"").partition(b" ")
        if scheme.lower() != b"bearer" or not compare_digest(given.strip(), self._token.reveal()):
            self._admission.refused(request)
            raise Unauthorized("The admin API needs the token of --admin-token-file.", [CHALLENGE])


class PrincipalAuth:
    """On a port for uploads: admins, as the rules of access tell them."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def check(self, request: StreamingRequest, action: Action) -> None:
        """See `AdminAuth.check`."""
        check_page(request)
        await self._admission.admit(request, Action.LIST if action is Action.STATUS else action)


def check_page(request: StreamingRequest) -> None:
    """That no page of another site asks, as browsers tell. Raises Forbidden."""
    headers = request.requestHeaders
    if headers.hasHeader(b"origin") or any(
        line.lower() not in _OURS for line in headers.getRawHeaders(b"sec-fetch-site", [])
    ):
        raise Forbidden("The admin API is not for pages in a browser.")

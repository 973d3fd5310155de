"""Who may use the admin API, by the listener that a request came to.

Reason to change: another way to show that somebody is an operator. Invariants: an address proves nothing, not even a
loopback one: behind a local proxy everybody has that. A page of another site, which a browser of an operator's may have
open, changes nothing and reads nothing. Who guesses at the token counts as others do who aren't let in. Spec: RFC 6750
(bearer tokens), RFC 6454 (Origin), Fetch Metadata.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final, Protocol

from resumable.auth.interfaces import Action
from resumable.auth.secret import Secret
from resumable.http.entry import Entry
from resumable.http.request import StreamingRequest
from resumable.protocol.errors import Forbidden, Unauthorized

CHALLENGE: Final = 'Bearer realm="resumable"'
_OURS: Final = (None, b"none", b"same-origin")


class Clearance(Protocol):
    """Asked about each request."""

    async def check(self, request: StreamingRequest, action: Action) -> None:
        """STATUS: to see figures, LIST: to see uploads, ADMIN: to change something.

        Raises Unauthorized, Forbidden, TooManyRequests, Unavailable.
        """


class Anybody:
    """The permissions of a Unix socket have let them in."""

    async def check(self, request: StreamingRequest, action: Action) -> None:
        check_page(request)


class Bearer:
    """Figures for anybody, everything else for those who have the token; None: for nobody."""

    def __init__(self, token: Secret | None, entry: Entry) -> None:
        self._token = token
        self._entry = entry

    async def check(self, request: StreamingRequest, action: Action) -> None:
        if action is Action.STATUS:
            return
        check_page(request)
        if self._token is None:
            raise Forbidden("The admin API is on Unix sockets, and elsewhere with --admin-token-file only.")
        lines = request.requestHeaders.getRawHeaders(b"authorization", [])
        scheme, _, given = (lines[0] if len(lines) == 1 else b"").partition(b" ")
        if scheme.lower() != b"bearer" or not compare_digest(given.strip(), self._token.reveal()):
            self._entry.refused(request)
            raise Unauthorized("The admin API needs the token of --admin-token-file.", [CHALLENGE])


class Guarded:
    """On a port for uploads: admins, as the rules of access tell them."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    async def check(self, request: StreamingRequest, action: Action) -> None:
        check_page(request)
        await self._entry.admit(request, Action.LIST if action is Action.STATUS else action)


def check_page(request: StreamingRequest) -> None:
    """That no page of another site asks, as browsers tell. Raises Forbidden."""
    headers = request.requestHeaders
    if headers.hasHeader(b"origin") or any(
        line.lower() not in _OURS for line in headers.getRawHeaders(b"sec-fetch-site", [])
    ):
        raise Forbidden("The admin API is not for pages in a browser.")

"""Bearer tokens that an operator has written into a file.

Invariant: how long a check takes depends on the number of tokens alone. A line is ``token name``, or
``token name action,action`` for a principal that may do only that. Spec: RFC 6750.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from attrs import field, frozen
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.auth import credentials
from resumable.auth.interfaces import AuthRequest, IAuthorizer
from resumable.auth.secret import AccessProblem, WatchedFile, lines
from resumable.model.principal import EVERYDAY, Action, Principal
from resumable.protocol.errors import Unauthorized

SHORTEST = 20
"""Characters of a token; fewer can be guessed."""


@frozen
class KnownToken:
    """``digest``: SHA-256 of the token."""

    identity: Principal
    digest: bytes = field(repr=False)


def parse_tokens(text: str) -> Sequence[KnownToken]:
    """Raises AccessProblem, which names lines and never their content."""
    found = [_known(number, line.split()) for number, line in lines(text)]
    if not found:
        raise AccessProblem("the file of tokens has none")
    if len({known.digest for known in found}) < len(found):
        raise AccessProblem("the file of tokens has one of them twice")
    return found


def _known(number: int, words: Sequence[str]) -> KnownToken:
    token_like = 2 <= len(words) <= 3 and len(words[0]) >= SHORTEST and credentials.is_token(words[0])
    if not token_like or not credentials.valid_name(words[1]):
        raise AccessProblem(
            f"line {number} of the file of tokens is not: token name [action,action],"
            f" with a token of {SHORTEST} characters or more"
        )
    try:
        actions = frozenset(map(Action, words[2].split(","))) if len(words) == 3 else EVERYDAY
    except ValueError:
        raise AccessProblem(f"line {number} of the file of tokens names an action that doesn't exist") from None
    return KnownToken(Principal(words[1], actions=actions), hashlib.sha256(words[0].encode()).digest())


@implementer(IAuthorizer)
class StaticTokens:
    """Tokens from a file."""

    def __init__(self, tokens: WatchedFile[Sequence[KnownToken]]) -> None:
        self._tokens = tokens

    @deferred
    async def authorize(self, request: AuthRequest) -> Principal:
        """See `IAuthorizer.authorize`."""
        token = credentials.bearer(request)
        if token is None:
            raise Unauthorized("A bearer token is needed.", [credentials.BEARER])
        digest = hashlib.sha256(token.encode()).digest()
        matching = [known for known in await self._tokens.current() if hmac.compare_digest(known.digest, digest)]
        if not matching:
            raise credentials.invalid_token("The token is not known here.")
        return matching[0].identity

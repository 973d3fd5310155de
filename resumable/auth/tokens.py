"""Bearer tokens: those that an operator has written into a file, and those that an issuer has signed (JWT).

A line of the file is ``token name``, or ``token name action,action`` for a principal that may do only that.

Invariants: how long a check of a token from the file takes depends on the number of tokens alone. The signature of a
JWT is verified with an algorithm that the operator allows and that belongs to the key, before any claim is believed;
``none`` is never allowed. A JWT that never expires is refused, and so is one whose claims have the wrong types. A right
signature is remembered for `REMEMBERED` seconds; the claims are looked at each time.
Spec: RFC 6750, RFC 7519, RFC 8725.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from resumable.aio.deferreds import Remembered, deferred
from resumable.auth import credentials
from resumable.auth.interfaces import AuthRequest, IAuthorizer
from resumable.auth.keys import HMAC, PUBLIC, IKeys, Key, check_installed
from resumable.auth.secret import AccessProblem, WatchedFile, lines
from resumable.model.principal import ALL, EVERYDAY, Action, Principal
from resumable.protocol.errors import Forbidden, Unauthorized

SHORTEST = 20
"""Characters of a token in the file; fewer can be guessed."""

LONGEST = 16 << 10
"""Characters of a JWT."""
REMEMBERED = 30.0
"""Seconds for which a right signature is remembered."""
LATEST = 1e12
"""Seconds since the epoch; a later time only means never."""
MOST_TRIED = 8
"""Keys that are tried for a token that doesn't say which."""


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
    """Checks tokens against those in a file."""

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


@frozen
class TokenRules:
    """Conditions of a good token. ``audiences`` and ``issuer`` None: not looked at; but a token with an audience is for
    whom it names, so then it is refused. ``scopes``: all of them are needed. ``leeway``: seconds that clocks differ.
    ``size_claim``: the claim with the largest size of an upload in bytes.
    """

    algorithms: tuple[str, ...]
    issuer: str | None = None
    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    admin_scope: str | None = None
    leeway: float = 30.0
    name_claim: str = "sub"
    size_claim: str = "max_size"


def check_algorithms(algorithms: Sequence[str], shared: bool) -> tuple[str, ...]:
    """The allowed ones, all that go with the kind of key where none are named. Raises AccessProblem."""
    possible = HMAC if shared else PUBLIC
    if not set(algorithms) <= possible:
        kind = "a shared secret" if shared else "public keys"
        raise AccessProblem(f"algorithms of tokens for {kind} are among {', '.join(sorted(possible))}")
    return tuple(algorithms) or tuple(sorted(possible))


@implementer(IAuthorizer)
class JwtTokens:
    """``wall``: seconds since the epoch. ``clock``: how long a signature is remembered."""

    def __init__(self, keys: IKeys, rules: TokenRules, wall: Callable[[], float], clock: IReactorTime) -> None:
        check_installed()
        if not rules.algorithms or not set(rules.algorithms) <= HMAC | PUBLIC:
            raise AccessProblem("tokens need algorithms that sign")
        self._keys = keys
        self._rules = rules
        self._wall = wall
        self._verified: Remembered[Mapping[str, Any]] = Remembered(clock, REMEMBERED)

    @deferred
    async def authorize(self, request: AuthRequest) -> Principal:
        """See `IAuthorizer.authorize`."""
        token = credentials.bearer(request)
        if token is None:
            raise Unauthorized("A bearer token is needed.", [credentials.BEARER])
        if len(token) > LONGEST:
            raise credentials.invalid_token("The token is too long.")
        key = hashlib.sha256(token.encode()).digest()
        return self._identity(await self._verified.ask(key, lambda: Deferred.fromCoroutine(self._claims(token))))

    async def _claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that is signed by one of the keys, for us."""
        kid, algorithm = self._header(token)
        keys = await self._keys.candidates(kid, algorithm)
        return self._decoded(token, algorithm, keys[:MOST_TRIED])

    def _header(self, token: str) -> tuple[str | None, str]:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise credentials.invalid_token("The token is malformed.") from None
        kid, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(kid, str | None) or not isinstance(algorithm, str) or "crit" in header or "b64" in header:
            raise credentials.invalid_token("The token is malformed.")
        if algorithm not in self._rules.algorithms:
            raise credentials.invalid_token("The token is signed in a way that is not allowed here.")
        return kid, algorithm

    def _decoded(self, token: str, algorithm: str, keys: Sequence[Key]) -> Mapping[str, Any]:
        """Times are looked at later, on our clock."""
        import jwt

        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_sub": False,
                        "verify_jti": False}  # fmt: skip
        for key in keys:
            try:
                return jwt.decode(
                    token,
                    key.material,
                    algorithms=[algorithm],
                    options=options,
                    issuer=self._rules.issuer,
                    audience=list(self._rules.audiences) or None,
                )
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidIssuerError, jwt.InvalidAudienceError, jwt.MissingRequiredClaimError):
                raise credentials.invalid_token("The token is not for this server.") from None
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
                raise credentials.invalid_token("The token is malformed.") from None
        raise credentials.invalid_token("The token is not signed by a key that is known here.")

    def _identity(self, claims: Mapping[str, Any]) -> Principal:
        rules, now = self._rules, self._wall()
        expires, begins = claims.get("exp"), claims.get("nbf", 0)
        if not _is_time(expires) or not _is_time(begins):
            raise credentials.invalid_token("The token doesn't say when it expires.")
        if now >= expires + rules.leeway:
            raise credentials.invalid_token("The token has expired.")
        if now < begins - rules.leeway:
            raise credentials.invalid_token("The token is not valid yet.")
        name, largest = claims.get(rules.name_claim), claims.get(rules.size_claim)
        if not credentials.valid_name(name):
            raise credentials.invalid_token("The token doesn't say whose it is.")
        if largest is not None and (type(largest) is not int or largest < 0):
            raise credentials.invalid_token("The token's largest size is not a number of bytes.")
        scopes = _scopes(claims)
        if not scopes.issuperset(rules.scopes):
            wanted = " ".join(rules.scopes)
            challenge = f'{credentials.BEARER}, error="insufficient_scope", scope="{wanted}"'
            raise Forbidden("The token is not for uploads.", headers={"WWW-Authenticate": challenge})
        actions = ALL if rules.admin_scope is not None and rules.admin_scope in scopes else EVERYDAY
        return Principal(str(name), largest, expires + rules.leeway, actions)


def _is_time(value: object) -> TypeGuard[float]:
    """Whether it is seconds that can be counted with: JSON has numbers that no float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LATEST


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """RFC 8693, 4.2: "a JSON string containing a space-separated list of scopes"; some issuers send a list."""
    given = claims.get("scope", claims.get("scp", ""))
    words = given.split(" ") if isinstance(given, str) else given if isinstance(given, list) else []
    return frozenset(word for word in words if isinstance(word, str) and word)

"""Makes authorizers, guard, quotas and rates from an operator's settings.

Invariants: each of the configured authorizers may let a request in, and the cheap ones are asked first. Without any
there is no guard. If a file, key or package is missing, the server doesn't start.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred

from resumable.aio.threads import Pool
from resumable.auth import keys
from resumable.auth.basic import HASHING_THREADS, Basic, check_installed, parse_htpasswd
from resumable.auth.credentials import ClientCertificates
from resumable.auth.forward import ForwardAuth, ForwardRules
from resumable.auth.guard import AccessGuard, AnyOf
from resumable.auth.interfaces import IAuthorizer
from resumable.auth.quota import Ledger
from resumable.auth.rates import Rate, Rates
from resumable.auth.secret import AccessProblem, Secret, WatchedFile, read_text
from resumable.auth.signed import SignedUrls, parse_keys
from resumable.auth.tokens import JwtTokens, StaticTokens, TokenRules, check_algorithms, parse_tokens
from resumable.httpclient.client import Fetch
from resumable.model.usage import Quota

FETCH_TIMEOUT = 5.0


@frozen
class TokenSettings:
    """Where the keys come from, one of the three; and the rules. ``algorithms`` (): all that go with the keys."""

    jwks_url: str | None = field(default=None, repr=False)
    public_key: Path | None = None
    secret: Secret | None = None
    algorithms: tuple[str, ...] = ()
    issuer: str | None = None
    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    admin_scope: str | None = None
    leeway: float = 30.0
    name_claim: str = "sub"
    size_claim: str = "max_size"


@frozen
class AccessSettings:
    """The ways to be let in (None: not in use), and the limits. ``certificate_names`` empty: any. Times in seconds.

    ``quotas``, ``request_rates`` and ``byte_rates``: for each identity, and in all. ``max_size``: bytes of any upload.
    """

    signed_keys: Path | None = None
    tokens: Path | None = None
    certificate_part: str | None = None
    certificate_names: frozenset[str] = frozenset()
    jwt: TokenSettings | None = None
    htpasswd: Path | None = None
    forward: ForwardRules | None = None
    forward_timeout: float = FETCH_TIMEOUT
    forward_remembered: float = 5.0
    admins: frozenset[str] = frozenset()
    quotas: tuple[Quota, Quota] = (Quota(), Quota())
    request_rates: tuple[Rate, Rate] = (Rate(), Rate())
    byte_rates: tuple[Rate, Rate] = (Rate(), Rate())
    max_size: int | None = None


@frozen
class AccessControl:
    """``guard`` None: nobody is asked. ``signed`` None: no URLs can be minted."""

    guard: AccessGuard | None
    signed: SignedUrls | None
    ledger: Ledger
    rates: Rates
    pools: tuple[Pool, ...]
    fetches: tuple[Fetch, ...]

    def start(self) -> None:
        """Start the threads. Never before the process has forked for good."""
        for pool in self.pools:
            pool.start()

    async def stop(self) -> None:
        """Close connections and end the threads, when no request is under way any more."""
        for fetch in self.fetches:
            await fetch.close()
        for pool in self.pools:
            await pool.stop()


class _Building:
    def __init__(
        self, settings: AccessSettings, reactor: Any, wall: Callable[[], float], salt: bytes, rates: Rates
    ) -> None:
        self.settings = settings
        self.afford = rates.afford
        self.reactor = reactor
        self.wall = wall
        self.salt = salt
        self.files: Pool | None = None
        self.hashing: Pool | None = None
        self.fetches: list[Fetch] = []
        self.signed: SignedUrls | None = None

    def authorizers(self) -> list[IAuthorizer]:
        """Those in use, cheap ones first."""
        settings = self.settings
        found: list[IAuthorizer] = []
        if settings.signed_keys is not None:
            self.signed = SignedUrls(self._watched("keys of signed URLs", settings.signed_keys, parse_keys), self.wall)
            found.append(self.signed)
        if settings.tokens is not None:
            found.append(StaticTokens(self._watched("tokens", settings.tokens, parse_tokens)))
        if settings.certificate_part is not None:
            found.append(ClientCertificates(settings.certificate_part, settings.certificate_names))
        if settings.jwt is not None:
            found.append(self._jwt(settings.jwt))
        if settings.htpasswd is not None:
            check_installed()
            users = self._watched("passwords", settings.htpasswd, parse_htpasswd)
            self.hashing = Pool(self.reactor, HASHING_THREADS, "password")
            found.append(Basic(users, self.hashing, self.reactor, self.salt, self.afford))
        if settings.forward is not None:
            fetch = self._fetch(settings.forward_timeout)
            remembered = settings.forward_remembered
            found.append(
                ForwardAuth(settings.forward, fetch, self.reactor, self.salt, self.afford, remembered=remembered)
            )
        return found

    def _jwt(self, given: TokenSettings) -> JwtTokens:
        keys.check_installed()
        if sum(source is not None for source in (given.jwks_url, given.public_key, given.secret)) != 1:
            raise AccessProblem(
                "tokens are verified with a JWKS URL, a file of public keys or a secret: give one of them"
            )
        source: keys.IKeys
        if given.secret is not None:
            source = keys.shared_secret(given.secret)
        elif given.public_key is not None:
            source = keys.public_keys(read_text("public keys", given.public_key))
        else:
            source = keys.JwksUrl(given.jwks_url or "", self._fetch(FETCH_TIMEOUT), self.reactor)
        algorithms = check_algorithms(given.algorithms, given.secret is not None)
        rules = TokenRules(
            algorithms,
            given.issuer,
            given.audiences,
            given.scopes,
            given.admin_scope,
            given.leeway,
            given.name_claim,
            given.size_claim,
        )
        return JwtTokens(source, rules, self.wall, self.reactor)

    def _watched(self, what: str, path: Path, parse: Callable[[str], Any]) -> WatchedFile[Any]:
        if self.files is None:
            self.files = Pool(self.reactor, 1, "credentials")
        file: WatchedFile[Any] = WatchedFile(what, path, parse, self.files, self.reactor)
        file.load()
        return file

    def _fetch(self, timeout: float) -> Fetch:
        self.fetches.append(Fetch(self.reactor, timeout=timeout))
        return self.fetches[-1]


def build(
    settings: AccessSettings,
    reactor: Any,
    owner_of: Callable[[str], Deferred[str | None]],
    *,
    wall: Callable[[], float],
    salt: bytes,
) -> AccessControl:
    """Raises AccessProblem. Reads files. ``owner_of``: see `AccessGuard`; ``salt``: 32 random bytes of this process."""
    rates = Rates(reactor.seconds, requests=settings.request_rates, size=settings.byte_rates)
    building = _Building(settings, reactor, wall, salt, rates)
    authorizers = building.authorizers()
    guard = None
    if authorizers:
        authorizer = authorizers[0] if len(authorizers) == 1 else AnyOf(authorizers)
        guard = AccessGuard(authorizer, owner_of, wall, admins=settings.admins, rates=rates)
    pools = tuple(pool for pool in (building.files, building.hashing) if pool is not None)
    ledger = Ledger(*settings.quotas, max_size=settings.max_size)
    return AccessControl(guard, building.signed, ledger, rates, pools, tuple(building.fetches))

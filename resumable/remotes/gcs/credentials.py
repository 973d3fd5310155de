"""Tokens for Google, found by google-auth, kept fresh and never shown; and URLs that a service account signs.

Invariant: looking for credentials and fetching a token, which may read files and ask the network, happens in a thread,
once at a time; while a token is still good for a minute no request waits for the next. Of a URL only Host is signed, so
that a reader may ask for ranges; no token is in it.
Sources: https://docs.cloud.google.com/docs/authentication/application-default-credentials,
https://docs.cloud.google.com/storage/docs/access-control/signed-urls and
https://docs.cloud.google.com/storage/docs/authentication/canonical-requests
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import google.auth
from attrs import field, frozen
from google.auth import exceptions
from google.auth.credentials import Signing
from google.auth.transport.requests import Request
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.threads import IPool
from resumable.remotes.errors import AuthFailed, RemoteError, Transient, Unusable

SCOPES = ["https://www.googleapis.com/auth/devstorage.read_write"]
GOOD_FOR = 60.0
"""Seconds that a token must still be good for, so that a request with it arrives in time."""
REFRESH_BEFORE = 225.0
"""Seconds before its end at which a new one is fetched aside; metadata servers give no other one before that."""
PAUSE = 30.0
"""Seconds between two look-ups that no request waits for."""
ADVICE = "set GOOGLE_APPLICATION_CREDENTIALS or the option credentials, or run where there is a service account"


@frozen
class Token:
    """A bearer token, good until ``until`` (seconds since the epoch; None: it doesn't say)."""

    value: str = field(repr=False)
    until: float | None = None


class ITokens(Protocol):
    """Gives tokens. Both fail with a RemoteError."""

    def get(self) -> Deferred[Token | None]:
        """A token that is good now; None: requests need none."""

    def renew(self, refused: Token) -> Deferred[Token | None]:
        """Another, after the store has refused this one; None: there is no other."""

    def sign(self, text_for: Callable[[str], bytes]) -> Deferred[tuple[str, bytes] | None]:
        """A service account's address, and its signature (RSA, SHA-256) of the text that ``text_for`` makes of it.

        None: these credentials sign nothing. Fails with a RemoteError.
        """


class Anonymous:
    """No tokens: emulators ask for none."""

    def get(self) -> Deferred[Token | None]:
        """See `ITokens.get`."""
        return succeed(None)

    def renew(self, refused: Token) -> Deferred[Token | None]:
        """See `ITokens.renew`."""
        return succeed(None)

    def sign(self, text_for: Callable[[str], bytes]) -> Deferred[tuple[str, bytes] | None]:
        """See `ITokens.sign`."""
        return succeed(None)


#: The functions that make credentials of a file's ``type``. The kind that runs commands isn't among them.
KINDS = {
    "service_account": ("google.oauth2.service_account", "from_service_account_info"),
    "authorized_user": ("google.oauth2.credentials", "from_authorized_user_info"),
    "external_account": ("google.auth.identity_pool", "from_info"),
    "impersonated_service_account": (
        "google.auth.impersonated_credentials",
        "from_impersonated_service_account_info",
    ),
}


def found(file: str | None = None) -> Callable[[], Any]:
    """A function that finds credentials: in that file, if it is of one of `KINDS`, else where all of Google's tools
    look."""

    def find() -> Any:
        if file is None:
            return google.auth.default(scopes=SCOPES)[0]
        info = json.loads(Path(file).read_bytes())
        kind = info.get("type") if isinstance(info, dict) else None
        if kind not in KINDS:
            raise ValueError(f"credentials of another kind than {', '.join(KINDS)}")
        module, maker = KINDS[kind]
        return getattr(import_module(module).Credentials, maker)(info, scopes=SCOPES)

    return find


class GoogleTokens:
    """Tokens of google-auth's credentials. They are looked for anew after a refusal, so that edited files are seen."""

    _log = Logger()

    def __init__(
        self,
        pool: IPool,
        now: Callable[[], float],
        find: Callable[[], Any],
        make_request: Callable[[], Any] = Request,
    ) -> None:
        self._pool = pool
        self._now = now
        self._find = find
        self._make_request = make_request
        self._source: Any = None
        self._token: Token | None = None
        self._looked_at: float | None = None
        self._one_at_a_time = DeferredLock()

    def get(self) -> Deferred[Token | None]:
        """See `ITokens.get`."""
        if self._token is not None and self._good_for(GOOD_FOR):
            if not self._good_for(REFRESH_BEFORE) and not self._one_at_a_time.locked and self._rested():
                self._fetch().addErrback(self._not_fetched)
            return succeed(self._token)
        return self._fetch()

    def renew(self, refused: Token) -> Deferred[Token | None]:
        """See `ITokens.renew`."""
        if self._token is not None and self._token != refused:
            return succeed(self._token)  # somebody else's refusal has renewed it
        if not self._rested():
            return succeed(None)
        self._source = self._token = None
        return self._fetch().addCallback(lambda token: None if token == refused else token)

    def sign(self, text_for: Callable[[str], bytes]) -> Deferred[tuple[str, bytes] | None]:
        """See `ITokens.sign`. Keys of service accounts sign here, those of impersonated ones at Google."""
        return self._pool.run(self._sign, self._source, text_for).addErrback(_as_remote_error)

    def _sign(self, source: Any, text_for: Callable[[str], bytes]) -> tuple[str, bytes] | None:
        """In a thread."""
        source = source or self._find()
        if not isinstance(source, Signing):
            return None
        return source.signer_email, source.sign_bytes(text_for(source.signer_email))  # type: ignore[no-untyped-call]

    def _rested(self) -> bool:
        if self._looked_at is not None and self._now() - self._looked_at < PAUSE:
            return False
        self._looked_at = self._now()
        return True

    def _good_for(self, seconds: float) -> bool:
        until = self._token.until if self._token else 0.0
        return until is None or until - self._now() > seconds

    def _fetch(self) -> Deferred[Token | None]:
        fetched: Deferred[Token | None] = self._one_at_a_time.run(self._fetch_once)
        return fetched

    def _fetch_once(self) -> Deferred[Token | None]:
        if self._token is not None and self._good_for(REFRESH_BEFORE):
            return succeed(self._token)  # the one before us has done it
        return self._pool.run(self._ask, self._source).addCallbacks(self._fetched, _as_remote_error)

    def _ask(self, source: Any) -> tuple[Any, Token]:
        """In a thread."""
        source = source or self._find()
        source.refresh(self._make_request())
        until = source.expiry.replace(tzinfo=UTC).timestamp() if source.expiry else None
        return source, Token(source.token, until)

    def _fetched(self, answer: tuple[Any, Token]) -> Token | None:
        self._source, self._token = answer
        return self._token

    def _not_fetched(self, failure: Failure) -> None:
        self._log.warn("the token was not refreshed: {reason}", reason=failure.getErrorMessage())


def _as_remote_error(failure: Failure) -> Failure:
    """The error for google-auth's exception, without its words, which may quote secrets."""
    error = failure.value
    if isinstance(error, RemoteError):
        return failure
    name = type(error).__name__
    if isinstance(error, exceptions.DefaultCredentialsError):
        return Failure(AuthFailed("no usable credentials were found", code=name, advice=ADVICE))
    if isinstance(error, exceptions.TransportError) or (
        isinstance(error, exceptions.GoogleAuthError) and getattr(error, "retryable", False)
    ):
        return Failure(Transient(f"a token could not be had: {name}", code=name))
    if "JWT" in str(error) and ("iat" in str(error) or "timeframe" in str(error)):
        return Failure(
            Unusable("a token was refused: this machine's clock is wrong", code=name, advice="set this machine's clock")
        )
    if isinstance(error, exceptions.GoogleAuthError | ValueError | OSError):
        return Failure(AuthFailed(f"a token could not be had: {name}", code=name, advice=ADVICE))
    return failure


ALGORITHM = "GOOG4-RSA-SHA256"
LONGEST = 7 * 86400
"""Seconds that a URL may be good for."""


@frozen
class Unsigned:
    """A URL for a GET of an object. ``url``: encoded, without a query. ``now``: seconds since the epoch."""

    url: str
    query: Sequence[tuple[str, str]]
    now: float
    lifetime: float

    def text(self, email: str) -> bytes:
        """The bytes that this service account has to sign, with RSA and SHA-256."""
        parts = urlsplit(self.url)
        canonical = f"GET\n{parts.path}\n{self._query(email)}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        return f"{ALGORITHM}\n{self._time()}\n{self._scope()}\n{digest}".encode()

    def signed(self, email: str, signature: bytes) -> str:
        """The URL with the account's signature of `text`."""
        return f"{self.url}?{self._query(email)}&X-Goog-Signature={signature.hex()}"

    def _query(self, email: str) -> str:
        named = [
            *self.query,
            ("X-Goog-Algorithm", ALGORITHM),
            ("X-Goog-Credential", f"{email}/{self._scope()}"),
            ("X-Goog-Date", self._time()),
            ("X-Goog-Expires", str(max(1, min(LONGEST, int(self.lifetime))))),
            ("X-Goog-SignedHeaders", "host"),
        ]
        return "&".join(sorted(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in named))

    def _time(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).strftime("%Y%m%dT%H%M%SZ")

    def _scope(self) -> str:
        return f"{self._time()[:8]}/auto/storage/goog4_request"

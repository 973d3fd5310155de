"""The keys of S3, found by botocore, kept fresh and never shown.

Invariant: looking them up, which may read files and ask the network, happens in a thread; while keys are still good for
a minute no request waits for a refresh. Neither keys nor objects with keys have a representation that shows a secret.
Source: https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import botocore.session
from attrs import field, frozen
from botocore.exceptions import BotoCoreError
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.threads import IPool
from resumable.remotes.errors import AuthFailed, RemoteError, Transient

GOOD_FOR = 60.0
"""Seconds that keys must still be good for, so that a request signed with them arrives in time."""
REFRESH_BEFORE = 15 * 60.0
"""Seconds before their end at which new ones are fetched aside."""
PAUSE = 30.0
"""Seconds between two look-ups that the store's refusals cause."""


@frozen
class Keys:
    """The keys that sign a request. ``token`` belongs to temporary keys."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class ICredentials(Protocol):
    """Gives keys. Both fail with a RemoteError."""

    def get(self) -> Deferred[Keys]:
        """Keys that are good now. AuthFailed: there are none."""

    def renew(self, refused: Keys) -> Deferred[Keys | None]:
        """Others, after the store has refused these; None: there are no others."""


class StaticCredentials:
    """Keys that somebody typed in."""

    def __init__(self, access_key: str, secret_key: str, token: str | None = None) -> None:
        self._keys = Keys(access_key, secret_key, token)

    def get(self) -> Deferred[Keys]:
        """See `ICredentials.get`."""
        return succeed(self._keys)

    def renew(self, refused: Keys) -> Deferred[Keys | None]:
        """See `ICredentials.renew`."""
        return succeed(None)


def botocore_session(profile: str | None = None) -> Callable[[], Any]:
    """A function that makes a session which looks where boto3 does: environment, profile, SSO, assumed role, web
    identity, IMDS."""

    def make() -> Any:
        return botocore.session.Session(profile=profile)

    return make


class SessionCredentials:
    """The first keys of botocore's chain. A new session is made after a refusal, so that edited files are seen."""

    _log = Logger()

    def __init__(self, pool: IPool, now: Callable[[], float], make_session: Callable[[], Any]) -> None:
        self._pool = pool
        self._now = now
        self._make_session = make_session
        self._source: Any = None  # botocore's credentials; refreshes itself when it is asked for keys
        self._keys: Keys | None = None
        self._renewed_at: float | None = None
        self._one_at_a_time = DeferredLock()

    def get(self) -> Deferred[Keys]:
        """See `ICredentials.get`."""
        if self._keys is not None and not self._needs_refresh(GOOD_FOR):
            if self._needs_refresh(REFRESH_BEFORE) and not self._one_at_a_time.locked and self._rested():
                self._look_up().addErrback(self._refresh_failed)
            return succeed(self._keys)
        return self._look_up()

    def renew(self, refused: Keys) -> Deferred[Keys | None]:
        """See `ICredentials.renew`."""
        if self._keys is not None and self._keys != refused:
            return succeed(self._keys)  # somebody else's refusal has renewed them
        if not self._rested():
            return succeed(None)
        self._source = self._keys = None
        answer: Deferred[Keys | None] = self._look_up().addCallback(lambda keys: None if keys == refused else keys)
        return answer

    def _rested(self) -> bool:
        """Whether a look-up that isn't urgent may happen; if so, the next has to wait."""
        if self._renewed_at is not None and self._now() - self._renewed_at < PAUSE:
            return False
        self._renewed_at = self._now()
        return True

    def _needs_refresh(self, seconds: float) -> bool:
        """No I/O. Keys that never end have no such method."""
        asked = getattr(self._source, "refresh_needed", None)
        return asked is not None and bool(asked(refresh_in=seconds))

    def _look_up(self) -> Deferred[Keys]:
        looked_up: Deferred[Keys] = self._one_at_a_time.run(self._look_up_once)
        return looked_up

    def _look_up_once(self) -> Deferred[Keys]:
        if self._keys is not None and not self._needs_refresh(REFRESH_BEFORE):
            return succeed(self._keys)  # the one before us has done it
        return self._pool.run(self._resolve, self._source).addCallbacks(self._resolved, _as_remote_error)

    def _resolve(self, source: Any) -> tuple[Any, Keys | None]:
        """In a thread."""
        source = source or self._make_session().get_credentials()
        if source is None:
            return None, None
        frozen_keys = source.get_frozen_credentials()
        return source, Keys(frozen_keys.access_key, frozen_keys.secret_key, frozen_keys.token)

    def _resolved(self, found: tuple[Any, Keys | None]) -> Keys:
        self._source, keys = found
        if keys is None:
            raise AuthFailed(
                "no credentials were found",
                advice="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role",
            )
        self._keys = keys
        return keys

    def _refresh_failed(self, failure: Failure) -> None:
        self._log.warn("credentials were not refreshed: {reason}", reason=failure.getErrorMessage())


def _as_remote_error(failure: Failure) -> Failure:
    """The error for botocore's exception, without its words, which may quote secrets."""
    error = failure.value
    if isinstance(error, RemoteError):
        return failure
    name = type(error).__name__
    if isinstance(error, BotoCoreError) and "Connect" not in name and "Timeout" not in name:
        return Failure(AuthFailed(f"credentials could not be had: {name}", advice="check profile, role and SSO login"))
    return Failure(Transient(f"credentials could not be had: {name}"))

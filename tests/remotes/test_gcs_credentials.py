"""Tokens: had by google-auth in a thread, fresh in time, renewed after a refusal, never shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from threading import current_thread, main_thread

import pytest
import pytest_twisted
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from resumable.aio.threads import Pool
from resumable.remotes.errors import AuthFailed, Transient, Unusable
from resumable.remotes.gcs.credentials import Anonymous, GoogleTokens, Token, found


@pytest.fixture
def pool():
    pool = Pool(reactor, 2, "credentials")
    pool.start()
    yield pool
    pytest_twisted.blockon(pool.stop())


class Time:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Finds credentials whose tokens end so many seconds after they were had; counts."""

    def __init__(self, now: Time, lifetime: float | None, broken: Exception | None = None) -> None:
        self.now, self.lifetime, self.broken = now, lifetime, broken
        self.searches = self.refreshes = 0
        self.in_reactor = False
        self.token = self.expiry = None

    def __call__(self):
        self.searches += 1
        return self

    def refresh(self, request):
        self.in_reactor = self.in_reactor or current_thread() is main_thread()
        self.refreshes += 1
        if self.broken:
            raise self.broken
        self.token = f"secret-token-{self.refreshes}"
        if self.lifetime is not None:
            self.expiry = datetime.fromtimestamp(self.now() + self.lifetime, UTC).replace(tzinfo=None)


def tokens(pool, source: Source) -> GoogleTokens:
    return GoogleTokens(pool, source.now, source, lambda: None)


@pytest_twisted.ensureDeferred
async def test_a_token_is_had_once_and_in_a_thread(pool):
    source = Source(Time(), 3600)
    got = await gatherResults([tokens_.get() for tokens_ in [tokens(pool, source)] * 5])
    assert {each.value for each in got} == {"secret-token-1"} and got[0].until == 1_003_600.0
    assert (source.searches, source.refreshes, source.in_reactor) == (1, 1, False)


@pytest_twisted.ensureDeferred
async def test_a_token_that_ends_soon_is_refreshed_aside_while_nobody_waits(pool):
    source = Source(Time(), 3600)
    there = tokens(pool, source)
    first = await there.get()
    source.now.now += 3600 - 200
    waited = there.get()
    assert waited.called and await waited == first
    while (await there.get()) == first:
        await deferLater(reactor, 0.001)
    assert source.refreshes == 2 and source.searches == 1 and not source.in_reactor


@pytest_twisted.ensureDeferred
async def test_a_refresh_aside_that_fails_is_no_failure_yet(pool):
    source = Source(Time(), 3600)
    there = tokens(pool, source)
    first = await there.get()
    source.now.now += 3600 - 200
    source.broken = TransportError("no network")
    assert await there.get() == first
    while source.refreshes < 2:
        await deferLater(reactor, 0.001)
    await deferLater(reactor, 0.001)
    assert await there.get() == first
    source.now.now += 190
    with pytest.raises(Transient):
        await there.get()


@pytest_twisted.ensureDeferred
async def test_a_token_that_has_ended_is_waited_for(pool):
    source = Source(Time(), 3600)
    there = tokens(pool, source)
    await there.get()
    source.now.now += 3590
    seen = []
    again = there.get().addCallback(lambda token: seen.append(token) or token)
    assert not seen
    assert (await again).value == "secret-token-2"


@pytest_twisted.ensureDeferred
async def test_a_refusal_makes_credentials_be_looked_for_anew_but_not_again_and_again(pool):
    source = Source(Time(), None)
    there = tokens(pool, source)
    first = await there.get()
    second = await there.renew(first)
    assert second.value == "secret-token-2" and source.searches == 2
    assert await there.renew(first) == second  # somebody else has renewed it
    assert await there.renew(second) is None and source.searches == 2
    source.now.now += 31
    assert (await there.renew(second)).value == "secret-token-3"


@pytest_twisted.ensureDeferred
async def test_emulators_ask_nobody():
    assert await Anonymous().get() is None and await Anonymous().renew(Token("x")) is None


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (DefaultCredentialsError("File /secret/path was not found."), AuthFailed, "GOOGLE_APPLICATION_CREDENTIALS"),
        (TransportError("secret"), Transient, ""),
        (RefreshError("secret", retryable=True), Transient, ""),
        (RefreshError("invalid_grant: secret"), AuthFailed, ""),
        (RefreshError("invalid_grant: Invalid JWT: reasonable timeframe, check your iat"), Unusable, "clock"),
        (ValueError("secret"), AuthFailed, ""),
        (OSError("secret"), AuthFailed, ""),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest_twisted.ensureDeferred
async def test_what_goes_wrong_is_told_without_what_it_might_quote(pool, raised, kind, said):
    with pytest.raises(kind) as caught:
        await tokens(pool, Source(Time(), None, raised)).get()
    assert type(caught.value) is kind and said in caught.value.advice
    assert "secret" not in str(caught.value) + caught.value.advice


def test_a_token_is_not_shown():
    assert "ya29" not in repr(Token("ya29.abc", 1.0))


def service_account(path, uri: str) -> str:
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "p",
                "private_key_id": "1",
                "private_key": key.decode(),
                "client_email": "someone@p.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": uri,
            }
        )
    )
    return str(path)


@pytest_twisted.ensureDeferred
async def test_the_file_of_a_service_account_gets_a_token_where_it_says(pool, tmp_path):
    from twisted.web import resource, server

    class Grants(resource.Resource):
        isLeaf = True
        asked: list = []  # noqa: RUF012

        def render_POST(self, request):
            self.asked.append(request.args)
            request.setHeader("Content-Type", "application/json")
            return json.dumps({"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}).encode()

    site = server.Site(Grants())
    site.noisy = False
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    try:
        file = service_account(tmp_path / "key.json", f"http://127.0.0.1:{port.getHost().port}/token")
        token = await GoogleTokens(pool, Time(), found(file)).get()
        assert token.value == "a-token" and token.until is not None
        assert b"jwt-bearer" in Grants.asked[0][b"grant_type"][0]
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_missing_or_no_key_is_told(pool, tmp_path):
    (tmp_path / "bad.json").write_text('{"type": "nonsense"}')
    for name in ("missing.json", "bad.json"):
        with pytest.raises(AuthFailed):
            await GoogleTokens(pool, Time(), found(str(tmp_path / name))).get()


@pytest_twisted.ensureDeferred
async def test_the_variable_that_all_of_googles_tools_know_is_heeded(pool, tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(AuthFailed) as caught:
        await GoogleTokens(pool, Time(), found()).get()
    assert "missing.json" not in str(caught.value)
    monkeypatch.setenv(
        "GOOGLE_APPLICATION_CREDENTIALS", service_account(tmp_path / "key.json", "http://127.0.0.1:1/token")
    )
    with pytest.raises(Transient):
        await GoogleTokens(pool, Time(), found()).get()

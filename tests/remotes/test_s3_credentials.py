"""Credentials: found by botocore in a thread, fresh in time, renewed after a refusal, never shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread, current_thread, main_thread

import pytest
import pytest_twisted
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import ConnectTimeoutError, ProfileNotFound, UnauthorizedSSOTokenError
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from resumable.aio.threads import Pool
from resumable.remotes.errors import AuthFailed, Transient
from resumable.remotes.s3.credentials import Keys, SessionCredentials, StaticCredentials, botocore_session


@pytest.fixture
def pool():
    pool = Pool(reactor, 2, "credentials")
    pool.start()
    yield pool
    pytest_twisted.blockon(pool.stop())


class Source:
    """Makes sessions whose credentials end so many seconds after they were had; counts."""

    def __init__(self, lifetime: float | None, broken: Exception | None = None) -> None:
        self.lifetime, self.broken = lifetime, broken
        self.sessions = self.fetched = 0
        self.in_reactor = False

    def __call__(self):
        self.sessions += 1
        return self

    def get_credentials(self):
        if self.broken:
            raise self.broken
        if self.lifetime is None:
            return Credentials(f"access-{self.sessions}", "secret")
        return RefreshableCredentials.create_from_metadata(self.fetch(), self.fetch, "test")

    def fetch(self):
        self.in_reactor = self.in_reactor or current_thread() is main_thread()
        self.fetched += 1
        if self.broken:
            raise self.broken
        end = datetime.now(UTC) + timedelta(seconds=self.lifetime)
        return {
            "access_key": f"access-{self.fetched}",
            "secret_key": "secret",
            "token": f"token-{self.fetched}",
            "expiry_time": end.isoformat(),
        }


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest_twisted.ensureDeferred
async def test_keys_are_looked_up_once_and_in_a_thread(pool):
    source = Source(3600)
    credentials = SessionCredentials(pool, Time(), source)
    found = await gatherResults([credentials.get() for _ in range(5)])
    assert set(found) == {Keys("access-1", "secret", "token-1")}
    assert (source.sessions, source.fetched, source.in_reactor) == (1, 1, False)


@pytest_twisted.ensureDeferred
async def test_keys_that_end_soon_are_refreshed_aside_while_nobody_waits(pool):
    source = Source(600)  # good, but less than a quarter of an hour
    credentials = SessionCredentials(pool, Time(), source)
    first = await credentials.get()
    source.lifetime = 3600
    waited = credentials.get()
    assert waited.called and await waited == first
    while (await credentials.get()) == first:
        await deferLater(reactor, 0.001)
    assert source.fetched >= 2 and not source.in_reactor


@pytest_twisted.ensureDeferred
async def test_keys_that_have_ended_are_waited_for(pool):
    source = Source(20)
    credentials = SessionCredentials(pool, Time(), source)
    await credentials.get()
    source.lifetime = 3600
    seen = []
    again = credentials.get().addCallback(lambda keys: seen.append(keys) or keys)
    assert not seen
    assert (await again).access_key == f"access-{source.fetched}"


@pytest_twisted.ensureDeferred
async def test_a_refusal_makes_the_chain_be_asked_anew_but_not_again_and_again(pool):
    source, now = Source(None), Time()
    credentials = SessionCredentials(pool, now, source)
    first = await credentials.get()
    second = await credentials.renew(first)
    assert second == Keys("access-2", "secret") and await credentials.get() == second
    assert await credentials.renew(first) == second  # somebody else has renewed them
    assert await credentials.renew(second) is None and source.sessions == 2
    now.now += 31
    assert (await credentials.renew(second)).access_key == "access-3"


@pytest_twisted.ensureDeferred
async def test_static_keys_cannot_be_renewed():
    credentials = StaticCredentials("a", "b", "c")
    assert await credentials.get() == Keys("a", "b", "c")
    assert await credentials.renew(Keys("a", "b", "c")) is None


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (ProfileNotFound(profile="a-name"), AuthFailed),
        (UnauthorizedSSOTokenError(), AuthFailed),
        (ConnectTimeoutError(endpoint_url="http://user:secret@x"), Transient),
        (OSError("secret"), Transient),
    ],
)
@pytest_twisted.ensureDeferred
async def test_why_there_are_no_keys_is_told_without_what_it_might_quote(pool, broken, kind):
    credentials = SessionCredentials(pool, Time(), Source(None, broken))
    with pytest.raises(kind) as caught:
        await credentials.get()
    assert "secret" not in caught.value.reason
    credentials._make_session.broken = None
    assert (await credentials.get()).secret_key == "secret"


ALONE = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


@pytest.fixture
def environ(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest_twisted.ensureDeferred
async def test_no_credentials_at_all_are_told_with_what_to_set(pool, environ):
    with pytest.raises(AuthFailed) as caught:
        await SessionCredentials(pool, Time(), botocore_session()).get()
    assert "AWS_ACCESS_KEY_ID" in caught.value.advice


@pytest_twisted.ensureDeferred
async def test_the_environment_is_looked_at_with_its_session_token(pool, environ):
    environ.setenv("AWS_ACCESS_KEY_ID", "a")
    environ.setenv("AWS_SECRET_ACCESS_KEY", "b")
    environ.setenv("AWS_SESSION_TOKEN", "c")
    assert await SessionCredentials(pool, Time(), botocore_session()).get() == Keys("a", "b", "c")


@pytest_twisted.ensureDeferred
async def test_an_edited_profile_is_seen_after_a_refusal(pool, environ, tmp_path):
    file = tmp_path / "credentials"
    file.write_text("[mine]\naws_access_key_id = a\naws_secret_access_key = b\n")
    environ.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    credentials = SessionCredentials(pool, Time(), botocore_session("mine"))
    old = await credentials.get()
    file.write_text("[mine]\naws_access_key_id = new\naws_secret_access_key = b\n")
    assert await credentials.get() == old
    assert (await credentials.renew(old)).access_key == "new"


@pytest_twisted.ensureDeferred
async def test_a_role_of_the_machine_is_asked_for_in_a_thread(pool, environ):
    """A container's or an EC2 machine's own address, on this machine."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            end = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
            body = json.dumps({"AccessKeyId": "a", "SecretAccessKey": "b", "Token": "c", "Expiration": end}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            environ.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}/role")
            assert await SessionCredentials(pool, Time(), botocore_session()).get() == Keys("a", "b", "c")
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/role"]

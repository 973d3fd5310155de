"""Keys of an issuer over HTTP: they rotate, the issuer goes down and comes back, and the door is never left open."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from resumable.auth.fetch import Fetch
from resumable.auth.jwts import JwtTokens, TokenRules, check_algorithms
from resumable.auth.keys import PATIENCE, REFRESH, STALE, JwksUrl
from resumable.protocol.errors import Unauthorized, Unavailable
from tests.auth.auth_rig import Answering, Server, Signer, wall, with_bearer
from tests.daemon.site_rig import Listening

OLD, NEW = Signer("old"), Signer("new")


def published(*signers) -> bytes:
    return json.dumps({"keys": [signer.jwk() for signer in signers]}).encode()


class Issuer:
    def __init__(self):
        self.page = Answering(200, published(OLD))
        self.server = Server(self.page)
        self.clock = Clock()
        self.fetch = Fetch(reactor, timeout=5.0)
        keys = JwksUrl(self.server.url, self.fetch, self.clock)
        self.tokens = JwtTokens(keys, TokenRules(check_algorithms((), shared=False)), wall, self.clock)

    async def stop(self):
        await self.fetch.close()
        await self.server.stop()

    async def let_in(self, token):
        return (await self.tokens.authorize(with_bearer(token))).name == "alice"

    async def refuses(self, token, kind):
        with pytest.raises(kind):
            await self.tokens.authorize(with_bearer(token))
        return True

    @property
    def asked(self):
        return len(self.page.requests)


@pytest.fixture
def issuer():
    made = Issuer()
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


@pytest_twisted.ensureDeferred
async def test_keys_are_asked_for_once(issuer):
    await gatherResults([issuer.tokens.authorize(with_bearer(OLD.token())) for _ in range(5)])
    assert await issuer.let_in(OLD.token())
    assert issuer.asked == 1


@pytest_twisted.ensureDeferred
async def test_a_new_key_is_found_as_soon_as_something_is_signed_with_it(issuer):
    assert await issuer.let_in(OLD.token())
    issuer.page.body = published(OLD, NEW)
    issuer.clock.advance(PATIENCE)
    assert await issuer.let_in(NEW.token())
    assert await issuer.let_in(OLD.token())


@pytest_twisted.ensureDeferred
async def test_a_key_that_was_taken_back_counts_no_longer_than_the_refresh(issuer):
    assert await issuer.let_in(OLD.token())
    issuer.page.body = published(NEW)
    issuer.clock.advance(REFRESH)
    assert await issuer.let_in(NEW.token())
    assert await issuer.refuses(OLD.token(), Unavailable)  # asked for just now: to be told for sure after a moment
    issuer.clock.advance(PATIENCE)
    assert await issuer.refuses(OLD.token(), Unauthorized)


@pytest_twisted.ensureDeferred
async def test_unknown_keys_do_not_make_us_hammer_the_issuer(issuer):
    assert await issuer.let_in(OLD.token())
    for _ in range(20):
        assert await issuer.refuses(NEW.token(), Unavailable)
    assert issuer.asked == 1
    issuer.clock.advance(PATIENCE)
    assert await issuer.refuses(NEW.token(), Unauthorized)
    assert issuer.asked == 2


@pytest_twisted.ensureDeferred
async def test_while_the_issuer_is_down_known_keys_count_for_a_day_and_others_are_503(issuer):
    assert await issuer.let_in(OLD.token())
    await issuer.server.stop()
    issuer.clock.advance(REFRESH)
    assert await issuer.refuses(NEW.token(), Unavailable)
    assert await issuer.let_in(OLD.token())
    issuer.clock.advance(STALE - REFRESH)
    assert await issuer.refuses(OLD.token(), Unavailable)
    await issuer.server.start_again()
    issuer.page.body = published(OLD, NEW)
    issuer.clock.advance(PATIENCE)
    assert await issuer.let_in(OLD.token())
    assert await issuer.let_in(NEW.token())


@pytest_twisted.ensureDeferred
async def test_an_issuer_that_was_never_there_is_503(issuer):
    await issuer.server.stop()
    assert await issuer.refuses(OLD.token(), Unavailable)


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (200, b"{}"), (200, b'{"keys": []}'), (200, b"[" * 100_000), (200, b"x" * 1_000_000),
     (500, published(OLD)), (404, published(OLD)), (204, b"")],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_no_keys_opens_nothing_and_drops_nothing(issuer, status, body):
    assert await issuer.let_in(OLD.token())
    issuer.page.status, issuer.page.body = status, body
    issuer.clock.advance(PATIENCE)
    assert await issuer.refuses(NEW.token(), Unavailable)
    assert await issuer.let_in(OLD.token(jti="another"))


@pytest_twisted.ensureDeferred
async def test_an_issuer_that_sends_elsewhere_is_not_followed(issuer):
    elsewhere = Answering(200, published(OLD))
    server = Server(elsewhere)
    issuer.page.status, issuer.page.headers = 302, {"location": server.url}
    assert await issuer.refuses(OLD.token(), Unavailable)
    assert elsewhere.requests == []
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_what_is_logged_names_the_issuer_and_nothing_else_of_its_url(issuer):
    keys = JwksUrl(f"{issuer.server.url}/hunter2?key=hunter2", issuer.fetch, issuer.clock)
    issuer.page.status = 500
    with Listening() as events, pytest.raises(Unavailable):
        await Deferred.fromCoroutine(keys.candidates("old", "RS256"))
    assert "hunter2" not in str(events)
    assert f"no keys from http://127.0.0.1:{issuer.server.number}/...: it answers 500" in map(formatEvent, events)

"""Access as it is set up: each way in works, any of several lets in, and a mistake stops the start with one line."""

from __future__ import annotations

import json

import bcrypt
import jwt
import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import succeed

from resumable.auth.build import AccessSettings, TokenSettings, build
from resumable.auth.forward import ForwardRules
from resumable.auth.interfaces import Subject
from resumable.auth.rates import Rate
from resumable.auth.secret import AccessProblem, Secret
from resumable.model.usage import Quota
from resumable.protocol.errors import NoSpace, TooManyRequests, Unauthorized
from tests.auth.auth_rig import ID, LOOK, NOW, SALT, Answering, Server, Signer, wall, with_basic, with_bearer

TOKEN = "a-token-that-cannot-be-guessed"
SECRET = "s" * 32


def built(settings):
    return build(
        settings, reactor, lambda upload_id: succeed("alice" if upload_id == ID else None), wall=wall, salt=SALT
    )


def write(path, text):
    path.write_text(text)
    return path


async def names(access, *asks):
    """Who is let in by each of them; the status where nobody is."""
    access.start()
    try:
        found = []
        for ask in asks:
            try:
                found.append((await access.guard.check(ask)).name)
            except Unauthorized as refused:
                found.append(refused.status)
        return found
    finally:
        await access.stop()


def test_with_nothing_set_up_nobody_is_asked():
    access = built(AccessSettings())
    assert access.guard is None and access.signed is None and not access.pools and not access.fetches


@pytest_twisted.ensureDeferred
async def test_any_of_the_ways_lets_in(tmp_path):
    signer, server = Signer(), Server(Answering(401))
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    issuer = Server(Answering(200, json.dumps({"keys": [signer.jwk()]}).encode()))
    settings = AccessSettings(
        signed_keys=write(tmp_path / "keys", "k" * 32),
        tokens=write(tmp_path / "tokens", f"{TOKEN} alice"),
        certificate_part="cn",
        jwt=TokenSettings(jwks_url=issuer.url),
        htpasswd=write(tmp_path / "users", f"alice:{hashed}"),
        forward=ForwardRules(server.url),
    )
    access = built(settings)
    access.start()
    minted = await access.signed.mint("alice", "/files/", seconds=60, max_size=None)
    asks = [
        evolve(LOOK, query=f"token={minted}"),
        with_bearer(TOKEN),
        evolve(LOOK, tls=Subject("CN=alice", ("alice",))),
        with_bearer(signer.token()),
        with_basic("alice", "secret"),
        LOOK,
        with_basic("alice", "wrong"),
    ]
    found = []
    for ask in asks:
        try:
            found.append((await access.guard.check(ask)).name)
        except Unauthorized as refused:
            found.append(refused.status)
    await access.stop()
    await server.stop()
    await issuer.stop()
    assert found == [*["alice"] * 5, 401, 401]


@pytest_twisted.ensureDeferred
async def test_tokens_with_a_secret_or_a_public_key(tmp_path):
    signer = Signer(None)
    by_secret = built(AccessSettings(jwt=TokenSettings(secret=Secret(SECRET.encode()))))
    by_key = built(AccessSettings(jwt=TokenSettings(public_key=write(tmp_path / "pem", signer.pem.decode()))))
    shared = with_bearer(jwt.encode({"sub": "alice", "exp": NOW + 60}, SECRET, "HS256"))
    signed = with_bearer(signer.token())
    assert await names(by_secret, shared, signed) == ["alice", 401]
    assert await names(by_key, shared, signed) == [401, "alice"]


@pytest.mark.parametrize(
    "settings",
    [
        lambda path: AccessSettings(htpasswd=path / "missing"),
        lambda path: AccessSettings(tokens=path / "missing"),
        lambda path: AccessSettings(signed_keys=path / "missing"),
        lambda path: AccessSettings(htpasswd=write(path / "users", "alice:secret")),
        lambda path: AccessSettings(jwt=TokenSettings()),
        lambda path: AccessSettings(jwt=TokenSettings("http://127.0.0.1/", secret=Secret(b"s" * 32))),
        lambda path: AccessSettings(jwt=TokenSettings("http://127.0.0.1/", algorithms=("HS256",))),
        lambda path: AccessSettings(jwt=TokenSettings(public_key=path / "missing")),
        lambda path: AccessSettings(jwt=TokenSettings(public_key=write(path / "pem", "nothing"))),
        lambda path: AccessSettings(jwt=TokenSettings(secret=Secret(b"short"))),
    ],
)
def test_a_mistake_stops_the_start_with_one_line(tmp_path, settings):
    with pytest.raises(AccessProblem) as caught:
        built(settings(tmp_path))
    assert str(caught.value) and "\n" not in str(caught.value) and "secret\n" not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_quotas_and_rates_are_those_that_were_set(tmp_path):
    settings = AccessSettings(
        tokens=write(tmp_path / "tokens", f"{TOKEN} alice"),
        quotas=(Quota(size=10), Quota(size=15)),
        request_rates=(Rate(0.001, burst=1), Rate()),
        byte_rates=(Rate(1.0), Rate()),
    )
    access = built(settings)
    access.ledger.open("alice", 10)
    with pytest.raises(NoSpace):
        access.ledger.open("bob", 6)
    assert access.rates.received("alice", 3) > 0
    assert await names(access, with_bearer(TOKEN)) == ["alice"]
    with pytest.raises(TooManyRequests):
        access.rates.request("alice")

"""What the tests of access share: questions, tokens, and servers on this machine."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
from attrs import evolve
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from resumable.auth.interfaces import AuthRequest
from resumable.model.principal import Action

NOW = 1_700_000_000.0
ID = "a" * 22
LOOK = AuthRequest(Action.INSPECT, "HEAD", f"/files/{ID}", upload_id=ID, host="example.org", peer="192.0.2.1")
SALT = b"salt of this process"


def wall() -> float:
    return NOW


def asking(look: AuthRequest = LOOK, **headers: str) -> AuthRequest:
    """The question with header fields, ``x_y`` for ``X-Y``."""
    return evolve(look, headers={name.replace("_", "-"): [value] for name, value in headers.items()})


def with_basic(user: str, password: str) -> AuthRequest:
    return asking(authorization="Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


def with_bearer(token: str) -> AuthRequest:
    return asking(authorization=f"Bearer {token}")


def refusal(deferred: Deferred[Any], kind: type[Exception]) -> Any:
    """What it has failed with."""
    got: list[Any] = []
    deferred.addBoth(got.append)
    assert got, "nothing has been answered"
    assert hasattr(got[0], "value"), f"let in: {got[0]}"
    assert isinstance(got[0].value, kind), repr(got[0].value)
    return got[0].value


def result(deferred: Deferred[Any]) -> Any:
    """What it has been answered with."""
    got: list[Any] = []
    deferred.addBoth(got.append)
    assert got, "nothing has been answered"
    if hasattr(got[0], "raiseException"):
        got[0].raiseException()
    return got[0]


class Signer:
    """An issuer's RSA key."""

    def __init__(self, kid: str | None = "one", bits: int = 2048) -> None:
        self.kid = kid
        self.key = rsa.generate_private_key(65537, bits)
        self.pem = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def jwk(self, **further: Any) -> dict[str, Any]:
        made = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {**made, "use": "sig", "alg": "RS256", **({"kid": self.kid} if self.kid else {}), **further}

    def token(self, *, algorithm: str = "RS256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        everything = {"sub": "alice", "exp": NOW + 60, **claims}
        wanted = {name: value for name, value in everything.items() if value is not None}
        return jwt.encode(wanted, self.key, algorithm, {"kid": self.kid, **(header or {})} if self.kid else header)


class Answering(Resource):
    """Answers as told: ``status``, ``headers``, ``body``; body None: never. ``requests`` are the headers that came."""

    isLeaf = True

    def __init__(self, status: int = 200, body: bytes | None = b"", **headers: str) -> None:
        super().__init__()
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.requests: list[dict[str, str]] = []
        self.paths: list[bytes] = []

    def render(self, request: Any) -> Any:
        self.paths.append(request.uri)
        raw = request.requestHeaders.getAllRawHeaders()
        self.requests.append({name.decode().lower(): lines[0].decode("latin-1") for name, lines in raw})
        if self.body is None:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        return self.body


class Quiet(Site):
    """No log."""

    def log(self, request: Any) -> None:
        pass


class Server:
    """A real HTTP server on 127.0.0.1, in the test's reactor; its connections die with it."""

    def __init__(self, resource: Resource) -> None:
        self.factory = WrappingFactory(Quiet(resource))
        self.factory.noisy = False
        self.port: Any = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.number = self.port.getHost().port
        self.url = f"http://127.0.0.1:{self.number}/check"

    async def stop(self) -> None:
        await maybeDeferred(self.port.stopListening)
        for connection in list(self.factory.protocols):
            connection.transport.abortConnection()

    async def start_again(self) -> None:
        self.port = reactor.listenTCP(self.number, self.factory, interface="127.0.0.1")

"""Keys that tokens are verified with: from a file, a shared secret, or an issuer's JWKS URL.

Invariant: a shared secret only ever verifies HMAC, a public
key never does; a key is used for the algorithm that it names, or that its kind allows. An issuer is asked again after
`REFRESH` seconds, or for a key that isn't known, but never within `PATIENCE` seconds; its last answer counts for
`STALE` seconds. Spec: RFC 7517, RFC 7518 section 3, RFC 8725 sections 3.1 and 3.5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from resumable.aio.deferreds import Remembered
from resumable.auth import credentials
from resumable.auth.secret import AccessProblem, Secret
from resumable.httpclient.client import FetchFailed, IFetch
from resumable.masking import server_of
from resumable.protocol.errors import Unavailable

REFRESH = 600.0
PATIENCE = 10.0
STALE = 86400.0
MOST_KEYS = 100

HMAC = frozenset({"HS256", "HS384", "HS512"})
_KINDS = {
    "RSA": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "EC": frozenset({"ES256", "ES384", "ES512"}),
    "OKP": frozenset({"EdDSA"}),
}
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_PEM_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
PUBLIC = frozenset().union(*_KINDS.values())
SHORTEST_SECRET = 32
"""Bytes; RFC 7518, 3.2: "A key of the same size as the hash output (...) or larger MUST be used"."""
SHORTEST_RSA = 2048

log = Logger()


@frozen
class Key:
    """``algorithms``: those it may verify. ``material``: the key as PyJWT takes it."""

    kid: str | None
    algorithms: frozenset[str]
    material: Any = field(repr=False)


class IKeys(Protocol):
    """Where keys come from."""

    async def candidates(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """The keys that may verify such a token; none if there are none. Fails with Unavailable."""


def matching(keys: Sequence[Key], kid: str | None, algorithm: str) -> Sequence[Key]:
    """Those of the algorithm, and of the id if the token names one."""
    return [key for key in keys if algorithm in key.algorithms and kid in (None, key.kid)]


class FixedKeys:
    """Keys that don't change while the server runs. One that has no id is for tokens that name any."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys

    async def candidates(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """See `IKeys.candidates`."""
        return matching(self._keys, kid, algorithm) or matching(
            [key for key in self._keys if key.kid is None], None, algorithm
        )


def check_installed() -> None:
    """Raises AccessProblem without the package that this needs."""
    try:
        import jwt  # noqa: F401
        from jwt.algorithms import RSAAlgorithm  # noqa: F401  (only there with cryptography)
    except ImportError:
        raise credentials.needs("jwt", "PyJWT[crypto]") from None


def shared_secret(secret: Secret) -> FixedKeys:
    """Raises AccessProblem for one that is too short, or a public key."""
    material = secret.reveal()
    if len(material) < SHORTEST_SECRET:
        raise AccessProblem(f"the secret of the tokens must be {SHORTEST_SECRET} bytes or longer")
    if b"-----BEGIN" in material:
        raise AccessProblem("the secret of the tokens looks like a key in PEM; give that as a file of public keys")
    longest = {algorithm for algorithm in HMAC if len(material) * 8 >= int(algorithm[2:])}
    return FixedKeys([Key(None, frozenset(longest), material)])


def public_keys(text: str) -> FixedKeys:
    """From PEM (one key) or a JWKS document. Raises AccessProblem."""
    if "-----BEGIN" not in text:
        try:
            return FixedKeys(parse_jwks(text.encode()))
        except ValueError as problem:
            raise AccessProblem(f"the file of public keys is neither PEM nor JWKS ({problem})") from None
    if "PRIVATE KEY" in text:
        raise AccessProblem("the file of public keys holds a private key; only who signs should have that")
    try:
        return FixedKeys([_pem_key(text.encode())])
    except ValueError as problem:
        raise AccessProblem(f"the file of public keys holds none that can be used ({_brief(problem)})") from None


def _pem_key(pem: bytes) -> Key:
    """ValueError for anything but a public key of a kind that is known here."""
    loaded = load_pem_public_key(pem)
    if isinstance(loaded, RSAPublicKey):
        _check_size(loaded)
        return Key(None, _KINDS["RSA"], loaded)
    if isinstance(loaded, EllipticCurvePublicKey) and loaded.curve.name in _PEM_CURVES:
        return Key(None, frozenset({_PEM_CURVES[loaded.curve.name]}), loaded)
    if isinstance(loaded, Ed25519PublicKey | Ed448PublicKey):
        return Key(None, _KINDS["OKP"], loaded)
    raise ValueError("neither RSA, EC nor Ed25519")


def _check_size(key: RSAPublicKey) -> None:
    if key.key_size < SHORTEST_RSA:
        raise ValueError(f"an RSA key of less than {SHORTEST_RSA} bits")


def parse_jwks(body: bytes) -> Sequence[Key]:
    """The usable keys of a JWKS document; others are passed over. ValueError if there is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MOST_KEYS:
        raise ValueError(f"no list of at most {MOST_KEYS} keys")
    found = []
    for entry in entries:
        try:
            found.append(_key(entry))
        except ValueError as problem:
            log.debug("a key of the issuer is passed over: {problem}", problem=_brief(problem))
    if not found:
        raise ValueError("no usable key")
    return found


def _key(entry: Mapping[str, Any]) -> Key:
    """One JWK. ValueError if it isn't a public key for signatures."""
    import jwt

    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str | None):
        raise ValueError("not a key")
    kind = entry.get("kty")
    if not isinstance(kind, str) or kind not in _KINDS or entry.get("use", "sig") != "sig":
        raise ValueError("not a public key for signatures")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("not a key to verify with")
    algorithms = _KINDS[kind]
    if kind == "EC":
        algorithms = algorithms & {_CURVES.get(str(entry.get("crv")), "")}
    if "alg" in entry:
        algorithms = algorithms & {entry["alg"]} if isinstance(entry["alg"], str) else frozenset()
    if not algorithms:
        raise ValueError("not of an algorithm that is known here")
    try:
        material = jwt.PyJWK(dict(entry), min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as problem:
        raise ValueError(_brief(problem)) from None
    if hasattr(material, "private_bytes"):
        raise ValueError("a private key, published")
    if kind == "RSA":
        _check_size(material)
    return Key(entry.get("kid"), algorithms, material)


def _brief(problem: BaseException) -> str:
    return " ".join(str(problem).split())[:120] or type(problem).__name__


class JwksUrl:
    """The keys that an issuer publishes, fetched when they are needed."""

    def __init__(self, url: str, fetch: IFetch, clock: IReactorTime) -> None:
        self._url = url
        self._fetch = fetch
        self._clock = clock
        self._keys: Sequence[Key] = ()
        self._fetched_at = self._tried_at = float("-inf")
        self._failed = False
        self._one: Remembered[bool] = Remembered(clock, 0, most=1)

    async def candidates(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """See `IKeys.candidates`."""
        age = self._clock.seconds() - self._fetched_at
        found = matching(self._keys, kid, algorithm) if age < STALE else ()
        if found:
            if age >= REFRESH:
                self._refresh()  # nobody waits for it: the present keys still count
            return found
        asked = await self._refresh()
        if asked and not self._failed:
            return matching(self._keys, kid, algorithm)
        raise Unavailable("The issuer of the tokens can't be asked for its keys now.", retry_after=int(PATIENCE))

    def _refresh(self) -> Deferred[bool]:
        """Ask the issuer; False if it was asked just now. Never fails."""
        return self._one.ask(b"", lambda: Deferred.fromCoroutine(self._ask()))

    async def _ask(self) -> bool:
        if self._clock.seconds() - self._tried_at < PATIENCE:
            return False
        self._tried_at = self._clock.seconds()
        try:
            answer = await self._fetch.get(self._url, {"accept": ("application/jwk-set+json, application/json",)})
            if answer.status != 200:
                raise FetchFailed(f"it answers {answer.status}")
            self._keys = parse_jwks(answer.body)
        except (FetchFailed, ValueError) as problem:
            self._failed = True
            log.error("no keys from {url}: {problem}", url=server_of(self._url), problem=_brief(problem))
            return True
        self._fetched_at = self._clock.seconds()
        self._failed = False
        return True

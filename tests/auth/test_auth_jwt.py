"""JWT: only what the right key has signed, for us, for now, gets in. The cases of RFC 8725."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from unittest import mock

import jwt
import pytest
from attrs import evolve
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from twisted.internet.task import Clock

from resumable.auth.interfaces import IAuthorizer
from resumable.auth.jwts import LONGEST, REMEMBERED, JwtTokens, TokenRules, check_algorithms
from resumable.auth.keys import parse_jwks, public_keys, shared_secret
from resumable.auth.secret import AccessProblem, Secret
from resumable.model.principal import Action
from resumable.protocol.errors import Forbidden, Unauthorized
from resumable.protocol.fields import LARGEST
from tests.auth.auth_rig import NOW, Signer, asking, refusal, result, wall, with_bearer

SIGNER, STRANGER = Signer("one"), Signer("one")
RULES = TokenRules(check_algorithms((), shared=False))
SECRET = b"a shared secret of at least thirty-two bytes"


def tokens(rules=RULES, text=None):
    return JwtTokens(public_keys(text or json.dumps({"keys": [SIGNER.jwk()]})), rules, wall, Clock())


def identity(token, rules=RULES):
    return result(tokens(rules).authorize(with_bearer(token)))


def refused(token, rules=RULES, kind=Unauthorized):
    return refusal(tokens(rules).authorize(with_bearer(token)), kind)


def part(value) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header, claims, sign=lambda signed: b"") -> str:
    signed = f"{part(header)}.{part(claims)}"
    return f"{signed}.{part(sign(signed.encode()))}"


CLAIMS = {"sub": "alice", "exp": NOW + 60}


def test_it_is_an_authorizer():
    assert IAuthorizer.providedBy(tokens())


def test_a_good_token_is_let_in_with_its_name_and_limits():
    found = identity(SIGNER.token(max_size=1000))
    assert (found.name, found.max_size) == ("alice", 1000)
    assert Action.ADMIN not in found.actions


def test_claims_of_other_names_can_be_told():
    rules = evolve(RULES, name_claim="email", size_claim="quota")
    found = identity(SIGNER.token(email="a@example.org", quota=5), rules)
    assert (found.name, found.max_size) == ("a@example.org", 5)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_alg_none_is_refused(algorithm):
    refused(by_hand({"alg": algorithm, "kid": "one"}, CLAIMS))
    refused(by_hand({"alg": algorithm}, CLAIMS).rpartition(".")[0] + ".")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("of", ["pem", "text", "jwk"])
def test_a_public_key_is_never_an_hmac_secret(algorithm, of):
    key = {"pem": SIGNER.pem, "text": SIGNER.pem.strip(), "jwk": json.dumps(SIGNER.jwk()).encode()}[of]
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    forged = by_hand({"alg": algorithm, "kid": "one"}, CLAIMS, lambda signed: hmac.new(key, signed, digest).digest())
    for text in (SIGNER.pem.decode(), None):
        refusal(tokens(text=text).authorize(with_bearer(forged)), Unauthorized)


def test_a_key_is_used_for_its_own_algorithm_only():
    everything = [SIGNER.token(algorithm=algorithm) for algorithm in ("RS512", "PS256")]
    for token in everything:
        refused(token)  # the JWK says RS256
        assert result(tokens(text=SIGNER.pem.decode()).authorize(with_bearer(token))).name == "alice"


def test_an_algorithm_that_is_not_allowed_is_refused():
    refused(SIGNER.token(), evolve(RULES, algorithms=("ES256",)))


def test_the_signature_of_another_key_is_refused():
    refused(STRANGER.token())


def test_a_changed_claim_is_refused():
    header, claims, signature = SIGNER.token().split(".")
    refused(f"{header}.{part({**CLAIMS, 'sub': 'root'})}.{signature}")
    refused(f"{header}.{claims}.{signature[:-4]}AAAA")
    refused(f"{header}.{claims}.")


def test_an_unknown_kid_is_refused():
    refused(SIGNER.token(header={"kid": "two"}))


def test_a_token_without_kid_is_tried_with_the_keys_of_its_algorithm():
    other, plain = Signer("other"), Signer(None)
    plain.key = SIGNER.key
    text = json.dumps({"keys": [other.jwk(), SIGNER.jwk()]})
    assert result(tokens(text=text).authorize(with_bearer(plain.token()))).name == "alice"


@pytest.mark.parametrize(
    "further",
    [{"jwk": SIGNER.jwk()}, {"jku": "http://127.0.0.1/keys"}, {"x5u": "http://127.0.0.1/"}],
)
def test_a_key_that_the_token_brings_is_not_looked_at(further):
    refused(STRANGER.token(header=further))


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"]}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"kid": 5}, {"kid": ["one"]}]
)
def test_a_header_that_is_not_understood_is_refused(header):
    whole = {"alg": "RS256", "kid": "one", **header}
    refused(by_hand(whole, CLAIMS, lambda signed: SIGNER.key.sign(signed, *_rs256())))


def _rs256():
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    return padding.PKCS1v15(), hashes.SHA256()


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 31},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": str(NOW + 60)},
        {"nbf": NOW + 31},
        {"nbf": "x"},
        {"nbf": 10**400},
        {"nbf": -(10**400)},
        {"nbf": 1e300},
        {"exp": 10**400},
        {"exp": -(10**400)},
        {"exp": 1e300},
        {"exp": [NOW + 60]},
        {"exp": {}},
        {"sub": None},
        {"sub": ""},
        {"sub": 17},
        {"sub": "a\nb"},
        {"sub": " alice"},
        {"sub": "x" * 256},
        {"max_size": "1000"},
        {"max_size": -1},
        {"max_size": True},
        {"max_size": 1.5},
    ],
)
def test_claims_that_are_over_or_make_no_sense_are_refused(claims):
    given = {**CLAIMS, **claims}
    wanted = {name: value for name, value in given.items() if value is not None}
    token = by_hand({"alg": "RS256", "kid": "one"}, wanted, lambda signed: SIGNER.key.sign(signed, *_rs256()))
    assert 'error="invalid_token"' in refused(token).headers["WWW-Authenticate"]


@pytest.mark.parametrize("exp", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, "1" + "0" * 5000, "1e13"])
def test_a_token_never_lasts_for_ever(exp):
    raw = f'{{"sub": "alice", "exp": {exp}}}'.encode()
    refused(by_hand({"alg": "RS256", "kid": "one"}, raw, lambda signed: SIGNER.key.sign(signed, *_rs256())))


@pytest.mark.parametrize(
    "claims", [{"iat": 10**400}, {"iat": -1e300}, {"iat": "x"}, {"max_size": 10**400}, {"nbf": -1}]
)
def test_claims_that_we_do_not_go_by_may_be_absurd(claims):
    assert identity(SIGNER.token(**claims)).max_size in (None, LARGEST), "what the catalog can keep"


def test_clocks_may_differ_by_the_leeway():
    assert identity(SIGNER.token(exp=NOW - 29, nbf=NOW + 29)).name == "alice"
    refused(SIGNER.token(exp=NOW), evolve(RULES, leeway=0))


@pytest.mark.parametrize("issuer", [None, "https://else.example", ["https://issuer.example"], 5])
def test_another_issuer_is_refused(issuer):
    rules = evolve(RULES, issuer="https://issuer.example")
    token = by_hand(
        {"alg": "RS256", "kid": "one"},
        {**CLAIMS, **({} if issuer is None else {"iss": issuer})},
        lambda signed: SIGNER.key.sign(signed, *_rs256()),
    )
    refused(token, rules)


def test_the_right_issuer_and_one_of_the_audiences_get_in():
    rules = evolve(RULES, issuer="https://issuer.example", audiences=("uploads", "files"))
    assert identity(SIGNER.token(iss="https://issuer.example", aud=["x", "files"]), rules).name == "alice"


@pytest.mark.parametrize("audience", [None, "mail", ["mail"], [], 5])
def test_another_audience_is_refused(audience):
    refused(SIGNER.token(aud=audience), evolve(RULES, audiences=("uploads",)))


def test_a_token_for_somebody_else_is_refused_where_no_audience_is_set():
    refused(SIGNER.token(aud="mail"))


@pytest.mark.parametrize("claim", [{"scope": "a upload b"}, {"scp": ["upload", "a"]}, {"scp": "upload a"}])
def test_needed_scopes_are_found_in_either_claim(claim):
    assert identity(SIGNER.token(**claim), evolve(RULES, scopes=("upload", "a"))).name == "alice"


@pytest.mark.parametrize("claim", [{}, {"scope": "uploads"}, {"scope": 5}, {"scp": [5, None]}, {"scope": "UPLOAD"}])
def test_a_missing_scope_is_403_and_named(claim):
    error = refused(SIGNER.token(**claim), evolve(RULES, scopes=("upload",)), Forbidden)
    assert 'error="insufficient_scope", scope="upload"' in error.headers["WWW-Authenticate"]


def test_a_scope_can_make_an_admin():
    rules = evolve(RULES, admin_scope="uploads:admin")
    assert Action.ADMIN in identity(SIGNER.token(scope="uploads:admin"), rules).actions
    assert Action.ADMIN not in identity(SIGNER.token(scope="uploads"), rules).actions


@pytest.mark.parametrize(
    "token",
    ["x", "x.y", "..", "a.b.c.d", part(b"[" * 5000) + ".e30.x", part([]) + ".e30.x", part(b"\xff") + ".e30.x",
     part({"alg": 5}) + ".e30.x", "x" * (LONGEST + 1)],
)  # fmt: skip
def test_garbage_is_401(token):
    refused(token)


@pytest.mark.parametrize("claims", [b"[" * 3000, b"[]", b"5", b"\xff", b"{"])
def test_signed_garbage_is_401(claims):
    refused(by_hand({"alg": "RS256", "kid": "one"}, claims, lambda signed: SIGNER.key.sign(signed, *_rs256())))


def test_without_a_token_one_is_asked_for():
    error = refusal(tokens().authorize(asking()), Unauthorized)
    assert error.headers["WWW-Authenticate"] == 'Bearer realm="resumable"'


def test_a_signature_is_checked_once_in_a_while_and_the_claims_each_time():
    now, clock = [NOW], Clock()
    authorizer = JwtTokens(public_keys(json.dumps({"keys": [SIGNER.jwk()]})), RULES, lambda: now[0], clock)
    token = with_bearer(SIGNER.token(exp=NOW + 10))
    with mock.patch.object(jwt, "decode", wraps=jwt.decode) as decoded:
        for _ in range(3):
            assert result(authorizer.authorize(token)).name == "alice"
        assert decoded.call_count == 1
        clock.advance(REMEMBERED)
        assert result(authorizer.authorize(token)).name == "alice"
        assert decoded.call_count == 2
        now[0] = NOW + 40
        refusal(authorizer.authorize(token), Unauthorized)
        assert decoded.call_count == 2


def test_a_wrong_signature_is_never_remembered_for_a_right_one():
    authorizer = tokens()
    good = SIGNER.token()
    for _ in range(2):
        refusal(authorizer.authorize(with_bearer(STRANGER.token())), Unauthorized)
        assert result(authorizer.authorize(with_bearer(good))).name == "alice"
        refusal(authorizer.authorize(with_bearer(good[:-6] + "AAAAAA")), Unauthorized)


def test_a_shared_secret_verifies_hmac_only():
    rules = evolve(RULES, algorithms=check_algorithms((), shared=True))
    shared = JwtTokens(shared_secret(Secret(SECRET)), rules, wall, Clock())
    assert result(shared.authorize(with_bearer(jwt.encode(CLAIMS, SECRET, "HS256")))).name == "alice"
    refusal(shared.authorize(with_bearer(jwt.encode(CLAIMS, SECRET + b"x", "HS256"))), Unauthorized)
    refusal(shared.authorize(with_bearer(SIGNER.token())), Unauthorized)
    refusal(shared.authorize(with_bearer(by_hand({"alg": "none"}, CLAIMS))), Unauthorized)


@pytest.mark.parametrize("secret", [b"short", b"x" * 31, SIGNER.pem])
def test_a_secret_that_is_short_or_public_is_refused_at_the_start(secret):
    with pytest.raises(AccessProblem) as caught:
        shared_secret(Secret(secret))
    assert secret.decode() not in str(caught.value)


@pytest.mark.parametrize(
    ("algorithms", "shared"), [(("none",), False), (("HS256",), False), (("RS256", "HS256"), True), (("RS1",), False)]
)
def test_algorithms_of_the_other_kind_of_key_are_refused_at_the_start(algorithms, shared):
    with pytest.raises(AccessProblem, match="algorithms of tokens"):
        check_algorithms(algorithms, shared)


@pytest.mark.parametrize("algorithms", [(), ("none",), ("RS256", "none")])
def test_no_rules_let_unsigned_tokens_in(algorithms):
    with pytest.raises(AccessProblem):
        tokens(evolve(RULES, algorithms=algorithms))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(ec.generate_private_key(ec.SECP256R1()), "ES256"), (ec.generate_private_key(ec.SECP384R1()), "ES384"),
     (ed25519.Ed25519PrivateKey.generate(), "EdDSA")],
)  # fmt: skip
def test_elliptic_curves_from_pem_and_jwk(key, algorithm):
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    maker = jwt.algorithms.OKPAlgorithm if algorithm == "EdDSA" else jwt.algorithms.ECAlgorithm
    jwks = json.dumps({"keys": [json.loads(maker.to_jwk(key.public_key()))]})
    token = with_bearer(jwt.encode(CLAIMS, key, algorithm))
    for text in (pem.decode(), jwks):
        assert result(tokens(text=text).authorize(token)).name == "alice"
    refusal(tokens(text=SIGNER.pem.decode()).authorize(token), Unauthorized)


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": part(SECRET), "alg": "HS256"},
        SIGNER.jwk(use="enc"),
        SIGNER.jwk(key_ops=["encrypt"]),
        SIGNER.jwk(key_ops=5),
        SIGNER.jwk(alg="HS256"),
        SIGNER.jwk(alg=None),
        SIGNER.jwk(kid=5),
        SIGNER.jwk(n="!!"),
        SIGNER.jwk(n=5),
        SIGNER.jwk(kty="EC"),
        {"kty": ["RSA"]},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": part(b"x" * 32)},
        Signer("small", 1024).jwk(),
        {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(SIGNER.key)), "kid": "one"},
        "key",
        None,
    ],
)
def test_a_published_key_that_is_none_is_passed_over(entry):
    with pytest.raises(ValueError, match="no usable key"):
        parse_jwks(json.dumps({"keys": [entry]}).encode())
    assert len(parse_jwks(json.dumps({"keys": [entry, SIGNER.jwk()]}).encode())) == 1


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"keys": {}}', '{"keys": []}', "[" * 5000, json.dumps({"keys": [SIGNER.jwk()] * 101}),
     "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", Signer(None, 1024).pem.decode(),
     SIGNER.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                              serialization.NoEncryption()).decode()],
)  # fmt: skip
def test_a_file_without_a_usable_public_key_is_refused_at_the_start(text):
    with pytest.raises(AccessProblem, match=r"^the file of public keys") as caught:
        public_keys(text)
    assert "\n" not in str(caught.value)


def test_without_pyjwt_the_start_says_what_to_install():
    with mock.patch.dict("sys.modules", {"jwt": None}), pytest.raises(AccessProblem, match=r"pip install 'res.*jwt"):
        JwtTokens(shared_secret(Secret(SECRET)), RULES, wall, Clock())

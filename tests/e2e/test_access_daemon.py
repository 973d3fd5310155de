"""Who may do what, and how much: the daemon's own options, with clients as they are."""

from __future__ import annotations

import base64
import http.client
import io
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bcrypt
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from tusclient.client import TusClient

from resumable.access.sign import token as signed_token

from .asked import Asked
from .daemon import BOUND, Daemon, eventually, free_port, run_twistd
from .tus import Tus, head_bytes, pattern

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # tuspy leaves its source open
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]

DATA = pattern(300_007, seed=6)
UNKNOWN = "f" * 32


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


ANN, EVE, ROOT = basic("ann", "correct horse"), basic("eve", "battery staple"), basic("root", "admin's word")


@pytest.fixture(scope="module")
def passwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("secrets") / "htpasswd"
    lines = [(b"ann", b"correct horse"), (b"eve", b"battery staple"), (b"root", b"admin's word")]
    path.write_bytes(b"".join(user + b":" + bcrypt.hashpw(word, bcrypt.gensalt(4)) + b"\n" for user, word in lines))
    return path


@pytest.fixture(scope="module")
def daemon(passwords: Path) -> Iterator[Daemon]:
    """One with a file of passwords, and an admin."""
    with Daemon("--auth-htpasswd", str(passwords), "--admin", "root", "--admin-on-public") as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())
        assert "correct horse" not in it.log and ANN["Authorization"].split()[1] not in it.log


def every_verb(tus: Tus, path: str, fields: Mapping[str, str | None]) -> dict[str, int]:
    """The status of each request that can be made for an upload."""
    patch = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream", **fields}
    return {
        "HEAD": tus.ask("HEAD", path, fields).status,
        "PATCH": tus.ask("PATCH", path, patch, b"evil").status,
        "GET": tus.ask("GET", path, fields).status,
        "status": tus.ask("GET", path + "/status", fields).status,
        "DELETE": tus.ask("DELETE", path, fields).status,
    }


# a file of passwords


def test_tuspy_uploads_with_a_password_and_resumes_after_a_kill(daemon: Daemon, tus: Tus) -> None:
    client = TusClient(daemon.url, headers=ANN)
    uploader = client.uploader(file_stream=io.BytesIO(DATA), chunk_size=100_000)
    uploader.upload_chunk()
    daemon.restart()
    again = client.uploader(file_stream=io.BytesIO(DATA), url=uploader.url, chunk_size=100_000)
    assert again.get_offset() == 100_000
    again.upload()
    path = urlsplit(again.url).path
    assert tus.ask("GET", path, ANN).body == DATA
    assert set(every_verb(tus, path, EVE).values()) == {404}
    assert set(every_verb(tus, UNKNOWN_PATH, EVE).values()) == {404}
    assert tus.ask("HEAD", path, ROOT).status == 200


def as_operator(daemon: Daemon, method: str, target: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
    """Status and body of what is no answer to a tus client."""
    with closing(http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=BOUND)) as link:
        link.request(method, target, headers=dict(fields))
        answer = link.getresponse()
        return answer.status, answer.read()


def test_the_admin_api_on_a_port_for_uploads_is_for_admins(daemon: Daemon, tus: Tus) -> None:
    path = tus.create(4, ANN)
    target = f"/admin/v1/uploads/{path.rpartition('/')[2]}"
    for method in ("GET", "DELETE"):
        assert [as_operator(daemon, method, target, fields)[0] for fields in ({}, ANN, EVE)] == [401, 403, 403]
    assert as_operator(daemon, "GET", "/admin/metrics", ANN)[0] == 403
    assert as_operator(daemon, "DELETE", target, {**ROOT, "Origin": "https://evil.example"})[0] == 403
    assert json.loads(as_operator(daemon, "GET", target, ROOT)[1])["owner"] == "ann"
    assert as_operator(daemon, "DELETE", target, ROOT)[0] == 204
    assert tus.ask("HEAD", path, ANN).status == 410
    for spelling in ("/admin/../admin/v1/drain", "/admin//v1/drain", "//admin/v1/drain", "/ADMIN/v1/drain"):
        assert as_operator(daemon, "PUT", spelling, ROOT)[0] == 404


UNKNOWN_PATH = f"/files/{UNKNOWN}"


def test_strangers_are_told_how_to_come_in_and_nothing_else(daemon: Daemon, tus: Tus) -> None:
    path = tus.create(4, ANN)
    assert set(every_verb(tus, path, {}).values()) == {401} == set(every_verb(tus, UNKNOWN_PATH, {}).values())
    for wrong in (basic("ann", "wrong"), basic("nobody", "correct horse"), {"Authorization": "Basic !"}):
        refused = tus.post(4, wrong)
        assert refused.status == 401 and (refused["www-authenticate"]).startswith("Basic realm=")
    assert tus.ask("HEAD", path, ANN).offset == 0
    assert set(every_verb(tus, path, EVE).values()) == {404}
    assert tus.ask("DELETE", path, ANN).status == 204
    assert tus.ask("HEAD", path, ANN).status == 410
    assert tus.ask("HEAD", path, EVE).status == 404


def test_browsers_may_ask_first_and_read_the_challenge(daemon: Daemon, tus: Tus) -> None:
    origin = {"Origin": "https://app.example"}
    preflight = tus.options({**origin, "Access-Control-Request-Headers": "authorization,tus-resumable"})
    assert preflight.status == 200 and "authorization" in preflight["access-control-allow-headers"].lower()
    refused = tus.post(4, origin)
    assert refused.status == 401 and refused["access-control-allow-origin"] == "*"
    assert "WWW-Authenticate" in refused["access-control-expose-headers"]


def test_a_password_that_is_taken_away_counts_no_longer(passwords: Path, tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_bytes(passwords.read_bytes())
    with Daemon("--auth-htpasswd", str(file)) as daemon, closing(Tus(daemon.start().port)) as tus:
        assert tus.post(4, ANN).status == 201
        file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("ann:")))
        eventually(lambda: tus.post(4, ANN).status == 401)
        assert tus.post(4, EVE).status == 201
        file.unlink()
        eventually(lambda: tus.post(4, EVE).status == 503)
        path = UNKNOWN_PATH
        assert tus.ask("HEAD", path, EVE).status == 423


# JWT


class Issuer:
    """Signs tokens, and serves its keys; `rotate` puts a new one in place of the old."""

    def __init__(self) -> None:
        self.number = 0
        self.rotate()
        self.asked = Asked(lambda _: (200, {"Content-Type": "application/json"}, self.keys()))

    def rotate(self) -> None:
        self.number += 1
        self.key = rsa.generate_private_key(65537, 2048)

    def keys(self) -> bytes:
        jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return json.dumps({"keys": [{**jwk, "kid": str(self.number), "use": "sig", "alg": "RS256"}]}).encode()

    def token(self, **claims: Any) -> str:
        everything = {"iss": "login", "aud": "up", "sub": "ann", "exp": time.time() + 60, **claims}
        return jwt.encode(everything, self.key, "RS256", {"kid": str(self.number)})


@pytest.mark.slow
def test_tokens_of_an_issuer_whose_keys_rotate() -> None:
    issuer = Issuer()
    flags = ["--auth-jwks", issuer.asked.url, "--auth-jwt-issuer", "login", "--auth-jwt-audience", "up"]
    with (
        issuer.asked,
        Daemon(*flags, "--auth-jwt-scope", "up:write") as daemon,
        closing(Tus(daemon.start().port)) as tus,
    ):
        old = bearer(issuer.token(scope="up:write other"))
        path = tus.create(len(DATA), old)
        for wrong in ({"iss": "else"}, {"aud": "else"}, {"exp": time.time() - 60}):
            assert tus.post(4, bearer(issuer.token(scope="up:write", **wrong))).status == 401
        assert tus.post(4, bearer(issuer.token())).status == 403
        assert tus.post(4, bearer(jwt.encode({"sub": "ann", "exp": time.time() + 60}, "", "none"))).status == 401
        small = bearer(issuer.token(scope="up:write", max_size=3))
        assert (tus.post(4, small).status, tus.post(3, small).status) == (413, 201)
        issuer.rotate()
        new = bearer(issuer.token(scope="up:write"))
        eventually(lambda: tus.ask("HEAD", path, new).status == 200)
        issuer.asked.close()
        assert tus.ask("PATCH", path, {**OCTETS, **new}, DATA).status == 204
        assert tus.ask("HEAD", path, bearer(issuer.token(sub="eve", scope="up:write"))).status == 404
        assert not daemon.complaints() and old["Authorization"] not in daemon.log


OCTETS = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}


# a server that is asked


def test_while_the_server_that_is_asked_is_down_nobody_is_let_in() -> None:
    def answer(fields: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        user = {"session=1": "ann", "session=2": "eve"}.get(fields.get("cookie", ""))
        return (401, {"WWW-Authenticate": 'Form realm="x"'}, b"") if user is None else (204, {"Remote-User": user}, b"")

    flags = ["--auth-forward-cache", "0", "--auth-forward-timeout", "2s"]
    with (
        Asked(answer) as asked,
        Daemon("--auth-forward", asked.url, *flags) as daemon,
        closing(Tus(daemon.start().port)) as tus,
    ):
        ann: dict[str, str] = {"Cookie": "session=1"}
        assert tus.post(4)["www-authenticate"] == 'Form realm="x"'
        path = tus.create(len(DATA), ann)
        assert set(every_verb(tus, path, {"Cookie": "session=2"}).values()) == {404}
        asked.close()
        down = every_verb(tus, path, ann)
        assert down.pop("HEAD") == 423 and set(down.values()) == {503}
        assert tus.post(4, ann).status == 503 and tus.post(4, ann)["retry-after"]
        asked.open()
        asked.answer = lambda _: (302, {"Location": "/login"}, b"")
        assert tus.post(4, ann).status == 503
        asked.answer = answer
        assert tus.ask("PATCH", path, {**OCTETS, **ann}, DATA).status == 204
        assert tus.ask("GET", path, ann).body == DATA


# signed URLs


def test_a_signed_url_is_all_that_a_client_needs(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k" * 32 + "\n")
    with Daemon("--auth-signed-keys", str(keys)) as daemon, closing(Tus(daemon.start().port)) as tus:

        def url(*further: str, name: str = "ann", path: str = "/files/", seconds: str = "60") -> str:
            return f"{path}?token={signed_token([str(keys), name, path, seconds, *further], time.time())}"

        client = TusClient(daemon.origin + url("create,append,inspect", str(len(DATA))))
        uploader = client.uploader(file_stream=io.BytesIO(DATA), chunk_size=100_000)
        uploader.upload_chunk()
        daemon.restart()
        again = TusClient("").uploader(file_stream=io.BytesIO(DATA), url=uploader.url, chunk_size=100_000)
        assert again.get_offset() == 100_000
        again.upload()
        place = urlsplit(again.url)
        target, path = f"{place.path}?{place.query}", place.path
        assert tus.ask("HEAD", target).offset == len(DATA)
        assert tus.ask("GET", target).status == 403
        assert tus.ask("GET", url("read", path=path)).body == DATA
        assert tus.ask("GET", url("read", name="eve", path=path)).status == 404
        assert tus.ask("HEAD", path).status == tus.ask("HEAD", url(path=path, seconds="-1")).status == 401
        assert tus.ask("HEAD", target[:-1] + ("A" if target[-1] != "A" else "B")).status == 401
        largest = {"Upload-Length": str(len(DATA) + 1)}
        assert tus.ask("POST", url("create", str(len(DATA))), largest).status == 413
        deferred = tus.ask("POST", url("create,append", "5"), {"Upload-Defer-Length": "1"})
        patched = urlsplit(deferred["location"])
        six = tus.ask("PATCH", f"{patched.path}?{patched.query}", OCTETS, [b"abc", b"def"])
        assert six.status == 413
        parts = [tus.ask("POST", url(), {"Upload-Length": "0", "Upload-Concat": "partial"})["location"] for _ in "ab"]
        assert tus.ask("POST", url(), {"Upload-Concat": "final;" + " ".join(parts)}).status == 201
        assert place.query not in daemon.log and not daemon.complaints()


# client certificates


def certified(name: str, issuer: tuple[Any, x509.Name] | None = None) -> tuple[bytes, tuple[Any, x509.Name]]:
    """A certificate with its key in PEM, and what signs with it."""
    import datetime
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, now = issuer or (key, subject), datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(signer[1], subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = builder.sign(signer[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return pem + private, (key, subject)


def test_client_certificates(tmp_path: Path) -> None:
    authority, signer = certified("authority")
    files = {"ca": authority}
    files |= {name: certified(name, signer)[0] for name in ("server", "ann", "eve")}
    files["foreign"] = certified("ann", certified("elsewhere")[1])[0]
    for name, pem in files.items():
        (tmp_path / f"{name}.pem").write_bytes(pem)
    port = free_port()
    flags = ["--listen", f"ssl:{port}:privateKey={tmp_path}/server.pem:interface=127.0.0.1", "--auth-tls", "cn"]

    def ask(who: str | None, method: str, path: str, fields: Mapping[str, str] | None = None) -> Any:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        if who is not None:
            context.load_cert_chain(str(tmp_path / f"{who}.pem"))
        with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=BOUND, context=context)) as link:
            link.request(method, path, headers={"Tus-Resumable": "1.0.0", **(fields or {})})
            return link.getresponse()

    with (
        Daemon(*flags, "--tls-client-ca", str(tmp_path / "ca.pem")) as daemon,
        closing(Tus(daemon.start().port)) as tus,
    ):
        made = ask("ann", "POST", "/files/", {"Upload-Length": "0"})
        assert made.status == 201
        path = urlsplit(made.headers["Location"]).path
        assert ask("ann", "HEAD", path).status == 200
        assert ask("eve", "HEAD", path).status == 404
        for nobody in (None, "foreign"):
            with pytest.raises(OSError):
                ask(nobody, "HEAD", path)
        assert tus.post(4).status == 401, "over TCP there is no certificate"


# how much


def test_of_twenty_creations_at_once_only_those_get_in_that_fit(passwords: Path) -> None:
    flags = ["--auth-htpasswd", str(passwords), "--max-stored-per-user", "1000", "--max-unfinished", "8"]
    with Daemon(*flags) as daemon:
        daemon.start()

        def create(length: int, who: Mapping[str, str] = ANN) -> tuple[int, str | None]:
            with closing(Tus(daemon.port)) as tus:
                answer = tus.post(length, who)
                return answer.status, answer.get("location")

        with ThreadPoolExecutor(20) as pool:
            made = list(pool.map(create, [200] * 20))
        assert sorted(status for status, _ in made) == [201] * 5 + [507] * 15
        assert create(1001)[0] == 413 and create(0)[0] == 201
        daemon.restart()
        assert create(1)[0] == 507
        assert [create(1000, EVE)[0], create(1, EVE)[0]] == [201, 507]
        assert create(0, ROOT)[0] == create(0, ROOT)[0] == 201, "what is empty is finished"
        with closing(Tus(daemon.port)) as tus:
            assert tus.post(1, ROOT).status == tus.post(1, ROOT).status == 201
            assert tus.post(1, ROOT).status == 429, "eight are unfinished"
            path = urlsplit(next(place or "" for status, place in made if status == 201)).path
            assert tus.ask("DELETE", path, ANN).status == 204
            assert tus.post(200, {**ANN, "Content-Type": OCTETS["Content-Type"]}, bytes(200)).status == 201
        assert not daemon.complaints()


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_a_deferred_length_gets_nobody_past_the_quota(size: int) -> None:
    with Daemon("--max-stored", str(size)) as daemon, closing(Tus(daemon.start().port)) as tus:
        data = pattern(size + 1)
        path = tus.create()
        refused = tus.ask("PATCH", path, OCTETS, [data[:500], data[500:]])
        assert refused.status in (413, 507)
        tus.close()
        kept = tus.offset(path)
        assert kept <= size
        declared = {"Upload-Offset": str(kept), "Content-Type": OCTETS["Content-Type"]}
        assert tus.ask("PATCH", path, declared, data[kept:]).status in (413, 507)
        tus.close()
        assert tus.post(size - kept + 1).status in (413, 507)
        rest = tus.ask("PATCH", path, {**declared, "Upload-Length": str(size)}, data[kept:size])
        assert rest.status == 204 and tus.content(path) == data[:size]
        assert tus.post(1).status == 507
        daemon.attach(tus)
        daemon.restart()
        assert tus.post(1).status == 507
        assert tus.delete(path).status == 204
        assert tus.post(size).status == 201


def test_who_is_slowed_down_is_not_given_up() -> None:
    with (
        Daemon("--max-rate", "128K", "--network-timeout", "1", "--min-rate", "1M") as daemon,
        closing(Tus(daemon.start().port)) as tus,
    ):
        path = tus.create(600_000)
        data = pattern(600_000)
        assert tus.patch(path, 0, data).status == 204
        assert tus.content(path) == data


def test_too_many_requests_are_429() -> None:
    with Daemon("--max-requests", "1") as daemon, closing(Tus(daemon.start().port)) as tus:
        answers = [tus.post(4) for _ in range(5)]
        refused = [answer for answer in answers if answer.status == 429]
        assert refused and int(refused[0]["retry-after"]) >= 1
        assert tus.options().status == 200
        with tus.wire() as wire:
            assert wire.send(head_bytes("GET", "/healthz", {"Connection": "close"})).answer().status == 200


# what is wrong is told at the start


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--auth-htpasswd", "{0}/none"], "can't be read"),
        (["--auth-htpasswd", "{0}/bad"], "htpasswd -B"),
        (["--auth-tokens", "{0}/bad"], "file of tokens"),
        (["--auth-signed-keys", "{0}/bad"], "32 characters"),
        (["--auth-jwt-key", "{0}/bad"], "keys"),
        (["--auth-jwt-secret", "short"], "32 bytes"),
        (["--auth-jwks", "http://127.0.0.1:1/", "--auth-jwt-key", "{0}/bad"], "one of them"),
        (["--auth-jwks", "http://127.0.0.1:1/", "--auth-jwt-algorithm", "none"], "algorithms"),
        (["--auth-jwks", "ftp://x/"], "--auth-jwks"),
    ],
)
def test_access_that_cannot_be_set_up_is_one_line_and_no_server(flags: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("this is not it\n")
    given = [flag.format(tmp_path) for flag in flags]
    done = run_twistd("-n", "--pidfile=", "resumable", "--port", "0", *given, cwd=tmp_path)
    said = (done.stdout + done.stderr).strip().splitlines()
    assert done.returncode == 1 and len(said) == 1, said
    assert said[0].startswith("resumable: ") and words in said[0]


@pytest.mark.parametrize(
    ("package", "flags", "command"),
    [
        ("bcrypt", ["--auth-htpasswd", "{0}"], "pip install 'resumable[basic]'"),
        ("jwt", ["--auth-jwks", "http://127.0.0.1:1/"], "pip install 'resumable[jwt]'"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_command(
    package: str, flags: list[str], command: str, passwords: Path, tmp_path: Path
) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(f"raise ImportError('no {package}')\n")
    given = [flag.format(passwords) for flag in flags]
    wrapper = ["env", f"PYTHONPATH={tmp_path}:{Path(__file__).parents[2]}"]
    done = run_twistd("-n", "--pidfile=", "resumable", "--port", "0", *given, cwd=tmp_path, wrapper=wrapper)
    assert done.returncode == 1 and command in done.stdout + done.stderr

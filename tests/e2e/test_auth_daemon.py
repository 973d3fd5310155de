"""Who may do what, and how much: the daemon's own options, with clients as they are."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bcrypt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tusclient.client import TusClient

from resumable.auth.sign import token as signed_token
from tests.certificates import certified

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


def asked_from(address: str, port: int, fields: Mapping[str, str]) -> int:
    """The status of a creation by a client with this address of the loopback network."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(address, 0))
    with closing(link):
        link.request("POST", "/files/", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "4", **fields})
        return link.getresponse().status


def test_strangers_who_guess_keep_nobody_out_and_are_told_to_stop(tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_bytes(b"ann:" + bcrypt.hashpw(b"correct horse", bcrypt.gensalt(10)) + b"\n")
    with Daemon("--auth-htpasswd", str(file)) as daemon, ExitStack() as guesses:
        daemon.start()
        for number in range(100):
            link = socket.create_connection(("127.0.0.1", daemon.port), 20, ("127.0.0.9", 0))
            guesses.enter_context(link)
            link.sendall(head_bytes("POST", "/files/", {"Upload-Length": "4", **basic("ann", f"guess {number}")}))
        assert asked_from("127.0.0.1", daemon.port, ANN) == 201
        guesses.close()
        daemon.stop()
        daemon.flags = (*daemon.flags, "--max-requests-per-user", "1")
        daemon.start()
        asked = [asked_from("127.0.0.9", daemon.port, basic("ann", f"guess {n}")) for n in range(8)]
        assert asked[0] == 401 and 429 in asked
        assert asked_from("127.0.0.1", daemon.port, ANN) == 201
        assert not daemon.complaints()


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


def test_client_certificates(tmp_path: Path) -> None:
    authority = certified("authority")
    files = {"ca": authority.both}
    files |= {name: certified(name, authority).both for name in ("server", "ann", "eve")}
    files["foreign"] = certified("ann", certified("elsewhere")).both
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


@pytest.mark.slow
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
        ("bcrypt", ["--auth-htpasswd", "{0}"], "pip install 'resumable-server[basic]'"),
        ("jwt", ["--auth-jwks", "http://127.0.0.1:1/"], "pip install 'resumable-server[jwt]'"),
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


# whom files are for


def modes(*roots: Path) -> dict[str, int]:
    """Of all that is there, sockets apart."""
    found = [path for root in roots for path in (root, *root.rglob("*")) if not path.is_socket()]
    return {path.name: path.stat().st_mode & 0o7777 for path in found}


def place_flags(at: Path) -> list[str]:
    return ["--upload-dir", str(at / "uploads"), "--place", "p/{id}.bin", "--place-dir", str(at / "out"), "--sidecar"]


def test_what_was_uploaded_is_for_the_daemons_user_unless_its_operator_shares_it(tmp_path: Path) -> None:
    nas = tmp_path / "nas"
    nas.mkdir(0o755)
    remote = ["--remote", f"file://{nas}?key=a/{{id}}"]
    with Daemon(*remote, *place_flags(tmp_path / "a"), preexec=lambda: os.umask(0) and None) as daemon:

        def uploaded(at: Path) -> tuple[str, str]:
            with closing(Tus(daemon.start().port)) as tus:
                half, whole = (tus.create(length, None, b"abc").rpartition("/")[2] for length in (9, 3))
                eventually(lambda: (nas / "a" / whole).exists() and (at / f"out/p/{whole}.bin").exists())
            return half, whole

        half, whole = uploaded(tmp_path / "a")
        found = modes(tmp_path / "a", nas / "a")
        assert {name for name, mode in found.items() if mode & 0o077} == set(), found
        assert {"uploads", half, ".resumable", "catalog.sqlite3", "out", f"{whole}.bin", whole} <= found.keys()
        daemon.stop()
        shared = ["--file-mode", "640", "--dir-mode", "2750", "--place-file-mode", "644", "--place-dir-mode", "755"]
        daemon.flags = (*remote, *place_flags(tmp_path / "b"), *shared)
        daemon.preexec = lambda: os.umask(0o077) and None
        half, whole = uploaded(tmp_path / "b")
        found = modes(tmp_path / "b")
        assert (found["b"], found["uploads"], found[half]) == (0o2750, 0o2750, 0o640)
        assert (found["out"] & 0o777, found["p"] & 0o777, found[f"{whole}.bin"]) == (0o755, 0o755, 0o644)
        assert found[".resumable"] & 0o777 == 0o700 and found["catalog.sqlite3"] == 0o600
        assert not daemon.complaints()


# secrets in URLs, and misspelt variables


def test_a_secret_in_a_url_is_never_shown(tmp_path: Path) -> None:
    with Asked(lambda _: (500, {}, b"")) as asked:
        urls = ["--auth-forward", f"{asked.url}?key=hunter2", "--hook", f"told={asked.url}/hunter2?key=hunter2"]
        with Daemon(*urls, "--access-log", "info", "--log-level", "debug") as daemon:
            with closing(Tus(daemon.start().port)) as tus:
                assert tus.ask("POST", "/files/?key=hunter2", {"Upload-Length": "4"}).status == 503
            eventually(lambda: "doesn't tell who may come in" in daemon.log and "/files/?key=..." in daemon.log)
            assert "hunter2" not in daemon.log
    url = "https://ann:hunter2@h/"
    done = run_twistd("-n", "--pidfile=", "resumable", "--port", "0", "--auth-forward", url, cwd=tmp_path)
    said = (done.stdout + done.stderr).strip()
    assert done.returncode == 1 and "hunter2" not in said and "without" in said and "\n" not in said


def test_a_misspelt_variable_or_flag_ends_the_start_and_those_of_kubernetes_do_not(tmp_path: Path) -> None:
    wrong = {"RESUMABLE_MAXSIZE": "1K"}
    done = run_twistd("-n", "--pidfile=", "resumable", "--port", "0", cwd=tmp_path, env=wrong)
    assert done.returncode == 1
    said = "resumable: RESUMABLE_MAXSIZE is no variable of this server: did you mean RESUMABLE_MAX_SIZE?"
    assert (done.stdout + done.stderr).strip() == said
    done = run_twistd("-n", "--pidfile=", "resumable", "--prot", "8080", cwd=tmp_path)
    said = "resumable: option --prot not recognized: did you mean --port?"
    assert (done.returncode, (done.stdout + done.stderr).strip()) == (1, said)
    env = {"RESUMABLE_PORT": "tcp://10.0.0.1:8080", "RESUMABLE_PORT_8080_TCP": "tcp://10.0.0.1:8080"}
    with Daemon(env={**env, "RESUMABLE_SERVICE_HOST": "10.0.0.1", "RESUMABLE_OF_OTHERS": "x"}) as daemon:
        daemon.start()
        assert "RESUMABLE_OF_OTHERS is no variable of this server" in daemon.log and "enableServiceLinks" in daemon.log

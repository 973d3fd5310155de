"""Access as the doctor sees it: the rule, the files, and the servers behind it."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import Deferred

from resumable.doctor.access_rules import check_access, judge_files, judge_rule
from resumable.httpclient.client import Fetched, FetchFailed
from tests.certificates import certified
from tests.parsing import parse

TOKEN = "t" * 20


class Fetching:
    """Answers each question alike, and keeps what was asked."""

    def __init__(self, status=200, body=b"", failure=None):
        self.answer, self.failure = Fetched(status, {}, body), failure
        self.asked = []

    async def get(self, url, headers):
        self.asked.append((url, headers))
        if self.failure is not None:
            raise self.failure
        return self.answer


async def look(*flags, fetch=None):
    found = await Deferred.fromCoroutine(check_access(parse(*flags), fetch or Fetching()))
    return {each.name: each for each in found}


@pytest.mark.parametrize(
    ("flags", "level", "words"),
    [
        (["--host", "127.0.0.1"], "ok", "anybody on this machine"),
        (["--listen", "unix:/s"], "ok", "whoever may open the socket"),
        ([], "warn", "anybody who can connect may upload: there is no access rule"),
        (["--host", "::"], "warn", "anybody who can connect"),
        (["--listen", "haproxy:tcp:80", "--behind-proxy", "private"], "warn", "anybody"),
        (["--auth-tokens", "/t"], "ok", "who has a token may upload"),
        (["--guard", "https://h/"], "ok", "if the guard agrees"),
    ],
)
def test_the_rule_is_told_in_words(flags, level, words):
    found = judge_rule(parse(*flags))
    assert (found.name, found.level) == ("access", level) and words in found.what
    assert bool(found.advice) is (level == "warn")


@pytest.fixture
def files(tmp_path):
    """Files that are right, by the flag that names them."""
    public = certified("x").key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    contents = {
        "auth-tokens": f"{TOKEN} ann\n".encode(),
        "auth-signed-keys": b"k" * 40 + b"\n",
        "auth-htpasswd": b"ann:$2y$10$" + b"a" * 21 + b"." + b"a" * 31 + b"\n",
        "auth-jwt-key": pem,
    }
    for flag, content in contents.items():
        (tmp_path / flag).write_bytes(content)
    return {flag: tmp_path / flag for flag in contents}


@pytest.mark.parametrize("flag", ["auth-tokens", "auth-signed-keys", "auth-htpasswd", "auth-jwt-key"])
def test_a_file_is_read_and_told_of_without_its_content(files, flag):
    path = files[flag]
    (found,) = judge_files(parse(f"--{flag}", str(path)).access)
    assert (found.name, found.level) == (flag, "ok"), found
    assert str(path) in found.what and TOKEN not in found.what
    path.write_text("nonsense")
    (found,) = judge_files(parse(f"--{flag}", str(path)).access)
    assert found.level == "bad" and found.advice and "nonsense" not in found.what
    path.unlink()
    (found,) = judge_files(parse(f"--{flag}", str(path)).access)
    assert found.level == "bad" and str(path) in found.what and "can't be read" in found.what


def test_a_shared_secret_is_judged_and_not_repeated():
    (found,) = judge_files(parse("--auth-jwt-secret", "hunter2").access)
    assert (found.name, found.level) == ("auth-jwt-secret", "bad") and "hunter2" not in found.what
    (found,) = judge_files(parse("--auth-jwt-secret", "hunter2" * 8).access)
    assert found.level == "ok" and "hunter2" not in found.what


def test_certificates_are_told_of():
    flags = ("--tls-cert", "/c.pem", "--tls-client-ca", "/ca.pem", "--auth-tls", "cn")
    (found,) = judge_files(parse(*flags).access)
    assert (found.name, found.level) == ("auth-tls", "ok") and "any name" in found.what
    (found,) = judge_files(parse(*flags, "--auth-tls-name", "ann").access)
    assert "1 names are allowed" in found.what


KEYS = json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "A" * 43}]}).encode()


@pytest.mark.parametrize(
    ("fetch", "level", "words"),
    [
        (Fetching(body=KEYS), "ok", "has 1 keys"),
        (Fetching(body=b"{}"), "bad", "no list of at most"),
        (Fetching(404), "bad", "it answers 404"),
        (Fetching(failure=FetchFailed("no answer within 15 s")), "bad", "no answer within"),
    ],
    ids=range(4),
)
@pytest_twisted.ensureDeferred
async def test_the_issuers_keys_are_fetched(fetch, level, words):
    found = (await look("--auth-jwks", "https://i/keys?a=hunter2", fetch=fetch))["auth-jwks"]
    assert found.level == level and words in found.what
    assert "hunter2" not in found.what and bool(found.advice) is (level != "ok")


@pytest.mark.parametrize(
    ("fetch", "level", "words"),
    [
        (Fetching(401), "ok", "refuses who has no credentials, with 401"),
        (Fetching(403), "ok", "with 403"),
        (Fetching(204), "warn", "lets in somebody without credentials"),
        (Fetching(302), "bad", "answers 302"),
        (Fetching(failure=FetchFailed("refused")), "bad", "doesn't answer: refused"),
    ],
    ids=range(5),
)
@pytest_twisted.ensureDeferred
async def test_the_server_that_decides_is_asked_as_somebody_without_credentials(fetch, level, words):
    found = (await look("--auth-forward", "https://h/hunter2", fetch=fetch))["auth-forward"]
    assert found.level == level and words in found.what
    assert "hunter2" not in found.what and bool(found.advice) is (level != "ok")
    ((_, headers),) = fetch.asked
    assert not {"authorization", "cookie"} & set(headers) and headers["x-upload-action"] == ("create",)

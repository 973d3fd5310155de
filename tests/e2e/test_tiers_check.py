"""``--check`` and the start with a remote that is set up wrong: one line that says what to change, and no secret."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.remotes.s3_proxy import answer, error

from .daemon import Daemon, eventually, free_port, run_twistd
from .stores import (
    ACCESS,
    CREDENTIALS,
    LONG,
    QUICK,
    SECRET,
    Proxy,
    Store,
    proxied,
    ready,
    replica,
    shown,
    status,
    stored,
    unique_prefix,
    whole,
)
from .tus import Tus, pattern

WRONG = "a-wrong-secret-of-some-length"
DATA = pattern(50_000, seed=1)


@pytest.fixture
def proxy(store: Store) -> Iterator[Proxy]:
    with proxied(store) as it:
        yield it


def check(*flags: str, cwd: Path, env: Mapping[str, str] | None = None) -> tuple[int, list[str]]:
    """The status and the lines that it says, none of which shows a secret."""
    arguments = ["-n", "--pidfile=", "resumable", "--upload-dir", str(cwd / "u"), *flags, "--check"]
    done = run_twistd(*arguments, cwd=cwd, env=CREDENTIALS if env is None else env)
    said = (done.stdout + done.stderr).strip()
    assert "Traceback" not in said
    for secret in (SECRET, WRONG, ACCESS):
        assert secret not in said
    return done.returncode, said.splitlines()


def refused(*flags: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    returned, said = check(*flags, cwd=cwd, env=env)
    assert returned == 1 and len(said) == 1, said
    assert said[0].startswith("resumable: ")
    return said[0]


def test_what_works_is_said_to_work(store: Store, tmp_path: Path) -> None:
    url = store.remote(store.url, unique_prefix(), name="cloud")
    assert check("--remote", url, cwd=tmp_path) == (0, ["resumable: remote cloud: works"])
    assert not (tmp_path / "u").exists(), "it only looks"


def test_one_line_for_each_remote(store: Store, tmp_path: Path) -> None:
    url = store.remote(store.url, unique_prefix(), name="cloud")
    returned, said = check("--remote", url, "--remote", f"file://{tmp_path / 'nas'}?name=nas", cwd=tmp_path)
    assert returned == 1
    assert said[0] == "resumable: remote cloud: works"
    assert said[1].startswith("resumable: remote nas: ") and "mount it" in said[1]
    (tmp_path / "nas").mkdir()
    assert check("--remote", url, "--remote", f"file://{tmp_path / 'nas'}?name=nas", cwd=tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s4://bucket", ["s4", "s3"]),
        ("s3://", ["bucket"]),
        ("s3:///prefix", ["bucket"]),
        ("bucket", ["://"]),
        ("s3://bucket?regoin=here", ["regoin"]),
        ("s3://bucket?dialect=klingon", ["dialect"]),
        ("s3://key:secret@bucket", []),
        ("file://nas", ["nas"]),
    ][:: 1 if LONG else 3],
)
def test_a_url_that_makes_no_sense(url: str, words: list[str], tmp_path: Path) -> None:
    said = refused("--remote", url, cwd=tmp_path)
    for word in words:
        assert word in said
    assert "key:secret" not in said


def test_credentials_that_are_wrong(store: Store, tmp_path: Path) -> None:
    if store.name == "moto":
        pytest.skip("moto checks no signatures")
    url = store.remote(store.url, unique_prefix())
    said = refused("--remote", url, cwd=tmp_path, env={**CREDENTIALS, "AWS_SECRET_ACCESS_KEY": WRONG})
    assert "secret key" in said or "credentials" in said
    said = refused("--remote", url, cwd=tmp_path, env={**CREDENTIALS, "AWS_ACCESS_KEY_ID": "nobody"})
    assert "access key" in said or "credentials" in said


def test_no_credentials_at_all(store: Store, tmp_path: Path) -> None:
    env = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    said = refused("--remote", store.remote(store.url, "x"), cwd=tmp_path, env=env)
    assert "no credentials were found" in said and "AWS_ACCESS_KEY_ID" in said


def test_a_bucket_that_is_missing(store: Store, tmp_path: Path) -> None:
    said = refused("--remote", store.remote(store.url, "x", bucket="nowhere"), cwd=tmp_path)
    assert "NoSuchBucket" in said and "create the bucket, or correct its name" in said


def test_a_store_that_is_down(store: Store, tmp_path: Path) -> None:
    said = refused("--remote", store.remote(f"http://127.0.0.1:{free_port()}", "x"), cwd=tmp_path)
    assert "ConnectionRefusedError" in said and "check that the store is up" in said


def test_a_store_that_says_nothing(store: Store, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = store.remote(f"http://127.0.0.1:{silent.getsockname()[1]}", "x")
        said = refused("--remote", url, "--remote-timeout", "1s", cwd=tmp_path)
    assert "nothing moved for 1 s" in said


@pytest.mark.parametrize(
    ("said_by_store", "words"),
    [
        (("301 Moved", error("PermanentRedirect", Region="eu-north-1")), "set the region to eu-north-1"),
        (("403 Forbidden", error("AccessDenied")), "s3:PutObject"),
        (("403 Forbidden", error("RequestTimeTooSkewed")), "set this machine's clock"),
        (("400 Bad Request", error("ExpiredToken")), "get new credentials"),
        (("501 Not Implemented", error("NotImplemented")), "dialect"),
        (("404 Not Found", "<html>a web server</html>"), ""),
        (("200 OK", "<html>a web server</html>"), ""),
    ][:: 1 if LONG else 3],
)
def test_what_a_store_may_say(
    said_by_store: tuple[str, str], words: str, store: Store, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.trouble("CreateMultipartUpload", "answer", answer=answer(*said_by_store), times=0)
    assert words in refused("--remote", store.remote(proxy.url, "x"), cwd=tmp_path)


def test_started_with_a_remote_that_is_down_it_tells_once_takes_uploads_and_recovers(
    store: Store, proxy: Proxy
) -> None:
    prefix = unique_prefix()
    proxy.down()
    with Daemon("--remote", store.remote(proxy.url, prefix, name="cloud"), *QUICK, env=CREDENTIALS) as daemon:
        tus = daemon.start().attach(Tus(daemon.port))
        eventually(lambda: "remote cloud does not work" in daemon.log)
        path = tus.create(len(DATA), None, DATA)
        said = eventually(lambda: replica(shown(daemon, path))["error"])
        assert "ConnectionRefusedError" in said
        proxy.up()
        stored(tus, path)
        whole(store, prefix, path, DATA)
        assert daemon.log.count("does not work") == 1
        assert not daemon.complaints(), "\n".join(daemon.complaints())


def test_started_with_wrong_credentials_it_stores_when_they_are_right(store: Store, tmp_path: Path) -> None:
    """Nothing shows a secret, right or wrong."""
    if store.name == "moto":
        pytest.skip("moto checks no signatures")
    prefix = unique_prefix()
    wrong = {**CREDENTIALS, "AWS_SECRET_ACCESS_KEY": WRONG}
    with Daemon("--remote", store.remote(store.url, prefix), *QUICK, env=wrong) as daemon:
        tus = daemon.start().attach(Tus(daemon.port))
        path = tus.create(len(DATA), None, DATA)
        said = eventually(lambda: replica(shown(daemon, path))["error"])
        assert "secret key" in said or "credentials" in said
        assert replica(status(tus, path))["state"] == "open" and replica(status(tus, path))["trouble"] == "retrying"
        assert daemon.stop() == 0
        daemon.env = dict(CREDENTIALS)
        daemon.start()
        ready(daemon)
        stored(tus, path)
        whole(store, prefix, path, DATA)
        kept = daemon.log.encode() + b"".join(
            each.read_bytes() for each in daemon.upload_dir.rglob("*") if each.is_file()
        )
        for secret in (WRONG, SECRET, ACCESS):
            assert secret.encode() not in kept
        assert not daemon.complaints(), "\n".join(daemon.complaints())

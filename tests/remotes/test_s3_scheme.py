"""``s3://``: what an operator says becomes a remote that works, or one line that says why not."""

from __future__ import annotations

import os
import time
import uuid
from base64 import b64encode
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.task import deferLater

from resumable.aio.threads import Pool
from resumable.remotes import urls
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.probe import probe
from resumable.remotes.s3 import scheme
from resumable.remotes.s3.endpoint import AWS, BACKBLAZE, DIALECTS, GCS_INTEROP, GENERIC, R2
from resumable.remotes.s3.records import S3ObjectOptions
from resumable.remotes.urls import BackendServices, BadRemote, parse
from resumable.testing import SteppedPool
from tests.remotes.s3_servers import ACCESS, BUCKET, SECRET, VERSITYGW, started
from tests.remotes.simple_engine import upload

KEY = bytes(range(32))
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n"


def spec(options: str = "", bucket: str = "b-1", **environ: str):
    return parse(f"s3://{bucket}?{options}", environ=environ)


def means(journal=None, pool=None, now=time.time, **more) -> BackendServices:
    journal = MemoryJournal() if journal is None else journal
    return BackendServices(reactor, pool or SteppedPool(reactor), journal, None, now, Random(1), **more)


def dialect_of(options: str, **environ: str):
    return scheme.dialect_for(spec(options, **environ).options)


def address(options: str, **environ: str) -> str:
    said = spec(options, **environ)
    return scheme.endpoint_for(said, scheme.dialect_for(said.options)).url("k")


# -- where


@pytest.mark.parametrize(
    ("options", "environ", "url"),
    [
        ("", {}, "https://b-1.s3.us-east-1.amazonaws.com/k"),
        ("region=eu-west-1", {"AWS_S3_REGION": "x"}, "https://b-1.s3.eu-west-1.amazonaws.com/k"),
        ("", {"AWS_S3_REGION": "eu-west-1", "AWS_REGION": "x"}, "https://b-1.s3.eu-west-1.amazonaws.com/k"),
        ("", {"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "x"}, "https://b-1.s3.eu-west-2.amazonaws.com/k"),
        ("", {"AWS_DEFAULT_REGION": "eu-west-3"}, "https://b-1.s3.eu-west-3.amazonaws.com/k"),
        ("style=path", {}, "https://s3.us-east-1.amazonaws.com/b-1/k"),
        ("accelerate=yes", {}, "https://b-1.s3-accelerate.amazonaws.com/k"),
        ("dual-stack=yes", {}, "https://b-1.s3.dualstack.us-east-1.amazonaws.com/k"),
        ("fips=yes", {}, "https://b-1.s3-fips.us-east-1.amazonaws.com/k"),
        ("endpoint=http://minio:9000", {"AWS_S3_ENDPOINT": "http://x"}, "http://minio:9000/b-1/k"),
        ("", {"AWS_S3_ENDPOINT": "http://minio:9000"}, "http://minio:9000/b-1/k"),
        ("", {"AWS_ENDPOINT_URL_S3": "http://minio:9000", "AWS_ENDPOINT_URL": "http://x"}, "http://minio:9000/b-1/k"),
        ("endpoint=", {"AWS_S3_ENDPOINT": "http://minio:9000"}, "https://b-1.s3.us-east-1.amazonaws.com/k"),
        ("endpoint=http://minio:9000&style=virtual", {}, "http://b-1.minio:9000/k"),
    ],
)
def test_a_bucket_is_where_url_and_environment_say(options, environ, url):
    assert address(options, **environ) == url


@pytest.mark.parametrize(
    ("options", "dialect"),
    [
        ("", AWS),
        ("endpoint=http://minio:9000", GENERIC),
        ("endpoint=https://vpce-1.s3.eu-west-1.vpce.amazonaws.com", AWS),
        ("endpoint=https://account.r2.cloudflarestorage.com", R2),
        ("endpoint=https://s3.eu-central-003.backblazeb2.com", BACKBLAZE),
        ("endpoint=https://storage.googleapis.com", GCS_INTEROP),
        ("endpoint=https://notbackblazeb2.com", GENERIC),
        ("endpoint=https://storage.googleapis.com&dialect=generic", GENERIC),
        ("checksum=md5", evolve(AWS, checksum="md5", full_object=False)),
        ("checksum=crc32c", AWS),
        ("endpoint=http://x&checksum=crc32c", evolve(GENERIC, checksum="crc32c")),
    ],
)
def test_the_dialect_is_what_is_named_or_else_the_endpoints(options, dialect):
    assert dialect_of(options) == dialect


def test_crc64_covers_the_whole_object(monkeypatch):
    monkeypatch.setattr(scheme, "algorithm", lambda name: None)
    assert scheme.dialect_for({"checksum": "crc64nvme", "dialect": "minio"}).full_object


@pytest.mark.parametrize("each", DIALECTS.values(), ids=lambda each: each.name)
def test_the_page_says_what_each_dialect_supports(each):
    page = (Path(__file__).parents[2] / "docs" / "remotes.md").read_text(encoding="utf-8")
    flags = (each.full_object, each.put_if_absent, each.complete_if_absent, each.limits.equal)
    cells = [f"`{each.name}`", each.checksum, *("yes" if flag else "no" for flag in flags)]
    cells += ["path" if each.path_style else "host", each.fixed_region]
    assert f"| {' | '.join(cells)} |" in page


# -- what


def test_objects_are_given_what_the_url_says():
    said = (
        "storage-class=STANDARD_IA&acl=bucket-owner-full-control&sse=aws:kms&sse-key=arn:aws:kms:eu-west-1:1:key/a-b"
        "&tags=team=media,env=prod&metadata=no"
    )
    assert scheme.objects_for(spec(said).options) == S3ObjectOptions(
        "STANDARD_IA", "bucket-owner-full-control", "aws:kms", "arn:aws:kms:eu-west-1:1:key/a-b",
        tags={"team": "media", "env": "prod"}, client_metadata=False,
    )  # fmt: skip
    assert scheme.objects_for({}) == S3ObjectOptions()


@pytest.mark.parametrize("content", [KEY, b64encode(KEY), b64encode(KEY) + b"\n"])
def test_a_key_of_ones_own_comes_from_a_file(tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    assert scheme.customer_key(spec(f"sse-c-file={file}").options, {}) == KEY


def test_a_key_of_ones_own_comes_from_a_variable():
    options = spec("sse-c-variable=UPLOAD_KEY").options
    assert scheme.customer_key(options, {"UPLOAD_KEY": b64encode(KEY).decode()}) == KEY


def test_a_raw_key_in_a_file_may_end_in_what_looks_like_a_line(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(KEY[:31] + b"\n")
    assert scheme.customer_key(spec(f"sse-c-file={file}").options, {}) == KEY[:31] + b"\n"


@pytest.mark.parametrize("content", [b"", b"hunter2", b64encode(KEY[:16]), b64encode(b"hunter2" * 5)])
def test_a_wrong_key_is_told_and_not_repeated(tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    for options, environ in [(f"sse-c-file={file}", {}), ("sse-c-variable=K", {"K": content.decode()})]:
        with pytest.raises(BadRemote, match="32 bytes") as caught:
            urls.make(spec(options), means(environ=environ))
        assert "hunter2" not in str(caught.value)


def test_a_key_that_is_not_there_is_one_line():
    with pytest.raises(BadRemote, match="remote s3://b-1: sse-c-file /nonexistent can't be read: No such file"):
        urls.make(spec("sse-c-file=/nonexistent"), means())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("region=Mars 1", "region"),
        ("endpoint=minio:9000", "http://host:port"),
        ("dialect=mineio", "minio"),
        ("style=host", "style is one of path, virtual"),
        ("checksum=sha1", "crc32c"),
        ("sign=none", "sign is one of body, headers"),
        ("acl=public", "acl is one of private"),
        ("storage-class=a b", "STANDARD_IA"),
        ("sse=kms", "sse is one of AES256"),
        ("sse-key=abc", "aws:kms"),
        ("sse=aws:kms&sse-key=a b", "ARN"),
        ("sse-c-file=key", "absolute path"),
        ("sse-c-file=/key&endpoint=http://minio:9000", "SSE-C needs https"),
        ("sse-c-file=/key&sse=AES256", "one of sse"),
        ("sse-c-file=/key&sse-c-variable=K", "one of sse"),
        ("sse-c-variable=a+b", "not the key"),
        ("tags=a", "team=media"),
        ("tags=a=b%0A", "team=media"),
        ("tags=" + ",".join(f"t{n}=x" for n in range(11)), "ten"),
        ("accelerate=yes&endpoint=http://minio:9000", "endpoint of your own"),
        ("accelerate=yes&fips=yes", "FIPS"),
        ("fips=perhaps", "fips is yes or no"),
        ("metadata=perhaps", "yes or no"),
        ("part-size=1M", "part-size is a size from 5M to 5G"),
        ("part-size=big", "part-size"),
    ],
)
def test_what_is_wrong_is_found_before_anything_starts(options, words):
    with pytest.raises(BadRemote) as caught:
        spec(options)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("remote s3://b-1: ")


def test_a_checksum_that_cannot_be_reckoned_here_names_what_is_missing():
    try:
        import awscrt  # noqa: F401
    except ImportError:
        with pytest.raises(BadRemote, match="the checksum crc64nvme needs the package awscrt"):
            spec("checksum=crc64nvme")


@pytest.mark.parametrize("bucket", ["a%20b", "a%0Ab", "%3Fx"])
def test_a_name_that_no_bucket_has_is_refused(bucket):
    with pytest.raises(BadRemote):
        spec(bucket=bucket)


# -- the connection


def test_own_authorities_are_read_from_a_file_that_the_environment_may_name():
    assert spec(AWS_CA_BUNDLE="/etc/ca.pem").options["ca-file"] == "/etc/ca.pem"
    assert scheme.policy_for(None) is None


@pytest.mark.parametrize("content", [None, "nothing of the kind", CERTIFICATE])
def test_authorities_that_are_not_there_are_one_line(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    with pytest.raises(BadRemote, match=r"remote s3://b-1: ca-file .*ca\.pem (holds no certificates|can't be read)"):
        urls.make(spec(f"ca-file={file}"), means())


def test_the_services_tuning_reaches_the_connections(monkeypatch):
    seen = []
    real = scheme.Http
    monkeypatch.setattr(scheme, "Http", lambda *args, **more: seen.append(args[1]) or real(*args, **more))
    urls.make(spec(), means(timeout=7.0, parts=100))
    assert (seen[0].idle_timeout, seen[0].connections) == (7.0, 116)


def test_no_representation_shows_a_key():
    assert repr(KEY) not in repr(scheme.objects_for({}, KEY))


# -- against servers

SAID = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.fixture(scope="module", params=["moto", VERSITYGW])
def server(request, tmp_path_factory):
    with started(request.param, tmp_path_factory.mktemp("s3") / "root") as running:
        yield running


@pytest.fixture
def environ(monkeypatch):
    """botocore reads the process's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**SAID, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@asynccontextmanager
async def made(url: str, **more):
    """The remote that the URL names, with threads of its own."""
    pool = Pool(reactor, 2, "s3-url")
    pool.start()
    remote = urls.make(parse(url, environ=os.environ), means(pool=pool, environ=os.environ, **more))
    try:
        yield remote
    finally:
        await remote.close()
        await pool.stop()
        await deferLater(reactor, 0)


@pytest.mark.parametrize(
    "options",
    [
        "dialect=minio&tags=a=b",
        "dialect=generic",
        "dialect=ceph&checksum=none",
        "dialect=r2&region=us-east-1&overwrite=replace",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_url_makes_a_remote_that_works(server, environ, options):
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}?endpoint={server.url}&part-size=5M&{options}"
    async with made(url) as remote:
        assert await probe([("s3", remote)], reactor) == {"s3": None}
        for size in (0, 1000, 11 << 20):
            stored = await upload(remote, uuid.uuid4().hex, bytes(size), {"filename": b"a.bin"})
            assert stored.size == size and stored.location.startswith(f"s3://{BUCKET}/")
            assert await remote.delete_object(stored.key.rpartition("/")[2])


PROBLEMS = [
    # what, options, environment, words of the reason, words of the advice
    ("secret", "", {"AWS_SECRET_ACCESS_KEY": "hunter2"}, "SignatureDoesNotMatch", "correct the secret key"),
    ("access key", "", {"AWS_ACCESS_KEY_ID": "AKIAHUNTER2"}, "CreateMultipartUpload", "correct the access key"),
    ("region", "region=eu-west-1", {}, "region us-east-1, not eu-west-1", "set the region to us-east-1"),
    ("credentials", "", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials", "AWS_ACCESS_KEY_ID"),
    ("profile", "profile=nobody", {}, "ProfileNotFound", "check profile"),
]


@pytest.mark.parametrize(
    ("options", "said", "reason", "change"), [p[1:] for p in PROBLEMS], ids=[p[0] for p in PROBLEMS]
)
@pytest_twisted.ensureDeferred
async def test_the_probe_says_what_to_change(server, environ, options, said, reason, change):
    if not server.checks and change not in ("AWS_ACCESS_KEY_ID", "check profile"):
        pytest.skip("the server checks nothing")
    for name, value in said.items():
        environ.setenv(name, value)
    async with made(f"s3://{BUCKET}?endpoint={server.url}&{options}") as remote:
        told = (await probe([("s3", remote)], reactor))["s3"]
    assert reason in told and change in told, told
    assert "\n" not in told and "hunter2" not in told.lower().replace("akiahunter2", "")


@pytest_twisted.ensureDeferred
async def test_the_probe_says_that_there_is_no_such_bucket(server, environ):
    async with made(f"s3://nobodys-bucket?endpoint={server.url}") as remote:
        told = (await probe([("s3", remote)], reactor))["s3"]
    assert "NoSuchBucket" in told and "create the bucket" in told


@pytest.mark.parametrize(("shift", "words"), [(-7200, "behind"), (7200, "ahead of")])
@pytest_twisted.ensureDeferred
async def test_the_probe_says_that_the_clock_is_wrong(server, environ, shift, words):
    if not server.checks:
        pytest.skip("the server checks nothing")
    async with made(f"s3://{BUCKET}?endpoint={server.url}", now=lambda: time.time() + shift) as remote:
        told = (await probe([("s3", remote)], reactor))["s3"]
    assert "clock" in told and words in told and "set this machine's clock" in told


@pytest_twisted.ensureDeferred
async def test_the_probe_says_that_nothing_answers(environ):
    async with made(f"s3://{BUCKET}?endpoint=http://127.0.0.1:9") as remote:
        told = (await probe([("s3", remote)], reactor))["s3"]
    assert "ConnectionRefused" in told and "is up" in told


@pytest.mark.parametrize(
    ("said", "signed"),
    [
        ("region=eu-west-1", False),
        ("endpoint=https://minio", False),
        ("endpoint=http://minio:9000", True),
        ("endpoint=http://10.0.0.1:9000", True),
        ("endpoint=http://127.0.0.1.example.org", True),
        ("endpoint=http://127.0.0.1:9000", False),
        ("endpoint=http://[::1]:9000", False),
        ("endpoint=http://localhost", False),
        ("endpoint=http://127.0.0.1:9000&sign=body", True),
        ("endpoint=https://minio&sign=body", True),
        ("endpoint=http://minio:9000&sign=headers", False),
    ],
)
def test_bodies_are_signed_where_somebody_on_the_way_could_change_them(said, signed):
    given = spec(said)
    assert scheme.signs_bodies(given.options, scheme.endpoint_for(given, scheme.dialect_for(given.options))) is signed

"""`--spool` on the command line: what it takes, and what it refuses in one line that says what to change."""

from __future__ import annotations

import pytest

from resumable.config.agreed import agreed_options, disagreements
from resumable.remotes.urls import NOT_OF_A_SPOOL
from tests.parsing import parse, refusal

CATALOG = ("--catalog", "postgresql://db/x")
SPOOL = (*CATALOG, "--spool", "s3://bucket/prefix")


def test_a_spool_is_a_store_with_the_options_of_a_remote() -> None:
    settings = parse(*CATALOG, "--spool", "s3://bucket/prefix?region=a&endpoint=https://minio", "--scratch-size", "2G")
    spool = settings.spool
    assert spool is not None and settings.scratch_size == 2 * 1024**3
    assert (spool.name, spool.bucket, spool.prefix) == ("s3://bucket/prefix", "bucket", "prefix")
    assert dict(spool.options) == {"region": "a", "endpoint": "https://minio"}


def test_a_variable_gives_it_too_and_those_of_the_store_count() -> None:
    environ = {"RESUMABLE_SPOOL": "s3://bucket", "RESUMABLE_CATALOG": "postgresql://db/x", "AWS_S3_REGION": "eu-west-1"}
    spool = parse(**environ).spool
    assert spool is not None and spool.options["region"] == "eu-west-1"


@pytest.mark.parametrize("option", NOT_OF_A_SPOOL)
def test_options_that_only_a_copy_has_are_refused(option: str) -> None:
    said = refusal(*CATALOG, "--spool", f"s3://bucket/prefix?{option}=x")
    assert said.startswith("--spool s3://bucket/prefix: ")
    assert f'leave out "{option}"' in said


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///srv/uploads", "a spool is in s3://, az:// or gs://"),
        ("s4://bucket", 'did you mean "s3"'),
        ("s3://", "the bucket is missing"),
        ("bucket", "not a URL"),
        ("s3://bucket?regoin=x", 'did you mean "region"'),
    ],
)
def test_a_wrong_spool_is_refused(url: str, says: str) -> None:
    said = refusal(*CATALOG, "--spool", url)
    assert said.startswith("--spool") and "spool s" not in said.removeprefix("--spool") and says in said


@pytest.mark.parametrize("url", ["s3://AKIA:hunter2@b", "s3://b?secret=hunter2", "s3://b?endpoint=http://a:hunter2@x"])
def test_a_secret_in_it_is_not_repeated(url: str) -> None:
    assert "hunter2" not in refusal(*CATALOG, "--spool", url)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--spool", "s3://bucket"], "--spool needs --catalog postgresql://"),
        (["--scratch-size", "2G", *CATALOG], "--scratch-size needs --spool"),
        ([*SPOOL, "--upload-dir", "/srv/up"], "--upload-dir and --spool contradict"),
        ([*SPOOL, "--place", "{id}"], "--place and --spool contradict"),
        ([*SPOOL, "--place-dir", "/srv/x"], "--place-dir and --spool contradict"),
        ([*SPOOL, "--sidecar"], "--sidecar and --spool contradict"),
        ([*SPOOL, "--local", "drop", "--remote", "s3://other"], "--local drop and --spool contradict"),
        ([*SPOOL, "--local", "drop"], "--local drop and --spool contradict"),
        ([*SPOOL, "--spool=s3://other"], "--spool is given twice"),
        ([*SPOOL, "--max-lag", "64MiB", "--remote", "s3://other"], "--max-lag and --spool contradict"),
        ([*SPOOL, "--local", "reclaim", "--remote", "s3://other"], "--local reclaim and --spool contradict"),
        ([*SPOOL, "--remote", "s3://bucket/prefix?name=copy"], "--remote copy is the --spool"),
    ],
)
def test_what_contradicts_it_is_refused(flags: list[str], says: str) -> None:
    assert refusal(*flags).startswith(says)


@pytest.mark.parametrize(
    ("prefix", "url"),
    [
        ("/prefix", "s3://bucket?key=prefix/{id}"),
        ("/a/b", "s3://bucket/a?key=b/{id}.bin"),
        ("/a/b", "s3://bucket/a/b/.tails"),
        ("/a/b", "s3://bucket/a?key=b/.partials/{date}/{id}"),
        ("/prefix", "s3://bucket?key={metadata[project]}/{metadata[filename]}"),  # a client may name it so
        ("/2026", "s3://bucket?key={year}/{id}"),
        ("", "s3://bucket/.tails?key={id}"),
    ],
)
def test_a_remote_with_keys_of_the_spool_is_refused(prefix: str, url: str) -> None:
    said = refusal(*CATALOG, "--spool", f"s3://bucket{prefix}", "--remote", url)
    assert said.startswith(
        f"--remote {url.partition('?')[0]} has keys among those of the --spool s3://bucket{prefix}: "
    )
    assert said.endswith("begin its keys with another directory") and "\n" not in said


@pytest.mark.parametrize(
    ("prefix", "url"),
    [
        ("/prefix", "s3://bucket?key={date}/{id}"),
        ("/prefix", "s3://bucket?key={id}/file"),
        ("/prefix", "s3://bucket?key=prefix-2/{id}"),
        ("/prefix", "s3://bucket?key=prefix{metadata[project]}/{id}"),
        ("/prefix", "s3://bucket/prefix/copies"),
        ("/a/b", "s3://bucket?key=a/{id}"),
        ("", "s3://bucket/copies"),
        ("/prefix", "s3://other?key=prefix/{id}"),
        ("/prefix", "gs://bucket?key=prefix/{id}"),
    ],
)
def test_a_remote_with_keys_elsewhere_in_the_same_bucket_is_fine(prefix: str, url: str) -> None:
    assert len(parse(*CATALOG, "--spool", f"s3://bucket{prefix}", "--remote", url).remotes) == 1


def test_another_prefix_or_another_server_is_another_place() -> None:
    for url in ("s3://bucket/copies", "s3://bucket/prefix?endpoint=https://elsewhere"):
        assert len(parse(*SPOOL, "--remote", url).remotes) == 1


def test_a_bucket_of_the_environment_that_is_the_spool_is_no_remote() -> None:
    assert parse(*SPOOL, AWS_S3_BUCKET="bucket").remotes == ()


def test_processes_compare_it() -> None:
    def agreed(url: str) -> dict[str, str]:
        return dict(agreed_options(parse(*CATALOG, "--spool", url)))

    one, other = agreed("s3://bucket/a?region=x"), agreed("s3://bucket/a?region=y")
    assert disagreements(one, one, "b") == []
    assert [line.partition(":")[0] for line in disagreements(one, other, "b")] == ["--spool"]
    assert [each[:7] for each in disagreements(one, dict(agreed_options(parse(*CATALOG))), "b")] == ["--spool"]

"""Processes of one catalog tell each other the options that must be the same, and say what differs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from resumable.config import BY_FLAG
from resumable.config.agreed import agreed_options, disagreements
from tests.parsing import parse

ROOT = Path(__file__).resolve().parent.parent

CATALOG = ("--catalog", "postgresql://db/x")


def agreed(*flags):
    return agreed_options(parse(*CATALOG, *flags))


def differences(one, other):
    return disagreements(agreed(*one), agreed(*other), "b")


def test_the_same_options_agree():
    flags = ["--base-path", "/up", "--remote", "s3://bucket/x?region=a", "--hook", "https://h/", "--max-stored", "1T"]
    assert differences(flags, flags) == [] == differences([], [])


def test_a_line_names_the_flag_and_both_values():
    lines = differences(["--base-path", "/files"], ["--base-path", "/uploads"])
    assert lines == ["--base-path: /files/ here, /uploads/ at b"]
    lines = differences(["--expire-after", "1h"], ["--expire-after", "2h"])
    assert lines == ["--expire-after: 3600 s here, 7200 s at b"]


@pytest.mark.parametrize(
    ("one", "other", "flag"),
    [
        (["--part-size", "8M"], ["--part-size", "16M"], "part-size"),
        (["--max-size", "1G"], [], "max-size"),
        (["--disable-extension", "checksum"], [], "disable-extension"),
        (["--disable-download"], [], "disable-download"),
        (["--keep-partials", "2h"], [], "keep-partials"),
        (["--hook", "https://h/a"], ["--hook", "https://h/b"], "hook"),
        (["--hook", "a=https://h/"], ["--hook", "b=https://h/"], "hook"),
        (["--hook", "https://h/", "--hook-events", "created"], ["--hook", "https://h/"], "hook-events"),
        (["--guard", "https://h/"], [], "guard"),
        (["--remote", "s3://bucket/a"], ["--remote", "s3://bucket/b"], "remote"),
        (["--remote", "s3://bucket/a?name=x&region=a"], ["--remote", "s3://bucket/a?name=x&region=b"], "remote"),
        (["--remote", "s3://bucket/a", "--overwrite", "replace"], ["--remote", "s3://bucket/a"], "remote"),
        (["--remote", "s3://bucket/a", "--ack", "remote"], ["--remote", "s3://bucket/a"], "ack"),
        (["--place", "{owner}/{id}"], ["--place", "{id}"], "place"),
        (["--max-stored", "1G"], ["--max-stored", "2G"], "max-stored"),
        (["--max-unfinished-per-user", "5"], [], "max-unfinished-per-user"),
        (["--auth-jwks", "https://i/a"], ["--auth-jwks", "https://i/b"], "auth-jwt"),
        (["--auth-jwks", "https://i/", "--auth-jwt-issuer", "a"], ["--auth-jwks", "https://i/"], "auth-jwt"),
        (["--auth-forward", "http://a/"], ["--auth-forward", "http://b/"], "auth-forward"),
        (["--cors-origin", "https://a"], ["--cors-origin", "https://b"], "cors-origin"),
    ],
)
def test_what_must_agree_is_compared(one, other, flag):
    assert [line.partition(":")[0] for line in differences(one, other)] == [f"--{flag}"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["--port", "1"], ["--port", "2"]),
        (["--upload-dir", "/mnt/a"], ["--upload-dir", "/mnt/b"]),
        (["--workers", "4"], ["--workers", "1"]),
        (["--max-requests", "5"], []),
        (["--network-timeout", "7s"], []),
        (["--log-level", "debug"], []),
        (["--remote", "s3://bucket/a", "--remote", "s3://bucket/b"], ["--remote", "s3://bucket/b", "--remote", "s3://bucket/a"]),
    ],
)  # fmt: skip
def test_what_is_each_process_own_is_not(one, other):
    assert differences(one, other) == []


def test_files_are_compared_by_whether_they_are_given(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text("x:y\n")
    one, other = (["--auth-htpasswd", str(tmp_path / name)] for name in "ab")
    assert differences(one, other) == []
    assert differences(one, []) == ["--auth-htpasswd: given here, none at b"]


SECRET = "Sesame-0123456789-0123456789-0123456789"
WEBHOOK = "whsec_" + "U2VzYW1lU2VzYW1lU2VzYW1lU2VzYW1lU2VzYW1l"


def test_no_secret_is_told_and_yet_another_one_is_noticed():
    flags = [
        *("--hook", f"https://h/{SECRET}?token={SECRET}", "--hook-secret", WEBHOOK, "--guard", f"exec:/bin/x {SECRET}"),
        *("--auth-jwt-secret", SECRET, "--auth-forward", f"http://h/{SECRET}"),
    ]
    others = [flag.replace(SECRET, "x" * 40) for flag in flags]
    told = agreed(*flags)
    text = repr(told)
    assert SECRET not in text and "Sesame" not in text and WEBHOOK[6:] not in text
    found = {line.partition(":")[0] for line in differences(flags, others)}
    assert {"--hook", "--guard", "--auth-jwt", "--auth-forward"} <= found


def test_an_option_that_only_one_release_tells_of_is_left_out():
    mine = dict(agreed())
    theirs = {**mine, "new-one": "x"}
    del theirs["part-size"]
    assert disagreements(mine, theirs, "b") == []


def test_each_is_a_flag_of_ours():
    assert {flag for flag in agreed("--hook", "https://h/", "--guard", "https://h/") if flag not in BY_FLAG} == {
        "auth-jwt"
    }


@pytest.mark.process
def test_all_processes_tell_the_same():
    program = (
        "from tests.test_options_agreed import agreed; print(sorted(agreed('--hook', 'https://h/', '--remote',"
        " 's3://bucket/a', '--admin', 'x,y,z', '--auth-jwks', 'https://i/', '--cors-origin', 'https://a,https://b').items()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1

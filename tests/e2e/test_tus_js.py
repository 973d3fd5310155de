"""tus-js-client 4 from npm, run by Node, does what browsers' users do with it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from . import tools
from .daemon import Daemon, environment
from .tools import NODE, play
from .tus import Tus, pattern

DATA = pattern(1_500_001, seed=11)


@pytest.mark.parametrize(
    "scenario", ["plain", "chunked", "file_stream", "deferred", "with_creation", "with_creation_chunked", "override"]
)
def test_a_file_arrives_whole(scenario: str, node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    played = play(node, scenario, daemon, source)
    assert tus.content(played["path"]) == DATA


def test_data_in_the_creation_needs_no_other_request(node: str, daemon: Daemon, source: Path) -> None:
    assert play(node, "with_creation", daemon, source)["methods"] == ["POST"]


def test_the_overridden_method_really_is_a_post(node: str, daemon: Daemon, source: Path) -> None:
    assert set(play(node, "override", daemon, source)["methods"]) == {"POST", "POSTPATCH"}


def test_parallel_uploads_become_one_file(node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    played = play(node, "parallel", daemon, source)
    assert tus.content(played["path"]) == DATA
    assert tus.head(played["path"])["upload-concat"].startswith("final;")


def test_metadata_beyond_ascii_and_an_empty_value_come_back(node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    played = play(node, "plain", daemon, source)
    sent = tus.head(played["path"])["upload-metadata"]
    assert {pair.split(" ")[0] for pair in sent.split(",")} == {"filename", "filetype", "empty"}
    assert "filename bmHDr3ZlIOKAkyDmlofku7Yg8J+OiC5iaW4=" in sent


@pytest.mark.parametrize("scenario", ["plain", "with_creation", "override"])
def test_an_empty_file_is_finished(scenario: str, node: str, daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    played = play(node, scenario, daemon, empty)
    assert tus.content(played["path"]) == b""


def test_pause_and_resume(node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    played = play(node, "pause", daemon, source)
    assert "HEAD" in played["methods"]
    assert played["methods"].count("POST") == 1
    assert tus.content(played["path"]) == DATA


@pytest.mark.parametrize("scenario", ["terminate", "terminate_finished"])
def test_termination(scenario: str, node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    played = play(node, scenario, daemon, source)
    assert played["methods"].count("DELETE") == (1 if scenario == "terminate" else 0)
    assert tus.head(played["path"]).status == 410


def test_kill_9_under_an_upload_is_only_a_pause(node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    with subprocess.Popen(
        [node, "scenarios.mjs", "killed", daemon.url, str(source)],
        cwd=NODE,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        try:
            assert client.stdout is not None
            accepted = json.loads(client.stdout.readline())["accepted"]
            daemon.kill()
            daemon.start()
            out, _ = client.communicate(timeout=tools.RUN_BOUND)
        finally:
            client.kill()
    played = json.loads(out.splitlines()[-1])
    assert accepted >= 500_000 and "error" not in played, played
    assert played["methods"].count("POST") == 1, "it started over"
    assert tus.content(urlsplit(played["url"]).path) == DATA


def test_another_process_resumes_by_the_url(node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    path = tus.create(len(DATA))
    assert tus.patch(path, 0, DATA[:123_457]).status == 204
    daemon.restart()
    played = play(node, "resume_url", daemon, source, UPLOAD_URL=f"{daemon.origin}{path}")
    assert "POST" not in played["methods"]
    assert tus.content(path) == DATA

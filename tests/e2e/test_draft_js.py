"""tus-js-client 4 and Uppy 6 speak the draft: `ietf-draft-03` is interop version 5, `ietf-draft-05` is version 6.

They don't hear informational responses: they first create an upload and then send it, unless they are told to send its
data with the creation.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from . import tools
from .daemon import Daemon, environment
from .draft_client import Draft
from .tools import NODE
from .tus import Tus, pattern

DATA = pattern(1_500_001, seed=190)
VERSIONS = {"ietf-draft-03": 5, "ietf-draft-05": 6}


@pytest.fixture(params=VERSIONS)
def spoken(request: pytest.FixtureRequest) -> str:
    """The draft, as tus-js-client calls it."""
    return str(request.param)


def play(node: str, scenario: str, spoken: str, daemon: Daemon, source: Path, **env: str) -> dict[str, Any]:
    return tools.play(node, scenario, daemon, source, PROTOCOL=spoken, **env)


def is_complete(daemon: Daemon, spoken: str, path: str) -> bool:
    draft = Draft(daemon.port, VERSIONS[spoken])
    return draft.dialect.complete(draft.head(path)) is True


@pytest.mark.parametrize(
    "scenario", ["plain", "chunked", "file_stream", "deferred", "with_creation_chunked", "override", "uppy"]
)
def test_a_file_arrives_whole(scenario: str, spoken: str, node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    played = play(node, scenario, spoken, daemon, source)
    assert is_complete(daemon, spoken, played["path"])
    assert tus.content(played["path"]) == DATA


def test_data_in_the_creation_needs_no_other_request(
    spoken: str, node: str, daemon: Daemon, tus: Tus, source: Path
) -> None:
    played = play(node, "with_creation", spoken, daemon, source)
    assert played["methods"] == ["POST"]
    assert tus.content(played["path"]) == DATA


def test_its_metadata_name_the_file(node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    """The draft has no Upload-Metadata; this client sends it all the same."""
    played = play(node, "plain", "ietf-draft-05", daemon, source)
    answer = tus.get(played["path"])
    assert "na%C3%AFve%20%E2%80%93%20%E6%96%87%E4%BB%B6%20%F0%9F%8E%88.bin" in answer["content-disposition"]
    assert answer["content-type"] == "application/octet-stream"


def test_an_empty_file_sent_with_its_creation_is_finished(
    spoken: str, node: str, daemon: Daemon, tus: Tus, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    played = play(node, "with_creation", spoken, daemon, empty)
    assert is_complete(daemon, spoken, played["path"])
    assert tus.content(played["path"]) == b""


def test_an_empty_file_that_is_only_created_is_never_called_complete(
    spoken: str, node: str, daemon: Daemon, tus: Tus, tmp_path: Path
) -> None:
    """The client takes a creation with `?0` and a length of 0 for the end of the upload. R4: only `?1` is, and another
    client may send that in an empty append."""
    empty = tmp_path / "empty"
    empty.touch()
    path = play(node, "plain", spoken, daemon, empty)["path"]
    assert not is_complete(daemon, spoken, path)
    draft = Draft(daemon.port, VERSIONS[spoken])
    assert draft.append(path, 0).status == 200
    assert tus.content(path) == b""


def test_parallel_parts_are_refused_as_the_draft_has_none(spoken: str, node: str, daemon: Daemon, source: Path) -> None:
    with pytest.raises(AssertionError, match="response code: 400"):
        play(node, "parallel", spoken, daemon, source)


def test_pause_and_resume(spoken: str, node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    played = play(node, "pause", spoken, daemon, source)
    assert "HEAD" in played["methods"]
    assert played["methods"].count("POST") == 1
    assert tus.content(played["path"]) == DATA


@pytest.mark.parametrize("scenario", ["terminate", "terminate_finished"])
def test_termination(scenario: str, spoken: str, node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    played = play(node, scenario, spoken, daemon, source)
    assert played["methods"].count("DELETE") == (1 if scenario == "terminate" else 0)
    assert tus.head(played["path"]).status == 410


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_the_end_of_the_server_under_an_upload_is_only_a_pause(
    end: str, spoken: str, node: str, daemon: Daemon, tus: Tus, source: Path
) -> None:
    """By kill -9, and by SIGTERM."""
    with subprocess.Popen(
        [node, "scenarios.mjs", "killed", daemon.url, str(source)],
        cwd=NODE,
        env=environment({"PROTOCOL": spoken}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        try:
            assert client.stdout is not None
            accepted = json.loads(client.stdout.readline())["accepted"]
            if end == "killed":
                daemon.kill()
            else:
                assert daemon.stop() == 0
            daemon.start()
            out, _ = client.communicate(timeout=tools.RUN_BOUND)
        finally:
            client.kill()
    played = json.loads(out.splitlines()[-1])
    assert accepted >= 500_000 and "error" not in played, played
    assert played["methods"].count("POST") == 1, "it started over"
    assert tus.content(urlsplit(played["url"]).path) == DATA


def test_another_process_resumes_by_the_url(spoken: str, node: str, daemon: Daemon, tus: Tus, source: Path) -> None:
    """The upload was begun by another client of the same version, which was cut off."""
    draft = Draft(daemon.port, VERSIONS[spoken])
    path = draft.created(DATA[:123_457])
    daemon.restart()
    played = play(node, "resume_url", spoken, daemon, source, UPLOAD_URL=f"{daemon.origin}{path}")
    assert "POST" not in played["methods"]
    assert tus.content(path) == DATA

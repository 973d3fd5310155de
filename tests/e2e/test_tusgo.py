"""tusgo 0.1.2, the Go client: every verb it has, and every refusal as an error instead of a panic."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import tools
from .daemon import Daemon
from .tus import Tus, pattern

FLAGS = ("--max-size", str(1 << 40))
DATA = pattern(1_500_001, seed=12)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the scenarios' program, built once."""
    program = tmp_path_factory.mktemp("go") / "scenarios"
    go, source = tools.need("go"), tools.HERE / "go"
    tools.install("tusgo", go, "mod", "download", "github.com/bdragon300/tusgo", cwd=source)
    tools.run(go, "build", "-o", str(program), ".", cwd=source)
    return str(program)


def play(client: str, scenario: str, daemon: Daemon, tmp_path: Path) -> str:
    source = tmp_path / "source.bin"
    source.write_bytes(DATA)
    return tools.run(client, scenario, daemon.url, str(source), cwd=tmp_path).splitlines()[-1]


@pytest.mark.parametrize(
    "scenario",
    [
        "plain",
        "small_chunks",
        "one_request",
        "checksum",
        "checksum_trailer",
        "deferred",
        "with_creation",
        "concatenate",
        "resume",
    ],
)
def test_a_file_arrives_whole(scenario: str, client: str, daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    assert tus.content(play(client, scenario, daemon, tmp_path)) == DATA


def test_termination(client: str, daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    assert tus.head(play(client, "terminate", daemon, tmp_path)).status == 410


def test_every_refusal_is_an_error_and_never_a_panic(client: str, daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    """403, 404, 409, 410, 413 and 460: a body of 1 to 255 bytes would make it panic."""
    assert tus.content(play(client, "refused", daemon, tmp_path)) == DATA

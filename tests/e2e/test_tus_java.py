"""tus-java-client 0.5.1: by itself where Java and Maven are, and its bytes on the wire everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from . import tools
from .daemon import Daemon
from .tus import OCTETS, Tus, check, chunk, head_bytes, last_chunk, pattern

DATA = pattern(1_000_001, seed=13)
ARTIFACT = "io.tus.java.client:tus-java-client:0.5.1"


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A class path with the client and the scenarios."""
    place = tmp_path_factory.mktemp("java")
    tools.need("java")
    compiler, maven = tools.need("javac"), tools.need("mvn")
    fetch = ("dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={place}")
    tools.install("tus-java-client", maven, "-q", "-B", *fetch, cwd=place)
    library = next(place.glob("*.jar"))
    source = tools.HERE / "java" / "Scenarios.java"
    tools.run(compiler, "-cp", str(library), "-d", str(place), "-encoding", "UTF-8", str(source), cwd=place)
    return os.pathsep.join([str(library), str(place)])


def play(classes: str, scenario: str, daemon: Daemon, source: Path) -> str:
    out = tools.run("java", "-cp", classes, "Scenarios", scenario, daemon.url, str(source), cwd=source.parent)
    return urlsplit(out.splitlines()[-1]).path


@pytest.mark.parametrize("scenario", ["plain", "several_requests", "resume", "resume_complete"])
def test_a_file_arrives_whole(scenario: str, classes: str, daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(DATA)
    assert tus.content(play(classes, scenario, daemon, source)) == DATA


def test_an_empty_file_is_finished(classes: str, daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    source = tmp_path / "empty"
    source.touch()
    assert tus.content(play(classes, "plain", daemon, source)) == b""


OVERRIDDEN = {
    "X-HTTP-Method-Override": "PATCH",
    "Expect": "100-continue",
    "Transfer-Encoding": "chunked",
    "Content-Type": OCTETS,
}


def test_a_creation_without_length_or_coding_has_no_body(tus: Tus) -> None:
    """Its creation POST has neither Content-Length nor Transfer-Encoding: an empty body, not 411."""
    with tus.wire() as wire:
        answer = check("POST", wire.send(head_bytes("POST", "/files/", {"Upload-Length": "5"})).answer())
        assert answer.status == 201


def test_an_overridden_chunked_post_with_expect_appends(tus: Tus) -> None:
    path = tus.create(6)
    with tus.wire() as wire:
        wire.send(head_bytes("POST", path, {**OVERRIDDEN, "Upload-Offset": "0"}))
        assert wire.interim() == 100
        wire.send(chunk(b"abc") + chunk(b"def") + last_chunk())
        answer = check("PATCH", wire.answer())
        assert (answer.status, answer.offset) == (204, 6)


@pytest.mark.parametrize("length", [0, 6])
def test_an_empty_chunked_patch_of_a_complete_upload_gets_100_first(length: int, tus: Tus) -> None:
    """It throws if the final status comes without a 100 first, and it sends such a request after every empty upload."""
    path = tus.create(length, None, b"abcdef"[:length]) if length else tus.create(0)
    with tus.wire() as wire:
        wire.send(head_bytes("POST", path, {**OVERRIDDEN, "Upload-Offset": str(length)}))
        assert wire.interim() == 100
        answer = check("PATCH", wire.send(last_chunk()).answer())
        assert (answer.status, answer.offset) == (204, length)


def test_a_refusal_sends_no_100(tus: Tus) -> None:
    path = tus.create(6)
    with tus.wire() as wire:
        wire.send(head_bytes("POST", path, {**OVERRIDDEN, "Upload-Offset": "3"}))
        answer = check("PATCH", wire.answer())
        assert (answer.status, answer.interim, answer.offset) == (409, (), 0)
        assert wire.ended()

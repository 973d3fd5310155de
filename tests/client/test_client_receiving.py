"""A download, without I/O but for its own file: gone on with, checked, and never half a file under its name."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable.client import (
    ClientOptions,
    DigestDiffers,
    GaveUp,
    NothingThere,
    StateFile,
    TargetExists,
    TargetUnwritable,
)
from resumable.client.effects import Exchange, HttpReply
from resumable.client.receiving import get_steps, safe_name
from resumable.client.receiving_stream import get_into_stream
from tests.client.world import LOST_BEFORE, Fault, World, answer, cut_after

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
URL = "http://server/files/f00"
DATA = bytes(number * 11 % 251 for number in range(20_000))


@define
class FileWorld(World):
    """A server of one file. ``tells``: its digest; ``ranges``: it can send a part."""

    content: bytes = DATA
    tag: str = '"one"'
    tells: bool = True
    ranges: bool = True
    disposition: str = ""

    def get(self, target: Path, retry_for: float = 1e9, overwrite: bool = False) -> Any:
        """Receive it."""
        transfer = self.transfer(ClientOptions(retry_for=retry_for), address=URL)
        return self.run(get_steps(transfer, target, overwrite))

    def _served(self, exchange: Exchange, arrives: int | None) -> HttpReply:
        fields = {name.lower(): value for name, value in exchange.fields}
        digest = b64encode(hashlib.sha256(self.content).digest()).decode()
        common = [("etag", self.tag), ("content-disposition", self.disposition)]
        common += [("repr-digest", f"sha-256=:{digest}:")] if self.tells else []
        start = 0
        if self.ranges and fields.get("if-range") == self.tag:
            start = int(fields["range"].removeprefix("bytes=").removesuffix("-"))
        size = len(self.content)
        if start and start >= size:
            return HttpReply(416, [("content-range", f"bytes */{size}")])
        part = [("content-range", f"bytes {start}-{size - 1}/{size}")] if start else []
        reply = HttpReply(206 if start else 200, [*common, *part, ("content-length", str(size - start))])
        sink = exchange.accept(reply) if exchange.accept is not None else None
        if sink is not None and exchange.method == "GET":
            sink(self.content[start:][:arrives])
        return reply


@pytest.fixture
def world(directory: Path) -> FileWorld:
    return FileWorld(StateFile(directory / "state.json"))


@pytest.fixture
def target(directory: Path) -> Path:
    return directory / "file.bin"


def test_it_is_received_and_checked(world: FileWorld, target: Path) -> None:
    done = world.get(target)
    assert (target.read_bytes(), done.checked, done.received, done.size) == (DATA, True, len(DATA), len(DATA))
    assert not target.with_name("file.bin.part").exists()
    assert [event.name for event in world.told("begun", "checked")] == ["begun", "checked"]


def test_the_same_call_goes_on_at_the_same_byte(world: FileWorld, target: Path) -> None:
    world.fails(cut_after(7000))
    with pytest.raises(GaveUp):
        world.get(target, retry_for=0)
    assert not target.exists()
    done = world.get(target)
    assert (target.read_bytes(), done.resumed_from, done.received) == (DATA, 7000, len(DATA) - 7000)
    assert dict(world.requests[-1].fields)["Range"] == "bytes=7000-"


def test_all_that_is_missing_may_be_the_answer(world: FileWorld, target: Path) -> None:
    world.fails(cut_after(len(DATA)))
    assert world.get(target).checked
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("ranges", [True, False])
def test_another_file_at_the_server_is_never_spliced(world: FileWorld, target: Path, ranges: bool) -> None:
    world.fails(cut_after(7000))
    with pytest.raises(GaveUp):
        world.get(target, retry_for=0)
    world.content, world.tag, world.ranges = DATA[::-1], '"two"', ranges
    done = world.get(target)
    assert (target.read_bytes(), done.resumed_from) == (DATA[::-1], 0)
    assert world.told("startedover")


def test_what_lies_there_and_is_not_ours_is_kept_unless_that_is_asked_for(world: FileWorld, target: Path) -> None:
    part = target.with_name("file.bin.part")
    part.write_bytes(b"something else")
    with pytest.raises(TargetUnwritable, match="overwrite=True replaces it"):
        world.get(target)
    assert part.read_bytes() == b"something else" and not target.exists()
    world.get(target, overwrite=True)
    assert target.read_bytes() == DATA


def test_what_lies_there_from_a_download_of_another_address_is_not_gone_on_with(world: FileWorld, target: Path) -> None:
    target.with_name("file.bin.part").write_bytes(b"something else")
    key = StateFile.key("get", os.path.abspath(target))
    world.state.remember_download(key, {"url": "http://other/", "etag": world.tag})
    world.get(target)
    assert target.read_bytes() == DATA


def test_a_first_call_that_got_no_answer_is_gone_on_with(world: FileWorld, target: Path) -> None:
    world.fails(LOST_BEFORE)
    with pytest.raises(GaveUp):
        world.get(target, retry_for=0)
    world.get(target)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("there", ["a link", "a pipe"])
def test_nothing_is_written_through_a_link_or_into_a_pipe(
    world: FileWorld, target: Path, there: str, overwrite: bool
) -> None:
    part, mine = target.with_name("file.bin.part"), target.with_name("mine")
    mine.write_bytes(b"mine")
    if there == "a link":
        part.symlink_to(mine)
    else:
        os.mkfifo(part)
    with pytest.raises(TargetUnwritable, match="symbolic link" if there == "a link" else "can't be written"):
        world.get(target, overwrite=overwrite)
    assert mine.read_bytes() == b"mine" and world.requests == []


def test_other_bytes_than_the_digest_says_get_no_name(world: FileWorld, target: Path) -> None:
    world.fails(cut_after(7000))
    with pytest.raises(GaveUp):
        world.get(target, retry_for=0)
    part = target.with_name("file.bin.part")
    part.write_bytes(b"?" + part.read_bytes()[1:])
    with pytest.raises(DigestDiffers):
        world.get(target)
    assert not target.exists() and not part.exists()
    world.get(target)
    assert target.read_bytes() == DATA


def test_a_file_that_is_there_is_kept_unless_that_is_asked_for(world: FileWorld, target: Path) -> None:
    target.write_bytes(b"mine")
    with pytest.raises(TargetExists):
        world.get(target)
    assert target.read_bytes() == b"mine" and world.requests == []
    world.get(target, overwrite=True)
    assert target.read_bytes() == DATA


def test_without_a_digest_that_is_said(world: FileWorld, target: Path) -> None:
    world.tells = False
    assert world.get(target).checked is False
    assert world.told("noted")


def test_into_a_directory_it_goes_by_the_servers_name(world: FileWorld, directory: Path) -> None:
    world.disposition = 'attachment; filename="../../x/plan.pdf"'
    assert world.get(directory).path == directory / "plan.pdf"


@pytest.mark.parametrize(
    ("disposition", "url", "name"),
    [
        ("attachment; filename=\"a b.txt\"; filename*=UTF-8''%C3%BC.txt", URL, "ü.txt"),
        ('attachment; filename="a\\"b.txt"', URL, 'a"b.txt'),
        ("attachment; filename=.bashrc", URL, "bashrc"),
        ("attachment; filename=..", URL, "f00"),
        ("", "http://server/", "download"),
        ("", "http://server/a%2F..%2Fetc/", "etc"),
    ],
)
def test_names_lead_nowhere_and_hide_nothing(disposition: str, url: str, name: str) -> None:
    assert safe_name(HttpReply(200, [("content-disposition", disposition)]), url) == name


def test_what_cant_be_written_is_told_in_words(world: FileWorld, directory: Path) -> None:
    with pytest.raises(TargetUnwritable):
        world.get(directory / "nowhere/file")


def test_what_isnt_there_is_told(world: FileWorld, target: Path) -> None:
    world.fails(answer(404))
    with pytest.raises(NothingThere):
        world.get(target)


def test_into_a_stream_it_goes_on_within_the_call_and_is_checked(world: FileWorld) -> None:
    out = io.BytesIO()
    world.fails(cut_after(7000), LOST_BEFORE, cut_after(5))
    done = world.run(get_into_stream(world.transfer(address=URL), out))
    assert (out.getvalue(), done.checked, done.size) == (DATA, True, len(DATA))


def test_into_a_stream_another_file_is_never_spliced(world: FileWorld) -> None:
    world.fails(cut_after(7000))
    world.before = lambda exchange: setattr(world, "tag", f'"{len(world.requests)}"')
    out = io.BytesIO()
    with pytest.raises(TargetUnwritable, match="can't be taken back"):
        world.run(get_into_stream(world.transfer(address=URL), out))
    assert out.getvalue() == DATA[:7000]


FAULTS = st.one_of(st.none(), st.just(LOST_BEFORE), st.integers(0, len(DATA)).map(cut_after), st.just(answer(503)))


@settings(max_examples=60)
@given(st.lists(FAULTS, max_size=20))
def test_random_failures_end_byte_identical(faults: list[Fault | None]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        world = FileWorld(StateFile(Path(path) / "state.json"))
        world.fails(*faults)
        world.get(Path(path) / "file")
        assert (Path(path) / "file").read_bytes() == DATA

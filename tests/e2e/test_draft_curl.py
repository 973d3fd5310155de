"""curl as a client of the draft: with one header an upload can be resumed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from . import tools
from .daemon import BOUND, Daemon, eventually
from .draft_client import Draft
from .tus import pattern

DATA = pattern(3_000_000, seed=180)
FLAGS = ("--h2c",)
VERSION = ("-H", "Upload-Draft-Interop-Version: 10")


def curl(*arguments: str, cwd: Path, fails: bool = False) -> str:
    """What it prints: the heads that it sent and got."""
    command = [tools.need("curl"), "-sSv", "--max-time", "60", *VERSION, *arguments]
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOUND, check=False
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stdout + done.stderr


def shown(said: str, field: str) -> str:
    """The first value of that field among the heads that came."""
    found = re.search(rf"^< {field}: (\S+)", said, re.MULTILINE | re.IGNORECASE)
    assert found is not None, said
    return found[1]


def send_the_rest(daemon: Daemon, path: str, source: Path, http: str = "--http1.1") -> int:
    """HEAD, then PATCH; the offset that it went on from."""
    url = daemon.origin + path
    offset = int(shown(curl(http, "-I", url, cwd=source.parent), "upload-offset"))
    rest = source.parent / "rest.bin"
    rest.write_bytes(source.read_bytes()[offset:])
    fields = ("Upload-Complete: ?1", f"Upload-Offset: {offset}", "Content-Type: application/partial-upload")
    headers = [word for field in fields for word in ("-H", field)]
    said = curl(http, "-X", "PATCH", *headers, "--data-binary", "@rest.bin", url, cwd=source.parent)
    assert shown(said, "upload-complete") == "?1"
    return offset


@pytest.mark.parametrize("http", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("way", [("--data-binary", "@big.bin"), ("-T", "big.bin")])
def test_a_whole_file_shows_the_104(daemon: Daemon, source: Path, http: str, way: tuple[str, ...]) -> None:
    said = curl(http, "-X", "POST", "-H", "Upload-Complete: ?1", *way, f"{daemon.origin}/files", cwd=source.parent)
    assert re.search(r"^< HTTP/\S+ 104", said, re.MULTILINE), said
    assert re.search(r"^< HTTP/\S+ 200", said, re.MULTILINE), said
    path = urlsplit(shown(said, "location")).path
    assert Draft(daemon.port).content(path) == DATA


def test_a_transfer_that_was_cut_goes_on_from_the_offset(daemon: Daemon, source: Path) -> None:
    """`-C` would send a Content-Range; `tail -c` gives curl the rest of the file."""
    draft = Draft(daemon.port)
    with draft.begin("POST", None, draft.creation(), len(DATA)) as transfer:
        path = transfer.resumption()
        transfer.send(DATA[:1_000_000])
    eventually(lambda: draft.offset(path))
    send_the_rest(daemon, path, source)
    assert draft.content(path) == DATA


@pytest.mark.parametrize("http", ["--http1.1", "--http2-prior-knowledge"])
def test_a_slow_curl_that_is_killed_goes_on_at_the_upload_that_its_104_named(
    daemon: Daemon, source: Path, http: str
) -> None:
    fields = (*VERSION, "-H", "Upload-Complete: ?1", "-H", "Expect:")
    command = [tools.need("curl"), "-sSv", http, "--limit-rate", "200k", *fields, "-T", "big.bin", "-X", "POST"]
    said = ""
    with subprocess.Popen(
        [*command, f"{daemon.origin}/files"],
        cwd=source.parent,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as sender:
        try:
            assert sender.stderr is not None
            while not re.search(r"^< location: ", said, re.MULTILINE | re.IGNORECASE):
                line = sender.stderr.readline()
                assert line, said
                said += line
            path = urlsplit(shown(said, "location")).path
            eventually((daemon.upload_dir / path.removeprefix("/files/")).exists)
        finally:
            sender.kill()
    offset = send_the_rest(daemon, path, source, http)
    assert 0 < offset < len(DATA)
    assert Draft(daemon.port).content(path) == DATA

"""curl, with the commands of the README's first screen, and a few that people type by themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from . import tools
from .daemon import BOUND, Daemon
from .readme import upload_with_curl
from .tus import Tus, pattern

DATA = pattern(5_000_000, seed=16)


def curl(daemon: Daemon, *arguments: str, cwd: Path, fails: bool = False) -> str:
    program = tools.need("curl")
    done = subprocess.run(
        [program, "-sS", "-i", "--max-time", "60", "-H", "Tus-Resumable: 1.0.0", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stdout


def test_the_commands_of_the_readme(daemon: Daemon, tus: Tus, source: Path) -> None:
    done = upload_with_curl(daemon, source, 2_000_000)
    assert done.returncode == 0, done.stderr
    assert "the server has 2000000 bytes" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"intact: {daemon.url}")
    path = "/files/" + done.stdout.rsplit("/", 1)[-1].strip()
    assert (daemon.upload_dir / path.removeprefix("/files/")).read_bytes() == DATA
    assert "filename YmlnLmJpbg==" in tus.head(path)["upload-metadata"]


@pytest.mark.parametrize("way", [("--data-binary", "@big.bin"), ("-T", "big.bin"), ("-T", "big.bin", "--no-buffer")])
def test_a_whole_file_in_one_request(daemon: Daemon, tus: Tus, source: Path, way: tuple[str, ...]) -> None:
    """curl sends Expect: 100-continue by itself with bodies of this size."""
    path = tus.create(len(DATA))
    typed = ("-H", "Upload-Offset: 0", "-H", "Content-Type: application/offset+octet-stream")
    out = curl(daemon, "-X", "PATCH", *typed, *way, daemon.origin + path, cwd=source.parent)
    assert f"Upload-Offset: {len(DATA)}".lower() in out.lower()
    assert tus.content(path) == DATA


def test_a_refusal_reaches_curl(daemon: Daemon, tus: Tus, source: Path) -> None:
    path = tus.create(len(DATA))
    typed = ("-H", "Upload-Offset: 7", "-H", "Content-Type: application/offset+octet-stream", "-H", "Expect:")
    out = curl(daemon, "-X", "PATCH", *typed, "-T", "big.bin", daemon.origin + path, cwd=source.parent)
    assert out.startswith("HTTP/1.1 409 ")
    assert '"status": 409' in out


def test_a_rate_limited_sender_that_is_cut_off_goes_on(daemon: Daemon, tus: Tus, source: Path) -> None:
    path = tus.create(len(DATA))
    typed = ("-X", "PATCH", "-H", "Content-Type: application/offset+octet-stream")
    limited = ("--limit-rate", "1M", "--max-time", "2", "-H", "Upload-Offset: 0", "-T", "big.bin")
    curl(daemon, *typed, *limited, daemon.origin + path, cwd=source.parent, fails=True)
    offset = tus.offset(path)
    assert 0 < offset < len(DATA)
    (source.parent / "rest").write_bytes(DATA[offset:])
    curl(daemon, *typed, "-H", f"Upload-Offset: {offset}", "-T", "rest", daemon.origin + path, cwd=source.parent)
    assert tus.content(path) == DATA


def test_a_download_keeps_the_name(daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    path = tus.create(3, {"Upload-Metadata": "filename YSBiLnR4dA=="}, b"abc")
    program = tools.need("curl")
    subprocess.run([program, "-sSOJ", daemon.origin + path], cwd=tmp_path, check=True, timeout=BOUND)
    assert (tmp_path / "a b.txt").read_bytes() == b"abc"

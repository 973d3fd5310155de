"""examples/upload.py: it goes on where it stopped, whoever was interrupted, and tells a final no at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .daemon import BOUND, ROOT, Daemon, eventually
from .tus import pattern

SIZE = 64 * 1024 * 1024 + 3


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    with Daemon("--max-size", "100M") as daemon:
        yield daemon.start()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(pattern(SIZE, seed=5))
    return path


def client(daemon: Daemon, source: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "examples" / "upload.py"), str(source), "--endpoint", daemon.url, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def received(daemon: Daemon) -> int:
    return sum(path.stat().st_size for path in daemon.upload_dir.iterdir() if path.is_file())


def finished(daemon: Daemon, process: subprocess.Popen[str], source: Path) -> None:
    out, err = process.communicate(timeout=BOUND)
    assert process.returncode == 0, err
    (stored,) = [path for path in daemon.upload_dir.iterdir() if path.is_file()]
    assert out.strip() == daemon.url + stored.name
    assert stored.read_bytes() == source.read_bytes()
    assert not source.with_name("source.bin.upload").exists()


def test_it_goes_on_by_itself_when_the_server_is_killed(own_daemon: Daemon, source: Path) -> None:
    process = client(own_daemon, source, "--chunk-size", "1000000")
    eventually(lambda: received(own_daemon) > 5_000_000)
    own_daemon.restart()
    finished(own_daemon, process, source)


def test_run_again_after_it_was_killed_itself_it_goes_on(own_daemon: Daemon, source: Path) -> None:
    process = client(own_daemon, source, "--chunk-size", "1000000")
    eventually(lambda: received(own_daemon) > 5_000_000)
    process.kill()
    process.communicate(timeout=BOUND)
    finished(own_daemon, client(own_daemon, source), source)


def test_a_final_no_ends_it_with_the_reason_and_status_1(own_daemon: Daemon, tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        file.truncate(101 << 20)
    process = client(own_daemon, big)
    _, err = process.communicate(timeout=BOUND)
    assert process.returncode == 1
    assert "413" in err
    assert "Traceback" not in err

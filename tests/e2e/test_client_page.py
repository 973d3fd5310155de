"""The programs of docs/client.md, as they are there but for the server's address."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .daemon import BOUND, ROOT, Daemon, environment
from .tus import pattern

FLAGS = ("--digest", "sha256", "--remote", "memory://")
DATA = pattern(5_000_003, seed=3)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "film.mp4").write_bytes(DATA)
    return tmp_path


def program(name: str, daemon: Daemon) -> str:
    text = (ROOT / "docs/client.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^<!-- run: {name} -->\n```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found.replace("http://127.0.0.1:8080/files/", daemon.url)


def run(name: str, daemon: Daemon, home: Path) -> str:
    script = home / "it.py"
    script.write_text(program(name, daemon))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=home,
        env=environment({"XDG_STATE_HOME": str(home / "state")}),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["blocking", "deferred"])
def test_a_program_sends_a_file(daemon: Daemon, home: Path, name: str) -> None:
    url = run(name, daemon, home).split()[0]
    assert (daemon.upload_dir / url.rpartition("/")[2]).read_bytes() == DATA


def test_a_program_shows_the_progress_and_receives_it_again(daemon: Daemon, home: Path) -> None:
    said = run("events", daemon, home).splitlines()
    assert "100 %" in said and said[-1] == f"copy.mp4 {len(DATA)}"
    assert (home / "copy.mp4").read_bytes() == DATA


def test_a_program_removes_what_is_unfinished(daemon: Daemon, home: Path) -> None:
    assert run("leftovers", daemon, home) == ""

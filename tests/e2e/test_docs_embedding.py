"""The programs of docs/embedding.md, docs/hooks.md and examples/, run word for word, and uploaded through."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.waiting import eventually

from . import tools
from .daemon import Daemon, environment
from .programs import DATA, PYTHON, TAC, block, example, running
from .tus import Tus, head_bytes, metadata

PAGE = "docs/embedding.md"


def test_the_first_program_has_ten_lines_and_takes_uploads(tmp_path: Path) -> None:
    source = block(PAGE, "first")
    assert len(source.splitlines()) <= 10
    with running(source, tmp_path) as program:
        assert (tmp_path / "uploads" / program.sent()).read_bytes() == DATA
        bash = tools.need("bash")
        tools.need("curl")
        script = block(PAGE, "upload", "sh").replace("8080", str(program.port)).replace("curl ", "curl -fsS ")
        said = tools.run(bash, "-eu", "-o", "pipefail", "-c", script, cwd=tmp_path)
        assert len(said.split()) == 2, "there are two uploads"


@pytest.mark.parametrize("name", ["embed_site.py", "embed_klein.py"])
def test_an_example_takes_uploads_beside_a_page(name: str, tmp_path: Path) -> None:
    with running(example(name), tmp_path) as program:
        upload = program.sent()
        assert (tmp_path / "uploads" / upload).read_bytes() == DATA
        with program.tus().wire() as wire:
            page = wire.send(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").answer()
        assert page.status == 200 and b"Uploads are taken at" in page.body
        if name == "embed_site.py":
            eventually(lambda: f"here is uploads/{upload}, {len(DATA)} bytes" in program.output)
            assert "somebody wants to upload a.txt" in program.output


def test_the_tac_file_takes_uploads(tmp_path: Path) -> None:
    with running(block(PAGE, "tac"), tmp_path, TAC, "uploads.tac") as program:
        assert (tmp_path / "uploads" / program.sent()).read_bytes() == DATA


def test_the_example_of_two_servers_keeps_them_apart(tmp_path: Path) -> None:
    with running(example("server.tac"), tmp_path, TAC, "server.tac") as program:
        for name in ("films", "letters"):
            assert (tmp_path / name / program.sent(f"/{name}/")).read_bytes() == DATA
        assert len([each for each in (tmp_path / "films").iterdir() if not each.name.startswith(".")]) == 1


def test_the_program_with_a_port_of_its_own_takes_uploads(tmp_path: Path) -> None:
    with running(block(PAGE, "port"), tmp_path, PYTHON) as program:
        assert (tmp_path / "uploads" / program.sent()).read_bytes() == DATA


def test_the_module_of_hooks_is_found_in_the_current_directory(tmp_path: Path) -> None:
    daemon = Daemon("--hook", "python:my_hooks", "--guard", "python:my_hooks")
    (daemon.home / "my_hooks.py").write_text(example("my_hooks.py"))
    with daemon.start(), closing(Tus(daemon.port)) as tus:
        head = head_bytes("POST", "/files/", {"Upload-Length": "1", "Upload-Metadata": metadata(filename="a.pdf")})
        with tus.wire() as wire:
            refused = wire.send(head).answer()
        assert refused.status == 415 and b"Only .jpg and .png" in refused.body
        upload = tus.create(len(DATA), {"Upload-Metadata": metadata(filename="a.png")}, DATA).rpartition("/")[2]
        eventually(lambda: f"uploads/{upload} has {len(DATA)} bytes" in daemon.log)
        tus.ask("DELETE", f"/files/{upload}")
        eventually(lambda: f"{upload} is gone: terminated" in daemon.log)
        assert daemon.stop() == 0


def test_the_tests_of_the_docs_pass(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from resumable.testing.pytest_plugin import *\n")
    (tmp_path / "test_uploads.py").write_text(example("test_uploads.py"))
    (tmp_path / "test_deferred.py").write_text(block(PAGE, "deferred"))
    (tmp_path / "my_hooks.py").write_text(example("my_hooks.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:resumable", "--strict-markers"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout

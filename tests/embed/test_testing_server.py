"""The server for people's tests: reports what happens, and ends with its test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from resumable.testing import upload_server
from tests.e2e.daemon import environment
from tests.waiting import answers, eventually

pytestmark = pytest.mark.process


def test_it_reports_events_files_and_its_log(tmp_path: Path) -> None:
    with upload_server(max_size="1K") as server:
        url = server.upload(b"abc", filename="a.txt", kind="text")
        assert url.startswith(server.url)
        created, finished = server.wait_for("created"), server.wait_for("finished", url)
        assert (created.id, finished.id) == (url.rpartition("/")[2],) * 2
        assert (finished.name, finished.length, finished.metadata["kind"]) == ("a.txt", 3, "text")
        assert finished.path.read_bytes() == b"abc"
        assert [each.id for each in server.files] == [finished.id]
        assert [each.kind for each in server.events] == ["created", "finished"]
        with pytest.raises(TimeoutError, match="not within 0 s; events: created"):
            server.wait_for("finished", timeout=0)
        with pytest.raises(RuntimeError, match="answered 413"):
            server.upload(bytes(2000))
        assert "upload directory ready" in server.log
        directory = server.upload_dir
    assert not directory.exists()


def test_two_at_once_have_nothing_in_common() -> None:
    with upload_server() as one, upload_server(base_path="/two/") as two:
        one.upload(b"one")
        assert two.upload(b"two").endswith(two.wait_for("finished").id)
        assert len(one.upload_dir.parts) == len(two.upload_dir.parts) and one.upload_dir != two.upload_dir
        assert len(two.files) == 1


def test_a_server_that_can_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="did you mean max_size"), upload_server(max_sise="1K"):
        pytest.fail("it runs")


def test_it_ends_when_the_process_that_runs_the_tests_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, signal\nfrom resumable.testing import upload_server\n"
        "with upload_server() as server:\n    print(server.url, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script], env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    assert killed.returncode == -9 and killed.stdout.startswith("http://127.0.0.1:")
    port = urlsplit(killed.stdout.strip()).port or 0
    eventually(lambda: not answers(port))


def test_a_test_that_waits_for_an_ended_server_is_told_at_once() -> None:
    with upload_server() as server:
        server.stop()
        with pytest.raises(TimeoutError, match="the upload server has ended"):
            server.wait_for("finished")


def test_the_plugin_imports_nothing_of_the_server() -> None:
    script = (
        "import sys, resumable.testing.pytest_plugin as p\n"
        "print([m for m in sys.modules if m.startswith(('twisted', 'resumable.http', 'resumable.embed'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=180
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr

"""``resumable serve``, and what a start tells people: in a terminal, in a pipe, in the background, of what fails."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.postgres import database

from .commands import command
from .daemon import BOUND, environment, eventually, free_port, run_twistd

WARNING = "there is no access rule"


#: ``resumable`` whose log waits for the block on a busy machine too.
PATIENT = """
import sys
from resumable.daemon import terminal
terminal.PATIENCE = 600.0
from resumable.cli.main import main
sys.exit(main())
"""


class Served:
    """A ``resumable serve`` that runs. ``said``: its output up to now, of a terminal or of a file."""

    def __init__(self, home: Path, arguments: tuple[str, ...], terminal: bool) -> None:
        self._path = home / "said"
        self._main, child = pty.openpty() if terminal else (None, os.open(self._path, os.O_CREAT | os.O_WRONLY))
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PATIENT, "serve", *arguments],
                cwd=home,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=child,
                stderr=subprocess.STDOUT if terminal else None,
                start_new_session=True,
            )
        finally:
            os.close(child)
        self._read = b""
        if self._main is not None:
            os.set_blocking(self._main, False)

    @property
    def said(self) -> str:
        if self._main is None:
            return self._path.read_text()
        with suppress(OSError):  # nothing now, or the other side is closed
            while more := os.read(self._main, 65536):
                self._read += more
        return self._read.decode().replace("\r\n", "\n")

    def wait_for(self, words: str) -> str:
        eventually(lambda: words in self.said or self.process.poll() is not None, BOUND)
        assert words in self.said, self.said
        return self.said

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(BOUND)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(BOUND)
        if self._main is not None:
            os.close(self._main)


@contextmanager
def serving(home: Path, *arguments: str, terminal: bool = False) -> Iterator[Served]:
    with closing(Served(home, arguments, terminal)) as served:
        yield served


def fields(said: str) -> Mapping[str, str]:
    """The block, the first line of each label."""
    return dict(re.findall(r"^  (\w+) +(\S.*)$", said, re.MULTILINE))


def uploads_to(url: str) -> bool:
    """Whether an upload to that URL comes back as it was."""
    place = urlsplit(url)
    with closing(http.client.HTTPConnection(place.hostname or "", place.port, timeout=BOUND)) as link:
        creation = {"Tus-Resumable": "1.0.0", "Upload-Length": "3", "Content-Type": "application/offset+octet-stream"}
        link.request("POST", place.path, b"abc", creation)
        answer = link.getresponse()
        answer.read()
        link.request("GET", urlsplit(answer.headers["Location"]).path)
        return link.getresponse().read() == b"abc"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_serves_where_it_says_and_sigterm_ends_it_well(host: str, tmp_path: Path) -> None:
    with serving(tmp_path, "--host", host, "--port", "0", "--remote", "memory://far?required=no") as served:
        told = fields(served.wait_for("Ctrl-C"))
        assert uploads_to(told["uploads"])
        assert told["directory"] == str(tmp_path / "uploads") and told["remotes"] == "memory://far (best effort)"
        assert told["access"] == "anybody on this machine may upload"
        assert WARNING not in served.said
        assert command("ls", cwd=tmp_path).returncode == 0
        assert served.stop() == 0


def test_in_a_terminal_the_block_comes_before_the_log_which_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "127.0.0.1", "--port", "0", terminal=True) as served:
        said = served.wait_for("upload directory ready")
        assert said.startswith("resumable ")
        assert said.index("Ctrl-C") < said.index("starting up") < said.index("uploads are taken at")
        assert served.stop() == 0
        assert "every byte that was received is committed" in served.said


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", 0), ("0.0.0.0", 1)])
def test_one_warning_says_that_everybody_may_upload(host: str, warned: int, tmp_path: Path) -> None:
    with serving(tmp_path, "--host", host, "--port", "0", "--log-level", "warn") as served:
        served.wait_for("Ctrl-C")
        assert served.stop() == 0
        assert served.said.count(WARNING) == warned


def test_with_json_each_line_of_the_output_is_json(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, "--host", "127.0.0.1", "--port", str(port), "--log-format", "json") as served:
        served.wait_for("upload directory ready")
        assert uploads_to(f"http://127.0.0.1:{port}/files/"), "so it runs by now"
        assert served.stop() == 0
        lines = [json.loads(line) for line in served.said.splitlines()]
        assert any("uploads are taken" in line["message"] for line in lines)


@pytest.mark.parametrize("terminal", [True, False])
def test_workers_are_told_of_once(terminal: bool, tmp_path: Path) -> None:
    shared = ("--catalog", database(), "--run-dir", str(tmp_path / "run"), "--workers", "2")
    with serving(tmp_path, "--host", "0.0.0.0", "--port", "0", *shared, terminal=terminal) as served:
        said = served.wait_for("2 workers take uploads")
        said = served.wait_for("Ctrl-C")
        assert said.count("Ctrl-C") == 1 and uploads_to(fields(said)["uploads"])
        if terminal:
            assert said.startswith("resumable ")
        assert served.stop() == 0
        assert served.said.count(WARNING) == 1


def test_an_interrupt_ends_it_as_an_interrupt(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "127.0.0.1", "--port", "0") as served:
        served.wait_for("Ctrl-C")
        assert served.stop(signal.SIGINT) in (-signal.SIGINT, 0), "0 where the tests' parent ignores interrupts"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--prot", "1"], 2, "did you mean --port?"),
        (["-n"], 2, "option -n not recognized"),
        (["--port", "x"], 2, "a port number"),
        (["--host", "::1", "--listen", "tcp:1"], 2, "--host is for --port"),
        (["--upload-dir", "/proc/nowhere"], 1, "can't be written"),
        (["--host", "192.0.2.1", "--port", "8080"], 1, "this machine has no such address"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], status: int, words: str, tmp_path: Path) -> None:
    done = command("serve", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1), done.stderr
    assert done.stderr.startswith("resumable") and words in done.stderr


def test_a_misspelt_variable_is_told(tmp_path: Path) -> None:
    done = command("serve", cwd=tmp_path, env={"RESUMABLE_HOTS": "::1"})
    assert done.returncode == 2 and "did you mean RESUMABLE_HOST?" in done.stderr


@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_help_is_the_same_for_both_programs(flag: str, tmp_path: Path) -> None:
    ours = command("serve", flag, cwd=tmp_path).stdout
    theirs = run_twistd("resumable", flag, cwd=tmp_path).stdout
    assert ours.splitlines()[0] == "Usage: resumable serve [options]"
    assert ours.splitlines()[1:] == theirs.splitlines()[1:] and theirs.startswith("Usage: ")


def test_in_the_background_the_parent_tells_where_it_went(tmp_path: Path) -> None:
    port, pid_file, log = free_port(), tmp_path / "pid", tmp_path / "log"
    arguments = ("--host", "127.0.0.1", "--port", str(port))
    done = run_twistd(f"--pidfile={pid_file}", f"--logfile={log}", "resumable", *arguments, cwd=tmp_path)
    try:
        assert (done.returncode, done.stderr) == (0, "")
        told = fields(done.stdout)
        assert told["uploads"] == f"http://127.0.0.1:{port}/files/"
        assert told["log"] == str(log) and told["process"] == f"{pid_file.read_text()}, in {pid_file}"
        assert uploads_to(told["uploads"])
        subprocess.run(["sh", "-c", told["stop"]], check=True, timeout=BOUND)
        assert eventually(lambda: not pid_file.exists(), BOUND)
    finally:
        if pid_file.exists():
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(pid_file.read_text()), signal.SIGKILL)

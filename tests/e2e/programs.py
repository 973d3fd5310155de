"""Programs of the docs and examples, run as they stand but for their port, and uploaded through.

Invariant: no process outlives its test; it has a directory of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_until_it_listens

from .daemon import BOUND, ROOT, environment, free_port, twistd_command
from .tus import Tus, metadata, pattern

DATA = pattern(300_000, seed=17)
PYTHON = (sys.executable,)
TAC = (*twistd_command(), "-n", "--pidfile=", "-y")


def block(page: str, mark: str, language: str = "python") -> str:
    """The block after ``<!-- run: mark -->``."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"<!-- run: {mark} -->\n```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"{page} has {len(found)} blocks marked {mark}"
    return str(found[0])


def example(name: str) -> str:
    return (ROOT / "examples" / name).read_text(encoding="utf-8")


class Program:
    """A program that runs. ``output``: what it has printed up to now."""

    def __init__(self, port: int, home: Path, process: subprocess.Popen[bytes]) -> None:
        self.port, self.home, self.process = port, home, process

    @property
    def output(self) -> str:
        return (self.home / "output").read_text(errors="replace")

    def tus(self, base: str = "/files/") -> Tus:
        return Tus(self.port, base)

    def sent(self, base: str = "/files/", data: bytes = DATA, name: str = "a.txt") -> str:
        """The id of an upload that was created and sent through it."""
        tus = self.tus(base)
        try:
            return tus.create(len(data), {"Upload-Metadata": metadata(filename=name)}, data).rpartition("/")[2]
        finally:
            tus.close()


@contextmanager
def running(source: str, home: Path, command: Sequence[str] = PYTHON, name: str = "program.py") -> Iterator[Program]:
    """The program with another port than 8080, until it has ended by SIGTERM without an error."""
    port = free_port()
    (home / name).write_text(source.replace("8080", str(port)))
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(
            [*command, name], cwd=home, env=environment(), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    program = Program(port, home, process)
    try:
        try:
            wait_until_it_listens(port, process)
        except RuntimeError as error:
            raise AssertionError(program.output) from error
        yield program
        process.send_signal(signal.SIGTERM)
        process.wait(BOUND)
        assert "Traceback" not in program.output, program.output
    finally:
        process.kill()
        process.wait()
    assert os.path.isdir(home)

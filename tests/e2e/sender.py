"""`resumable put` and `resumable get` as processes of their own: followed by their JSON, cut, and run again."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .daemon import BOUND, environment

Event = dict[str, Any]
COMMAND = (sys.executable, "-m", "resumable")


class Sender:
    """The command line of one user, with a state of its own below ``home``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {"XDG_STATE_HOME": str(home / "state"), "TERM": "xterm", "COLUMNS": ""}

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in environment({**self.env, **more}).items() if value}

    def run(self, *arguments: str, given: bytes | None = None, **env: str) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; it never shows a traceback."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.home,
            env=self._environment(env),
            input=b"" if given is None else given,
            capture_output=True,
            timeout=BOUND,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    def said(self, *arguments: str, status: int = 1, **env: str) -> str:
        """The one line on standard error of a command that ends so."""
        done = self.run(*arguments, **env)
        assert (done.returncode, done.stdout) == (status, b""), done
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("resumable: ")
        return line.removeprefix("resumable: ")

    def events(self, *arguments: str, status: int = 0) -> list[Event]:
        """All that it tells in JSON."""
        done = self.run(*arguments, "--json")
        assert done.returncode == status, (done.stdout, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def begun(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command under way, with its JSON in a pipe. SIGINT ends it, also where this process ignores it."""
        return subprocess.Popen(
            [*COMMAND, *arguments, "--json"],
            cwd=self.home,
            env=self._environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )

    def cut(self, number: int, *arguments: str, when: Callable[[Event], bool]) -> tuple[int, str]:
        """Send it this signal as soon as an event says so. Its status, and what it says."""
        process = self.begun(*arguments)
        until(process, when)
        process.send_signal(number)
        _, said = process.communicate(timeout=BOUND)
        return process.returncode, said.decode()


def until(process: subprocess.Popen[bytes], when: Callable[[Event], bool]) -> Event:
    """The first event that is so; AssertionError where it ends before."""
    assert process.stdout is not None
    for line in process.stdout:
        event: Event = json.loads(line)
        if when(event):
            return event
    assert process.stderr is not None
    raise AssertionError(f"it has ended: {process.stderr.read().decode()}")


def in_terminal(sender: Sender, *arguments: str, width: int = 88) -> tuple[int, list[str]]:
    """Run it in a terminal so wide. Its status, and all lines that were ever drawn, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=sender.home,
        env=sender._environment({}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    drawn = b""
    try:
        while data := os.read(ours, 65536):
            drawn += data
    except OSError:  # Linux's way to say that nobody is there any more
        pass
    finally:
        os.close(ours)
    colourless = re.sub(r"\x1b\[[0-9;]*m", "", drawn.decode())
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", colourless)
    return process.wait(BOUND), [line for line in re.split(r"[\r\n]+", text) if line.strip()]

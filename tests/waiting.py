"""How tests wait for what another process does: nothing else here looks at the clock; and which take long."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pytest

T = TypeVar("T")

long = pytest.mark.skipif("RESUMABLE_LONG" not in os.environ, reason="takes long: set RESUMABLE_LONG=1")
"""Marks tests that are like a shorter one, and take longer."""

BOUND = 180.0
"""Seconds after which what has not come never will: they end a test that fails, and hold on a busy machine."""


def eventually(ask: Callable[[], T | None], bound: float = BOUND) -> T:
    """The first true answer of ``ask``, asked again and again for at most ``bound`` seconds; AssertionError else."""
    until = time.monotonic() + bound
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"still {answer!r} after {bound} s")
        threading.Event().wait(0.02)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on.

    Not one of those that the system gives to clients: any connection could take it before somebody listens on it.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answers(port: int) -> bool:
    """Whether somebody listens on this port of the loopback interface."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    """Raises RuntimeError when the process ends before it listens."""
    eventually(lambda: answers(port) or process.poll() is not None)
    if process.poll() is not None:
        raise RuntimeError(f"{process.args!r} did not start")

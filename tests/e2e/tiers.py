"""Uploads that go on to a store which fails, or whose daemon is killed."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from .daemon import Daemon, eventually
from .stores import MIB, Proxy
from .tus import Tus, pattern

SMALL, LARGE = pattern(100_003, seed=1), pattern(11 * MIB + 5, seed=2)
MOST = 12
"""Requests for an upload that takes 5 undisturbed, after one kill: parts in flight and what is looked up."""
STEPS = {"before": "refuse", "middle": "reset", "after": "lose"}
EACH = 5
"""So many requests more for each fault: asking what is there, the requests that were in flight beside it, once more."""


def send(tus: Tus, data: bytes) -> str:
    """In three appends, each of which has to go well."""
    path = tus.create(len(data))
    third = len(data) // 3
    for at, end in ((0, third), (third, 2 * third), (2 * third, len(data))):
        sent = tus.patch(path, at, data[at:end])
        assert (sent.status, sent.offset) == (204, end)
    return path


def kill_in(daemon: Daemon, proxy: Proxy, step: str, skip: int, operation: str = "*") -> None:
    """At the next request but ``skip``."""

    def kill() -> None:
        assert daemon.process is not None
        os.killpg(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait()

    proxy.trouble(operation, STEPS[step], do=kill, skip=skip)


def survived(daemon: Daemon) -> None:
    """It was killed, and starts again."""
    eventually(lambda: not daemon.alive)
    daemon.kill()
    daemon.start()


def begun(tus: Tus, data: bytes) -> str:
    """An upload of which everything has been sent, and perhaps not answered."""
    path = tus.create(len(data))
    with suppress(OSError, EOFError):
        tus.patch(path, 0, data)
    return path

"""Which tests need other processes, and which only this one.

Invariant: what `make quick` runs starts no process: a test that does so without the marker `process` fails, wherever it
is run.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

HERE = Path(__file__).parent
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")
#: Everything in these works on real daemons.
OF_PROCESSES = (HERE / "e2e", HERE / "soak")
STARTING = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"})

_alone: list[str] = []
"""The test that runs and may start no process."""


def pytest_configure() -> None:
    """With SIGINT ignored, as in the background of a script, it stays so here; daemons that are sent one start anew."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)  # unlike SIG_IGN, no child inherits it
    # pytest asks for Twisted's version before each test, which reads a file for a millisecond
    importlib.metadata.version = functools.cache(importlib.metadata.version)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(each) for each in OF_PROCESSES):
            item.add_marker("process")


def pytest_collection_finish() -> None:
    gc.freeze()  # the garbage collector needn't look through thousands of tests again and again


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if item.get_closest_marker("process") is None:
        _alone.append(item.nodeid)
    try:
        return (yield)
    finally:
        _alone.clear()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory of the test's own, in memory where the system allows that."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as path:
        yield Path(path)


def _watch(event: str, _: tuple[Any, ...]) -> None:
    if event in STARTING and _alone:
        raise RuntimeError(f"{_alone[0]} starts a process: mark it `process`")


sys.addaudithook(_watch)

"""A machine for each test, its catalog in memory where the system allows that."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from tests.uploads.harness import Machine, Server, machines

_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_MEMORY) as path:
        yield Path(path)


@pytest.fixture
def machine(directory: Path) -> Machine:
    return next(machines(directory))


@pytest.fixture
def serve(machine: Machine) -> Iterator[Callable[..., Server]]:
    """Starts a server, on ``machine`` or on the one given; all are wound up after the test."""
    servers: list[Server] = []

    def start(on: Machine = machine, **options: Any) -> Server:
        servers.append(Server(on, **options))
        return servers[-1].start()

    yield start
    for server in servers:
        server.bury()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """What is logged."""
    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)

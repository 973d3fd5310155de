"""Fixtures: one daemon for each module, with the module's FLAGS, and a client for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .daemon import Daemon
from .tus import Tus


@pytest.fixture(scope="module")
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A running daemon with the flags that the module names in FLAGS; its log must stay free of complaints."""
    flags: tuple[str, ...] = getattr(request.module, "FLAGS", ())
    with Daemon(*flags) as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


@pytest.fixture
def tus(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Tus]:
    """A client of the module's daemon, of the class in its CLIENT; starts it again if a test before left it dead."""
    if not daemon.alive:
        daemon.start()
    client = daemon.attach(getattr(request.module, "CLIENT", Tus)(daemon.port))
    yield client
    client.close()

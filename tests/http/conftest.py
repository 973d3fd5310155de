"""Fixtures: servers on real sockets; a client of the draft."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from resumable.http.request import StreamingRequest
from tests.http.draft_client import Draft
from tests.http.sockets import Server
from tests.uploads.harness import Server as Harness


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers with such handlers; all are stopped after the test."""
    servers: list[Server] = []

    def start(handler: Callable[[StreamingRequest], object], **options: Any) -> Server:
        servers.append(Server(handler, **options))
        return servers[-1]

    yield start
    for server in servers:
        pytest_twisted.blockon(Deferred.fromCoroutine(server.stop()))


@pytest.fixture
def draft(server: Harness) -> Draft:
    """A connection to the module's server."""
    return Draft(server)

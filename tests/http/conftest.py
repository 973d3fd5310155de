"""What tests over real sockets share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from resumable.http.request import StreamingRequest
from tests.http.sockets import Server


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

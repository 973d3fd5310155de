"""A machine for each test, its catalog in memory where the system allows that; servers, with and without hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from resumable.uploads.context import Questions
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody, FakeHooks
from tests.uploads.final_requests import WITHIN
from tests.uploads.harness import Server
from tests.uploads.machine import Machine, machines
from tests.uploads.object_cluster import ObjectCluster, Shape, small_sizes


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


@pytest.fixture(params=["reads", "direct"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of the bytes of bodies with a length: written to the sink, or taken by it from a socket."""
    monkeypatch.setattr(FakeBody, "direct", request.param == "direct")


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


@pytest.fixture
def hooked(serve):
    """Starts a server with such hooks."""

    def start(*kinds, replication=None, on=None, limits=None, progress=None, clock=None, **says):
        hooks = FakeHooks(*kinds, **says)
        options = {"replication": replication, "limits": limits or UploadLimits(expire_after=3600.0)}
        options |= {"progress": progress or hooks, "clock": clock}
        options |= {} if on is None else {"on": on}
        server = serve(deliverers=["outside"], questions=Questions(hooks), **options)
        server.hooks = hooks
        return server

    return start


@pytest.fixture
def finish_hooked(serve):
    """Starts a server with hooks that are asked before an upload is finished, and say that."""

    def start(*says, create=(), **options):
        hooks = FakeHooks(finish=says, **({"create": create} if create else {}))
        limits = UploadLimits(final_timeout=WITHIN, retry_after=7)
        server = serve(**{"questions": Questions(hooks), "limits": limits, **options})
        server.hooks = hooks
        return server

    return start


@pytest.fixture
def make(directory: Path) -> Iterator[Callable[..., ObjectCluster]]:
    """Makes a cluster of such a store; all scratch is given back at the end."""
    made: list[ObjectCluster] = []

    def start(shape: Shape | None = None) -> ObjectCluster:
        made.append(ObjectCluster(directory, shape=shape or Shape()))
        return made[-1]

    with small_sizes():
        yield start
        for cluster in made:
            cluster.bury()
            cluster.check_given_back()


@pytest.fixture
def cluster(make: Callable[..., ObjectCluster]) -> ObjectCluster:
    return make()

"""pytest's plugin, which is there wherever the package is installed: the fixture ``upload_server``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from resumable.testing.running_server import RunningServer
from resumable.testing.running_server import upload_server as running


def pytest_configure(config: pytest.Config) -> None:
    """Known to ``--strict-markers``."""
    config.addinivalue_line("markers", "upload_server(**options): options of the fixture upload_server's server")


@pytest.fixture
def upload_server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """A real upload server with an empty directory; its options are those of ``@pytest.mark.upload_server(...)``."""
    options: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("upload_server"))):
        options |= mark.kwargs
    with running(**options) as server:
        yield server

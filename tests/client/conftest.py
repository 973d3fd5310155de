"""A world for each test, with a state file of its own; no wire outlives its test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.wires import close_wires
from tests.client.world import World, new_world


@pytest.fixture
def world(directory: Path) -> World:
    return new_world(directory)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """The wires of the test are closed."""
    yield
    close_wires()

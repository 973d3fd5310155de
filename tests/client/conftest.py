"""A world for each test, with a state file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.world import World, new_world


@pytest.fixture
def world(directory: Path) -> World:
    return new_world(directory)

"""Rigs for the engine between the tiers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.replication.rig import Rig

_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_MEMORY) as path:
        yield Path(path)


@pytest.fixture
def make(directory: Path) -> Callable[..., Rig]:
    """Makes a rig and starts it."""
    return lambda *args, **options: Rig(directory, *args, **options).start()


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Any:
    return make()

"""Rigs for replication."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.replication.rig import Rig


@pytest.fixture
def make(directory: Path) -> Iterator[Callable[..., Rig]]:
    """Makes a rig and starts it; all are wound up after the test."""
    rigs: list[Rig] = []

    def start(*args: Any, **options: Any) -> Rig:
        place = directory / f"rig-{len(rigs)}"
        place.mkdir()
        rigs.append(Rig(place, *args, **options))
        return rigs[-1].start()

    yield start
    for rig in rigs:
        rig.bury()


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Rig:
    return make()

"""Servers that are closed after the test."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.doctor.front import Front


@pytest.fixture
def front():
    """Makes a Front; all are closed after the test."""
    fronts: list[Front] = []

    async def make(**answers: bytes) -> Front:
        fronts.append(await Front(answers).open())
        return fronts[-1]

    yield make
    for each in fronts:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))

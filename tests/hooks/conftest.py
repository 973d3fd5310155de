"""Servers that are closed after the test."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from tests.hooks.servers import Rig


@pytest.fixture
def rig():
    """Makes a Rig; all are closed after the test."""
    rigs: list[Rig] = []

    def make(*args, **kwargs) -> Rig:
        rigs.append(Rig(*args, **kwargs))
        return rigs[-1]

    yield make
    for each in rigs:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))


@pytest.fixture
def logged():
    """What was logged meanwhile."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)

"""That the database can't be used is told once, and once that it works again, however many connections find it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from resumable.catalog.postgres.outage import AGAIN, FORGOTTEN, CatalogOutage
from resumable.model.errors import CatalogUnavailable
from tests.daemon.site_rig import Listening

AWAY = CatalogUnavailable("the server is away", no_space=True)


class Scene:
    def __init__(self, events: list[dict[str, object]]) -> None:
        self.clock = Clock()
        self.it = CatalogOutage(self.clock.seconds)
        self._events = events

    @property
    def said(self) -> list[tuple[object, ...]]:
        return [tuple(each.get(name) for name in ("reason", "no_space", "count", "seconds")) for each in self._events]


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Listening() as events:
        yield Scene(events)


def test_it_is_told_at_its_beginning_and_at_its_end_with_the_number_of_failures(scene: Scene) -> None:
    for connection in ("one", "other", "one", "one"):
        scene.clock.advance(2)
        scene.it.failed(connection, AWAY)
    begun = ("the server is away", True, None, None)
    assert scene.said == [begun]
    scene.it.worked("third")
    scene.it.worked("one")
    assert scene.said == [begun], "the other one doesn't work yet"
    scene.clock.advance(4)
    scene.it.worked("other")
    scene.it.worked("one")
    assert scene.said == [begun, (None, None, 4, 10.0)]


def test_the_next_one_is_told_again(scene: Scene) -> None:
    for _ in range(2):
        scene.it.failed("one", AWAY)
        scene.it.worked("one")
    assert len(scene.said) == 4 and scene.said[3][2] == 1


def test_a_long_one_is_told_now_and_then_with_the_reason_by_then(scene: Scene) -> None:
    for seconds in range(0, 3 * int(AGAIN), 10):
        reason = "the server is away" if seconds < AGAIN / 2 else "it refuses the password"
        scene.it.failed(f"{seconds % 20}", CatalogUnavailable(reason))
        scene.clock.advance(10)
    assert [each[0] for each in scene.said] == ["the server is away", *["it refuses the password"] * 2]
    for connection in ("0", "10"):
        scene.it.worked(connection)
    assert scene.said[-1][2:] == (18, 3 * AGAIN)


def test_a_connection_that_is_not_used_any_more_hides_no_later_one(scene: Scene) -> None:
    scene.it.failed("unused", AWAY)
    scene.clock.advance(FORGOTTEN)
    scene.it.failed("one", AWAY)
    assert len(scene.said) == 1
    scene.clock.advance(FORGOTTEN + 1)
    scene.it.failed("one", AWAY)
    assert len(scene.said) == 2

"""What a worker knows of the others: claims that it drops, news that it waits for, messages that it hears."""

from __future__ import annotations

import pytest
from twisted.internet.defer import fail
from twisted.internet.task import Clock

from resumable.model.errors import CatalogUnavailable
from resumable.testing.fake_cluster import FakeCluster
from resumable.uploads.other_workers import DRAIN, LOOK, OtherWorkers
from resumable.uploads.shared_holds import SharedRoles


@pytest.fixture
def workers():
    cluster, clock = FakeCluster(), Clock()
    worker = cluster.join(clock)
    return cluster, clock, OtherWorkers(clock, worker, worker, SharedRoles(worker, clock))


def test_a_claim_that_the_catalog_could_not_drop_is_dropped_later(workers):
    cluster, clock, shared = workers
    shared.claim("final:1")
    clock.advance(0)
    cluster.down = True
    shared.drop("final:1")
    clock.advance(0)
    assert "final:1" in cluster.claims
    cluster.down = False
    clock.advance(LOOK)
    assert cluster.claims == {}
    assert clock.getDelayedCalls() == [] or clock.advance(0) is None


def test_a_claim_that_was_taken_without_an_answer_is_dropped_later(workers):
    """Nobody works on it; and no other worker could, as long as this one lives."""
    cluster, clock, shared = workers
    taken = shared.claim("final:1")
    clock.advance(0)
    assert taken.result is True
    shared._claims._answer = lambda work: (work(), fail(CatalogUnavailable("the answer is lost")))[1]
    assert shared.claim("final:2").addErrback(lambda failure: failure.trap(CatalogUnavailable)).called
    assert set(cluster.claims) == {"final:1", "final:2"}
    del shared._claims._answer
    clock.advance(LOOK)
    clock.advance(0)
    assert set(cluster.claims) == {"final:1"}


def test_a_claim_that_is_taken_again_meanwhile_is_kept(workers):
    cluster, clock, shared = workers
    shared.claim("final:1")
    cluster.down = True
    shared.drop("final:1")
    cluster.down = False
    shared.claim("final:1")
    clock.advance(LOOK)
    assert "final:1" in cluster.claims


def test_a_wait_for_news_leaves_nothing_behind(workers):
    _, clock, shared = workers
    waits = [shared.news("an-upload") for _ in range(3)]
    fired = []
    waits[0].addErrback(lambda _: None).cancel()
    waits[1].addCallback(fired.append)
    shared.heard("an-upload")
    assert fired == [None]
    assert shared._waiting == {} and clock.getDelayedCalls() == []


def test_a_message_that_cannot_be_followed_is_logged_and_ends_nothing(workers, logged):
    cluster, clock, shared = workers
    other = cluster.join(clock)
    heard = []
    shared.listen(DRAIN, lambda _: 1 / 0)
    shared.listen(DRAIN, heard.append)
    other.tell(None, DRAIN, "x")
    clock.advance(0)
    assert heard == ["x"]
    assert any("could not be followed" in str(each.get("log_format")) for each in logged)

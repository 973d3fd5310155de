"""Pauses, the breaker, and what a failure means: without any I/O."""

from __future__ import annotations

from random import Random

import pytest
from attrs import evolve

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Replica, ReplicaState, Upload
from resumable.remotes import errors
from resumable.remotes.interfaces import RegionLost
from resumable.remotes.plan import ObjectTooLarge, Plan, Step
from resumable.replication.context import ReplicationLimits
from resumable.replication.failures import (
    LONGEST_ASKED,
    Backoff,
    TransferFailure,
    after_failure,
    classified,
    reason_to_park,
)
from resumable.replication.health import Breaker
from resumable.replication.progress import ReplicaProgress

NOW = 1000.0


class Least(Random):
    """Draws the smallest number."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Most(Random):
    """Draws the largest."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_pauses_double_up_to_a_bound_and_are_anything_below():
    backoff = Backoff(1.0, 60.0)
    assert [backoff.pause(n, Most()) for n in (1, 2, 3, 7, 8, 5000)] == [1, 2, 4, 60, 60, 60]
    assert [backoff.pause(n, Least()) for n in (1, 8)] == [0, 0]
    drawn = [backoff.pause(6, Random(seed)) for seed in range(200)]
    assert max(drawn) > 24 > 8 > min(drawn) >= 0
    assert max(drawn) <= 32


def test_a_pause_is_at_least_what_the_store_asked_for_within_reason():
    assert Backoff(1.0, 60.0).pause(1, Least(), 90.0) == 90.0
    assert Backoff(1.0, 60.0).pause(1, Most(), 0.5) == 1.0
    assert Backoff(1.0, 60.0).pause(1, Most(), 1e9) == LONGEST_ASKED


class TestBreaker:
    def setup_method(self) -> None:
        self.now = 0.0
        self.breaker = Breaker(Backoff(1.0, 60.0), Most(), lambda: self.now)

    def fail(self, times: int = 1, trial: bool = False, asked: float | None = None) -> list[bool]:
        return [self.breaker.failed(trial, asked) for _ in range(times)]

    def test_it_opens_after_five_failures_in_a_row_and_says_so_once(self):
        assert self.fail(4) == [False] * 4
        self.breaker.worked()
        assert self.fail(5) == [False] * 4 + [True]
        assert self.fail(3) == [False] * 3
        assert not self.breaker.admits

    def test_after_a_pause_it_lets_one_through(self):
        self.fail(5)
        self.now = self.breaker.wait
        assert 0.5 <= self.now <= 1.0
        assert self.breaker.admits
        assert self.breaker.begin()
        assert not self.breaker.admits

    def test_a_trial_that_fails_makes_the_pause_longer_up_to_a_bound(self):
        self.fail(5)
        pauses = []
        for _ in range(9):
            pauses.append(self.breaker.wait)
            self.now += self.breaker.wait
            assert self.breaker.begin()
            assert self.fail(trial=True) == [False]
            self.breaker.tried()
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    def test_what_began_before_it_opened_doesnt_make_the_pause_longer(self):
        self.fail(5)
        wait = self.breaker.wait
        self.fail(10)
        assert self.breaker.wait == wait

    def test_a_trial_that_proves_nothing_lets_another_through(self):
        self.fail(5)
        self.now += self.breaker.wait
        self.breaker.begin()
        self.breaker.tried()
        assert self.breaker.admits
        assert not self.breaker.closed

    def test_anything_that_works_closes_it(self):
        self.fail(5)
        assert self.breaker.worked()
        assert not self.breaker.worked()
        assert self.breaker.closed
        assert self.breaker.admits
        assert not self.breaker.begin()
        assert self.fail(4) == [False] * 4

    def test_the_pause_is_at_least_what_the_store_asked_for(self):
        self.fail(5, asked=120.0)
        assert self.breaker.wait >= 120.0


MEANT = [
    (errors.Transient("503"), {"about_remote": True}),
    (errors.Throttled("slow down", 7.0), {"about_remote": True, "asked": 7.0}),
    (errors.Unusable("no bucket", advice="make it"), {"about_remote": True, "reason": "no bucket (make it)"}),
    (errors.AuthFailed("expired"), {"about_remote": True}),
    (errors.Permanent("too large"), {"hopeless": True}),
    (errors.Conflict("not ours"), {"hopeless": True}),
    (ObjectTooLarge("the plan ends"), {"kind": "TooLarge", "hopeless": True}),
    (RegionLost("5 bytes"), {"hopeless": True, "reason": "the local data is damaged: 5 bytes"}),
    (OSError(5, "I/O error"), {"reason": "the spool: I/O error"}),
    (CatalogUnavailable("full"), {"ours": True}),
    (ZeroDivisionError("s3cr3t"), {"unforeseen": True, "reason": "unexpected: ZeroDivisionError"}),
]


@pytest.mark.parametrize(("error", "expected"), MEANT, ids=lambda value: type(value).__name__)
def test_each_failure_has_its_meaning(error, expected):
    failure = classified(error)
    flags = {name: False for name in ("about_remote", "hopeless", "ours", "unforeseen")} | {"asked": None}
    expected = {"kind": type(error).__name__} | flags | expected
    assert {name: getattr(failure, name) for name in expected} == expected


def test_a_reason_is_one_line_and_not_long():
    failure = classified(errors.Transient("a\nb\r\n" + "c" * 10_000))
    assert failure.reason.startswith("a b c")
    assert len(failure.reason) == 500


def test_a_failure_is_noted_with_the_time_of_the_next_try():
    failure = TransferFailure("Transient", "503", about_remote=True)
    one = after_failure(Replica("u", "a"), failure, now=NOW, rng=Most(), limits=ReplicationLimits())
    two = after_failure(one, failure, now=NOW + 5, rng=Most(), limits=ReplicationLimits())
    assert (one.attempts, one.error, one.retry_at, one.failing_since) == (1, "503", NOW + 1, NOW)
    assert (two.attempts, two.retry_at, two.failing_since) == (2, NOW + 7, NOW)
    uncounted = after_failure(two, failure, now=NOW, rng=Most(), limits=ReplicationLimits(), is_attempt=False)
    assert uncounted.attempts == 2


def test_it_is_given_up_when_the_operator_or_the_failure_says_so():
    failure = TransferFailure("Transient", "503", about_remote=True)
    failing = Replica("u", "a", attempts=1_000_000, failing_since=0.0)

    def why(limits: ReplicationLimits, what: TransferFailure = failure, replica: Replica = failing) -> str | None:
        return reason_to_park(replica, what, now=NOW, limits=limits)

    assert why(ReplicationLimits()) is None
    assert why(ReplicationLimits(attempts=1_000_001)) is None
    assert why(ReplicationLimits(attempts=1_000_000)) == "1000000 attempts failed: 503"
    assert why(ReplicationLimits(give_up_after=NOW + 1)) is None
    assert why(ReplicationLimits(give_up_after=NOW)) == "failed for 1000 s: 503"
    assert why(ReplicationLimits(), TransferFailure("Conflict", "not ours", hopeless=True)) == "not ours"
    ending = Replica("u", "a", state=ReplicaState.ENDING, attempts=9)
    assert why(ReplicationLimits(attempts=1), TransferFailure("Conflict", "x", hopeless=True), ending) is None


@pytest.mark.parametrize(("length", "confirmed", "needs"), [(10, 0, 4), (10, 4, 8), (10, 8, 11), (8, 4, 9), (3, 0, 4)])
def test_what_waits_for_the_end_of_an_upload_is_no_work_before(length, confirmed, needs):
    plan = Plan((Step(4, 10),), closing=True)
    upload, replica = Upload("u", 0, 0, length=length, offset=length), Replica("u", "a", key="k", confirmed=confirmed)
    progress = ReplicaProgress(replica, replica, upload, plan, initiated=True)
    assert progress.for_catalog().needs == needs
    assert progress.has_work is (needs <= length)
    progress.upload = evolve(upload, finished_at=1.0)
    assert progress.has_work

"""Quotas and rates: nobody gets more than their share, at the edge, in parallel, or with a deferred length."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater

from resumable.auth.quota import Ledger, Usage
from resumable.auth.rates import LONGEST_PAUSE, Buckets, Rate, Rates
from resumable.model.usage import Quota
from resumable.protocol.errors import NoSpace, TooLarge, TooManyRequests


def test_without_quotas_everything_fits():
    ledger = Ledger()
    ledger.open("alice", 2**62).finish()
    ledger.open("alice", None).grow(2**62)
    assert ledger.usage("alice") == Usage(2**63, 2**62, 1)


@pytest.mark.parametrize("quota", [Quota(size=100), Quota(unfinished_size=100)])
@pytest.mark.parametrize("which", ["each", "overall"])
def test_the_last_byte_fits_and_one_more_is_507(quota, which):
    ledger = Ledger(**{which: quota})
    ledger.open("alice", 60)
    ledger.open("alice", 40)
    with pytest.raises(NoSpace) as caught:
        ledger.open("alice", 1)
    assert int(caught.value.headers["Retry-After"]) > 0
    assert ledger.usage("alice") == Usage(100, 100, 2)
    ledger.open("alice", 0)


def test_the_quota_of_one_is_not_that_of_another_but_all_share_one():
    ledger = Ledger(Quota(size=100), Quota(size=150))
    ledger.open("alice", 100)
    with pytest.raises(NoSpace):
        ledger.open("bob", 51)
    ledger.open("bob", 50)


def test_what_can_never_fit_is_413():
    with pytest.raises(TooLarge):
        Ledger(Quota(size=100)).open("alice", 101)
    with pytest.raises(TooLarge):
        Ledger(max_size=10).open("alice", 11)
    with pytest.raises(TooLarge):
        Ledger(max_size=10).open("alice", 6, max_size=5)


def test_too_many_unfinished_uploads_are_429_until_one_is_finished_or_removed():
    ledger = Ledger(Quota(unfinished=2))
    first, second = ledger.open("alice", 0), ledger.open("alice", None)
    with pytest.raises(TooManyRequests) as caught:
        ledger.open("alice", 0)
    assert int(caught.value.headers["Retry-After"]) > 0
    ledger.open("bob", 0)
    first.finish()
    third = ledger.open("alice", 0)
    second.remove()
    third.remove()
    ledger.open("alice", 0)
    ledger.open("alice", 0)


def test_what_is_refused_counts_nothing():
    ledger = Ledger(Quota(size=10, unfinished=1))
    for length in (11, 12):
        with pytest.raises(TooLarge):
            ledger.open("alice", length)
    kept = ledger.open("alice", None)
    with pytest.raises(TooManyRequests):
        ledger.open("alice", 1)
    with pytest.raises(TooLarge):
        kept.grow(11)
    assert ledger.usage("alice") == Usage(0, 0, 1)
    kept.remove()
    assert len(ledger) == 0 and ledger.usage(None) == Usage()


@pytest.mark.parametrize("ledger", [Ledger(Quota(size=100)), Ledger(max_size=100), Ledger(overall=Quota(size=100))])
def test_a_deferred_length_gets_nobody_further(ledger):
    upload = ledger.open("alice", None)
    upload.grow(60)
    upload.grow(40)
    with pytest.raises((NoSpace, TooLarge)):
        upload.grow(1)
    with pytest.raises((NoSpace, TooLarge)):
        upload.reach(101)
    upload.reach(100)
    upload.reach(50)
    assert upload.charged == 100


def test_a_deferred_upload_is_held_to_the_limit_of_who_created_it():
    upload = Ledger().open("alice", None, max_size=10)
    upload.grow(10)
    with pytest.raises(TooLarge):
        upload.grow(1)


def test_many_deferred_uploads_share_one_quota():
    ledger = Ledger(Quota(size=10))
    uploads = [ledger.open("alice", None) for _ in range(5)]
    for upload in uploads:
        upload.grow(2)
    for upload in uploads:
        with pytest.raises(NoSpace):
            upload.grow(1)


def test_bytes_that_were_not_kept_are_given_back():
    ledger = Ledger(Quota(size=10))
    upload = ledger.open("alice", None)
    upload.grow(10)
    upload.settle(3)
    assert ledger.usage("alice") == Usage(3, 3, 1)
    ledger.open("alice", 7)


def test_finished_bytes_count_as_stored_but_no_longer_as_unfinished():
    ledger = Ledger(Quota(size=20, unfinished_size=10))
    upload = ledger.open("alice", 10)
    with pytest.raises(NoSpace):
        ledger.open("alice", 1)
    upload.finish()
    upload.finish()
    assert ledger.usage("alice") == Usage(10, 0, 0)
    ledger.open("alice", 10)
    upload.remove()
    upload.remove()
    upload.finish()
    upload.settle(99)
    assert ledger.usage("alice") == Usage(10, 10, 1)


def test_what_was_here_before_counts_even_over_the_quota():
    ledger = Ledger(Quota(size=10))
    ledger.add("alice", 30, 10, 1)
    with pytest.raises(NoSpace):
        ledger.open("alice", 1)
    old = ledger.counted("alice", 10, finished=False)
    with pytest.raises(NoSpace):
        old.grow(1)
    old.remove()
    ledger.counted("alice", 20, finished=True).remove()
    assert len(ledger) == 0


def test_parallel_requests_at_the_edge_do_not_both_get_the_last_byte():
    clock = Clock()
    ledger = Ledger(Quota(size=100, unfinished=7))

    async def create(length):
        upload = ledger.open("alice", length)  # counted before anything is awaited
        await deferLater(clock, 1.0, lambda: None)
        return upload

    requests = [Deferred.fromCoroutine(create(20)) for _ in range(20)]
    outcomes = gatherResults([request.addErrback(lambda f: f.trap(NoSpace)) for request in requests])
    clock.advance(1)
    got = []
    outcomes.addCallback(got.extend)
    assert sum(outcome is not NoSpace for outcome in got) == 5
    assert ledger.usage("alice") == Usage(100, 100, 5)


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order, the sums are those of the uploads that are there, within the quotas."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger(Quota(60, 40, 4), Quota(100, 70, 6), max_size=50)
        self.open = []
        self.finished = []

    @rule(name=st.sampled_from("abc"), length=st.none() | st.integers(0, 60))
    def create(self, name, length):
        with suppress(NoSpace, TooLarge, TooManyRequests):
            self.open.append(self.ledger.open(name, length))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), count=st.integers(0, 30))
    def grow(self, data, count):
        upload = data.draw(st.sampled_from(self.open))
        before = upload.charged
        try:
            upload.grow(count)
        except (NoSpace, TooLarge):
            assert upload.charged == before

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data):
        upload = data.draw(st.sampled_from(self.open))
        upload.settle(data.draw(st.integers(0, upload.charged)))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data):
        upload = data.draw(st.sampled_from(self.open))
        upload.finish()
        self.open.remove(upload)
        self.finished.append(upload)

    @precondition(lambda self: self.open or self.finished)
    @rule(data=st.data())
    def remove(self, data):
        upload = data.draw(st.sampled_from(self.open + self.finished))
        upload.remove()
        (self.open if upload in self.open else self.finished).remove(upload)

    @invariant()
    def sums_hold(self):
        for name in (None, "a", "b", "c"):
            opened = [u.charged for u in self.open if name in (None, u.name)]
            finished = [u.charged for u in self.finished if name in (None, u.name)]
            used = self.ledger.usage(name)
            assert used == Usage(sum(opened) + sum(finished), sum(opened), len(opened))
            size, unfinished_size, unfinished = (100, 70, 6) if name is None else (60, 40, 4)
            assert used.size <= size and used.unfinished_size <= unfinished_size and used.unfinished <= unfinished


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30)


class Now:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_requests_a_second_are_429_with_the_time_to_wait():
    now = Now()
    rates = Rates(now, requests=(Rate(0.1, burst=2), Rate()))
    rates.request("alice")
    rates.request("alice")
    with pytest.raises(TooManyRequests) as caught:
        rates.request("alice")
    assert caught.value.headers["Retry-After"] == "10"
    rates.request("bob")
    now.seconds = 9.9
    with pytest.raises(TooManyRequests):
        rates.request("alice")
    now.seconds = 10.0
    rates.request("alice")


def test_a_request_that_all_together_may_not_make_costs_its_identity_nothing():
    now = Now()
    rates = Rates(now, requests=(Rate(1.0, burst=2), Rate(1.0, burst=1)))
    rates.request("alice")
    for _ in range(5):
        with pytest.raises(TooManyRequests):
            rates.request("alice")
    now.seconds = 1.0
    rates.request("alice")


def test_bytes_a_second_tell_how_long_to_pause():
    now = Now()
    rates = Rates(now, size=(Rate(100.0), Rate(150.0)))
    assert rates.received("alice", 100) == 0
    assert rates.received("alice", 50) == pytest.approx(0.5)
    assert rates.received("bob", 100) == pytest.approx(100 / 150)
    now.seconds = 10.0
    assert rates.received("alice", 100) == 0
    assert rates.received("alice", 10**9) == LONGEST_PAUSE


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 3)), max_size=50))
def test_who_pauses_as_told_stays_within_the_rate(pieces):
    now = Now()
    rates = Rates(now, size=(Rate(100.0), Rate()))
    total = 0
    for count, idle in pieces:
        now.seconds += idle + rates.received("alice", count)
        total += count
        assert total <= 100 * now.seconds + 100 + 1e-6


def test_without_rates_nothing_is_kept():
    rates = Rates(lambda: 0.0)
    rates.request("alice")
    assert rates.received("alice", 10**12) == 0


def test_idle_buckets_go_and_memory_is_bounded():
    buckets = Buckets(Rate(1.0), most=100)
    for number in range(1000):
        buckets.take(str(number), 1, float(number))
    assert len(buckets) == 100


def test_a_bucket_in_debt_outlives_full_ones():
    buckets = Buckets(Rate(1.0, burst=1), most=5)
    buckets.take("greedy", 1000, 0.0)
    for number in range(50):
        buckets.take(str(number), 1, float(number * 2))
    assert buckets.wait("greedy", 1, 100.0) == pytest.approx(900)


def test_a_clock_that_steps_back_gives_nothing():
    buckets = Buckets(Rate(1.0))
    buckets.take("alice", 1, 10.0)
    assert buckets.wait("alice", 1, 5.0) > 0

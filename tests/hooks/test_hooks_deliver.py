"""Events arrive at least once, in order for each upload, whatever fails."""

from __future__ import annotations

import unittest
from collections import Counter
from math import inf
from random import Random

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import LogLevel, formatEvent

from resumable.hooks import deliver
from resumable.hooks.due_events import FETCH
from resumable.hooks.interfaces import EventKind, HookFailed
from resumable.hooks.retry_policy import THRESHOLD, RetryPolicy, SendingRate
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import FactKind
from tests.hooks.delivering import FAST, Bench, Recorder, answered, unsteady
from tests.hooks.outbox import MemoryOutbox, OutboxContract, fact


@pytest.fixture
def hook():
    return Recorder()


@pytest.fixture
def bench(hook):
    bench = Bench(hook)
    bench.deliverer.start()
    return bench


def failing(reason="no", times=10**9, **more):
    """Fails so many times, then lets everything pass."""
    left = [times]

    def answer(event):
        left[0] -= 1
        if left[0] >= 0:
            raise HookFailed(reason, **more)

    return answer


def test_what_waits_at_the_start_and_what_is_committed_later_is_delivered(hook):
    bench = Bench(hook)
    bench.outbox.post(fact("u"))
    bench.deliverer.start()
    bench.run(0)
    assert hook.of("u") == ["created"]
    bench.post(fact("u", FactKind.FINISHED))
    assert hook.of("u") == ["created", "finished"]
    assert bench.outbox.events == {}
    assert bench.counted == [("hook", "created", "ok"), ("hook", "finished", "ok")]


def test_events_of_one_upload_come_one_after_another_while_others_go_on(bench, hook):
    slow = Deferred()
    hook.answer = lambda event: slow if event.upload.id == "u" and event.kind is EventKind.CREATED else None
    bench.post(fact("u"), fact("u", FactKind.FINISHED), fact("v"), fact("v", FactKind.FINISHED))
    assert hook.of("v") == ["created", "finished"]
    assert hook.of("u", hook.came) == ["created"]
    slow.callback(None)
    bench.run(0)
    assert hook.of("u") == ["created", "finished"]


def test_a_failure_is_repeated_with_the_same_key_and_holds_up_its_upload_alone(bench, hook):
    fails = failing(times=3)
    hook.answer = lambda event: fails(event) if event.upload.id == "u" else None
    bench.post(fact("u"), fact("u", FactKind.FINISHED))
    bench.post(fact("v"))
    assert hook.of("v") == ["created"] and hook.of("u") == []
    bench.run(60)
    assert hook.of("u") == ["created", "finished"]
    assert len({event.id for event in hook.came if event.upload.id == "u" and event.kind is EventKind.CREATED}) == 1
    assert len({event.id for event in hook.came}) == 3


def test_pauses_grow_up_to_a_limit_and_are_random():
    policy, rng = RetryPolicy(first_pause=1, longest_pause=100), Random(1)
    for failures, longest in ((0, 1), (3, 8), (20, 100), (10**6, 100)):
        pauses = [policy.pause(failures, rng) for _ in range(200)]
        assert 0 <= min(pauses) < longest / 10 and longest * 0.9 < max(pauses) <= longest


def test_retry_after_is_kept_to(bench, hook):
    hook.answer = failing("it answered 503", times=1, retry_after=30.0)
    (seq,) = bench.post(fact("u"))
    assert bench.outbox.events[seq].retry_at >= 30
    bench.run(29)
    assert hook.of("u") == []
    bench.run(2)
    assert hook.of("u") == ["created"]


def test_an_absurd_retry_after_is_cut_to_a_day(bench, hook):
    hook.answer = failing(times=1, retry_after=1e12)
    (seq,) = bench.post(fact("u"))
    assert bench.outbox.events[seq].retry_at <= 86400


def test_a_hook_that_never_answers_is_given_up_and_tried_again(bench, hook):
    hook.answer = lambda event: Deferred()
    (seq,) = bench.post(fact("u"))
    bench.run(FAST.timeout + 0.01)
    assert "took more than" in bench.outbox.events[seq].error
    hook.answer = lambda event: None
    bench.run(5)
    assert hook.of("u") == ["created"]


def test_what_a_hook_should_not_raise_is_a_failure_like_any_other(bench, hook):
    def answer(event):
        raise RuntimeError("secret")

    hook.answer = answer
    (seq,) = bench.post(fact("u"))
    assert bench.outbox.events[seq].error == "RuntimeError"


def test_a_hook_that_cancels_itself_has_failed(bench, hook):
    def answer(event):
        raise CancelledError()

    hook.answer = answer
    (seq,) = bench.post(fact("u"))
    assert bench.outbox.events[seq].attempts == 1


def test_a_event_that_fails_for_too_long_is_dead_and_can_be_replayed():
    hook = Recorder(failing())
    bench = Bench(hook, RetryPolicy(per_second=inf, give_up_after=1000, longest_pause=60))
    bench.deliverer.start()
    (seq, _) = bench.post(fact("u"), fact("u", FactKind.FINISHED))
    bench.run(1000, 1000)
    assert bench.outbox.events[seq].dead_at is None
    hook.answer = lambda event: failing()(event) if event.kind is EventKind.CREATED else None
    bench.run(200, 200)
    assert bench.outbox.events[seq].dead_at >= 1000
    assert hook.of("u") == ["finished"]
    hook.answer = lambda event: None
    bench.outbox.replay("hook", None)
    bench.deliverer.wake()
    bench.run(0)
    assert hook.of("u") == ["finished", "created"] and bench.outbox.events == {}
    assert len({event.id for event in hook.came}) == 2


def test_a_daemon_that_was_down_for_long_does_not_give_up_at_the_first_failure():
    hook = Recorder(failing(times=3))
    bench = Bench(hook, RetryPolicy(per_second=inf, give_up_after=1000))
    bench.clock.advance(5000)
    bench.outbox.post(fact("u", at=0.0))
    bench.deliverer.start()
    bench.run(60)
    assert hook.of("u") == ["created"]


def test_a_crash_between_arrival_and_record_delivers_again_in_order(hook):
    bench = Bench(hook)
    bench.outbox.post(fact("u"), fact("u", FactKind.FINISHED))
    before = dict(bench.outbox.events)
    bench.deliverer.start()
    bench.run(0)
    bench.outbox.events = dict(before)  # the crash took the commits with it
    bench.restart()
    assert hook.of("u") == ["created", "finished"] * 2
    assert len({event.id for event in hook.arrived}) == 2


def test_a_crash_in_the_middle_of_a_delivery_delivers_again(hook):
    hook.answer = lambda event: Deferred()
    bench = Bench(hook)
    bench.deliverer.start()
    bench.post(fact("u"))
    hook.answer = lambda event: None
    bench.restart()
    assert hook.of("u") == ["created"]


@pytest.mark.parametrize("seed", range(20))
def test_every_event_arrives_in_order_through_failures_crashes_and_a_catalog_that_fails(seed):
    rng = Random(seed)
    hook = Recorder()
    bench = Bench(hook)
    hook.answer = lambda event: unsteady(bench, rng)
    bench.deliverer.start()
    wanted = {f"u{n}": ["created", "finished", "stored"] for n in range(15)}
    for kind in (FactKind.CREATED, FactKind.FINISHED, FactKind.STORED):
        bench.post(*(fact(name, kind) for name in wanted))
        bench.outbox.broken = CatalogUnavailable("x") if rng.random() < 0.4 else None
        bench.run(3)
        bench.outbox.broken = None
        if rng.random() < 0.5:
            bench.restart()
    bench.run(3000, 3000)
    assert bench.outbox.events == {}
    for name, kinds in wanted.items():
        first = list(dict.fromkeys(hook.of(name)))
        assert first == kinds


def test_no_more_are_under_way_than_allowed(bench, hook):
    waiting = []

    def answer(event):
        waiting.append(Deferred())
        return waiting[-1]

    hook.answer = answer
    bench.post(*(fact(f"u{n}", identity=f"owner {n % 2}") for n in range(100)))
    assert hook.under_way == FAST.concurrency
    while waiting:
        waiting.pop(0).callback(None)
        bench.run(0)
    assert hook.most == FAST.concurrency and len(hook.arrived) == 100


def test_more_events_than_are_fetched_at_once_all_arrive(bench, hook):
    bench.post(*(fact(f"u{n}") for n in range(3 * FETCH)))
    bench.run(1)
    assert len(hook.arrived) == 3 * FETCH == len({event.id for event in hook.came})


def test_events_are_paced_so_that_uploads_get_their_turn(hook):
    bench = Bench(hook, RetryPolicy(concurrency=4, per_second=10))
    bench.deliverer.start()
    bench.post(*(fact(f"u{n}") for n in range(60)))
    bench.run(2, 200)
    assert 20 <= len(hook.arrived) <= 26
    bench.run(5, 500)
    assert len(hook.arrived) == 60


def test_a_pace_allows_a_burst_after_a_rest():
    pace = SendingRate(RetryPolicy(concurrency=4, per_second=10))
    assert [pace.take(100.0) for _ in range(5)] == [0] * 5
    assert 0 < pace.take(100.0) <= 0.1


def unreached(event):
    raise HookFailed("no answer: ConnectionRefusedError", unreached=True)


def test_while_the_hook_cannot_be_reached_one_event_at_a_time_is_tried_with_pauses(bench, hook):
    hook.answer = unreached
    bench.post(*(fact(f"u{n}") for n in range(1000)))
    tried = len(hook.came)
    assert tried <= THRESHOLD + FAST.concurrency
    bench.run(3600, 3600)
    assert 300 < len(hook.came) - tried < 1000


def test_while_the_hook_cannot_be_reached_the_event_that_was_tried_least_often_goes_next(bench, hook):
    hook.answer = unreached
    bench.post(*(fact(f"u{n}") for n in range(20)))
    bench.run(3600, 3600)
    came = Counter(event.upload.id for event in hook.came)
    assert len(came) == 20 and max(came.values()) <= min(came.values()) + 2
    hook.came.clear()
    bench.post(fact("new"))
    bench.run(11, 110)
    assert hook.came[0].upload.id == "new"


@pytest.mark.parametrize("again", [False, True])
def test_when_the_hook_is_back_everything_goes_within_seconds(bench, hook, again):
    hook.answer = unreached
    bench.post(*(fact(f"u{n}") for n in range(50)))
    bench.run(1000, 1000)
    hook.answer = answered if again else lambda event: None
    if again:  # it answers, if not as it should: that is no outage any more
        came = len(hook.came)
        bench.run(21, 210)
        assert len({event.upload.id for event in hook.came[came:]}) == 50
        return
    bench.run(21, 210)
    assert len(hook.arrived) == 50 and bench.outbox.events == {}


@pytest.mark.slow
@pytest.mark.parametrize("answer", [answered, unreached], ids=["answered", "unreached"])
@pytest.mark.parametrize("restarts", [False, True])
def test_uploads_whose_events_fail_for_days_hold_back_nobody_elses(bench, hook, answer, restarts):
    hook.answer = lambda event: answer(event) if event.upload.id.startswith("bad") else None
    bench.post(*(fact(f"bad{n}") for n in range(20)))
    bench.run(2 * 86400, 10_000)
    if restarts:
        bench.restart()
    posted = bench.clock.seconds()
    bench.post(fact("good"), fact("good", FactKind.FINISHED))
    bench.run(11, 110)
    assert hook.of("good") == ["created", "finished"]
    assert restarts or answer is unreached or bench.clock.seconds() - posted < 12
    others = [event for event in hook.came if event.upload.id.startswith("bad")]
    assert len(others) < 20 * (2 * 86400 / 100)


def slowly(bench, hook, seconds, error):
    """The events of ``bad`` uploads fail after so long."""

    def answer(event):
        if not event.upload.id.startswith("bad"):
            return None
        later = Deferred()
        bench.clock.callLater(seconds, later.errback, error)
        return later

    hook.answer = answer


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_events_that_fail_slowly_keep_new_ones_waiting_no_longer_than_two_of_them_take(concurrency):
    hook = Recorder()
    bench = Bench(hook, RetryPolicy(per_second=inf, concurrency=concurrency))
    slowly(bench, hook, 5.0, HookFailed("no answer in time"))
    bench.deliverer.start()
    bench.post(*(fact(f"bad{n}") for n in range(300)))
    bench.run(3600, 7200)
    for number in range(20):
        bench.post(fact(f"good{number}"))
        bench.run(10.1, 101)
        assert hook.of(f"good{number}") == ["created"]


def test_a_event_that_failed_once_goes_before_those_that_fail_again_and_again():
    hook = Recorder()
    bench = Bench(hook, RetryPolicy(per_second=inf, concurrency=2))
    slowly(bench, hook, 5.0, HookFailed("it answered 500"))
    bench.deliverer.start()
    bench.post(*(fact(f"bad{n}") for n in range(300)))
    bench.run(3600, 7200)
    fails = failing(times=1)
    slow = hook.answer
    hook.answer = lambda event: fails(event) if event.upload.id == "once" else slow(event)
    bench.post(fact("once"))
    bench.run(1000, 10_000)
    assert hook.of("once") == ["created"]


def test_new_events_that_fail_slowly_do_not_keep_those_waiting_that_have_failed():
    hook = Recorder()
    bench = Bench(hook, RetryPolicy(per_second=inf, concurrency=2))
    slowly(bench, hook, 5.0, HookFailed("it answered 500"))
    fails, slow = failing(times=1), hook.answer
    hook.answer = lambda event: fails(event) if event.upload.id == "once" else slow(event)
    bench.deliverer.start()
    bench.post(fact("once"))
    for number in range(100):  # twice as many as there are places for
        bench.post(fact(f"bad{2 * number}"), fact(f"bad{2 * number + 1}"))
        bench.run(2.5)
    assert hook.of("once") == ["created"]


def test_a_event_is_logged_when_it_first_fails_and_when_it_is_given_up(logged):
    hook = Recorder(answered)
    bench = Bench(hook, RetryPolicy(per_second=inf, give_up_after=1000, longest_pause=60))
    bench.deliverer.start()
    bench.post(fact("u"))
    bench.run(1200, 1200)
    lines = [formatEvent(event) for event in logged if event["log_level"] is LogLevel.error]
    assert lines == [
        "hook hook (https://example.org) failed at created of u: it answered 500",
        "hook hook (https://example.org): event given up: it answered 500",
    ]
    assert len(bench.counted) > 8 and set(bench.counted) == {("hook", "created", "failed")}


def test_an_outage_is_logged_once_and_so_is_its_end(logged):
    hook = Recorder(unreached)
    bench = Bench(hook)
    bench.deliverer.start()
    bench.post(*(fact(f"u{n}") for n in range(100)))
    bench.run(600, 600)
    hook.answer = lambda event: None
    bench.run(30, 30)
    lines = [formatEvent(event) for event in logged]
    assert lines.count("hook hook (https://example.org) can't be reached") == 1
    assert lines.count("hook hook (https://example.org) is back") == 1
    assert len(lines) <= THRESHOLD + 2


def test_one_event_that_never_arrives_does_not_slow_the_others_down(bench, hook):
    hook.answer = lambda event: failing()(event) if event.upload.id == "bad" else None
    bench.post(fact("bad"))
    bench.run(600, 600)
    bench.post(fact("good"))
    assert hook.of("good") == ["created"]


def test_kinds_that_are_not_wanted_are_forgotten_undelivered(hook):
    bench = Bench(hook, kinds=frozenset({EventKind.FINISHED}))
    bench.deliverer.start()
    bench.post(fact("u"), fact("u", FactKind.FINISHED))
    assert hook.of("u", hook.came) == ["finished"] and bench.outbox.events == {}


@pytest.mark.parametrize("error", [CatalogUnavailable("x"), RuntimeError("x")])
def test_a_catalog_that_fails_is_asked_again_later(bench, hook, error):
    bench.outbox.broken = error
    bench.post(fact("u"))
    assert hook.came == []
    bench.outbox.broken = None
    bench.run(deliver.CATALOG_PAUSE + 1)
    assert hook.of("u") == ["created"]


def test_an_idle_deliverer_asks_the_catalog_once_a_minute_at_most(bench):
    bench.run(10)
    asked = bench.outbox.asked
    bench.run(3600, 3600)
    assert bench.outbox.asked <= asked + 60


def test_a_stop_waits_for_what_is_under_way_and_begins_nothing_more(hook):
    slow = Deferred()
    hook.answer = lambda event: slow
    bench = Bench(hook, RetryPolicy(concurrency=1, per_second=inf))
    bench.deliverer.start()
    bench.post(fact("u"), fact("v"))
    stopped = Deferred.fromCoroutine(bench.deliverer.stop(5))
    assert not stopped.called
    slow.callback(None)
    assert stopped.called and hook.of("u") == ["created"]
    bench.run(100)
    assert hook.of("v", hook.came) == []
    assert [x.fact.upload_id for x in bench.outbox.events.values()] == ["v"]
    assert not [call for call in bench.clock.getDelayedCalls()]


def test_a_stop_cancels_what_takes_too_long_and_it_comes_again(hook):
    hook.answer = lambda event: Deferred()
    bench = Bench(hook)
    bench.deliverer.start()
    (seq,) = bench.post(fact("u"))
    stopped = Deferred.fromCoroutine(bench.deliverer.stop(5))
    bench.run(5.1)
    assert stopped.called
    assert bench.outbox.events[seq].attempts == 0
    hook.answer = lambda event: None
    bench.restart()
    assert hook.of("u") == ["created"]


def test_what_arrived_but_could_not_be_recorded_comes_again_after_a_pause(bench, hook):
    def answer(event):
        bench.outbox.broken = CatalogUnavailable("x")

    hook.answer = answer
    bench.post(fact("u"))
    assert hook.of("u") == ["created"]
    bench.outbox.broken, hook.answer = None, lambda event: None
    bench.run(deliver.CATALOG_PAUSE + 1)
    assert hook.of("u") == ["created"] * 2 and bench.outbox.events == {}


def test_while_arrivals_cannot_be_recorded_the_outbox_is_read_once_in_a_pause(hook):
    bench = Bench(hook, kinds=frozenset({EventKind.FINISHED}))
    bench.outbox.delivered = lambda seqs: fail(CatalogUnavailable("the disk is full"))
    bench.deliverer.start()
    bench.post(fact("u"))
    assert bench.outbox.asked == 1
    bench.run(20, 100)
    assert 2 < bench.outbox.asked < 10


def test_what_failed_goes_again_in_time_whatever_comes_meanwhile(bench, hook):
    hook.answer = failing(times=1)
    failed = bench.outbox.failed

    def meanwhile(*said):
        hook.answer = lambda event: Deferred() if event.upload.id == "hangs" else None
        bench.outbox.failed = failed
        bench.outbox.post(fact("hangs", identity="another"))
        bench.deliverer.wake()
        return failed(*said)

    bench.outbox.failed = meanwhile
    bench.post(fact("u", identity="one"))
    bench.run(1.5)
    assert hook.of("u") == ["created"]


class TestMemoryOutbox(OutboxContract, unittest.TestCase):
    """The outbox of these tests keeps the promises of every outbox."""

    def make_outbox(self, deliverers):
        return MemoryOutbox(deliverers)

    def post(self, outbox, *facts):
        outbox.post(*facts)

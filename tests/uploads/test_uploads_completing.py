"""Whose turn it is to complete an upload, when it is tried again, and who hears of it."""

from __future__ import annotations

import pytest

from resumable.uploads.completing import AHEAD, LATEST, SOONEST
from tests.spool.completion_bench import ID, OTHER, Bench

TAIL = (7, -5, 8)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


def fired(answer):
    found = []
    answer.addBoth(found.append)
    return found


def test_whoever_has_the_claim_completes_it_and_the_others_leave_it(bench):
    bench.upload(pieces=TAIL)
    first, second = bench.worker("w1"), bench.worker("w2")
    first.completer.wake(ID)
    second.completer.wake(ID)
    second.go()
    assert second.asked == []
    first.go()
    assert bench.row().whole and not bench.claims


def test_what_waits_for_the_object_goes_on_here_and_elsewhere(bench):
    bench.upload(pieces=TAIL)
    first, second = bench.worker("w1"), bench.worker("w2")
    whole = fired(second.completer.when_whole(ID, 5.0))
    bench.claims["join:" + ID] = "w1"
    second.go()
    assert whole == [] and second.others.waiting
    first.completer.wake(ID)
    first.go()
    second.go()
    assert whole == [True]
    assert first.late == [1] and [each.id for each in first.replicated] == [ID]
    assert second.late == [] and ("news", ID) in second.others.told


def test_a_wait_looks_at_the_row_each_second_and_ends_by_time(bench):
    bench.upload(pieces=TAIL)
    bench.claims["join:" + ID] = "another"
    worker = bench.worker("w1")
    whole = fired(worker.completer.when_whole(ID, 2.0))
    for _ in range(2):
        worker.go()
        assert whole == []
        bench.clock.advance(1.0)
        worker.others.tell("news", ID)
    worker.go()
    assert whole == [False] and worker.asked == ["tail_of"] * 3


def test_a_wait_for_one_that_is_gone_or_unknown_ends_at_once(bench):
    bench.upload(pieces=TAIL)
    bench.end()
    worker = bench.worker("w1")
    assert bench.result(worker, worker.completer.when_whole(ID, 5.0)) is False
    assert bench.result(worker, worker.completer.when_whole(OTHER, 5.0)) is False


def test_a_wait_completes_what_a_dead_worker_left(bench):
    bench.upload(pieces=TAIL)
    worker = bench.worker("w1")
    assert bench.result(worker, worker.completer.when_whole(ID, 5.0)) is True


def test_a_failure_is_tried_again_later_and_ever_later(bench):
    bench.upload(pieces=TAIL)
    worker = bench.worker("w1")
    pause = SOONEST
    for _ in range(10):
        worker.asked.clear()
        put, bench.store.put = bench.store.put, bench.down
        bench.result(worker, worker.completer.sweep())
        bench.store.put = put
        assert "put" in worker.asked
        bench.clock.advance(pause - 0.1)
        worker.asked.clear()
        worker.completer.wake(ID)
        bench.result(worker, worker.completer.sweep())
        assert "put" not in worker.asked
        bench.clock.advance(0.1)
        pause = min(2 * pause, LATEST)
    bench.result(worker, worker.completer.sweep())
    assert bench.row().whole


def test_a_sweep_ends_where_the_store_is_down(bench):
    ids = [f"{number:032x}" for number in range(200)]
    for each in ids:
        bench.upload(pieces=(5,), upload_id=each)
    worker = bench.worker("w1")
    put, bench.store.put = bench.store.put, bench.down
    bench.result(worker, worker.completer.sweep())
    assert worker.asked.count("put") < len(ids)
    bench.store.put = put
    bench.clock.advance(SOONEST)
    bench.result(worker, worker.completer.sweep())
    assert worker.completer.completed == len(ids)


def test_so_many_are_under_way_at_once(bench):
    ids = [f"{number:032x}" for number in range(AHEAD * 2)]
    for each in ids:
        bench.upload(pieces=(5,), upload_id=each)
    worker = bench.worker("w1")
    for each in ids:
        worker.completer.wake(each)
    assert len(worker.requests) == AHEAD
    worker.go()
    assert worker.completer.completed == len(ids)


def test_nothing_is_begun_after_the_stop(bench):
    bench.upload(pieces=TAIL)
    worker = bench.worker("w1")
    bench.result(worker, worker.completer.stop())
    worker.completer.wake(ID)
    bench.result(worker, worker.completer.sweep())
    assert worker.asked == []
    assert bench.result(worker, worker.completer.when_whole(ID, 5.0)) is False


def test_no_fact_is_told_where_no_hook_is(bench):
    bench.upload(pieces=TAIL)
    worker = bench.worker("w1")
    worker.context.records_facts = False
    worker.completer.wake(ID)
    worker.go()
    assert bench.row().whole and bench.catalog.told == []

"""A remote that is down as a whole, and comes back."""

from __future__ import annotations

import pytest

from resumable.remotes import errors
from resumable.remotes.memory.remote import Fault
from resumable.replication.context import ReplicationLimits
from tests.replication.rig import PART, parts, pattern


def down(rig):
    rig.remotes["a"].faults.add(Fault("*", errors.Transient("connection refused"), times=None))


def up(rig):
    rig.remotes["a"].faults.clear()


def test_a_remote_that_is_down_is_asked_seldom(rig):
    down(rig)
    for _ in range(50):
        rig.upload(50)
    rig.advance(5)
    before = len(rig.calls())
    rig.advance(3600)
    assert len(rig.calls()) - before <= 3600 / 30 + 10
    assert rig.replication.queues["a"].counts.opened == 1


def test_after_an_outage_it_drains_by_itself_in_order(make):
    rig = make(limits=ReplicationLimits(part_size=PART, per_remote=1))
    first = rig.upload(50)
    rig.settle([first])
    down(rig)
    upload_ids = []
    for number in range(150):
        upload_ids.append(rig.upload(50, seed=number))
        rig.advance(1)
    up(rig)
    rig.settle(upload_ids, seconds=200)
    rig.check(first, *upload_ids)
    order = [each for each in rig.stores["a"].objects.order if each != first]
    place = {each: number for number, each in enumerate(order)}
    # the one that found out that it is back went first
    assert max(abs(place[each] - number) for number, each in enumerate(upload_ids) if place[each]) <= 1


@pytest.mark.parametrize("restarts", [False, True])
def test_uploads_that_a_store_fails_at_keep_it_down_for_nobody_else(rig, restarts):
    """As with metadata at which a store answers 500: to its other uploads nothing is wrong with it."""
    bad = [rig.create(50) for _ in range(20)]
    for each in bad:
        rig.remotes["a"].faults.add(Fault("*", errors.Transient("500", status=500), upload_id=each, times=None))
        rig.append(each, pattern(50))
    rig.advance(3600)
    assert rig.replication.queues["a"].down
    if restarts:
        rig.kill().start()
        for each in bad:
            rig.remotes["a"].faults.add(Fault("*", errors.Transient("500", status=500), upload_id=each, times=None))
        rig.advance(3600)
    for number in range(3):
        good = rig.upload(50, seed=number)
        rig.settle([good], seconds=121)
        rig.check(good)
        rig.advance(600)
    assert {rig.state(each) for each in bad} == {"open"}


def test_a_pause_that_is_over_before_it_is_recorded_is_no_pause_for_ever(make):
    rig = make(limits=ReplicationLimits(part_size=PART, base_delay=1e-9, max_delay=1e-9))
    rig.remotes["a"].faults.add(Fault("*", errors.Transient("connection reset"), times=2))
    upload_id = rig.upload(50)
    rig.settle([upload_id], seconds=5)
    rig.check(upload_id)


def test_an_outage_of_a_whole_upload_costs_nothing_but_time(rig):
    down(rig)
    upload_id = rig.create(1000)
    for _ in range(10):
        rig.append(upload_id, pattern(100))
        rig.advance(60)
    up(rig)
    rig.settle([upload_id])
    rig.check(upload_id)
    assert rig.calls(upload_id).count("confirmed_parts") == 0


@pytest.mark.slow
def test_an_outage_uses_up_no_attempts_but_the_first_few(make):
    rig = make(limits=ReplicationLimits(part_size=PART, attempts=6))
    down(rig)
    upload_ids = [rig.upload(50) for _ in range(100)]
    rig.advance(6 * 3600)
    assert {rig.state(each) for each in upload_ids} == {"open"}
    up(rig)
    rig.settle(upload_ids)
    rig.check(*upload_ids)


def test_when_it_is_back_nobody_waits_for_the_end_of_a_long_pause(rig):
    rig.remotes["a"].faults.add(Fault("write_chunk", errors.Throttled("SlowDown", 1000.0), times=4))
    rig.remotes["a"].faults.add(Fault("write_chunk", errors.Transient("503")))
    waiting = [rig.upload(50) for _ in range(4)]
    rig.advance(1)
    last = rig.upload(50)
    rig.advance(20)
    rig.check(*waiting, last)
    assert rig.replication.queues["a"].counts.opened == 1


def test_no_more_parts_are_on_their_way_than_allowed(make):
    rig = make({"a": parts(latency=1.0), "b": parts(latency=1.0)}, limits=ReplicationLimits(part_size=PART, total=10))
    most = []
    flying = {"a": 0, "b": 0}
    for name, remote in rig.remotes.items():
        watch(remote, name, flying, most)
    upload_ids = [rig.upload(1000) for _ in range(10)]
    rig.settle(upload_ids)
    rig.settle(upload_ids, "b")
    assert max(sum(each.values()) for each in most) == 10
    assert max(each["a"] for each in most) == 5


def watch(remote, name, flying, most):
    write = remote.write_chunk

    def counted(*args):
        flying[name] += 1
        most.append(dict(flying))
        return write(*args).addBoth(done)

    def done(result):
        flying[name] -= 1
        return result

    remote.write_chunk = counted

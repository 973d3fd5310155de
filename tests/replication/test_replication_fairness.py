"""Many uploads share a remote: nobody starves, and memory and work under way are bounded."""

from __future__ import annotations

import pytest

from resumable.model.upload import Replica, Upload
from resumable.replication import progress, remote_queue, work_queue
from resumable.replication.context import ReplicationLimits
from tests.replication.rig import PART, parts, pattern, plain

KINDS = {"parts": parts, "plain": plain}


def fill(rig, count, size=0, remote="a"):
    """So many rows of an earlier run: finished, of ``size`` bytes."""
    ids = [f"{number:032x}" for number in range(10**6, 10**6 + count)]
    for batch in chunks(ids, 500):
        made = [rig.catalog.create(row(rig, each, size), (), [Replica(each, remote)]) for each in batch]
        rig.ask(made[-1])
        rig.data.update({each: b"" for each in batch})
    return ids


def chunks(ids, size):
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def row(rig, upload_id, size):
    now = rig.wall()
    return Upload(upload_id, now, now, length=size, offset=size, finished_at=now)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_huge_upload_doesnt_starve_a_thousand_small_ones(make, kind):
    rig = make({"a": KINDS[kind](latency=1.0)}, limits=ReplicationLimits(part_size=PART, per_remote=4))
    huge = rig.upload(50_000)
    rig.advance(10)
    small = [rig.upload(20, seed=number) for number in range(1000)]
    before = rig.calls(huge).count("write_chunk")
    stored = rig.stores["a"].objects
    rig.until(lambda: len(stored) >= 1000)
    written = rig.calls(huge).count("write_chunk") - before
    assert written <= 150, "of the five hundred parts that it has"
    rig.settle([huge], seconds=3000)
    rig.check(huge, *small)


def test_uploads_that_wait_get_their_turns_one_after_the_other(make):
    limits = ReplicationLimits(part_size=PART, per_remote=1)
    rig = make({"a": plain(latency=1.0)}, limits=limits)
    uploads = [rig.upload(2000, seed=number) for number in range(100)]
    rig.advance(1000)
    counts = [rig.calls(each).count("write_chunk") for each in uploads[:64]]
    assert max(counts) - min(counts) <= 8 + 1


@pytest.mark.slow
def test_ten_thousand_replicas_at_the_start_are_bounded_work(make, monkeypatch):
    rig = make()
    ids = fill(rig, 10_000)
    rig.kill().start()
    most = {"queue": 0, "active": 0, "known": 0}
    (one,) = rig.replication.queues.values()
    begin = one._fill

    def watched():
        begin()
        most["queue"] = max(most["queue"], one.queued)
        most["active"] = max(most["active"], one.active)
        most["known"] = max(most["known"], len(one._cache))

    monkeypatch.setattr(one, "_fill", watched)
    monkeypatch.setattr(one._waiting, "_wake", watched)
    order = rig.stores["a"].objects.order
    rig.until(lambda: len(order) >= 1000)
    assert most["queue"] <= work_queue.LOW + work_queue.PAGE
    assert most["active"] == remote_queue.ACTIVE
    assert most["known"] <= progress.REMEMBERED
    assert order == ids[: len(order)], "the oldest first"


def test_the_start_itself_does_no_work(make):
    rig = make()
    fill(rig, 2000)
    rig.kill().start()
    assert rig.replicas.calls == ["hasten"]
    assert rig.calls() == []


def test_more_wakes_than_fit_are_found_in_the_catalog(make, monkeypatch):
    monkeypatch.setattr(work_queue, "QUEUE", 20)
    monkeypatch.setattr(work_queue, "LOW", 5)
    monkeypatch.setattr(work_queue, "PAGE", 10)
    monkeypatch.setattr(remote_queue, "ACTIVE", 3)
    monkeypatch.setattr(progress, "REMEMBERED", 30)
    rig = make({"a": parts(latency=0.2)}, limits=ReplicationLimits(part_size=PART, per_remote=3))
    uploads = [rig.upload(50 + number, seed=number) for number in range(100)]
    rig.until(lambda: len(rig.stores["a"].objects) == 100, seconds=60)
    rig.advance(1)
    rig.check(*uploads)


def test_more_retries_than_have_timers_are_found_in_the_catalog(make, monkeypatch):
    from resumable.remotes import errors
    from resumable.remotes.memory.remote import Fault

    monkeypatch.setattr(work_queue, "RETRIES", 3)
    rig = make()
    uploads = [rig.upload(50, seed=number) for number in range(4)]
    for each in uploads:
        rig.remotes["a"].faults.add(Fault("finalize_upload", errors.OutOfStep("?"), upload_id=each, times=6))
    more = [rig.create(50) for _ in range(20)]
    for each in more:
        rig.remotes["a"].faults.add(Fault("write_chunk", OSError(5, "I/O error"), upload_id=each))
        rig.append(each, pattern(50))
    rig.settle([*uploads, *more], seconds=120)
    rig.check(*uploads, *more)


def test_rows_of_a_remote_that_is_no_longer_there_are_left_alone(make):
    rig = make()
    ids = fill(rig, 3, remote="gone")
    rig.kill().start()
    rig.advance(100)
    assert {rig.state(each, "gone") for each in ids} == {"open"}


def test_a_wake_that_brings_nothing_new_costs_nothing(rig):
    upload_id = rig.create(1000)
    rig.append(upload_id, pattern(150))
    rig.advance(1)
    before = list(rig.replicas.calls), rig.calls()
    for _ in range(10):
        rig.append(upload_id, pattern(3))
        rig.advance(0.1)
    assert (rig.replicas.calls, rig.calls()) == before

"""A bound on how far the remotes may be behind."""

from __future__ import annotations

import pytest

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Upload
from resumable.remotes import errors
from resumable.remotes.memory.remote import Fault
from resumable.replication.context import ReplicationLimits
from tests.replication.rig import PART, parts, pattern


def bounded(make, **bounds):
    return make(
        {"a": parts(), "b": parts()},
        limits=ReplicationLimits(part_size=PART, **bounds),
        specs={"b": {"required": False}},
    )


def fail(rig, remote="a"):
    rig.remotes[remote].faults.add(Fault("write_chunk", errors.Transient("down"), times=None))


def test_without_a_bound_nothing_is_refused_and_nothing_counted(make):
    rig = bounded(make)
    fail(rig)
    rig.upload(100_000)
    rig.advance(100)
    assert rig.replication.admits()
    assert rig.replication.when_admitted().called
    assert rig.replicas.count("backlog") == 0


def test_too_many_bytes_behind_are_refused_until_it_has_caught_up(make):
    rig = bounded(make, max_lag=1000)
    fail(rig)
    first = rig.upload(900)
    rig.advance(1)
    assert rig.replication.admits()
    second = rig.upload(300)
    assert not rig.replication.admits(), "at once"
    told = []
    rig.replication.when_admitted().addCallback(told.append)
    nobody = rig.replication.when_admitted()
    nobody.addErrback(lambda _: None)
    nobody.cancel()
    rig.advance(100)
    assert not rig.replication.admits()
    assert told == []
    rig.remotes["a"].faults.clear()
    rig.settle([first, second])
    assert rig.replication.admits()
    assert told == [None]


def test_bytes_that_come_with_the_creation_count(make):
    rig = bounded(make, max_lag=1000)
    fail(rig)
    upload_id, data = "c" * 32, pattern(1500)
    upload = Upload(upload_id, rig.wall(), rig.wall(), 1500, 1500, finished_at=rig.wall())
    rig.ask(rig.spool.put(upload_id, 0, [data]))
    rig.ask(rig.catalog.create(upload, (), rig.replication.chosen(upload)))
    rig.replication.committed(upload)
    assert not rig.replication.admits()


def test_a_best_effort_remote_holds_nobody_up(make):
    rig = bounded(make, max_lag=1000, max_lag_age=10.0)
    fail(rig, "b")
    rig.upload(5000)
    rig.advance(100)
    assert rig.replication.admits()


def test_an_upload_that_waits_too_long_after_it_finished_is_refused_too(make):
    rig = bounded(make, max_lag_age=60.0)
    fail(rig)
    upload_id = rig.upload(50)
    rig.advance(50)
    assert rig.replication.admits()
    rig.advance(40)
    assert not rig.replication.admits()
    rig.remotes["a"].faults.clear()
    rig.settle([upload_id])
    rig.advance(10)
    assert rig.replication.admits()


@pytest.mark.parametrize("how", ["terminate", "park"])
def test_what_goes_away_is_behind_no_longer(make, how):
    rig = bounded(make, max_lag=1000)
    fail(rig)
    upload_id = rig.upload(5000)
    rig.advance(1)
    assert not rig.replication.admits()
    if how == "terminate":
        rig.terminate(upload_id)
    else:
        rig.remotes["a"].faults.clear()
        rig.remotes["a"].faults.add(Fault("write_chunk", errors.Permanent("never"), times=None))
        rig.until(lambda: rig.state(upload_id) == "parked")
    rig.advance(0.1)
    assert rig.replication.admits()


def test_after_a_restart_the_lag_is_what_the_catalog_says(make):
    rig = bounded(make, max_lag=1000)
    fail(rig)
    upload_id = rig.upload(5000)
    rig.kill().start()
    fail(rig)
    rig.advance(1)
    assert not rig.replication.admits()
    rig.remotes["a"].faults.clear()
    rig.settle([upload_id])
    assert rig.replication.admits()


def test_the_count_stays_right_through_everything(make):
    rig = bounded(make, max_lag=1000)
    lag = rig.replication.queues["a"].lag
    rig.remotes["a"].faults.add(Fault("write_chunk", errors.Transient("x"), skip=3, times=2))
    rig.remotes["a"].faults.add(Fault("finalize_upload", errors.NotThere("x"), times=1))
    uploads = [rig.create(size) for size in (50, 350, 1000)]
    for each in uploads:
        for _ in range(10):
            rig.append(each, pattern(rig.lengths[each] // 10))
            rig.advance(0.3)
    rig.settle(uploads)
    assert lag.size == 0
    rig.advance(100)
    assert lag.size == 0


def test_a_catalog_that_cant_tell_is_asked_again(make):
    rig = bounded(make, max_lag=1000)
    rig.replicas.faults["backlog"] = CatalogUnavailable("full")
    rig.kill().start()
    fail(rig)
    rig.advance(40)
    rig.replicas.faults.clear()
    rig.upload(5000)
    assert not rig.replication.admits()

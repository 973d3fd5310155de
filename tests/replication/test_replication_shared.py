"""Several workers replicate the uploads that they share, each those that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from zope.interface.verify import verifyObject

from resumable.catalog.postgres.postgres_replicas import LATE
from resumable.model.replica import IHeldReplicas, IReplication
from resumable.remotes import errors
from resumable.remotes.memory.remote import Fault, MemoryObject
from resumable.replication.context import ReplicationLimits
from resumable.replication.work_queue import NOW_AND_THEN
from tests.replication.rig import PART, parts, pattern, whole
from tests.replication.workers import Workers


@pytest.fixture
def workers(make) -> Iterator[Workers]:
    workers = Workers(make({"a": parts()}, limits=ReplicationLimits(part_size=PART, acknowledges=True)))
    workers.join("one")
    workers.join("two")
    workers.rig.advance(1)
    yield workers
    workers.stop()


def test_it_provides_the_interface(workers):
    assert verifyObject(IReplication, workers.workers["one"].replication)
    assert verifyObject(IHeldReplicas, workers.workers["one"].replicas._replicas)


def test_one_that_is_served_by_its_holder_tells_nobody_and_asks_nothing(workers):
    rig = workers.at("one")
    asked = len(workers.workers["one"].replicas.calls)
    upload_id = rig.create(1000)
    for _ in range(10):
        rig.append(upload_id, pattern(100))
    rig.settle([upload_id])
    rig.check(upload_id)
    one = workers.workers["one"].replicas.calls[asked:]
    assert "holders" not in one and "own" not in one
    assert workers.workers["two"].calls(upload_id) == []
    assert workers.cluster.topics() == ["hasten", "hasten", "stored"]


def test_bytes_that_another_worker_takes_are_sent_on_by_the_holder(workers):
    upload_id = workers.at("one").create(1000)
    rig = workers.at("two")
    for _ in range(10):
        rig.append(upload_id, pattern(100))
        rig.advance(0.3)
    rig.settle([upload_id], seconds=2)
    rig.check(upload_id)
    assert workers.workers["two"].calls(upload_id) == []
    told = [(who, to, topic) for who, to, topic, text in workers.cluster.told if text == upload_id]
    assert set(told) == {("two", "one", "committed"), ("one", None, "stored")}
    assert told.count(("two", "one", "committed")) <= 5  # one a second, and one for the end


def test_they_are_sent_before_the_upload_is_finished(workers):
    upload_id = workers.at("one").create(1000)
    rig = workers.at("two")
    rig.append(upload_id, pattern(450))
    rig.advance(0.5)
    assert workers.workers["one"].calls(upload_id).count("write_chunk") == 4


def test_many_commits_within_a_second_are_one_message_and_none_is_forgotten(workers):
    upload_id = workers.at("one").create(1000)
    rig = workers.at("two")
    for _ in range(9):
        rig.append(upload_id, pattern(100))
    rig.advance(2)
    assert workers.cluster.topics().count("committed") == 2
    assert workers.workers["one"].calls(upload_id).count("write_chunk") == 9
    assert workers.workers["two"].replicas.count("holders") == 1


def test_a_lost_message_delays_it_until_the_next_pass(workers):
    workers.cluster.lossy = True
    upload_id = workers.at("one").create(1000)
    rig = workers.at("two")
    rig.append(upload_id, pattern(1000))
    rig.advance(2 * NOW_AND_THEN)
    rig.check(upload_id)
    assert workers.workers["two"].calls(upload_id) == []


def test_who_waits_at_another_worker_hears_that_it_is_stored(workers):
    upload_id = workers.at("one").create(300)
    stored = workers.workers["two"].replication.when_stored(upload_id)
    rig = workers.at("two")
    rig.append(upload_id, pattern(300))
    rig.advance(0.5)
    assert stored.called and rig.state(upload_id) == "stored"


def test_who_waits_for_it_gets_it_stored_though_all_messages_but_the_last_are_lost(workers):
    upload_id = workers.at("one").create(300)
    stored = workers.workers["two"].replication.when_stored(upload_id)
    workers.cluster.lossy = True
    rig = workers.at("two")
    rig.append(upload_id, pattern(300))
    workers.cluster.lossy = False
    rig.advance(2)
    assert stored.called and rig.state(upload_id) == "stored"


def test_who_waits_looks_at_the_row_when_the_last_message_is_lost(workers):
    upload_id = workers.at("one").create(300)
    stored = workers.workers["two"].replication.when_stored(upload_id)
    rig = workers.at("two")
    rig.append(upload_id, pattern(300))
    workers.cluster.lossy = True
    rig.advance(0.5)
    assert not stored.called and rig.state(upload_id) == "stored"
    rig.advance(1)
    assert stored.called


def test_who_waits_for_one_that_ends_waits_no_longer(workers):
    upload_id = workers.at("one").create(300)
    stored = workers.workers["two"].replication.when_stored(upload_id)
    workers.at("one").terminate(upload_id)
    workers.rig.advance(1.5)
    assert stored.called


def test_a_wait_may_be_cancelled(workers):
    upload_id = workers.at("one").create(300)
    two = workers.workers["two"].replication
    first, second = two.when_stored(upload_id), two.when_stored(upload_id)
    first.addErrback(lambda failure: None)
    first.cancel()
    rig = workers.at("one")
    rig.append(upload_id, pattern(300))
    rig.advance(0.5)
    assert second.called
    rig.advance(3)
    assert not two._next_look.pending


def test_a_retry_is_tried_at_once_when_somebody_waits_at_another_worker(make):
    slow = ReplicationLimits(part_size=PART, base_delay=1000, max_delay=1000, acknowledges=True)
    workers = Workers(make({"a": parts()}, limits=slow))
    one, two = workers.join("one"), workers.join("two")
    workers.rig.advance(1)
    one.remotes["a"].faults.add(Fault("finalize_upload", errors.Transient("no")))
    upload_id = workers.at("one").upload(300)
    workers.rig.advance(5)
    assert workers.rig.replica(upload_id).retry_at is not None
    stored = two.replication.when_stored(upload_id)
    workers.rig.advance(2)
    assert stored.called and workers.rig.state(upload_id) == "stored"
    workers.stop()


def test_one_that_ends_at_another_worker_is_given_up_and_removed_by_the_holder(workers):
    upload_id = workers.at("one").create(1000)
    rig = workers.at("two")
    rig.append(upload_id, pattern(450))
    rig.advance(1)
    rig.terminate(upload_id)
    rig.until(lambda: rig.replica(upload_id) is None, 1)
    assert not rig.stores["a"].unfinished and rig.object(upload_id) is None
    assert "abort_upload" in workers.workers["one"].calls(upload_id)
    assert workers.workers["two"].calls(upload_id) == []


def test_workers_that_know_nothing_of_an_upload_that_ends_ask_nothing(workers):
    rig = workers.at("one")
    upload_id = rig.create(1000)
    rig.append(upload_id, pattern(450))
    rig.advance(1)
    told, asked = len(workers.cluster.told), len(workers.workers["two"].replicas.calls)
    rig.terminate(upload_id)
    rig.until(lambda: rig.replica(upload_id) is None, 1)
    assert len(workers.cluster.told) == told and len(workers.workers["two"].replicas.calls) == asked


def test_a_lost_end_is_found_by_the_next_pass(workers):
    upload_id = workers.at("one").upload(300)
    rig = workers.at("two")
    rig.settle([upload_id])
    workers.cluster.lossy = True
    rig.terminate(upload_id)
    rig.until(lambda: rig.replica(upload_id) is None, 2 * NOW_AND_THEN)
    assert rig.object(upload_id) is None


def test_a_parked_one_is_tried_again_by_its_holder_wherever_the_operator_asks(workers):
    one = workers.workers["one"]
    one.remotes["a"].faults.add(Fault("finalize_upload", errors.Permanent("no")))
    upload_id = workers.at("one").upload(300)
    rig = workers.at("two")
    rig.until(lambda: rig.state(upload_id) == "parked", 10)
    assert rig.ask(rig.restart(upload_id)) == 1
    rig.settle([upload_id], seconds=1)
    rig.check(upload_id)
    assert workers.workers["two"].calls(upload_id) == []


def test_after_the_holders_death_another_worker_goes_on_and_asks_what_is_there(workers):
    upload_id = workers.at("one").create(1000)
    workers.at("one").append(upload_id, pattern(450))
    workers.rig.advance(1)
    workers.die("one")
    workers.cluster.join("undertaker").tell(None, "buried", "")
    rig = workers.at("two")
    rig.append(upload_id, pattern(550, 2))
    rig.settle([upload_id], seconds=5)
    rig.check(upload_id)
    assert workers.holders[upload_id, "a"] == "two"
    assert workers.workers["two"].calls(upload_id).count("write_chunk") == 6


def test_what_a_frozen_worker_sends_after_the_end_is_removed_a_minute_later_and_after_a_day(workers):
    """It is frozen in its request, and another worker removes what is there before the request arrives."""
    two = workers.workers["two"]
    workers.workers["one"].remotes["a"].faults.add(Fault("finalize_upload", silent=True))
    upload_id = workers.at("one").upload(300)
    workers.rig.advance(1)
    workers.cluster.die("one")
    workers.cluster.lossy = True
    rig = workers.at("two")
    rig.terminate(upload_id)
    rig.until(lambda: two.calls(upload_id).count("delete_object") == 1, 2 * NOW_AND_THEN)
    for seconds in LATE:
        rig.stores["a"].objects = {upload_id: MemoryObject(b"late", upload_id)}
        rig.advance(seconds + 2 * NOW_AND_THEN)
        assert rig.object(upload_id) is None
    assert rig.replica(upload_id) is None


def test_without_that_word_the_next_pass_finds_what_a_dead_worker_held(workers):
    upload_id = workers.at("one").create(1000)
    workers.die("one")
    rig = workers.at("two")
    rig.append(upload_id, pattern(1000))
    rig.settle([upload_id], seconds=2 * NOW_AND_THEN)
    rig.check(upload_id)


def test_replicas_in_several_remotes_may_have_several_holders(make):
    workers = Workers(make({"a": parts(), "b": whole()}))
    workers.join("one")
    workers.join("two")
    workers.join("three")
    workers.rig.advance(1)
    upload_id = workers.at("one").create(1000)
    workers.holders[upload_id, "b"] = "two"
    workers.workers["one"].replication.own.queues["b"]._cache.forget(upload_id)
    rig = workers.at("three")
    rig.append(upload_id, pattern(1000))
    rig.advance(2)
    rig.check(upload_id)
    rig.check(upload_id, remote="b")
    assert workers.workers["one"].calls(upload_id, "b") == [] and workers.workers["two"].calls(upload_id) == []
    workers.stop()


def test_all_workers_hear_that_a_remote_is_back(make):
    slow = ReplicationLimits(part_size=PART, base_delay=500, max_delay=500)
    workers = Workers(make({"a": parts()}, limits=slow))
    one, two = workers.join("one"), workers.join("two")
    workers.rig.advance(1)
    two.remotes["a"].faults.add(Fault("finalize_upload", errors.Transient("no")))
    upload_id = workers.at("two").upload(300)
    workers.rig.advance(1)
    assert workers.rig.replica(upload_id).retry_at is not None
    one.replication.own.queues["a"]._health.hasten()
    workers.rig.settle([upload_id], seconds=1)
    assert ("one", None, "hasten", "a") in workers.cluster.told
    workers.stop()


def test_partial_uploads_are_told_to_nobody(workers):
    upload_id = workers.at("one").create(1000, concat="partial")
    rig = workers.at("two")
    rig.append(upload_id, pattern(1000))
    rig.advance(1)
    assert "committed" not in workers.cluster.topics() and workers.workers["two"].replicas.count("holders") == 0


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_lost_and_whoever_dies_each_upload_is_stored_once(make, seed):
    rng = Random(seed)
    workers = Workers(make({"a": parts(), "b": whole()}))
    names = iter(f"worker{number}" for number in range(1000))
    for _ in range(3):
        workers.join(next(names))
    rig, left = workers.rig, {}
    for _ in range(60):
        name = rng.choice(sorted(workers.workers))
        workers.cluster.lossy = rng.random() < 0.3
        chance = rng.random()
        if chance < 0.2:
            left[workers.at(name).create(500)] = 5
        elif chance < 0.27:
            workers.die(name)
            workers.join(next(names))
        elif left:
            upload_id = rng.choice(sorted(left))
            workers.at(name).append(upload_id, rng.randbytes(100))
            left[upload_id] -= 1
            if not left[upload_id]:
                del left[upload_id]
        rig.advance(rng.random())
    name = min(workers.workers)
    for upload_id, count in left.items():
        workers.at(name).append(upload_id, rng.randbytes(100 * count))
    ids = list(rig.data)
    assert ids
    for remote in "ab":
        rig.settle(ids, remote, seconds=5 * NOW_AND_THEN)
        for upload_id in ids:
            assert rig.object(upload_id, remote) == rig.data[upload_id]
    workers.stop()

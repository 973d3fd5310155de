"""Small uploads: a remote that can gets each in one request, with one change of the catalog before it and one after."""

from __future__ import annotations

import pytest
from twisted.internet.task import deferLater

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Commit, Upload
from resumable.remotes.errors import Conflict, NotThere, OutOfStep, Transient, Unusable
from resumable.remotes.memory.parts import MemoryWholeRemote
from resumable.remotes.memory.remote import Fault, MemoryObject
from resumable.replication import service
from resumable.replication.context import ReplicationLimits
from resumable.replication.transfer import SMALL
from tests.replication.rig import PART, UPLOADS, parts, pattern, plain, whole

STEPS = ["initiate_upload", "write_chunk", "finalize_upload"]


@pytest.fixture
def small(make):
    return make({"a": whole()})


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_small_upload_costs_one_request_and_one_change_of_the_catalog(small, size, at_once):
    upload_id = small.post(pattern(size)) if at_once else small.upload(size)
    small.settle([upload_id])
    small.check(upload_id)
    assert small.calls(upload_id) == ["write_whole"]
    assert [name for name in small.replicas.calls if name not in ("due", "hasten", "next_retry")] == ["store"]
    counts = small.replication.queues["a"].counts
    assert (counts.parts, counts.bytes, counts.stored, counts.completed) == (size > 0, size, 1, 1)


def test_the_intent_is_in_the_catalog_before_the_remote_is_asked(small):
    upload_id = small.create(PART)
    assert small.replica(upload_id).key == upload_id
    assert small.ask(small.catalog.replicas.load_journal(upload_id, "a"))["key"] == upload_id
    assert small.calls() == []


def test_a_small_upload_in_pieces_waits_for_the_last(small):
    upload_id = small.create(PART)
    for _ in range(10):
        small.append(upload_id, pattern(PART // 10))
        small.advance(1)
    small.settle([upload_id])
    small.check(upload_id)
    assert small.calls(upload_id) == ["write_whole"]
    assert small.replicas.count("advance", "get", "load_journal", "save_journal") == 0


def test_a_large_upload_goes_step_by_step(make):
    rig = make({"a": whole(part_size=2 * SMALL)})
    large = [rig.post(pattern(SMALL + 1)), rig.create(None)]
    rig.append(large[1], b"hello", length=5)
    rig.settle(large)
    rig.check(*large)
    assert "write_whole" not in rig.calls()


@pytest.mark.parametrize("kind", [parts, plain])
def test_a_remote_that_cannot_gets_small_uploads_step_by_step(make, kind):
    rig = make({"a": kind()})
    upload_id = rig.post(pattern(50))
    rig.settle([upload_id])
    assert rig.calls(upload_id) == STEPS


def test_an_upload_whose_id_was_given_goes_step_by_step(small):
    """Another upload may have that id: then this one isn't made, and its intent must not meet the other's bytes."""
    first = small.create(PART)
    other = Upload(first, small.wall(), small.wall(), 3, metadata="filename YQ==")
    assert not small.ask(small.catalog.create(other, (), small.replication.chosen(other)))
    small.append(first, pattern(PART))
    small.settle([first])
    small.check(first)
    assert small.calls(first) == STEPS


@pytest.mark.parametrize("error", [Transient("503"), Unusable("no such bucket"), RuntimeError("bug")])
def test_a_small_upload_that_failed_is_tried_again(small, error):
    small.remotes["a"].faults.add(Fault("write_whole", error))
    upload_id = small.post(pattern(50))
    small.settle([upload_id])
    small.check(upload_id)
    assert small.calls(upload_id) == ["write_whole", "write_whole"]


@pytest.mark.parametrize("error", [NotThere("gone"), OutOfStep("other bytes", 0)])
def test_a_small_upload_that_the_store_has_lost_goes_step_by_step(small, error):
    small.remotes["a"].faults.add(Fault("write_whole", error))
    upload_id = small.post(pattern(50))
    small.settle([upload_id])
    small.check(upload_id)
    asked = [name for name in small.calls(upload_id) if name != "confirmed_parts"]
    assert asked == ["write_whole", *STEPS]


def test_an_object_whose_answer_was_lost_is_made_once(small):
    small.remotes["a"].faults.add(Fault("write_whole", Transient("reset"), lost=True))
    upload_id = small.post(pattern(50))
    small.settle([upload_id])
    small.check(upload_id)
    assert small.stores["a"].objects.order == [upload_id]


def test_an_object_whose_outcome_could_not_be_recorded_is_made_once(small):
    small.replicas.faults["store"] = CatalogUnavailable("full")
    upload_id = small.post(pattern(50))
    small.advance(1)
    assert small.state(upload_id) == "open"
    small.replicas.faults.clear()
    small.settle([upload_id])
    small.check(upload_id)
    assert small.stores["a"].objects.order == [upload_id]


def test_a_call_that_never_answers_is_given_up(make):
    rig = make({"a": whole()}, limits=ReplicationLimits(part_size=PART, try_timeout=30))
    rig.remotes["a"].faults.add(Fault("write_whole", silent=True))
    upload_id = rig.post(pattern(50))
    rig.advance(29)
    assert rig.state(upload_id) == "open"
    rig.settle([upload_id])
    rig.check(upload_id)


def test_another_object_under_the_key_stays_and_the_replica_is_parked(small):
    upload_id = f"{1:032x}"
    small.stores["a"].objects[upload_id] = MemoryObject(b"theirs")
    assert small.post(b"ours") == upload_id
    small.advance(1)
    assert small.state(upload_id) == "parked"
    assert small.stores["a"].objects[upload_id].data == b"theirs"
    assert small.replication.queues["a"].counts.failures == {Conflict.__name__: 1}


def test_local_data_that_is_shorter_than_committed_is_not_sent(small):
    upload_id = small.create(PART)
    small.append(upload_id, pattern(PART // 2))
    small.ask(small.spool.remove([upload_id]))
    small.ask(small.spool.put(upload_id, 0, [b"short"]))
    row = small.row(upload_id)
    assert small.ask(small.catalog.commit(Commit(upload_id, row.epoch, row.offset, PART, small.wall(), finished=True)))
    small.replication.committed(small.row(upload_id))
    small.advance(1)
    assert small.state(upload_id) == "parked"
    assert not small.stores["a"].objects


def test_the_files_of_small_uploads_that_came_together_are_read_together(small):
    uploads = [Upload(f"{number:032x}", 1.0, 1.0, 9, 9, finished_at=1.0) for number in range(10)]
    for each in uploads:
        small.ask(small.spool.put(each.id, 0, [b"123456789"]))
        assert small.ask(small.catalog.create(each, (), small.replication.chosen(each, drawn=True)))
        small.data[each.id] = b"123456789"
    groups = counted_reads(small)
    for each in uploads:
        small.replication.committed(each)
    small.settle([each.id for each in uploads])
    small.check(*(each.id for each in uploads))
    assert groups == [10]


def test_a_file_that_is_not_there_does_not_disturb_others(small):
    small.disk.unlink(f"{UPLOADS}/{small.create(PART)}")
    lost = f"{1:032x}"
    row = small.row(lost)
    assert small.ask(small.catalog.commit(Commit(lost, row.epoch, 0, PART, small.wall(), finished=True)))
    small.replication.committed(small.row(lost))
    other = small.post(pattern(50))
    small.settle([other])
    small.check(other)
    assert "No such file" in small.replica(lost).error


def test_a_next_run_goes_on_from_the_intent(small):
    small.remotes["a"].faults.add(Fault("write_whole", Transient("503"), times=None))
    upload_id = small.post(pattern(50))
    small.advance(0.1)
    small.kill().start()
    small.settle([upload_id])
    small.check(upload_id)
    assert small.calls(upload_id) == ["initiate_upload", "confirmed_parts", *STEPS[1:]]


def test_an_upload_that_ends_meanwhile_leaves_nothing(small):
    small.remotes["a"].faults.add(Fault("write_whole", delay=5.0))
    upload_id = small.post(pattern(50))
    small.advance(1)
    small.terminate(upload_id)
    small.advance(60)
    assert small.object(upload_id) is None and small.replica(upload_id) is None


def test_the_store_is_not_asked_for_an_upload_that_was_never_whole(small):
    unfinished, finished = small.create(PART), small.post(pattern(50))
    small.settle([finished])
    for upload_id, asked in ((unfinished, False), (finished, True)):
        small.terminate(upload_id)
        small.advance(60)
        assert small.replica(upload_id) is None
        assert ("delete_object" in small.calls(upload_id)) is asked


def test_a_record_that_was_looked_at_before_is_not_taken_for_the_last(small):
    """The sweeper, for one, looks at records of uploads under way, and the journal remembers what it has loaded."""
    small.remotes["a"].faults.add(Fault("write_whole", delay=5.0))
    upload_id = small.post(pattern(50))
    small.advance(1)
    assert small.ask(small.journals["a"].load(upload_id))["state"] == "open"
    small.settle([upload_id])
    assert small.ask(small.journals["a"].load(upload_id))["state"] == "stored"
    small.terminate(upload_id)
    small.advance(60)
    assert small.object(upload_id) is None


def test_small_uploads_share_the_slots_of_their_remote(make):
    class Watched(MemoryWholeRemote):
        most = now = 0

        async def _make(self, *args):
            self.now += 1
            Watched.most = max(self.most, self.now)
            await deferLater(small.clock, 1.0)
            self.now -= 1
            return await super()._make(*args)

    def make_watched(rig, name, journal):
        return Watched(rig.stores[name], journal, rig.clock, part_size=PART)

    small = make({"a": make_watched}, limits=ReplicationLimits(part_size=PART, per_remote=3))
    uploads = [small.post(pattern(50)) for _ in range(20)]
    small.settle(uploads)
    small.check(*uploads)
    assert Watched.most == 3


def counted_reads(small):
    """How many files each job of the thread has read."""
    groups: list[int] = []
    read_all = small.reads._work
    small.reads._work = lambda wanted: groups.append(len(wanted)) or read_all(wanted)
    return groups


def test_small_uploads_that_wait_for_a_slot_are_read_already(make):
    small = make({"a": whole()}, limits=ReplicationLimits(part_size=PART, per_remote=1))
    small.remotes["a"].faults.add(Fault("write_whole", delay=5.0))
    groups = counted_reads(small)
    uploads = [small.post(pattern(50)) for _ in range(10)]
    small.advance(1)
    assert (sum(groups), small.calls()) == (10, ["write_whole"])
    small.settle(uploads)
    small.check(*uploads)


def test_small_uploads_are_read_only_while_there_is_memory_for_them(make, monkeypatch):
    monkeypatch.setattr(service, "SMALL", 3 * 50)
    monkeypatch.setattr(service, "SMALL_MEMORY", 0)
    small = make({"a": whole()}, limits=ReplicationLimits(part_size=PART, per_remote=1))
    small.remotes["a"].faults.add(Fault("write_whole", delay=5.0))
    groups = counted_reads(small)
    uploads = [small.post(pattern(50)) for _ in range(10)]
    small.advance(1)
    assert sum(groups) == 3
    small.terminate(uploads.pop())
    small.settle(uploads)
    small.check(*uploads)
    assert small.replication.queues["a"]._transfers.memory.used == 0


def test_a_remote_that_hangs_takes_no_memory_from_another(make):
    limits = ReplicationLimits(part_size=SMALL, per_remote=1)
    small = make({"a": whole(part_size=SMALL), "b": whole(part_size=SMALL)}, limits=limits)
    small.remotes["a"].faults.add(Fault("write_whole", times=None, silent=True))
    uploads = [small.post(pattern(SMALL, seed)) for seed in range(80)]
    small.settle(uploads, "b", seconds=60)
    small.check(*uploads, remote="b")


def test_as_many_small_uploads_as_there_are_slots_are_on_their_way(make):
    limits = ReplicationLimits(part_size=PART, per_remote=200, total=200)
    small = make({"a": whole(latency=0.0)}, limits=limits)
    small.remotes["a"].faults.add(Fault("write_whole", times=None, delay=5.0))
    uploads = [small.post(pattern(50)) for _ in range(250)]
    assert len(small.calls()) == 200
    small.settle(uploads)
    small.check(*uploads)


def test_a_backend_whose_intents_fail_gets_uploads_step_by_step(make):
    class Broken(MemoryWholeRemote):
        def intend(self, *args):
            raise RuntimeError("bug")

    rig = make({"a": lambda rig, name, journal: Broken(rig.stores[name], journal, rig.clock, part_size=PART)})
    upload_id = rig.post(pattern(50))
    rig.settle([upload_id])
    assert rig.calls(upload_id) == STEPS


def test_the_lag_counts_small_uploads_until_they_are_there(make):
    rig = make({"a": whole()}, limits=ReplicationLimits(part_size=PART, max_lag=1000))
    rig.remotes["a"].faults.add(Fault("write_whole", delay=5.0))
    upload_id = rig.post(pattern(50))
    rig.advance(1)
    assert rig.replication.queues["a"].lag.size == 50
    rig.settle([upload_id])
    assert rig.replication.queues["a"].lag.size == 0


def test_small_uploads_of_an_outage_are_all_there_once_it_is_over(small):
    small.remotes["a"].faults.add(Fault("*", Transient("down"), times=None))
    uploads = [small.post(pattern(50, seed)) for seed in range(100)]
    small.advance(300)
    small.remotes["a"].faults.clear()
    small.settle(uploads)
    small.check(*uploads)
    first, *rest = small.stores["a"].objects.order
    assert rest == [each for each in uploads if each != first], "after the one that tried it, the oldest first"


def test_each_remote_has_an_intent_of_its_own(make):
    rig = make({"a": whole(), "b": plain(), "c": whole()})
    upload_id = rig.post(pattern(50))
    for name in "abc":
        rig.settle([upload_id], name)
        rig.check(upload_id, remote=name)
    assert [rig.calls(upload_id, name) for name in "abc"] == [["write_whole"], STEPS, ["write_whole"]]

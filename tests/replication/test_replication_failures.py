"""What a remote, the spool and the catalog may do to a replica, and that the object is right in the end."""

from __future__ import annotations

import errno

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from resumable.model.errors import CatalogUnavailable
from resumable.remotes import errors
from resumable.remotes.memory.store import Fault, MemoryObject
from resumable.remotes.plan import PartLimits as StoreLimits
from resumable.replication.context import ReplicationLimits
from tests.replication.rig import PART, parts, pattern, plain

KINDS = {"parts": parts(), "plain": plain()}
OPERATIONS = ["initiate_upload", "write_chunk", "finalize_upload"]


@pytest.fixture(params=KINDS)
def either(request, make):
    return make({"a": KINDS[request.param]})


@pytest.fixture
def logged():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield lambda level: [each for each in events if each["log_level"].name == level and "upload" in each]
    globalLogPublisher.removeObserver(events.append)


def fail(rig, operation, error, **options):
    rig.remotes["a"].faults.add(Fault(operation, error, **options))


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("size", [50, 350])
def test_a_failure_or_a_lost_answer_is_made_good(either, size, operation, lost):
    fail(either, operation, errors.Transient("503"), times=2, lost=lost)
    upload_id = either.upload(size)
    either.settle([upload_id])
    either.check(upload_id)
    replica = either.replica(upload_id)
    assert (replica.attempts, replica.error, replica.retry_at, replica.failing_since) == (0, None, None, None)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_call_that_never_answers_is_given_up_and_repeated(either, operation):
    fail(either, operation, None, silent=True)
    upload_id = either.upload(350)
    either.advance(200)
    assert either.state(upload_id) == "open"
    either.settle([upload_id])
    either.check(upload_id)
    assert either.replication.queues["a"].counts.failures == {"Transient": 1}


def test_half_a_chunk_is_written_again(make):
    rig = make({"a": plain()})
    fail(rig, "write_chunk", errors.Transient("reset"), keep=40, skip=1)
    upload_id = rig.upload(350)
    rig.settle([upload_id])
    rig.check(upload_id)


def test_a_part_that_failed_is_sent_again_and_those_beside_it_are_not(rig):
    fail(rig, "write_chunk", errors.Transient("reset"), skip=1)
    upload_id = rig.upload(400)
    rig.settle([upload_id])
    rig.check(upload_id)
    assert rig.calls(upload_id).count("write_chunk") == 5
    assert "confirmed_parts" not in rig.calls(upload_id)


def test_retries_wait_longer_and_longer_and_begin_anew_after_something_worked(rig):
    fail(rig, "write_chunk", errors.Transient("503"), times=4)
    upload_id = rig.upload(50)
    rig.advance(0.5)
    first = rig.replica(upload_id)
    assert first.attempts >= 1
    assert first.error == "503"
    assert first.failing_since is not None
    rig.settle([upload_id])
    assert rig.calls(upload_id).count("write_chunk") == 5
    assert rig.replication.queues["a"].counts.retries == 4


def test_a_store_that_asks_for_a_pause_gets_it(rig):
    fail(rig, "write_chunk", errors.Throttled("SlowDown", 30.0))
    upload_id = rig.upload(50)
    rig.advance(29)
    assert rig.calls(upload_id).count("write_chunk") == 1
    rig.advance(2)
    rig.check(upload_id)


def test_a_commit_doesnt_shorten_the_pause(rig):
    fail(rig, "write_chunk", errors.Throttled("SlowDown", 30.0))
    upload_id = rig.create(1000)
    for _ in range(10):
        rig.append(upload_id, pattern(100))
        rig.advance(1)
    assert rig.calls(upload_id).count("write_chunk") == 1
    rig.settle([upload_id])
    rig.check(upload_id)


def test_what_the_store_has_lost_is_written_anew(either):
    upload_id = either.create(350)
    either.append(upload_id, pattern(250))
    either.advance(1)
    either.stores["a"].unfinished.clear()
    either.append(upload_id, pattern(100, 2))
    if either.stores["a"].unfinished == {} and either.calls(upload_id).count("initiate_upload") == 1:
        either.advance(1)
    either.settle([upload_id])
    assert either.object(upload_id) == either.data[upload_id]
    assert "initiate_upload" in either.calls(upload_id)[3:]


def test_out_of_step_asks_what_is_there_and_goes_on(make):
    rig = make({"a": plain()})
    upload_id = rig.create(350)
    rig.append(upload_id, pattern(250))
    rig.advance(1)
    (unfinished,) = rig.stores["a"].unfinished.values()
    unfinished.head = 120
    rig.append(upload_id, pattern(100, 2))
    rig.settle([upload_id])
    rig.check(upload_id)
    assert rig.calls(upload_id).count("get_upload_progress") == 1
    assert rig.replication.queues["a"].counts.retries == 0


def test_a_remote_that_is_out_of_step_again_and_again_is_tried_later(rig):
    fail(rig, "finalize_upload", errors.OutOfStep("which?"), times=3)
    upload_id = rig.upload(350)
    rig.settle([upload_id])
    rig.check(upload_id)
    assert rig.replication.queues["a"].counts.failures == {"Transient": 1}


def test_a_conflict_parks_and_a_restart_takes_it_up_again(rig, logged):
    upload_id = rig.create(150)
    rig.stores["a"].objects[upload_id] = MemoryObject(b"not ours")
    rig.append(upload_id, pattern(150))
    rig.until(lambda: rig.state(upload_id) == "parked")
    assert "another object" in rig.replica(upload_id).error
    (event,) = logged("error")
    assert (event["upload"], event["remote"]) == (upload_id, "a")
    rig.advance(3600)
    assert rig.calls(upload_id).count("finalize_upload") == 1
    assert rig.ask(rig.restart(upload_id)) == 1
    rig.until(lambda: rig.state(upload_id) == "parked")
    del rig.stores["a"].objects[upload_id]
    assert rig.ask(rig.restart(upload_id, "a")) == 1
    rig.stores["a"].objects.order.clear()
    rig.settle([upload_id])
    rig.check(upload_id)
    assert rig.ask(rig.restart(upload_id)) == 0


def test_what_was_parked_before_its_last_byte_came_is_taken_up_again_too(rig):
    """More bytes come for a replica that is parked already, so replication has looked at it since."""
    fail(rig, "initiate_upload", errors.Permanent("too large"))
    upload_id = rig.create(350)
    rig.append(upload_id, pattern(150))
    rig.until(lambda: rig.state(upload_id) == "parked")
    for seed in (2, 3):
        rig.append(upload_id, pattern(100, seed))
        rig.advance(1)
    assert rig.ask(rig.restart(upload_id)) == 1
    rig.advance(5)
    rig.check(upload_id)


def test_what_the_store_never_takes_is_parked(rig):
    fail(rig, "initiate_upload", errors.Permanent("too large"))
    upload_id = rig.upload(50)
    rig.advance(1)
    assert (rig.state(upload_id), rig.replica(upload_id).error) == ("parked", "too large")
    assert rig.replication.queues["a"].counts.parked == 1


def test_damaged_local_data_parks_and_says_so(rig):
    upload_id = rig.create(350)
    rig.remotes["a"].latency = 5.0
    rig.append(upload_id, pattern(350))
    rig.advance(1)
    fd = rig.disk.open(rig.spool.path(upload_id))
    rig.disk.truncate(fd, 120)
    rig.until(lambda: rig.state(upload_id) == "parked")
    assert rig.replica(upload_id).error.startswith("the local data is damaged: ")


def test_a_spool_that_fails_is_tried_again_and_doesnt_count_against_the_remote(rig):
    rig.remotes["a"].faults.add(Fault("initiate_upload", None, delay=1.0))
    upload_id = rig.upload(50)
    for _ in range(6):
        rig.disk.fail_next("open", errno.EMFILE)
    rig.settle([upload_id])
    rig.check(upload_id)
    counts = rig.replication.queues["a"].counts
    assert counts.failures["OSError"] >= 5
    assert counts.opened == 0


@pytest.mark.parametrize("method", ["advance", "store", "get", "due", "save_journal", "load_journal", "hasten"])
def test_a_catalog_that_fails_counts_against_nobody(make, method):
    rig = make()
    rig.replicas.faults[method] = CatalogUnavailable("full")
    upload_ids = [rig.upload(size) for size in (50, 350)]
    slow = rig.create(350)
    rig.append(slow, pattern(150))
    rig.advance(60)
    del rig.replicas.faults[method]
    rig.append(slow, pattern(200, 2))
    rig.settle([*upload_ids, slow])
    rig.check(*upload_ids, slow)
    assert rig.replication.queues["a"].counts.opened == 0


def test_a_catalog_that_fails_isnt_asked_all_the_time(rig):
    rig.replicas.faults["store"] = CatalogUnavailable("full")
    rig.upload(50)
    rig.advance(60)
    assert rig.replicas.count("store") <= 13


def test_an_unforeseen_failure_is_logged_whole_and_tried_again(rig, logged):
    fail(rig, "write_chunk", ZeroDivisionError("secret"))
    upload_id = rig.upload(50)
    rig.advance(0.02)
    assert rig.replica(upload_id).error in ("unexpected: ZeroDivisionError", None)
    rig.settle([upload_id])
    (event,) = logged("critical")
    assert event["log_failure"].check(ZeroDivisionError)


def test_a_replica_that_goes_on_failing_is_logged_once(rig, logged):
    fail(rig, "write_chunk", errors.Transient("503"), times=4)
    upload_id = rig.upload(50)
    rig.settle([upload_id])
    assert [event["upload"] for event in logged("warn")] == [upload_id]


def test_after_so_many_attempts_it_is_parked(make):
    rig = make(limits=ReplicationLimits(part_size=PART, attempts=3))
    fail(rig, "write_chunk", errors.Transient("503"), times=None)
    upload_id = rig.upload(50)
    rig.until(lambda: rig.state(upload_id) == "parked")
    assert rig.calls(upload_id).count("write_chunk") == 3
    assert rig.replica(upload_id).error == "3 attempts failed: 503"


def test_after_so_long_it_is_parked(make):
    rig = make(limits=ReplicationLimits(part_size=PART, give_up_after=600.0))
    fail(rig, "write_chunk", errors.Transient("503"), times=None)
    upload_id = rig.upload(50)
    rig.advance(500)
    assert rig.state(upload_id) == "open"
    rig.until(lambda: rig.state(upload_id) == "parked")


def test_a_failing_remote_never_fails_an_append(make):
    rig = make({"a": parts(), "b": parts()})
    fail(rig, "*", errors.AuthFailed("denied"), times=None)
    upload_ids = [rig.upload(350) for _ in range(20)]
    rig.settle(upload_ids, "b")
    rig.check(*upload_ids, remote="b")
    assert {rig.state(each) for each in upload_ids} == {"open"}


def test_who_asks_again_makes_it_be_tried_again(rig):
    fail(rig, "finalize_upload", OSError(5, "I/O error"), times=7)
    upload_id = rig.upload(50)
    rig.until(lambda: rig.replica(upload_id).attempts >= 6 and rig.replica(upload_id).retry_at > rig.wall() + 1)
    told = []
    for _ in range(2):
        rig.replication.when_stored(upload_id).addCallback(told.append)
        rig.advance(0.5)
    rig.check(upload_id)
    assert told == [None, None]


def test_who_asks_again_doesnt_shorten_what_the_store_asked_for(rig):
    fail(rig, "finalize_upload", errors.Throttled("SlowDown", 30.0))
    upload_id = rig.upload(50)
    for _ in range(20):
        rig.advance(1)
        rig.replication.when_stored(upload_id)
    assert rig.calls(upload_id).count("finalize_upload") == 1
    rig.settle([upload_id])
    rig.check(upload_id)


def test_a_remote_that_hangs_takes_nothing_from_another(make):
    rig = make({"a": parts(), "b": parts(latency=1.0)})
    fail(rig, "*", None, silent=True, times=None)
    upload_ids = [rig.upload(350) for _ in range(100)]
    rig.settle(upload_ids, "b", seconds=60)
    rig.check(*upload_ids, remote="b")


def test_an_upload_past_what_its_plan_holds_is_parked(make):
    small = StoreLimits(smallest_part=1, largest_part=10, parts=10, largest_object=100)
    rig = make({"a": parts(part_size=10, limits=small)})
    upload_id = rig.create(None)
    rig.append(upload_id, pattern(95))
    rig.advance(1)
    rig.append(upload_id, pattern(95))
    rig.advance(1)
    assert rig.state(upload_id) == "open"
    rig.append(upload_id, pattern(5), length=195)
    rig.until(lambda: rig.state(upload_id) == "parked")


def test_a_stop_while_a_failure_is_being_recorded_is_no_failure_itself(make, logged):
    rig = make()
    fail(rig, "write_chunk", errors.Permanent("no right"))
    rig.replicas.park = lambda *_: Deferred()  # the catalog takes its time
    rig.upload(350)
    rig.advance(1)
    rig.stop()
    assert not logged("critical")

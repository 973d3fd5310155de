"""An upload's way into a remote, when nothing goes wrong."""

from __future__ import annotations

import hashlib

import pytest
from twisted.internet.defer import Deferred, fail

from resumable.model import keys
from resumable.model.telemetry import REQUEST
from resumable.protocol import metadata
from resumable.replication.context import Remote, ReplicationLimits
from resumable.replication.service import Replication
from resumable.spool.datafile import NotWhole
from tests.replication.rig import PART, parts, pattern, plain, whole

KINDS = {"parts": parts(), "plain": plain()}


@pytest.fixture(params=KINDS)
def either(request, make):
    return make({"a": KINDS[request.param]})


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 1234])
def test_an_upload_that_arrives_at_once_is_stored_whole(either, size):
    upload_id = either.upload(size)
    either.settle([upload_id])
    either.check(upload_id)


def test_a_small_upload_costs_one_request_and_one_write_of_ours(rig):
    upload_id = rig.upload(50)
    rig.settle([upload_id])
    assert rig.calls(upload_id) == ["initiate_upload", "write_chunk", "finalize_upload"]
    assert rig.replicas.count("advance", "get") == 0
    assert rig.replicas.count("store") == 1


def test_a_large_upload_in_many_pieces_costs_one_request_for_each_part(rig):
    upload_id = rig.create(1000)
    for _ in range(200):
        rig.append(upload_id, pattern(5))
        rig.advance(0.1)
    rig.settle([upload_id])
    rig.check(upload_id)
    assert sorted(set(rig.calls(upload_id))) == ["finalize_upload", "initiate_upload", "write_chunk"]
    assert rig.calls(upload_id).count("write_chunk") == 10
    assert rig.calls(upload_id).count("finalize_upload") == 1


def test_parts_go_while_the_client_is_still_sending(either):
    upload_id = either.create(1000)
    either.append(upload_id, pattern(450))
    either.advance(1)
    (unfinished,) = either.stores["a"].unfinished.values()
    assert bytes(unfinished.content) == pattern(450)[:400]
    assert either.replica(upload_id).confirmed == 400
    assert either.replica(upload_id).needs == 500
    either.append(upload_id, pattern(550, 2))
    either.settle([upload_id])
    either.check(upload_id)


def test_a_deferred_length_is_told_before_the_last_chunk(either):
    upload_id = either.create(None)
    either.append(upload_id, pattern(100))
    either.advance(1)
    assert "write_chunk" not in either.calls(upload_id), "it may be all there is"
    either.append(upload_id, pattern(150, 2))
    either.advance(1)
    assert either.calls(upload_id).count("write_chunk") == 2
    either.append(upload_id, pattern(70, 3), length=320)
    either.settle([upload_id])
    either.check(upload_id)


def test_what_was_sent_before_its_length_was_known_may_be_all(either):
    upload_id = either.create(None)
    either.append(upload_id, pattern(80))
    either.advance(1)
    either.append(upload_id, b"", length=80)
    either.settle([upload_id])
    either.check(upload_id)


def test_a_partial_has_no_replica_and_a_remote_takes_only_what_it_accepts(make):
    rig = make({"a": parts(), "b": parts()}, specs={"b": {"accepts": lambda upload: upload.metadata == "b"}})
    partial, for_a, for_both = rig.create(5, concat="partial"), rig.upload(50), rig.upload(60, metadata="b")
    rig.append(partial, b"12345")
    rig.settle([for_a, for_both])
    rig.settle([for_both], "b")
    rig.advance(60)
    rig.check(for_a, for_both)
    rig.check(for_both, remote="b")
    assert len(rig.stores["a"].objects) == 2
    assert len(rig.stores["b"].objects) == 1
    assert rig.replicas.count("get") == 0, "it is known who has no replica"


def test_who_waits_is_told_once_every_required_remote_has_it(make):
    rig = make({"a": parts(), "b": parts(latency=5.0), "c": parts(latency=1000.0)}, specs={"c": {"required": False}})
    upload_id = rig.create(50)
    told = []
    rig.replication.when_stored(upload_id).addCallback(told.append)
    given_up = rig.replication.when_stored(upload_id)
    given_up.addErrback(lambda failure: told.append("cancelled"))
    given_up.cancel()
    rig.append(upload_id, pattern(50))
    rig.settle([upload_id])
    assert told == ["cancelled"]
    rig.settle([upload_id], "b")
    assert told == ["cancelled", None]
    assert rig.row(upload_id).stored_at is not None


def test_progress_tells_of_what_is_on_its_way(make):
    rig = make({"a": parts(latency=10.0)})
    upload_id = rig.upload(1000)
    rig.advance(15)
    (progress,) = rig.replication.progress(upload_id).values()
    assert (progress.sent, progress.confirmed) == (400, 0)
    rig.advance(10)
    (progress,) = rig.replication.progress(upload_id).values()
    assert (progress.sent, progress.confirmed) == (800, 400)
    rig.settle([upload_id])
    assert rig.replication.progress(upload_id) == {}


def test_stopping_gives_up_what_is_under_way_and_the_next_run_goes_on(make):
    rig = make({"a": parts(latency=10.0)})
    upload_id = rig.upload(1000)
    rig.advance(25)
    rig.stop()
    rig.start()
    rig.settle([upload_id])
    rig.check(upload_id)
    assert rig.calls(upload_id).count("confirmed_parts") == 1
    assert rig.calls(upload_id).count("write_chunk") == 6


def test_key_and_facts_are_the_remotes_words(make):
    template = keys.parse("{date}/{metadata[filename]}-{id}")
    rig = make({"a": parts(template=template)})
    upload_id = rig.upload(350, metadata=metadata.encode({"filename": "a b.txt"}))
    rig.settle([upload_id])
    (key,) = rig.stores["a"].objects
    replica = rig.replica(upload_id)
    assert key.endswith(f"/a b.txt-{upload_id}")
    assert replica.key == key
    assert replica.stored_at is not None
    assert replica.stored == {
        "location": f"memory://{key}",
        "key": key,
        "size": 350,
        "etag": hashlib.sha256(rig.data[upload_id]).hexdigest(),
        "version": None,
        "checksum": f"sha256:{hashlib.sha256(rig.data[upload_id]).hexdigest()}",
    }


def test_what_the_remote_says_it_has_past_the_committed_offset_counts_for_nothing(either):
    upload_id = either.create(1000)
    either.append(upload_id, pattern(500))
    either.advance(1)
    (unfinished,) = either.stores["a"].unfinished.values()
    unfinished.put(500, pattern(10, 2) + b"other" * 18)
    unfinished.head, unfinished.parts = 600, unfinished.parts | {6} if unfinished.parts else set()
    either.kill().start()
    either.append(upload_id, pattern(10, 2))
    either.advance(1)
    assert either.replica(upload_id).confirmed in (500, 510)
    either.append(upload_id, pattern(490, 3))
    either.settle([upload_id])
    either.check(upload_id)


def test_two_remotes_of_one_name_are_a_mistake(rig):
    remote = Remote("a", rig.remotes["a"])
    with pytest.raises(ValueError, match="same name"):
        Replication(
            [remote, remote],
            rig.replicas,
            rig.spool.reader,
            rig.reads.submit,
            clock=rig.clock,
            wall=rig.wall,
            rng=None,
            run="",
        )


def test_wakes_before_the_start_and_after_the_stop_do_no_harm(rig):
    upload_id = rig.create(350)
    rig.append(upload_id, pattern(150))
    upload = rig.row(upload_id)
    rig.advance(1)
    rig.stop()
    for _ in range(3):
        rig.replication.committed(upload)
        rig.replication.ended("0" * 32)
        rig.replication.when_stored(upload_id)
    assert not rig.clock.getDelayedCalls()
    rig.start()
    rig.append(upload_id, pattern(200))
    rig.settle([upload_id])
    rig.check(upload_id)


def test_a_length_that_becomes_known_while_parts_are_on_their_way_is_told_before_the_last(make):
    rig = make({"a": parts(latency=1.0)})
    upload_id = rig.create(None)
    rig.append(upload_id, pattern(250))
    rig.advance(1.5)
    rig.append(upload_id, pattern(70), length=320)
    rig.settle([upload_id])
    rig.check(upload_id)
    assert rig.calls(upload_id) == [
        *["initiate_upload", "write_chunk", "write_chunk"],
        *["initiate_upload", "write_chunk", "write_chunk", "finalize_upload"],
    ]
    assert not rig.replication.queues["a"].counts.failures


def test_parts_that_are_committed_while_others_are_on_their_way_go_beside_them(make):
    rig = make({"a": parts(latency=1.0)})
    upload_id = rig.create(1000)
    rig.append(upload_id, pattern(100))
    rig.advance(1.5)
    for _ in range(3):
        rig.append(upload_id, pattern(100))
    assert rig.replication.progress(upload_id)["a"].sent == 400


def test_a_remote_is_asked_in_the_name_of_the_request_that_brought_the_bytes(make):
    rig = make({"a": plain()})
    asked = []
    backend = rig.remotes["a"]
    for name in ("initiate_upload", "write_chunk", "finalize_upload"):

        def spy(*arguments, name=name):
            asked.append((name, REQUEST.get()))
            return getattr(type(backend), name)(backend, *arguments)

        setattr(backend, name, spy)
    before = REQUEST.set("first")
    one = rig.create(200)
    rig.append(one, pattern(200))
    REQUEST.set("second")
    two = rig.create(50)
    rig.append(two, pattern(50))
    REQUEST.reset(before)
    rig.settle([one, two])
    assert {name for _, name in asked} == {"first", "second"}
    assert [name for name, of in asked if of == "second"] == ["initiate_upload", "write_chunk", "finalize_upload"]


@pytest.mark.parametrize("size", [50, 1000])
@pytest.mark.parametrize("kind", [parts, whole])
def test_where_only_whole_uploads_can_be_read_no_remote_hears_of_one_before_that(make, kind, size):
    rig = make({"a": kind()}, limits=ReplicationLimits(part_size=PART, whole_only=True, attempts=1))
    reader, submit, ready, asked = rig.spool.reader, rig.reads.submit, set(), []

    def gated(upload_id, work):
        asked.append(upload_id)
        return work() if upload_id in ready else fail(NotWhole(upload_id, "not yet"))

    for queue in rig.replication.queues.values():
        shared = queue._transfers.shared
        object.__setattr__(shared, "open", lambda upload_id: gated(upload_id, lambda: reader(upload_id)))
        object.__setattr__(shared, "read", lambda start: gated(start[0], lambda: submit(start)))
    upload_id = rig.create(size)
    rig.append(upload_id, pattern(size - 1))
    rig.advance(100)
    assert not asked, "an unfinished one is left alone"
    rig.append(upload_id, pattern(1, 2))
    rig.advance(100)
    assert 1 <= len(asked) < 10
    replica, queue = rig.replica(upload_id), rig.replication.queues["a"]
    assert not rig.calls(upload_id) and not rig.stores["a"].unfinished
    assert (replica.state.value, replica.attempts, replica.error, replica.retry_at) == ("open", 0, None, None)
    assert not queue.counts.failures and not queue.down
    ready.add(upload_id)
    rig.replication.committed(rig.row(upload_id))
    rig.settle([upload_id], seconds=1)
    rig.check(upload_id)


def test_an_upload_that_became_whole_while_it_was_looked_at_is_not_left_to_the_next_pass(make):
    rig = make({"a": parts()}, limits=ReplicationLimits(part_size=PART, whole_only=True))
    reader, waiting = rig.spool.reader, []
    shared = rig.replication.queues["a"]._transfers.shared

    def late(upload_id):
        waiting.append(Deferred())
        return waiting[-1] if len(waiting) == 1 else reader(upload_id)

    object.__setattr__(shared, "open", late)
    upload_id = rig.upload(300)
    rig.until(lambda: bool(waiting))
    rig.replication.committed(rig.row(upload_id))
    waiting[0].errback(NotWhole(upload_id, "not yet"))
    rig.settle([upload_id], seconds=1)
    rig.check(upload_id)


def test_what_was_whole_before_the_start_is_found_by_a_pass(make):
    rig = make({"a": parts()}, limits=ReplicationLimits(part_size=PART, whole_only=True))
    shared, reader, ready = rig.replication.queues["a"]._transfers.shared, rig.spool.reader, []
    object.__setattr__(
        shared, "open", lambda upload_id: reader(upload_id) if ready else fail(NotWhole(upload_id, "not yet"))
    )
    upload_id = rig.upload(300)
    rig.advance(10)
    ready.append(upload_id)
    rig.settle([upload_id], seconds=60)
    rig.check(upload_id)

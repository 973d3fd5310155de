"""Uploads that go away."""

from __future__ import annotations

import pytest

from resumable.remotes import errors
from resumable.remotes.memory.remote import Fault
from tests.replication.rig import parts, pattern, plain

KINDS = {"parts": parts(), "plain": plain()}


@pytest.fixture(params=KINDS)
def either(request, make):
    return make({"a": KINDS[request.param]})


def gone(rig, upload_id):
    rig.until(lambda: rig.replica(upload_id) is None)
    assert rig.object(upload_id) is None
    assert not rig.stores["a"].unfinished
    assert rig.replication.progress(upload_id) == {}


def test_what_was_begun_is_removed(either):
    upload_id = either.create(1000)
    either.append(upload_id, pattern(450))
    either.advance(1)
    either.terminate(upload_id)
    gone(either, upload_id)


def test_a_part_on_its_way_is_given_up(make):
    rig = make({"a": parts(latency=10.0)})
    upload_id = rig.upload(1000)
    rig.advance(15)
    rig.terminate(upload_id)
    rig.advance(0.1)
    assert rig.calls(upload_id)[-1] == "abort_upload"
    gone(rig, upload_id)
    assert rig.calls(upload_id).count("write_chunk") == 4


@pytest.mark.parametrize("delete", [True, False])
def test_the_object_goes_too_if_the_operator_wants_that(either, delete):
    upload_id = either.upload(350)
    either.settle([upload_id])
    either.terminate(upload_id, delete=delete)
    either.advance(5)
    assert (either.object(upload_id) is None) is delete
    assert either.state(upload_id) == (None if delete else "stored")


def test_an_object_whose_answer_was_lost_is_deleted(either):
    either.remotes["a"].faults.add(Fault("finalize_upload", errors.Throttled("lost", 100.0), lost=True))
    upload_id = either.upload(350)
    either.advance(5)
    assert either.object(upload_id) is not None
    either.terminate(upload_id)
    gone(either, upload_id)


def test_removing_is_tried_again_and_survives_a_restart(either):
    upload_id = either.create(1000)
    either.append(upload_id, pattern(450))
    either.advance(1)
    either.remotes["a"].faults.add(Fault("abort_upload", errors.Permanent("no right"), times=None))
    either.terminate(upload_id)
    either.advance(600)
    assert either.state(upload_id) == "ending"
    either.kill().start()
    gone(either, upload_id)


def test_removing_survives_that_the_upload_is_forgotten(rig):
    upload_id = rig.create(1000)
    rig.append(upload_id, pattern(450))
    rig.advance(1)
    rig.remotes["a"].faults.add(Fault("abort_upload", errors.Transient("down"), times=None))
    rig.terminate(upload_id)
    rig.advance(1)
    rig.ask(rig.catalog.removed([upload_id]))
    assert rig.ask(rig.catalog.forget(rig.wall() + 1, 10)) == 1
    rig.kill().start()
    gone(rig, upload_id)


def test_one_that_was_never_begun_costs_the_remote_no_more_than_a_question(rig):
    upload_id = rig.create(1000)
    rig.terminate(upload_id)
    gone(rig, upload_id)
    assert "write_chunk" not in rig.calls(upload_id)


def test_a_remote_that_is_down_is_rid_of_it_when_it_is_back(rig):
    upload_ids = [rig.create(1000) for _ in range(20)]
    for each in upload_ids:
        rig.append(each, pattern(450))
    rig.advance(1)
    rig.remotes["a"].faults.add(Fault("*", errors.Transient("down"), times=None))
    for each in upload_ids:
        rig.terminate(each)
    rig.advance(600)
    rig.remotes["a"].faults.clear()
    rig.until(lambda: not rig.stores["a"].unfinished)
    rig.advance(1)
    assert not any(rig.replica(each) for each in upload_ids)

"""What is recorded of replicas, what the engine between the tiers hears, and uploads whose data was dropped."""

from __future__ import annotations

import errno
from random import Random

import pytest
from attrs import evolve

from resumable.model.upload import GoneReason, ReplicaState
from resumable.protocol.errors import Gone, NotFound, OffsetMismatch, TooLarge
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.harness import LONG, pattern
from tests.uploads.machine import machines

DATA = pattern(100)


@pytest.fixture
def remote():
    return FakeReplication(("a", "b"), ("best",))


@pytest.fixture
def server(serve, remote):
    return serve(replication=remote, limits=UploadLimits(expire_after=3600.0))


def same(row, told):
    """But for what only a start after a crash looks at."""
    return evolve(row, boot_id=None, adoptable=0) == evolve(told, boot_id=None, adoptable=0)


# rows


@pytest.mark.parametrize("size", [None, 0, 1, 100, LONG])
@pytest.mark.parametrize("chunked", [False, True])
def test_every_way_to_make_an_upload_makes_its_replicas_with_it(server, size, chunked):
    """... in the same transaction: a small body, a long one, one that opens the record first, none at all."""
    body = None if size is None else (FakeBody.chunked if chunked else FakeBody.whole)(pattern(size))
    upload_id = server.create(size, body).value.id
    assert server.row(upload_id).required == 2
    rows = server.replicas(upload_id)
    assert {name: each.required for name, each in rows.items()} == {"a": True, "b": True, "best": False}
    assert {each.state for each in rows.values()} == {ReplicaState.OPEN}


def test_what_a_creation_answers_knows_of_them(server):
    assert server.create(100).value.required == 2
    assert server.create(100, FakeBody.whole(DATA)).value.required == 2
    assert server.create(LONG, FakeBody.whole(pattern(LONG))).value.required == 2


def test_a_partial_has_none_and_its_final_has(server, remote):
    """Partials are not replicated, their final is."""
    part = server.upload(DATA, partial=True)
    assert server.replicas(part) == {} and server.row(part).required == 0
    assert remote.told == []
    final = server.concat(part).value
    assert final.required == 2 and len(server.replicas(final.id)) == 3


def test_a_creation_that_is_refused_leaves_nothing(server, remote):
    assert server.create(5, FakeBody.chunked(b"too much")).status == 413
    assert remote.told == []
    assert server.ask(server.catalog.replicas.due("a", 1e12, 0, 100)).value.due == []


# what the engine hears


def test_it_is_told_of_every_commit_with_the_record_as_it_is(server, remote):
    upload_id = server.create(None).value.id
    assert remote.told == [], "nothing to send yet"
    server.patch(upload_id, 0, b"12345")
    server.patch(upload_id, 5, b"", length=10)
    server.patch(upload_id, 5, b"67890")
    seen = [(each.id, each.offset, each.length, each.finished, each.required) for each in remote.told]
    assert seen == [
        (upload_id, 5, None, False, 2),
        (upload_id, 5, 10, False, 2),
        (upload_id, 10, 10, True, 2),
    ]
    last, row = remote.told[-1], server.row(upload_id)
    assert (last.finished_at, last.touched_at, last.epoch) == (row.finished_at, row.touched_at, row.epoch)


def test_it_is_told_of_the_commits_within_a_long_append(server, remote):
    upload_id = server.create(3 * LONG).value.id
    body = FakeBody(3 * LONG)
    server.patch(upload_id, 0, body)
    body.arrive(pattern(2 * LONG))
    server.head(upload_id)
    assert [each.offset for each in remote.told] == [2 * LONG]
    body.lose()
    server.pump()
    assert same(server.row(upload_id), remote.told[-1])


@pytest.mark.parametrize("size", [0, 10, LONG])
def test_it_is_told_of_creations_that_bring_bytes_or_finish(server, remote, size):
    upload_id = server.create(size, FakeBody.whole(pattern(size))).value.id
    assert [(each.id, each.offset, each.finished) for each in remote.told][-1:] == [(upload_id, size, True)]
    if size <= 10:
        assert same(server.row(upload_id), *remote.told)


def test_it_is_told_when_a_final_is_made(server, remote):
    part = server.upload(DATA, partial=True)
    final = server.concat(part, part).value.id
    server.pump()
    (told,) = remote.told
    row = server.row(final)
    assert (told.id, told.offset, told.length, told.finished_at) == (final, 200, 200, row.finished_at)


def test_it_is_not_told_of_what_did_not_land(server, remote, machine):
    upload_id = server.create(100).value.id
    machine.fail_commit(times=3)
    assert server.patch(upload_id, 0, DATA).status == 503
    assert remote.told == []


def test_it_is_told_of_every_end(server, remote):
    terminated, expired, lost = server.upload(DATA), server.upload(DATA, length=200), server.upload(DATA)
    server.delete(terminated)
    assert remote.gone == [terminated]
    server.disk.unlink(f"/up/{lost}")
    assert isinstance(server.head(lost).error, Gone)
    server.advance(3601.0)
    server.sweep()
    assert remote.gone == [terminated, lost, expired]
    server.delete(terminated)
    assert len(remote.gone) == 3


def test_a_final_ends_with_its_partial(server, remote):
    part = server.upload(DATA, length=200, partial=True)
    final = server.concat(part).value.id
    server.delete(part)
    assert remote.gone == [part, final]
    assert {each.state for each in server.replicas(final).values()} == {ReplicaState.ENDING}


@pytest.mark.parametrize("delete", [True, False])
def test_the_end_of_a_stored_upload_by_its_client_deletes_its_objects_if_asked_to(serve, delete):
    """DELETE of a stored upload deletes its objects too (--terminate-remote delete|keep)."""
    server = serve(replication=FakeReplication(("a", "b")), delete_objects=delete)
    upload_id = server.upload(DATA)
    server.store(upload_id, "a")
    server.delete(upload_id)
    rows = server.replicas(upload_id)
    assert rows["b"].state is ReplicaState.ENDING
    expected = (ReplicaState.ENDING, True) if delete else (ReplicaState.STORED, False)
    assert (rows["a"].state, rows["a"].delete) == expected


def test_no_other_end_deletes_objects(server):
    upload_id = server.upload(DATA)
    server.store(upload_id)
    server.disk.unlink(f"/up/{upload_id}")
    assert isinstance(server.head(upload_id).error, Gone)
    assert server.row(upload_id).gone is GoneReason.LOST
    assert {each.state for each in server.replicas(upload_id).values()} == {ReplicaState.STORED}


# dropped uploads


@pytest.fixture
def dropped(server):
    upload_id = server.upload(DATA)
    server.store(upload_id)
    assert server.drop(upload_id) == [upload_id]
    server.sweep()
    assert upload_id not in server.names()
    return upload_id


def test_only_what_is_stored_is_dropped(server):
    upload_id = server.upload(DATA)
    server.store(upload_id, "a", "best")
    assert server.drop(upload_id) == []
    server.sweep()
    assert server.content(upload_id) == DATA


def test_head_of_a_dropped_upload_is_200_with_the_whole_offset(server, dropped):
    seen = server.head(dropped).value
    assert (seen.offset, seen.length) == (100, 100)
    assert server.row(dropped).gone is None


def test_a_dropped_upload_can_not_be_read_here(server, dropped):
    answer = server.ask(server.uploads.read(dropped))
    assert isinstance(answer.error, NotFound)
    assert "no longer on this server" in answer.error.detail


def test_an_empty_append_at_the_end_of_a_dropped_upload_is_fine(server, dropped):
    assert server.patch(dropped, 100, b"").value.offset == 100
    assert server.patch(dropped, 100, FakeBody.chunked(b"")).value.offset == 100
    assert isinstance(server.patch(dropped, 99, b"x").error, OffsetMismatch)
    assert isinstance(server.patch(dropped, 100, b"x").error, TooLarge)
    assert isinstance(server.patch(dropped, 100, FakeBody.chunked(b"x")).error, TooLarge)
    assert dropped not in server.names()


def test_a_dropped_upload_can_be_terminated(server, dropped, remote):
    assert server.delete(dropped).error is None
    assert isinstance(server.head(dropped).error, Gone)
    assert remote.gone == [dropped]
    assert {each.delete for each in server.replicas(dropped).values()} == {True}


@pytest.mark.parametrize("ask", ["head", "read"])
def test_data_that_is_dropped_while_somebody_looks_is_not_lost(server, ask):
    """The file goes between the look at the record and the look at the file."""
    upload_id = server.upload(DATA)
    server.store(upload_id)
    look = server.uploads.inspect if ask == "head" else server.uploads.read
    answers = []
    look(upload_id).addBoth(answers.append)
    while len(server.pool._waiting) == 0:
        server.turn()
    server.disk.unlink(f"/up/{upload_id}")
    server.drop(upload_id)
    server.pump()
    assert server.row(upload_id).gone is None
    if ask == "head":
        assert answers[0].offset == 100
    else:
        assert answers[0].check(NotFound)


def test_dropped_data_that_can_not_be_removed_is_tried_again(server):
    upload_id = server.upload(DATA)
    server.store(upload_id)
    server.drop(upload_id)
    server.disk.fail_next("unlink", errno.EIO)
    server.sweep()
    assert server.ask(server.catalog.removable(1)).value == [upload_id]
    server.sweep()
    assert server.ask(server.catalog.removable(1)).value == []
    assert upload_id not in server.names()
    assert server.head(upload_id).value.offset == 100


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_any_step_of_dropping_loses_nothing(serve, directory, moment):
    """Between the mark and the removal, and between the removal and its record: the next start goes on."""
    fresh = machines(directory / "each")
    for step in range(1, 30):
        machine = next(fresh)
        server = serve(machine, replication=FakeReplication())
        upload_id = server.upload(DATA)
        server.store(upload_id)
        machine.crash_at(step, moment)
        server.ask(server.catalog.replicas.drop([upload_id], 1.0))
        server.ask(server.reclaimer.reclaim())
        over = not machine.down
        server.bury()
        for after in (machine.after_kill(), machine.after_power_loss(Random(step))):
            server = serve(after, replication=FakeReplication())
            server.sweep()
            assert server.head(upload_id).value.offset == 100
            kept = server.content(upload_id)
            assert kept == (DATA if server.row(upload_id).dropped_at is None else None)
            server.bury()
        if over:
            assert step > 3
            return
    raise AssertionError("it has no end")
